//! XML → raw.
//!
//! The modern forms (`<vm>`, `<cluster>`) have the words of TOML: a section is an element, a key is an element in it or
//! an attribute of it, a list is an element repeated. They become the tree that the TOML reader makes, and are read as
//! that. libv3m's forms (`<profile>`, `<profiles>`) have a reader of their own (`libv3m`).

mod libv3m;
mod scan;

use crate::error::{Found, Span, printable, quoted};
use crate::form::Form;
use crate::raw;
use crate::suggest::suggest;
use crate::toml::sections::{CLUSTER_SECTIONS, Kind, Section, VM_SECTIONS};
use roxmltree::{Document, Node, ParsingOptions};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// More than a cluster of 100,000 described nodes has.
const MOST_NODES: u32 = 2_000_000;

/// Texts that are taken as they are; of others, spaces and line ends around them do not count.
const VERBATIM: [&str; 4] = ["user-data", "network-config", "arguments", "extra"];

/// All VMs of a file.
pub(crate) fn vms<'t>(text: &'t str, found: &mut Found<'t>) -> Vec<raw::Vm> {
    let Some(document) = parse(text, found) else {
        return Vec::new();
    };
    let root = document.root_element();
    match root.tag_name().name() {
        "vm" => {
            let table = table(root, VM_SECTIONS[0], VM_SECTIONS, found);
            vec![crate::toml::vm_of(
                &table,
                name_span(root),
                Form::Xml,
                text,
                found,
            )]
        }
        "profile" => {
            found.original = true;
            vec![libv3m::profile(root, found)]
        }
        "profiles" => {
            found.original = true;
            libv3m::profiles(root, found)
        }
        "cluster" => {
            crate::form::not_a_vm(name_span(root), found);
            Vec::new()
        }
        other => {
            unknown_root(other, root, &["vm", "profile", "profiles"], found);
            Vec::new()
        }
    }
}

/// The cluster of a file.
pub(crate) fn cluster<'t>(text: &'t str, found: &mut Found<'t>) -> raw::Cluster {
    let Some(document) = parse(text, found) else {
        return raw::Cluster::default();
    };
    let root = document.root_element();
    match root.tag_name().name() {
        "cluster" => {
            let table = table(root, CLUSTER_SECTIONS[0], CLUSTER_SECTIONS, found);
            return crate::toml::cluster_of(&table, Form::Xml, text, found);
        }
        "vm" | "profile" | "profiles" => {
            crate::form::not_a_cluster(name_span(root), found);
        }
        other => unknown_root(other, root, &["cluster"], found),
    }
    raw::Cluster::default()
}

fn unknown_root(name: &str, root: Node<'_, '_>, known: &[&str], found: &mut Found<'_>) {
    let message = format!("the file is a <{}>, which is not known", shown(name));
    let problem = found.syntax(name_span(root), message);
    match suggest(name, known.iter().copied()) {
        _ if name == "domain" => problem.hint("domains of libvirt's are not read"),
        Some(near) => problem.hint(format!("did you mean <{near}>?")),
        None => problem.hint(format!("it is one of: {}", known.join(", "))),
    };
}

/// A name as it may stand in a message.
fn shown(name: &str) -> String {
    quoted(name).trim_matches('"').to_owned()
}

fn parse<'t>(text: &'t str, found: &mut Found<'t>) -> Option<Document<'t>> {
    found.form(Form::Xml);
    if !scan::harmless(text, found) {
        return None;
    }
    // White space before a declaration is an error in XML; only here nobody minds.
    let options = ParsingOptions {
        allow_dtd: true,
        nodes_limit: MOST_NODES,
        ..ParsingOptions::default()
    };
    match Document::parse_with_options(text, options) {
        Ok(document) => Some(document),
        Err(e) => {
            if e == roxmltree::Error::NodesLimitReached {
                let message = format!("more than {MOST_NODES} elements and texts");
                found.syntax(0..0, message);
                return None;
            }
            let at = offset(text, e.pos());
            // The place is told by ourselves.
            let message = e.to_string().replace(&format!(" at {}", e.pos()), "");
            let problem = found.syntax(at..at + 1, format!("not XML: {}", printable(&message)));
            match e {
                roxmltree::Error::UnknownEntityReference(..)
                | roxmltree::Error::MalformedEntityReference(..) => {
                    problem.hint("the character & is written &amp;");
                }
                roxmltree::Error::UnexpectedCloseTag(..) | roxmltree::Error::UnclosedRootNode => {
                    problem.hint("is an element above not closed?");
                }
                roxmltree::Error::UnknownToken(..) => {
                    problem.hint("one element holds all others; is there anything after it?");
                }
                _ if message.contains("a quote") => {
                    problem.hint("attributes are written as in name=\"web\"");
                }
                _ => {}
            }
            None
        }
    }
}

/// Bytes from the beginning.
fn offset(text: &str, position: roxmltree::TextPos) -> usize {
    let line = position.row.saturating_sub(1) as usize;
    let begin: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(begin..).unwrap_or_default();
    let column = position.col.saturating_sub(1) as usize;
    let within = rest
        .char_indices()
        .nth(column)
        .map_or(rest.len(), |(at, _)| at);
    begin + within
}

/// The name in an element's opening tag.
fn name_span(node: Node<'_, '_>) -> Span {
    let start = node.range().start + 1;
    start..start + node.tag_name().name().len()
}

/// An element's text and where it stands: comments and borders of CDATA are not part of it.
fn text_of(node: Node<'_, '_>) -> (String, Span) {
    let mut text = String::new();
    let mut span: Option<Span> = None;
    for child in node.children().filter(Node::is_text) {
        text.push_str(child.text().unwrap_or_default());
        let range = child.range();
        span = Some(span.map_or(range.start, |span| span.start)..range.end);
    }
    let span = span.unwrap_or_else(|| name_span(node));
    (text, span)
}

/// Without the spaces around it.
fn trimmed(node: Node<'_, '_>) -> (String, Span) {
    let source = node.document().input_text();
    let (text, span) = text_of(node);
    let written = source.get(span.clone()).unwrap_or_default();
    let start = span.start + (written.len() - written.trim_start().len());
    let end = span.end - (written.len() - written.trim_end().len());
    let span = if start < end {
        start..end
    } else {
        name_span(node)
    };
    (text.trim().to_owned(), span)
}

/// An element with what is in it, as a table of a section.
fn table<'x>(
    node: Node<'x, '_>,
    section: &Section,
    all: &[&'static Section],
    found: &mut Found<'_>,
) -> DeTable<'x> {
    let mut table = DeTable::new();
    for attribute in node.attributes() {
        let span = attribute.range();
        let name = attribute.name();
        let value = DeValue::String(attribute.value().trim().to_owned().into());
        let value = Spanned::new(attribute.range_value(), value);
        let list = matches!(section.kind(name), Some(Kind::Texts));
        let value = if list { list_of(value) } else { value };
        let key_span = span.start..span.start + name.len();
        if matches!(section.kind(name), Some(Kind::Table | Kind::Tables)) {
            let message = format!("{name:?} is an element, not an attribute");
            found.error(key_span, message);
            continue;
        }
        table.insert(Spanned::new(key_span, name.into()), value);
    }
    stray_text(node, found);
    for child in node.children().filter(Node::is_element) {
        let name = child.tag_name().name();
        let place = name_span(child);
        if let Some(list) = name.strip_prefix("no-")
            && section.kind(list) == Some(Kind::Tables)
        {
            nothing(child, list, &mut table, found);
            continue;
        }
        let kind = section.kind(name);
        let value = match kind {
            Some(Kind::Table | Kind::Tables) => match Section::inner(all, name) {
                Some(inner) => DeValue::Table(self::table(child, inner, all, found)),
                None => DeValue::Table(DeTable::new()),
            },
            Some(_) => {
                only_text(child, found);
                let (text, span) = if VERBATIM.contains(&name) {
                    verbatim(child)
                } else {
                    trimmed(child)
                };
                let value = Spanned::new(span, DeValue::String(text.into()));
                add(&mut table, name, place, value, kind, found);
                continue;
            }
            None => DeValue::String("".into()),
        };
        add(
            &mut table,
            name,
            place.clone(),
            Spanned::new(place, value),
            kind,
            found,
        );
    }
    table
}

fn add<'x>(
    table: &mut DeTable<'x>,
    name: &'x str,
    place: Span,
    value: Spanned<DeValue<'x>>,
    kind: Option<Kind>,
    found: &mut Found<'_>,
) {
    let list = matches!(kind, Some(Kind::Texts | Kind::Tables));
    match table.get_mut(name) {
        None => {
            let value = if list { list_of(value) } else { value };
            table.insert(Spanned::new(place, name.into()), value);
        }
        Some(before) if list => {
            if let DeValue::Array(items) = before.get_mut() {
                if items.is_empty() {
                    beside(name, place, found);
                }
                items.push(value);
            }
        }
        Some(before) => {
            let line = found.line(before.span().start);
            let message = format!("{} is given twice", quoted(name));
            let problem = found.error(place, message);
            problem.hint(format!("the first one is in line {line}"));
        }
    }
}

fn list_of<'x>(value: Spanned<DeValue<'x>>) -> Spanned<DeValue<'x>> {
    let span = value.span();
    let mut items = DeArray::new();
    items.push(value);
    Spanned::new(span, DeValue::Array(items))
}

/// `<no-nic/>`: a list that is meant to be empty, where leaving it out means something else.
fn nothing<'x>(node: Node<'x, '_>, list: &'x str, table: &mut DeTable<'x>, found: &mut Found<'_>) {
    let place = name_span(node);
    if table.get(list).is_some() {
        beside(list, place, found);
        return;
    }
    let empty = DeValue::Array(DeArray::new());
    table.insert(
        Spanned::new(place.clone(), list.into()),
        Spanned::new(place, empty),
    );
}

fn beside(list: &str, place: Span, found: &mut Found<'_>) {
    let message = format!("<no-{list}> beside a <{list}>");
    found.error(place, message).hint("keep one of the two");
}

/// As it is, but that the line of the opening tag does not count, as with `"""` in TOML.
fn verbatim(node: Node<'_, '_>) -> (String, Span) {
    let (text, span) = text_of(node);
    let text = text.strip_prefix('\n').map(str::to_owned).unwrap_or(text);
    (text, span)
}

/// Text where only elements belong.
fn stray_text(node: Node<'_, '_>, found: &mut Found<'_>) {
    for child in node.children().filter(Node::is_text) {
        let text = child.text().unwrap_or_default();
        if text.trim().is_empty() {
            continue;
        }
        let range = child.range();
        let written = node
            .document()
            .input_text()
            .get(range.clone())
            .unwrap_or_default();
        let start = range.start + (written.len() - written.trim_start().len());
        let end = range.end - (written.len() - written.trim_end().len());
        let name = shown(node.tag_name().name());
        let message = format!("text between the elements of <{name}>");
        found
            .error(start..end.max(start), message)
            .hint("each value is in an element of its own");
    }
}

/// Elements or attributes where only a text belongs.
fn only_text(node: Node<'_, '_>, found: &mut Found<'_>) {
    let name = shown(node.tag_name().name());
    if let Some(child) = node.children().find(Node::is_element) {
        let message = format!("<{name}> is a text, and has no elements");
        found.error(name_span(child), message);
    }
    for attribute in node.attributes() {
        let range = attribute.range();
        let attribute = quoted(attribute.name());
        found.error(range, format!("<{name}> has no attribute {attribute}"));
    }
}

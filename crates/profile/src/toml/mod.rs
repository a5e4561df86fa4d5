//! TOML → raw.
//!
//! The XML reader (`xml`) makes the same tree of tables and lists out of elements, and uses what follows from there.
//!
//! The tree that the parser gives is walked by hand: serde would stop at the first error, and its derived code loses
//! the places of unknown keys. The parser recovers from syntax errors, so that all of them are reported, and with them
//! what is certainly wrong elsewhere.

pub(crate) mod sections;
mod vm;

use crate::error::{Found, Span, quoted};
use crate::form::{Form, in_xml};
use crate::raw::{At, Cluster, Field, Group, Image, Network, Node, Vm};
use crate::suggest::suggest;
use sections::{CLUSTER, CLUSTER_SECTIONS, GROUP, IMAGE, NETWORK, NODE, Section, VM_SECTIONS};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

type Key<'i> = Spanned<DeString<'i>>;
type Value<'i> = Spanned<DeValue<'i>>;

/// Reads what can be read; the rest is reported to `found`.
pub(crate) fn cluster<'t>(text: &'t str, found: &mut Found<'t>) -> Cluster {
    let root = parse(text, found);
    cluster_of(root.get_ref(), Form::Toml, text, found)
}

/// The same for a VM profile.
pub(crate) fn vm<'t>(text: &'t str, found: &mut Found<'t>) -> Vm {
    let root = parse(text, found);
    vm_of(root.get_ref(), 0..0, Form::Toml, text, found)
}

/// What a tree says of a cluster.
pub(crate) fn cluster_of<'t>(
    table: &DeTable<'_>,
    form: Form,
    text: &'t str,
    found: &mut Found<'t>,
) -> Cluster {
    let sections = CLUSTER_SECTIONS;
    Reader {
        text,
        form,
        sections,
        found,
    }
    .cluster(table)
}

/// What a tree says of a VM; `place` is where to say that a key is missing.
pub(crate) fn vm_of<'t>(
    table: &DeTable<'_>,
    place: Span,
    form: Form,
    text: &'t str,
    found: &mut Found<'t>,
) -> Vm {
    let sections = VM_SECTIONS;
    Reader {
        text,
        form,
        sections,
        found,
    }
    .vm(table, place)
}

/// In a larger file only the first syntax error is told: the parser keeps each of them, and a file of nothing else would
/// take gigabytes.
const MOST_RECOVERED: usize = 1 << 20;

fn parse<'t>(text: &'t str, found: &mut Found<'t>) -> Spanned<DeTable<'t>> {
    let (root, mut errors) = if text.len() <= MOST_RECOVERED {
        DeTable::parse_recoverable(text)
    } else {
        match DeTable::parse(text) {
            Ok(root) => (root, Vec::new()),
            Err(error) => (Spanned::new(0..0, DeTable::new()), vec![error]),
        }
    };
    let place = |error: &toml::de::Error| error.span().unwrap_or(text.len()..text.len());
    errors.sort_by_key(|error| place(error).start);
    let mut last = 0;
    for error in errors {
        let span = place(&error);
        // What follows on a line is a consequence of the first.
        let line = found.line(span.start);
        if std::mem::replace(&mut last, line) == line {
            continue;
        }
        let hint = advice(error.message(), text, &span);
        let message = format!("not TOML: {}", error.message());
        let problem = found.syntax(span, message);
        if let Some(hint) = hint {
            problem.hint(hint);
        }
    }
    root
}

/// What to do about a syntax error.
fn advice(message: &str, text: &str, span: &Span) -> Option<&'static str> {
    let before = text.get(..span.start).unwrap_or(text);
    let before = before.rsplit('\n').next().unwrap_or(before);
    let after = text.get(span.end..).unwrap_or_default();
    // A list that is not closed swallows the headers and keys below it.
    let swallowed = before.starts_with('[') || after.trim_start_matches(' ').starts_with('=');
    if message.starts_with("duplicate key") {
        Some("a key or a [section] may be written once; keep one of the two")
    } else if message.starts_with("missing comma between array elements")
        || (message.contains("string") && swallowed)
    {
        Some("is a list above not closed? A list ends with ]")
    } else if message.contains("string") {
        Some("texts are written in double quotes, as in name = \"mpi\"")
    } else {
        None
    }
}

struct Reader<'r, 't> {
    text: &'t str,
    /// In XML every value is a text; what it should be is known by its key.
    form: Form,
    /// All that the file may have.
    sections: &'static [&'static Section],
    found: &'r mut Found<'t>,
}

impl Reader<'_, '_> {
    fn cluster(&mut self, table: &DeTable<'_>) -> Cluster {
        let mut raw = Cluster::default();
        for (key, value) in table {
            match &**key.get_ref() {
                "name" => raw.name = self.string(&CLUSTER, key, value),
                "type" => raw.backend = self.string(&CLUSTER, key, value),
                "user" => raw.user = self.string(&CLUSTER, key, value),
                "image" => raw.image = self.table(&CLUSTER, key, value, Self::image),
                "network" => raw.network = self.table(&CLUSTER, key, value, Self::network),
                "group" => raw.groups = self.tables(&CLUSTER, key, value, Self::group),
                _ => match self.unknown(&CLUSTER, key, value) {
                    // It is there, but misspelt: it is not missing as well.
                    Some("name") => raw.name.or_bad(),
                    Some("group") => raw.groups.or_bad(),
                    _ => {}
                },
            }
        }
        raw
    }

    fn image(&mut self, table: &DeTable<'_>, _: Span) -> Image {
        let mut raw = Image::default();
        for (key, value) in table {
            match &**key.get_ref() {
                "distribution" => raw.distribution = self.string(&IMAGE, key, value),
                "release" => raw.release = self.string(&IMAGE, key, value),
                "packages" => raw.packages = self.strings(&IMAGE, key, value),
                "opkgs" => raw.opkgs = self.strings(&IMAGE, key, value),
                "kernel" => raw.kernel = self.string(&IMAGE, key, value),
                "mirror" => raw.mirror = self.string(&IMAGE, key, value),
                _ => {
                    self.unknown(&IMAGE, key, value);
                }
            }
        }
        raw
    }

    fn network(&mut self, table: &DeTable<'_>, _: Span) -> Network {
        let mut raw = Network::default();
        for (key, value) in table {
            match &**key.get_ref() {
                "subnet" => raw.subnet = self.string(&NETWORK, key, value),
                "domain" => raw.domain = self.string(&NETWORK, key, value),
                "nat" => raw.nat = self.boolean(&NETWORK, key, value),
                _ => {
                    self.unknown(&NETWORK, key, value);
                }
            }
        }
        raw
    }

    fn group(&mut self, table: &DeTable<'_>, place: Span) -> Group {
        let mut raw = Group {
            place,
            ..Group::default()
        };
        for (key, value) in table {
            match &**key.get_ref() {
                "name" => raw.name = self.string(&GROUP, key, value),
                "role" => raw.role = self.string(&GROUP, key, value),
                "type" => raw.backend = self.string(&GROUP, key, value),
                "count" => raw.count = self.integer(&GROUP, key, value),
                "cpus" => raw.cpus = self.integer(&GROUP, key, value),
                "memory" => raw.memory = self.string(&GROUP, key, value),
                "disk" => raw.disk = self.string(&GROUP, key, value),
                "node" => {
                    if let Field::Given(nodes) = self.tables(&GROUP, key, value, Self::node) {
                        raw.nodes = nodes.value;
                    }
                }
                _ => {
                    if self.unknown(&GROUP, key, value) == Some("name") {
                        raw.name.or_bad();
                    }
                }
            }
        }
        raw
    }

    fn node(&mut self, table: &DeTable<'_>, _: Span) -> Node {
        let mut raw = Node::default();
        for (key, value) in table {
            match &**key.get_ref() {
                "name" => raw.name = self.string(&NODE, key, value),
                "mac" => raw.mac = self.string(&NODE, key, value),
                "address" => raw.address = self.string(&NODE, key, value),
                _ => {
                    self.unknown(&NODE, key, value);
                }
            }
        }
        raw
    }

    /// Reports it; the key that was probably meant.
    fn unknown(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Option<&'static str> {
        let name = &**key.get_ref();
        if self.found.is_full() {
            let message = format!("unknown key {}", quoted(name));
            self.found.error(key.span(), message);
            return None;
        }
        let kind = match (self.form, value.get_ref()) {
            (Form::Xml, _) => "element or attribute",
            (Form::Toml, DeValue::Table(_)) => "section",
            (Form::Toml, _) => "key",
        };
        let place = match self.form {
            Form::Toml => section.what.to_owned(),
            Form::Xml => in_xml(section.what),
        };
        let message = format!("unknown {kind} {} in {place}", quoted(name));
        let homes = self
            .sections
            .iter()
            .filter(|home| home.names().any(|known| known == name));
        let homes: Vec<_> = homes.map(|home| home.opened).collect();
        let near = suggest(name, section.names());
        let problem = self.found.error(key.span(), message);
        if let Some(near) = near {
            problem.hint(format!("did you mean {near:?}?"));
        } else if !homes.is_empty() {
            problem.hint(format!("{name:?} is written {}", homes.join(", or ")));
        } else {
            let known: Vec<_> = section.names().collect();
            problem.hint(format!("known here: {}", known.join(", ")));
        }
        if !homes.is_empty() {
            // The [section] that it belongs to may be what could not be read.
            problem.doubtful();
        }
        near
    }

    /// `key` has a value of another type than `wanted`.
    fn mismatch(&mut self, section: &Section, key: &str, wanted: &str, value: &Value<'_>) {
        let written = self.text.get(value.span()).unwrap_or_default();
        let short = written.len() <= 40 && !written.contains('\n');
        let what = match (self.form, value.get_ref()) {
            (Form::Xml, DeValue::String(text)) => quoted(text),
            (_, other) => described(other).to_owned(),
        };
        let hint = match (wanted, value.get_ref()) {
            _ if self.form == Form::Xml => format!("write {}", section.example(key)),
            // For others, quotes alone would not do.
            ("a text", DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_))
                if short && matches!(key, "name" | "user") =>
            {
                format!("put it in quotes: {key} = \"{written}\"")
            }
            ("a list of texts", DeValue::String(_)) if short => {
                format!("put it in brackets: {key} = [{written}]")
            }
            ("a whole number" | "true or false", DeValue::String(text))
                if text.parse::<u32>().is_ok() || text.parse::<bool>().is_ok() =>
            {
                format!("write it without quotes: {key} = {text}")
            }
            _ => format!("write {}", section.example(key)),
        };
        self.found
            .error(
                value.span(),
                format!("{key:?} must be {wanted}, not {what}"),
            )
            .hint(hint);
    }

    fn string(&mut self, section: &Section, key: &Key<'_>, value: &Value<'_>) -> Field<String> {
        if let DeValue::String(text) = value.get_ref() {
            return given(text.to_string(), value);
        }
        self.mismatch(section, key.get_ref(), "a text", value);
        Field::Bad
    }

    fn boolean(&mut self, section: &Section, key: &Key<'_>, value: &Value<'_>) -> Field<bool> {
        match value.get_ref() {
            DeValue::Boolean(is) => return given(*is, value),
            DeValue::String(text) if self.form == Form::Xml => {
                if let Ok(is) = text.parse() {
                    return given(is, value);
                }
            }
            _ => {}
        }
        self.mismatch(section, key.get_ref(), "true or false", value);
        Field::Bad
    }

    fn integer(&mut self, section: &Section, key: &Key<'_>, value: &Value<'_>) -> Field<i64> {
        let (digits, radix) = match value.get_ref() {
            DeValue::Integer(number) => (number.as_str(), number.radix()),
            DeValue::String(text) if self.form == Form::Xml && is_number(text) => (&**text, 10),
            _ => {
                self.mismatch(section, key.get_ref(), "a whole number", value);
                return Field::Bad;
            }
        };
        match i64::from_str_radix(digits, radix) {
            Ok(number) => given(number, value),
            Err(_) => {
                let message = format!("{:?} is too large a number", key.get_ref());
                self.found.error(value.span(), message);
                Field::Bad
            }
        }
    }

    fn strings(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Field<Vec<At<String>>> {
        let DeValue::Array(items) = value.get_ref() else {
            self.mismatch(section, key.get_ref(), "a list of texts", value);
            return Field::Bad;
        };
        let mut list = Vec::with_capacity(items.len());
        for item in items.iter() {
            if let DeValue::String(text) = item.get_ref() {
                list.push(At {
                    value: text.to_string(),
                    span: item.span(),
                });
            } else {
                let what = described(item.get_ref());
                let message = format!("{:?} is a list of texts, not of {what}", key.get_ref());
                self.found
                    .error(item.span(), message)
                    .hint(format!("write {}", section.example(key.get_ref())));
            }
        }
        given(list, value)
    }

    fn table<T: Default>(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
        read: impl FnOnce(&mut Self, &DeTable<'_>, Span) -> T,
    ) -> T {
        if let DeValue::Table(table) = value.get_ref() {
            return read(self, table, value.span());
        }
        self.mismatch(section, key.get_ref(), "a section", value);
        T::default()
    }

    /// A list of tables. One table that was written with single brackets is reported, and read.
    fn tables<T>(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
        mut read: impl FnMut(&mut Self, &DeTable<'_>, Span) -> T,
    ) -> Field<Vec<T>> {
        let items = match value.get_ref() {
            DeValue::Array(items) => items,
            other => {
                let DeValue::Table(table) = other else {
                    self.mismatch(section, key.get_ref(), "a list of sections", value);
                    return Field::Bad;
                };
                let message = format!("a {} is opened with two brackets", key.get_ref());
                let hint = format!("write {}", section.example(key.get_ref()));
                self.found.error(value.span(), message).hint(hint);
                return given(vec![read(self, table, value.span())], value);
            }
        };
        let mut list = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => list.push(read(self, table, item.span())),
                _ => self.mismatch(section, key.get_ref(), "a list of sections", item),
            }
        }
        given(list, value)
    }
}

fn given<T>(value: T, at: &Value<'_>) -> Field<T> {
    Field::Given(At {
        value,
        span: at.span(),
    })
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

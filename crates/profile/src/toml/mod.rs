//! TOML → raw.
//!
//! The XML reader (`xml`) makes the same tree of tables and lists out of elements, and uses what follows from there.
//!
//! The tree that the parser gives is walked by hand: serde would stop at the first error, and its derived code loses
//! the places of unknown keys. The parser recovers from syntax errors, so that all of them are reported, and with them
//! what is certainly wrong elsewhere.

mod cluster;
pub(crate) mod sections;
mod values;
mod vm;

use crate::error::{Found, Span};
use crate::form::{Form, not_a_cluster, not_a_vm};
use crate::raw::{Cluster, Vm};
use sections::{CLUSTER_SECTIONS, Section, VM_SECTIONS};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

type Key<'i> = Spanned<DeString<'i>>;
type Value<'i> = Spanned<DeValue<'i>>;

/// Reads what can be read; the rest is reported to `found`.
pub(crate) fn cluster<'t>(text: &'t str, found: &mut Found<'t>) -> Cluster {
    let root = parse(text, found);
    let table = root.get_ref();
    if let (None, Some(disk)) = (place_of("group", table), place_of("disk", table)) {
        not_a_cluster(disk, found);
        return Cluster::default();
    }
    cluster_of(table, Form::Toml, text, found)
}

/// The VM of a profile; none if it is something else.
pub(crate) fn vms<'t>(text: &'t str, found: &mut Found<'t>) -> Vec<Vm> {
    let root = parse(text, found);
    let table = root.get_ref();
    if let (Some(group), None) = (place_of("group", table), place_of("disk", table)) {
        not_a_vm(group, found);
        return Vec::new();
    }
    vec![vm_of(table, 0..0, Form::Toml, text, found)]
}

fn place_of(key: &str, table: &DeTable<'_>) -> Option<Span> {
    let mut keys = table.iter().map(|(key, _)| key);
    keys.find(|known| &**known.get_ref() == key)
        .map(Spanned::span)
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
    let (mut last, mut section) = (0, None);
    for error in errors {
        let span = place(&error);
        // What follows on a line is a consequence of the first.
        let line = found.line(span.start);
        if std::mem::replace(&mut last, line) == line {
            continue;
        }
        if follows(&mut section, error.message(), text, span.start) {
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
fn advice(message: &str, text: &str, span: &Span) -> Option<String> {
    let before = line_before(text, span.start);
    let after = text.get(span.end..).unwrap_or_default();
    // A list that is not closed swallows the headers and keys below it.
    let swallowed = before.starts_with('[') || after.trim_start_matches(' ').starts_with('=');
    let list = "is a list above not closed? A list ends with ]";
    let first = text.get(span.start..).and_then(|rest| rest.chars().next());
    let control = first.is_some_and(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    // Not in place of a key: that is no text at all.
    let advice = if control && !message.contains("key") {
        "remove the control character"
    } else if message.starts_with(DUPLICATE) {
        let key = text.get(span.clone()).unwrap_or_default();
        if before.ends_with('[') && ["group", "disk", "nic", "numa", "node"].contains(&key) {
            return Some(format!(
                "there can be several: write each with two brackets, [[{key}]]"
            ));
        }
        "a key or a [section] may be written once; keep one of the two"
    } else if message.starts_with("missing comma between array elements") {
        list
    } else if message.contains("string") {
        match () {
            () if swallowed => list,
            () if message.contains("expected `\"`") => "is the quote at the end missing?",
            () => "texts are written in double quotes, as in name = \"mpi\"",
        }
    } else if message.contains("key") {
        "a line is a key and its value, as in name = \"mpi\", or a [section]"
    } else {
        return None;
    };
    Some(advice.to_owned())
}

const DUPLICATE: &str = "duplicate key";

/// What is before a place in its line.
fn line_before(text: &str, at: usize) -> &str {
    let before = text.get(..at).unwrap_or(text);
    before.rsplit('\n').next().unwrap_or(before)
}

/// A section twice makes its keys so too: only the section is told. `last` is it, or the last of its keys so far.
fn follows(last: &mut Option<usize>, message: &str, text: &str, at: usize) -> bool {
    if !message.starts_with(DUPLICATE) {
        return false;
    }
    let section = line_before(text, at).starts_with('[');
    let between = last.and_then(|last| text.get(last..at));
    let follows = !section && between.is_some_and(|between| !between.contains("\n["));
    if section || follows {
        *last = Some(at);
    }
    follows
}

struct Reader<'r, 't> {
    text: &'t str,
    /// In XML every value is a text; what it should be is known by its key.
    form: Form,
    /// All that the file may have.
    sections: &'static [&'static Section],
    found: &'r mut Found<'t>,
}

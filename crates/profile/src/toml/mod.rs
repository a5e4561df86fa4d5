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
use crate::form::Form;
use crate::raw::{Cluster, Vm};
use sections::{CLUSTER_SECTIONS, Section, VM_SECTIONS};
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

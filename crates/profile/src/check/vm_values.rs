//! Single values of a VM.

use super::one_of;
use crate::error::{Found, quoted};
use crate::raw::{At, Field};
use api::MiB;
use std::path::PathBuf;

/// A whole number within bounds.
pub(super) fn whole(
    at: &At<i64>,
    key: &str,
    least: i64,
    most: i64,
    found: &mut Found<'_>,
) -> Option<u16> {
    if !(least..=most).contains(&at.value) {
        let message = format!("{key} is a number from {least} to {most}, not {}", at.value);
        found.error(at.span.clone(), message);
        return None;
    }
    u16::try_from(at.value).ok()
}

/// A size with its unit.
pub(super) fn size(at: &At<String>, key: &str, most: MiB, found: &mut Found<'_>) -> Option<MiB> {
    match at.value.parse::<MiB>() {
        Ok(size) if size <= most => Some(size),
        Ok(size) => {
            let message = format!("{size} of {key} is too much");
            let problem = found.error(at.span.clone(), message);
            problem.hint(format!("at most {most} is possible; is the unit right?"));
            None
        }
        Err(e) => {
            let message = format!("{} is not a {key} size: {e}", quoted(&at.value));
            let problem = found.error(at.span.clone(), message);
            let digits = at.value.trim();
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                let key = if key == "disk" { "size" } else { key };
                problem.hint(format!(
                    "write {key} = \"{digits}M\" or {key} = \"{digits}G\""
                ));
            }
            None
        }
    }
}

/// True or false, with a note where nothing is said.
pub(super) fn flag(
    field: &Field<bool>,
    key: &str,
    default: bool,
    found: &mut Found<'_>,
) -> Option<bool> {
    match field {
        Field::Given(at) => Some(at.value),
        Field::Bad => None,
        Field::Absent => {
            found.note(key, default, "default");
            Some(default)
        }
    }
}

/// One of some words; without one the first of them, for the `reason`.
pub(super) fn word<T: Copy>(
    field: &Field<String>,
    key: &str,
    known: &[(&str, T)],
    reason: &str,
    found: &mut Found<'_>,
) -> Option<T> {
    match field {
        Field::Given(at) => word_of(at, key, known, found),
        Field::Bad => None,
        Field::Absent => {
            let (default, value) = known.first()?;
            found.note(key, default, reason);
            Some(*value)
        }
    }
}

/// One of some words. A `key` as `disk.2.bus` is told as `bus`.
pub(super) fn word_of<T: Copy>(
    at: &At<String>,
    key: &str,
    known: &[(&str, T)],
    found: &mut Found<'_>,
) -> Option<T> {
    let value = known.iter().find(|(word, _)| *word == at.value);
    if value.is_none() {
        let words: Vec<_> = known.iter().map(|(word, _)| *word).collect();
        let key = key.rsplit('.').next().unwrap_or(key);
        one_of(at, key, &words, &[], found);
    }
    value.map(|(_, value)| *value)
}

/// Letters, digits, `.`, `_` and `-`: what needs no quotes anywhere.
pub(super) fn plain(at: &At<String>, what: &str, found: &mut Found<'_>) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let text = &at.value;
    let first = text
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    if !first || !text.chars().all(fits) || text.len() > 63 {
        let message = format!("{} cannot be the name of a {what}", quoted(text));
        let problem = found.error(at.span.clone(), message);
        problem.hint(
            "it has 1 to 63 letters, digits, '.', '_' and '-', and begins with a letter or digit",
        );
        return None;
    }
    Some(text.clone())
}

/// A bridge of the host's: what Linux takes as an interface's name, and no more than that.
pub(super) fn interface(at: &At<String>, found: &mut Found<'_>) -> Option<String> {
    let name = plain(at, "bridge", found)?;
    if name.len() > 15 {
        let message = format!("{} cannot be the name of a bridge", quoted(&name));
        let problem = found.error(at.span.clone(), message);
        problem.hint("Linux has names of at most 15 characters for interfaces");
        return None;
    }
    Some(name)
}

/// A file's path, as it is; whether there is such a file is another question.
pub(super) fn path(at: &At<String>, what: &str, found: &mut Found<'_>) -> Option<PathBuf> {
    let text = at.value.as_str();
    let mut wrong = |message: String, hint: &str| {
        let problem = found.error(at.span.clone(), message);
        problem.hint(hint);
        None
    };
    let shown = quoted(text);
    if text.is_empty() {
        return wrong(
            format!("the path of the {what} is empty"),
            "write the name of a file",
        );
    }
    if text.chars().any(unprintable) {
        let message = format!("the path {shown} has a control character");
        return wrong(message, "rename the file");
    }
    if text.trim() != text {
        let message = format!("the path {shown} begins or ends with a space");
        return wrong(message, "rename the file");
    }
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    if !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let message = format!("{shown} is an address, not a path");
        return wrong(message, "fetch the file first, and write where it is");
    }
    if text.len() > 4095 {
        let message = format!("the path of the {what} has {} bytes", text.len());
        return wrong(message, "Linux has paths of at most 4095");
    }
    Some(PathBuf::from(text))
}

/// One line of text, as it is: kernel arguments, arguments of a program.
pub(super) fn argument(at: &At<String>, found: &mut Found<'_>) -> Option<String> {
    let control = at.value.chars().find(|c| unprintable(*c));
    if let Some(c) = control {
        let message = format!("an argument has the control character {c:?}");
        let problem = found.error(at.span.clone(), message);
        problem.hint("arguments are one line of text");
        return None;
    }
    Some(at.value.clone())
}

/// A file's text: lines, tabs, and no other control characters.
pub(super) fn file_text(at: &At<String>, key: &str, found: &mut Found<'_>) -> Option<String> {
    let control = |c: &char| unprintable(*c) && !matches!(c, '\n' | '\r' | '\t');
    if let Some(c) = at.value.chars().find(control) {
        let message = format!("{key} has the control character {c:?}");
        found.error(at.span.clone(), message);
        return None;
    }
    Some(at.value.clone())
}

/// Control characters, and two that XML cannot carry.
fn unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')
}

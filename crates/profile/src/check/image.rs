//! The recipe of the image.

use super::{name, one_of, twice};
use crate::error::{Found, Problem, Span, quoted};
use crate::model::Recipe;
use crate::raw::{At, Field, Image};
use api::Name;
use std::collections::HashMap;

const DISTRIBUTIONS: [&str; 1] = ["debian"];
const NOT_YET: [&str; 9] = [
    "ubuntu",
    "rocky",
    "almalinux",
    "fedora",
    "centos",
    "rhel",
    "opensuse",
    "suse",
    "arch",
];

pub(super) fn check(raw: &Image, found: &mut Found<'_>) -> Option<Recipe> {
    let distribution = match &raw.distribution {
        Field::Given(at) if DISTRIBUTIONS.contains(&at.value.as_str()) => Some(at.value.clone()),
        Field::Given(at) => {
            one_of(at, "distribution", &DISTRIBUTIONS, &NOT_YET, found);
            None
        }
        Field::Bad => None,
        Field::Absent => filled("distribution", "debian", found),
    };
    let release = match &raw.release {
        Field::Given(at) => release(at, found),
        Field::Bad => None,
        Field::Absent => filled("release", "bookworm", found),
    };
    let kernel = optional(&raw.kernel, |at| package(at, "a kernel package", found));
    let mirror = optional(&raw.mirror, |at| mirror(at, found));
    Some(Recipe {
        packages: packages(&raw.packages, found),
        opkgs: opkgs(&raw.opkgs, found),
        distribution: distribution?,
        release: release?,
        kernel: kernel?,
        mirror: mirror?,
    })
}

fn filled(key: &str, value: &str, found: &mut Found<'_>) -> Option<String> {
    found.note(format!("image.{key}"), value, "default");
    Some(value.to_owned())
}

/// `Some(None)` is a key that was left out, `None` one that is wrong.
fn optional(
    raw: &Field<String>,
    check: impl FnOnce(&At<String>) -> Option<String>,
) -> Option<Option<String>> {
    match raw {
        Field::Absent => Some(None),
        Field::Bad => None,
        Field::Given(at) => check(at).map(Some),
    }
}

fn release(at: &At<String>, found: &mut Found<'_>) -> Option<String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let text = &at.value;
    if text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(good) {
        return Some(text.clone());
    }
    let message = format!("{} cannot be the name of a release", quoted(text));
    let problem = found.error(at.span.clone(), message);
    problem.hint("releases are named by their code name, as in \"bookworm\"");
    None
}

/// Debian Policy 5.6.1: lower-case letters, digits, `+`, `-` and `.`; at least two; a letter or digit first.
fn package(at: &At<String>, what: &str, found: &mut Found<'_>) -> Option<String> {
    let text = at.value.as_str();
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let odd = text
        .chars()
        .find(|c| !first(*c) && !matches!(c, '+' | '-' | '.'));
    let report = |why: String, found: &mut Found<'_>| {
        let message = format!("{} cannot be the name of {what}: {why}", quoted(text));
        let problem: &mut Problem = found.error(at.span.clone(), message);
        if odd.is_some_and(|c| c.is_whitespace() || c == ',') {
            problem.hint("write each package in quotes of its own: [\"one\", \"two\"]");
        } else if odd.is_some_and(|c| matches!(c, '=' | '/' | ':')) {
            problem.hint("versions, releases and architectures cannot be chosen here");
        } else if text.chars().any(|c| c.is_ascii_uppercase()) {
            problem.hint("names of packages have lower-case letters only");
        }
    };
    if let Some(odd) = odd {
        report(format!("it has {odd:?}"), found);
    } else if text.len() < 2 {
        report("it has fewer than two characters".to_owned(), found);
    } else if !text.starts_with(first) {
        report("it does not start with a letter or digit".to_owned(), found);
    } else {
        return Some(text.to_owned());
    }
    None
}

/// Sorted, each once.
fn packages(raw: &Field<Vec<At<String>>>, found: &mut Found<'_>) -> Vec<String> {
    let mut packages = Vec::new();
    let mut seen: HashMap<&str, &Span> = HashMap::new();
    for at in raw.given().map_or(&[][..], |list| &list.value) {
        if let Some(package) = package(at, "a package", found) {
            match seen.insert(&at.value, &at.span) {
                Some(first) => {
                    let message = format!("the package {package} is listed twice");
                    twice(&at.span, first, message, found);
                }
                None => packages.push(package),
            }
        }
    }
    packages.sort_unstable();
    packages
}

/// `base` first, always; the others in the order of the file.
fn opkgs(raw: &Field<Vec<At<String>>>, found: &mut Found<'_>) -> Vec<Name> {
    let mut opkgs = Vec::new();
    let mut seen: HashMap<&str, &Span> = HashMap::new();
    for at in raw.given().map_or(&[][..], |list| &list.value) {
        if let Some(opkg) = name(at, "an OPKG", found) {
            match seen.insert(&at.value, &at.span) {
                Some(first) => {
                    let message = format!("the OPKG {opkg} is listed twice");
                    twice(&at.span, first, message, found);
                }
                None => opkgs.push(opkg),
            }
        }
    }
    match opkgs.iter().position(|opkg| opkg.as_str() == "base") {
        Some(0) => {}
        Some(at) => {
            let base = opkgs.remove(at);
            opkgs.insert(0, base);
            found.note("image.opkgs", "base first", "the others build on it");
        }
        None => {
            if let Ok(base) = Name::new("base") {
                opkgs.insert(0, base);
            }
            let reason = if raw.is_absent() {
                "default"
            } else {
                "added: every node needs it"
            };
            found.note("image.opkgs", "base", reason);
        }
    }
    opkgs
}

fn mirror(at: &At<String>, found: &mut Found<'_>) -> Option<String> {
    let text = at.value.as_str();
    let rest = ["http://", "https://", "file:///"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
        let message = format!("{} is not the address of a mirror", quoted(text));
        let problem = found.error(at.span.clone(), message);
        problem.hint(
            "it starts with http://, https:// or file:///, as in \"http://deb.debian.org/debian\"",
        );
        return None;
    };
    // It becomes a word in a list of sources: no blanks, quotes, brackets or comments.
    let odd = rest
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"-._~:/@%+=,&?".contains(*c));
    if let Some(odd) = odd {
        let message = format!("the address of a mirror must not have {odd:?}");
        found.error(at.span.clone(), message);
        return None;
    }
    Some(text.to_owned())
}

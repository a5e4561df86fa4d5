//! docs/profile.md is true: its examples are read, its wrong one gives what is said there, its keys are the reader's.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use std::fs;
use std::path::Path;

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/profile.md");
    fs::read_to_string(page).unwrap()
}

/// The blocks that are fenced with ```` ```KIND ````.
fn blocks<'t>(page: &'t str, kind: &str) -> Vec<&'t str> {
    let fence = format!("\n```{kind}\n");
    let parts = page.split(&fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap())
        .collect()
}

#[test]
fn examples_are_good_or_wrong_as_told() {
    let page = page();
    for (kind, least) in [("toml", 1), ("xml", 2)] {
        let blocks = blocks(&page, kind);
        assert!(blocks.len() >= least, "{kind}");
        for text in blocks {
            profile::vm(text, "page").unwrap_or_else(|e| panic!("{e}"));
        }
    }
    let parts = blocks(&page, "toml part");
    assert!(parts.len() >= 5);
    for part in parts {
        let disk = "\n[[disk]]\npath = \"other.raw\"\n";
        let text = format!("name = \"web\"\n{part}{disk}");
        profile::vm(&text, "page").unwrap_or_else(|e| panic!("{e}"));
    }
    let (wrong, said) = (blocks(&page, "toml wrong"), blocks(&page, "text"));
    assert_eq!((wrong.len(), said.len()), (1, 1));
    let errors = profile::vm(wrong[0], "web.toml").unwrap_err();
    assert_eq!(format!("{errors}\n"), said[0]);
}

#[test]
fn every_key_is_documented() {
    let page = page();
    let page = page.split("## Profiles of libv3m").next().unwrap();
    let keys = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let mut documented: Vec<&str> = keys
        .map(|(key, _)| key)
        .filter(|key| !key.contains('"'))
        .collect();
    documented.sort_unstable();
    // An unknown key in each section makes the reader tell what it knows there.
    let probe = "zzzzzzzz = 1\n";
    let sections = [
        "[cpu]",
        "[[numa]]",
        "[boot]",
        "[[disk]]",
        "[[nic]]",
        "[cloud-init]",
    ];
    let text: String = sections
        .iter()
        .map(|section| format!("{section}\n{probe}"))
        .collect();
    let errors = profile::vm(&format!("{probe}{text}"), "x").unwrap_err();
    let hints = errors
        .iter()
        .filter_map(|error| error.hint.as_deref()?.strip_prefix("known here: "));
    let sections: Vec<&str> = sections
        .iter()
        .map(|s| s.trim_matches(['[', ']']))
        .collect();
    let mut known: Vec<&str> = hints
        .flat_map(|keys| keys.split(", "))
        .filter(|k| !sections.contains(k))
        .collect();
    known.sort_unstable();
    assert_eq!(documented, known);
}

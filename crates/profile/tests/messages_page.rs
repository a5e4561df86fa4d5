//! docs/messages.md is whole and true: each example gives its message, and each message of the source is there.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

struct Entry {
    message: String,
    /// The info string of the block and its text; none for what is too large to be shown.
    example: Option<(String, String)>,
}

fn entries() -> Vec<Entry> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/messages.md");
    let page = fs::read_to_string(page).unwrap();
    let parts = page.split("\n**`").skip(1);
    let entry = |part: &str| {
        let (message, rest) = part.split_once("`** — ").unwrap();
        let example = rest.split_once("\n```").map(|(_, block)| {
            let (info, text) = block.split_once('\n').unwrap();
            let text = text.split("\n```").next().unwrap();
            (info.to_owned(), text.to_owned())
        });
        Entry {
            message: message.to_owned(),
            example,
        }
    };
    parts.map(entry).collect()
}

/// Does a message have this form, in which `…` stands for anything?
fn fits(form: &str, message: &str) -> bool {
    let mut parts = form.split('…');
    let first = parts.next().unwrap();
    let Some(mut rest) = message.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        last = Some(part);
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    match last {
        None => rest.is_empty(),
        Some(last) => last.is_empty() || message.ends_with(last),
    }
}

fn messages(file: &[u8], cluster: bool) -> Vec<String> {
    let errors = match cluster {
        true => profile::cluster_bytes(file, "x").map(|_| ()),
        false => profile::vm_bytes(file, "x").map(|_| ()),
    };
    let errors = errors.err();
    errors
        .iter()
        .flatten()
        .map(|error| error.message.clone())
        .collect()
}

fn shown(info: &str, text: &str) -> Vec<String> {
    let info: Vec<&str> = info.split(' ').collect();
    let cluster = info.contains(&"cluster");
    let text = match (info.contains(&"part"), cluster) {
        (false, _) => text.to_owned(),
        (true, false) => format!("name = \"web\"\n{text}\n[[disk]]\npath = \"other.raw\"\n"),
        (true, true) => format!("name = \"mpi\"\n{text}\n[[group]]\nname = \"head\"\n"),
    };
    messages(text.as_bytes(), cluster)
}

/// Files for the messages without an example on the page.
fn made(message: &str) -> Vec<String> {
    let vm =
        |rest: &str| format!("name = \"a\"\n{rest}\n[[disk]]\npath = \"a.raw\"\n").into_bytes();
    let (file, cluster) = match message {
        m if m.starts_with("the file has more") => (vec![b' '; profile::MAX_BYTES + 1], false),
        m if m.starts_with("the file is not UTF-8") => (b"name = \"\xe9\"".to_vec(), false),
        m if m.starts_with("the file is UTF-16") => (b"\xff\xfe<\0".to_vec(), false),
        m if m.ends_with("a NUL byte") => (b"<vm>\0</vm>".to_vec(), false),
        "more than … elements and texts" => (
            format!("<vm>{}</vm>", "<a/>".repeat(2_000_000)).into_bytes(),
            false,
        ),
        "a file has at most … namespaces" => {
            let declared: String = (0..17).map(|n| format!(" xmlns:a{n}=''")).collect();
            (format!("<vm{declared}/>").into_bytes(), false)
        }
        m if m.starts_with("a file has at most") => {
            let all = "<profile/>".repeat(1001);
            (format!("<profiles>{all}</profiles>").into_bytes(), false)
        }
        m if m.starts_with("more than … elements") => ("<a>".repeat(33).into_bytes(), false),
        m if m.starts_with("an element has more") => {
            let attributes: String = (0..65).map(|n| format!(" a{n}=''")).collect();
            (format!("<vm{attributes}/>").into_bytes(), false)
        }
        m if m.contains("has … bytes") => {
            let path = "a".repeat(4096);
            (vm(&format!("[boot]\nkernel = \"{path}\"")), false)
        }
        m if m.contains("extra arguments, not") => {
            let words = "\"-x\",".repeat(257);
            (vm(&format!("extra = [{words}]")), false)
        }
        m if m.starts_with("an extra argument has") => {
            let word = "x".repeat(4096);
            (vm(&format!("extra = [\"{word}\"]")), false)
        }
        m if m.contains("drives on IDE") => {
            let disks = (0..5).map(|n| format!("[[disk]]\npath = \"{n}.raw\"\nbus = \"ide\"\n"));
            (vm(&disks.collect::<String>()), false)
        }
        m if m.contains("disks, not") => {
            let disks = (0..25).map(|n| format!("[[disk]]\npath = \"{n}.raw\"\n"));
            (vm(&disks.collect::<String>()), false)
        }
        m if m.contains("NICs, not") => (vm(&"[[nic]]\n".repeat(25)), false),
        m if m.starts_with("the cluster has … nodes") => {
            let groups = (0..11).map(|n| format!("[[group]]\nname = \"g{n}x\"\ncount = 10000\n"));
            let groups: String = groups.collect();
            let text = format!("name = \"a\"\n[[group]]\nname = \"head\"\n{groups}");
            (text.into_bytes(), true)
        }
        other => panic!("the page has no example of {other:?}"),
    };
    messages(&file, cluster)
}

#[test]
fn each_example_gives_its_message() {
    let entries = entries();
    assert!(entries.len() > 110, "{}", entries.len());
    let mut wrong = Vec::new();
    for Entry { message, example } in &entries {
        let said = match example {
            Some((info, text)) => shown(info, text),
            None => made(message),
        };
        if !said.iter().any(|said| fits(message, said)) {
            wrong.push(format!("{message:?} is not among {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, files),
            false => files.push(path),
        }
    }
}

/// A literal's text with `…` for what is put in.
fn form(literal: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in literal.replace("\\\"", "\"").chars() {
        match c {
            '{' => inside = true,
            '}' => {
                inside = false;
                out.push('…');
            }
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// What is said in the source: the first text of each statement that makes a message.
#[test]
fn each_message_of_the_source_is_on_the_page() {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let mut said = BTreeSet::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        for begin in [".error(", ".syntax(", "message = ", "return wrong("] {
            for statement in source.split(begin).skip(1) {
                let statement = statement.split(";\n").next().unwrap();
                let statement = statement.split(".hint(").next().unwrap();
                let statement = statement.replace("\\\"", "\u{1}");
                let literal = statement.split('"').nth(1).unwrap_or_default();
                // Parts of texts, not messages.
                if !literal.is_empty() && !literal.starts_with(' ') {
                    said.insert(form(literal));
                }
            }
        }
    }
    assert!(said.len() > 100, "{}", said.len());
    let known: BTreeSet<String> = entries().into_iter().map(|entry| entry.message).collect();
    // These follow a message whose own text is put together first.
    let advice = [
        "unknown key …",
        "rename the file",
        "fetch the file first, and write where it is",
        "Linux has paths of at most 4095",
    ];
    let missing: Vec<_> = said
        .iter()
        .filter(|said| !known.contains(*said) && !advice.contains(&said.as_str()))
        .collect();
    assert!(missing.is_empty(), "not on docs/messages.md: {missing:#?}");
}

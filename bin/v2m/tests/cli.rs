//! The program as people meet it: help, errors and codes, against golden files. `UPDATE_GOLDEN=1 cargo test -p v2m --test
//! cli` writes them anew.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::Home;
use std::path::Path;
use std::process::{Command, Stdio};

#[track_caller]
fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        wanted == found,
        "{name} differs; UPDATE_GOLDEN=1 writes it anew\n--- wanted\n{wanted}\n--- found\n{found}"
    );
}

const COMMANDS: [&str; 24] = [
    "validate",
    "convert",
    "check",
    "capabilities",
    "create",
    "start",
    "stop",
    "reboot",
    "pause",
    "resume",
    "destroy",
    "list",
    "status",
    "console",
    "top",
    "image",
    "image create",
    "image info",
    "image resize",
    "image convert",
    "image import",
    "image snapshot",
    "create-image-from-cdrom",
    "exit-codes",
];

#[test]
fn the_whole_help() {
    let home = Home::new();
    let mut all = home.ok(&["--help"]).out;
    for command in COMMANDS {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        all += &format!("\n\n$ v2m {command} --help\n{}", home.ok(&words).out);
    }
    golden("help.txt", &all);
}

/// Arguments, exit code and messages of what goes wrong.
#[test]
fn errors_and_their_codes() {
    let home = Home::new();
    home.file("bad.toml", "name = \"a b\"\nnmae = 1\n");
    let cases: &[&[&str]] = &[
        &["strat"],
        &["start"],
        &["start", "missing.toml"],
        &["start", "nowhere"],
        &["start", "No_Where"],
        &["start", "bad.toml"],
        &["validate", "bad.toml"],
        &["validate", "missing.toml"],
        &["stop", "nowhere", "--grace", "soon"],
        &["status", "nowhere"],
        &["status", "nowhere", "--word"],
        &["console", "nowhere"],
        &["destroy", "nowhere"],
        &["nowhere.toml", "--boot-vm"],
        &["a.xml", "--migrate-vm", "n1"],
        &["image", "info", "disk"],
        &["image", "info", "missing.qcow2"],
        &["image", "create", "x.qcow2"],
        &["image", "snapshot", "list", "nowhere"],
    ];
    let mut all = String::new();
    for case in cases {
        let answer = home.run(case);
        all += &format!(
            "$ v2m {}\n{}{}code {}\n\n",
            case.join(" "),
            answer.out,
            answer.err,
            answer.code
        );
    }
    golden(
        "errors.txt",
        &all.replace(home.path("").to_str().unwrap(), "HOME/"),
    );
}

#[test]
fn nothing_there_is_an_empty_list_and_not_an_error() {
    let home = Home::new();
    assert_eq!(home.json(&["list"]), serde_json::json!({ "vms": [] }));
    home.ok(&["list"]).says("v2m create FILE");
    assert_eq!(home.ok(&["-q", "list"]).err, "");
    assert!(!home.state().exists(), "looking makes nothing");
}

#[test]
fn a_bad_profile_as_json() {
    let home = Home::new();
    home.file("bad.toml", "nmae = 1\n");
    let answer = home
        .run(&["validate", "bad.toml", "--output", "json"])
        .is(2);
    let document: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(document["valid"], false);
    let errors = document["problems"]["errors"].as_array().unwrap();
    assert!(!errors.is_empty());
}

#[test]
fn completion_and_man_pages_are_made() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let answer = home.ok(&["completion", shell]);
        assert!(answer.out.contains("wait-ready"), "{shell}");
        assert!(!answer.out.contains("install-with-oscar"), "{shell}");
    }
    home.ok(&["man", "man1"]);
    let page = std::fs::read_to_string(home.path("man1/v2m.1")).unwrap();
    assert!(page.contains("Exit codes"));
    let checked = Command::new("man")
        .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8"])
        .arg(home.path("man1/v2m.1"))
        .output();
    if let Ok(checked) = checked {
        assert_eq!(String::from_utf8_lossy(&checked.stderr), "");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let home = Home::new();
    let mut command = home.command(&["completion", "bash"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

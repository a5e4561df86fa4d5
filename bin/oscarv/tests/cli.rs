//! The program as people meet it: help, errors and codes, against golden files. `UPDATE_GOLDEN=1 cargo test -p oscarv`
//! writes them anew.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// An environment of its own, and a state of its own.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oscarv"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.0.path())
            .env("OSCARV_STATE", self.0.path().join("state"))
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

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

const COMMANDS: [&str; 19] = [
    "up",
    "down",
    "status",
    "list",
    "ssh",
    "exec",
    "run",
    "push",
    "get",
    "console",
    "logs",
    "image",
    "image build",
    "check",
    "test",
    "validate",
    "ssh-config",
    "completion",
    "exit-codes",
];

#[test]
fn the_whole_help() {
    let home = Home::new();
    let mut all = text(&home.run(&["--help"]).stdout);
    for command in COMMANDS {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let output = home.run(&words);
        assert_eq!(output.status.code(), Some(0), "{command}");
        all += &format!("\n\n$ oscarv {command} --help\n{}", text(&output.stdout));
    }
    golden("help.txt", &all);
}

/// Arguments, exit code and messages of what goes wrong.
#[test]
fn errors_and_their_codes() {
    let home = Home::new();
    home.file("bad.toml", "name = \"a b\"\nnmae = 1\n");
    let cases: &[&[&str]] = &[
        &["pu"],
        &["up"],
        &["up", "missing.toml"],
        &["up", "bad.toml"],
        &["validate", "bad.toml"],
        &["up", "x.toml", "--time-limit", "soon"],
        &["down"],
        &["status", "nowhere"],
        &["status", "No_Where"],
        &["ssh"],
        &["ssh", "Bad:head"],
        &["exec", "all"],
        &["exec", "nowhere:all", "--", "true"],
        &["run", "nowhere", "--", "true"],
        &["push", "all", "x"],
        &["logs", "nowhere:head"],
        &["console", "nowhere:head"],
        &["test", "nowhere"],
        &["image", "show", "nothing"],
    ];
    let mut all = String::new();
    for case in cases {
        let output = home.run(case);
        all += &format!(
            "$ oscarv {}\n{}{}code {}\n\n",
            case.join(" "),
            text(&output.stdout),
            text(&output.stderr),
            output.status.code().unwrap()
        );
    }
    golden(
        "errors.txt",
        &all.replace(home.0.path().to_str().unwrap(), "HOME"),
    );
}

#[test]
fn nothing_there_is_an_empty_list_and_not_an_error() {
    let home = Home::new();
    let output = home.run(&["list", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document, serde_json::json!({ "clusters": [] }));
    let output = home.run(&["list"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), String::new())
    );
    assert!(text(&output.stderr).contains("oscarv up FILE"));
    assert_eq!(home.run(&["-q", "list"]).stderr, b"");
    let output = home.run(&["down", "nothing", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_file_comes_from_standard_input_too() {
    let home = Home::new();
    let example = "name = \"tiny\"\n[[group]]\nname = \"head\"\n";
    let mut child = home
        .command(&["validate", "-", "--output", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(example.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&document["valid"], &document["cluster"]["name"]),
        (&true.into(), &"tiny".into())
    );
}

#[test]
fn a_bad_file_as_json() {
    let home = Home::new();
    home.file("bad.toml", "nmae = 1\n");
    let output = home.run(&["validate", "bad.toml", "--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["valid"], false);
    assert!(
        !document["problems"]["errors"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn completion_and_man_pages_are_made() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = home.run(&["completion", shell]);
        assert!(
            output.status.success() && text(&output.stdout).contains("time-limit"),
            "{shell}"
        );
        assert!(!text(&output.stdout).contains("net-holder"), "{shell}");
    }
    let output = home.run(&["man", "man1"]);
    assert!(output.status.success());
    let page = |name: &str| std::fs::read_to_string(home.0.path().join("man1").join(name)).unwrap();
    assert!(page("oscarv.1").contains("Exit codes"));
    assert!(page("oscarv-exec.1").contains("no shell reads them"));
    let checked = Command::new("man")
        .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8"])
        .arg(home.0.path().join("man1/oscarv.1"))
        .output();
    if let Ok(checked) = checked {
        assert_eq!(text(&checked.stderr), "");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let home = Home::new();
    let mut child = home
        .command(&["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn the_version_is_the_crates() {
    let home = Home::new();
    let version = format!("oscarv {}\n", env!("CARGO_PKG_VERSION"));
    for words in [&["version"][..], &["--version"]] {
        assert_eq!(text(&home.run(words).stdout), version);
    }
}

//! What the tests of `v2m` share: a home of their own, the program, and an end that leaves nothing.
//!
//! The program is the one that was built with the tests, or the one that `V2M_BIN` names.

#![allow(dead_code, clippy::unwrap_used, reason = "each test uses some of it")]

pub mod cloud_image;
pub mod guests;
pub mod lab;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub fn program() -> PathBuf {
    match std::env::var_os("V2M_BIN") {
        Some(program) => PathBuf::from(program),
        None => PathBuf::from(env!("CARGO_BIN_EXE_v2m")),
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    #[track_caller]
    pub fn is(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(
            self.err.contains(words),
            "{words:?} is not said in\n{}",
            self.err
        );
        self
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let signal = || 128 + output.status.signal().unwrap_or(0);
        Self {
            code: output.status.code().unwrap_or_else(signal),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

/// A directory with files and a state of its own; what runs in it ends with it.
pub struct Home {
    dir: TempDir,
}

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // As root, VMs are of users who have to get to their files.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Writes `NAME.toml`, a fake VM of this name.
    pub fn fake(&self, name: &str) -> String {
        let file = format!("{name}.toml");
        self.file(&file, fake(name));
        file
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("V2M_STATE", self.state())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Answer {
        self.command(arguments).output().unwrap().into()
    }

    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Answer {
        self.run(arguments).is(0)
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--output", "json"]);
        serde_json::from_str(&self.ok(&arguments).out).unwrap()
    }

    #[track_caller]
    pub fn state_of(&self, vm: &str) -> String {
        self.json(&["status", vm])["state"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        end_all(&self.state());
    }
}

/// Ends the VMs of a state directory.
pub fn end_all(state: &Path) {
    let vms = std::fs::read_dir(state.join("run"));
    for vm in vms.into_iter().flatten().flatten() {
        let _ = daemon::kill(&vm.path().join("qemu.lock"), Duration::from_secs(10));
    }
}

pub fn fake(name: &str) -> String {
    format!(
        "name = \"{name}\"\ntype = \"fake\"\nmemory = \"64M\"\n[[disk]]\npath = \"{name}.raw\"\n"
    )
}

/// All files below a directory, sorted.
pub fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(tree(&entry.path())),
            false => all.push(entry.path()),
        }
    }
    all.sort();
    all
}

/// Looks until it is so.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! What the tests of whole clusters share: a home of their own, the program, what it leaves.
//!
//! The program is the one that was built with the tests, or the one that `OSCARV_BIN` names: so the same test file runs
//! as another user, from another place. Every cluster that a test names is taken down however the test ends.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub mod lab;
pub mod spread;

use serde_json::Value;
use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test.
pub fn program() -> PathBuf {
    match std::env::var_os("OSCARV_BIN") {
        Some(program) => PathBuf::from(program),
        None => PathBuf::from(env!("CARGO_BIN_EXE_oscarv")),
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says why a test does nothing here.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
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

    /// Every one of these is said.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.err.contains(word),
                "{word:?} is not said in\n{}",
                self.err
            );
        }
        self
    }
}

/// A directory with files, a state, and clusters that end with it.
pub struct Home {
    dir: TempDir,
    state: PathBuf,
    clusters: RefCell<Vec<String>>,
    /// Set for every command.
    environment: RefCell<Vec<(OsString, OsString)>>,
}

impl Home {
    /// With a state of its own.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        Self::on(dir, state)
    }

    /// With a state that is shared with others.
    pub fn with_state(state: &Path) -> Self {
        Self::on(tempfile::tempdir().unwrap(), state.to_owned())
    }

    fn on(dir: TempDir, state: PathBuf) -> Self {
        Self {
            dir,
            state,
            clusters: RefCell::default(),
            environment: RefCell::default(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn set(&self, name: &str, value: impl AsRef<OsStr>) {
        let pair = (name.into(), value.as_ref().to_owned());
        self.environment.borrow_mut().push(pair);
    }

    /// Writes `NAME.toml`; the cluster is taken down at the end.
    pub fn file(&self, name: &str, text: &str) -> String {
        let file = format!("{name}.toml");
        fs::write(self.path(&file), text).unwrap();
        let mut clusters = self.clusters.borrow_mut();
        if !clusters.iter().any(|c| c == name) {
            clusters.push(name.to_owned());
        }
        file
    }

    /// A fake cluster of a head and so many compute nodes.
    pub fn fake(&self, name: &str, compute: u32) -> String {
        self.file(name, &fake(name, compute))
    }

    /// In an environment that has nothing of ours but the search path.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("OSCARV_STATE", &self.state)
            .envs(self.environment.borrow().iter().cloned())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Answer {
        answer(self.command(arguments))
    }

    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Answer {
        self.run(arguments).is(0)
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        // Before the dashes, which end what is ours.
        let at = arguments.iter().position(|a| *a == "--");
        let at = at.unwrap_or(arguments.len());
        arguments.splice(at..at, ["--output", "json"]);
        let answer = self.run(&arguments);
        serde_json::from_str(&answer.out)
            .unwrap_or_else(|e| panic!("{e}: {}\n{}", answer.out, answer.err))
    }

    /// A cluster as `status` has it.
    #[track_caller]
    pub fn status(&self, cluster: &str) -> Value {
        self.json(&["status", cluster])["clusters"][0].take()
    }

    /// One node as `status` has it.
    #[track_caller]
    pub fn node(&self, cluster: &str, node: &str) -> Value {
        let status = self.status(cluster);
        let nodes = status["nodes"].as_array().unwrap();
        let found = nodes.iter().find(|n| n["name"] == node);
        found
            .unwrap_or_else(|| panic!("no {node} in {status}"))
            .clone()
    }

    pub fn spawn(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap()))
    }

    /// Starts it, and kills it after a while. Was it still there?
    pub fn killed(&self, arguments: &[&str], after: Duration) -> bool {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // The one place where time itself is what the test is about.
        std::thread::sleep(after);
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        !ended
    }

    /// Of this cluster nothing is left: no files, no entries, no processes.
    #[track_caller]
    pub fn is_clean(&self, cluster: &str) {
        let left: Vec<PathBuf> = tree(&self.state.join("clusters"))
            .into_iter()
            .filter(|path| {
                let first = path.components().next().unwrap();
                let first = first.as_os_str().to_string_lossy().into_owned();
                first == cluster || first == format!("{cluster}.lock")
            })
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "files of {cluster} are left");
        let processes = processes(&self.state.join("clusters").join(cluster));
        assert_eq!(processes, Vec::<String>::new(), "processes are left");
        let entries = self.entries(cluster);
        assert_eq!(entries, Vec::<String>::new(), "the store has entries");
    }

    /// What the store has of a cluster.
    pub fn entries(&self, cluster: &str) -> Vec<String> {
        use store::Store;
        let store = store::Sqlite::open(&self.state.join("store.sqlite")).unwrap();
        let mine = format!("\"{cluster}\"");
        let entries = store.list("").unwrap();
        entries
            .into_iter()
            .filter(|(key, entry)| {
                *key == format!("cluster/{cluster}")
                    || (key.starts_with("slot/") && entry.value == mine.as_bytes())
            })
            .map(|(key, _)| key)
            .collect()
    }

    /// The fake hypervisor of a cluster, also before it is there.
    pub fn hypervisor(&self, cluster: &str) -> v3m_fake::FakeDriver {
        let dir = self.state.join("clusters").join(cluster).join("nodes");
        v3m_fake::FakeDriver::open(&dir).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for cluster in self.clusters.borrow().iter() {
            // With the search path as it is: a test may have spoilt its own.
            let mut command = Command::new(program());
            command
                .args(["down", cluster, "--yes"])
                .env_remove("OSCARV_CLUSTER")
                .env("OSCARV_STATE", &self.state)
                .stdin(Stdio::null());
            let answer = answer(command);
            if answer.code != 0 && !std::thread::panicking() {
                panic!("{cluster} cannot be taken down: {}", answer.err);
            }
        }
    }
}

/// A command that goes on; it is killed with this.
pub struct Running(Option<Child>);

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.0.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait(mut self) -> Answer {
        let child = self.0.take().unwrap();
        let output = child.wait_with_output().unwrap();
        text(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn answer(mut command: Command) -> Answer {
    text(command.output().unwrap())
}

fn text(output: std::process::Output) -> Answer {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    use std::os::unix::process::ExitStatusExt;
    let signal = || 128 + output.status.signal().unwrap_or(0);
    Answer {
        code: output.status.code().unwrap_or_else(signal),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

pub fn fake(name: &str, compute: u32) -> String {
    format!(
        "name = \"{name}\"\ntype = \"fake\"\n[[group]]\nname = \"head\"\n\
         [[group]]\nname = \"compute\"\ncount = {compute}\n"
    )
}

/// All paths below a directory, sorted; none where it is missing.
pub fn tree(directory: &Path) -> Vec<PathBuf> {
    fn walk(at: &Path, root: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(at).into_iter().flatten().flatten() {
            let path = entry.path();
            into.push(path.strip_prefix(root).unwrap().to_owned());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&path, root, into);
            }
        }
    }
    let mut all = Vec::new();
    walk(directory, directory, &mut all);
    all.sort();
    all
}

/// All files below a directory with their content and times; what it takes to see that nothing was done.
pub fn snapshot(directory: &Path) -> Vec<(PathBuf, std::time::SystemTime, Vec<u8>)> {
    let files = tree(directory).into_iter().map(|path| {
        let full = directory.join(&path);
        let modified = fs::symlink_metadata(&full).unwrap().modified().unwrap();
        (path, modified, fs::read(&full).unwrap_or_default())
    });
    files.collect()
}

/// Processes but ourselves that name a path in their command line, work in it, or have a file of it open.
pub fn processes(path: &Path) -> Vec<String> {
    let wanted = path.to_str().unwrap();
    // `demo` is not `demo2`.
    let names = |text: &str| {
        text.match_indices(wanted).any(|(at, _)| {
            matches!(
                text.as_bytes().get(at + wanted.len()),
                None | Some(b'/' | b' ' | b',' | b'\'')
            )
        })
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let links = fs::read_dir(entry.path().join("fd")).into_iter().flatten();
        let links = links.flatten().map(|fd| fd.path());
        let mut links = links.chain([entry.path().join("cwd")]);
        let holds = links
            .any(|link| fs::read_link(link).is_ok_and(|target| names(&target.to_string_lossy())));
        if names(&line) || holds {
            found.push(format!("{pid} {line}"));
        }
    }
    found
}

/// Looks until it is so, for at most so long.
#[track_caller]
pub fn until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "after {limit:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

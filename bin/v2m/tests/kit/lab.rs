//! For tests with guests that are whole systems: what they need, where what they make is kept, and somebody who sits at
//! a console.

use super::{Answer, Home, end_all, until};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// For a guest that is emulated to come so far, on a machine that has other things to do.
pub const BOOT: Duration = Duration::from_secs(600);
/// The same, as v2m takes it.
pub const UP: &str = "10m";
/// For a guest that runs to answer.
pub const ANSWER: Duration = Duration::from_secs(120);

/// Are these files there, each with the Debian package it comes from? Where not: a word why the test is skipped, or its
/// failure where `./test` has installed what is needed.
pub fn has(files: &[(&str, &str)]) -> bool {
    let missing: Vec<_> = files
        .iter()
        .filter(|(file, _)| match file.contains('/') {
            true => !Path::new(file).exists(),
            false => ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .iter()
                .all(|d| !Path::new(d).join(file).exists()),
        })
        .collect();
    if missing.is_empty() {
        return true;
    }
    let why = format!("missing, each with its Debian package: {missing:?}");
    assert!(std::env::var_os("OSCARV_TEST_MUST").is_none(), "{why}");
    eprintln!("skipped: {why}");
    false
}

/// A directory that stays from run to run: beside `OSCARV_TEST_STATE`, or below cargo's own.
pub fn place() -> PathBuf {
    let place = match std::env::var_os("OSCARV_TEST_STATE") {
        Some(state) => Path::new(&state).with_file_name("v2m-lab"),
        None => {
            let user = rustix::process::geteuid().as_raw();
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("v2m-lab-{user}"))
        }
    };
    std::fs::create_dir_all(&place).unwrap();
    place.canonicalize().unwrap()
}

/// A home whose VMs the next test ends and whose files it removes, if this one is killed.
pub struct LabHome {
    // First, so that the mark is there as long as it is.
    home: Home,
    _mark: Mark,
}

/// A file with the home's path, held by a lock as long as its test lives.
struct Mark(
    PathBuf,
    #[allow(dead_code, reason = "it holds the lock")] File,
);

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl LabHome {
    pub fn new() -> Self {
        let marks = place().join("homes");
        std::fs::create_dir_all(&marks).unwrap();
        for mark in std::fs::read_dir(&marks).unwrap().flatten() {
            let Ok(held) = File::open(mark.path()) else {
                continue;
            };
            if flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let text = std::fs::read_to_string(mark.path()).unwrap_or_default();
                if Path::new(&text).exists() {
                    // The mark stays until the next time: a command of the killed test may yet write there.
                    end_all(&Path::new(&text).join("state"));
                    let _ = std::fs::remove_dir_all(text);
                    continue;
                }
                let _ = std::fs::remove_file(mark.path());
            }
        }
        let home = Home::new();
        let path = home.path("");
        let path = path.to_str().unwrap().trim_end_matches('/');
        // Under its name when it is held.
        let mark = marks.join(path.trim_start_matches('/').replace('/', "-"));
        let half = tempfile::NamedTempFile::new_in(place()).unwrap();
        let (mut held, half) = half.keep().unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        held.write_all(path.as_bytes()).unwrap();
        std::fs::rename(half, &mark).unwrap();
        Self {
            home,
            _mark: Mark(mark, held),
        }
    }
}

impl std::ops::Deref for LabHome {
    type Target = Home;

    fn deref(&self) -> &Home {
        &self.home
    }
}

/// Somebody who reads what a command shows of a console, and types.
pub struct Person {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// What was shown and not yet looked for, without what moves cursors and sets colors.
    shown: String,
    escape: Escape,
}

impl Person {
    /// At a command that joins our terminal with a console.
    pub fn at(home: &Home, arguments: &[&str]) -> Self {
        let mut command = home.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let keys = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut piece) {
                let _ = sender.send(piece[..count].to_vec());
            }
        });
        Self {
            child,
            keys,
            screen,
            shown: String::new(),
            escape: Escape::None,
        }
    }

    /// Reads on until this text was shown; what came before it does not count any more. False: not in this time.
    pub fn sees_in(&mut self, text: &str, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(piece) => self.read(&piece),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    #[track_caller]
    pub fn sees(&mut self, text: &str, limit: Duration) {
        if !self.sees_in(text, limit) {
            let mut tail = self.shown.len().saturating_sub(4000);
            while !self.shown.is_char_boundary(tail) {
                tail += 1;
            }
            panic!("{text:?} was not shown, but\n{}", &self.shown[tail..]);
        }
    }

    pub fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Types a line and reads on until its answer.
    #[track_caller]
    pub fn asks(&mut self, line: &str, answer: &str) {
        self.types(&format!("{line}\r"));
        self.sees(answer, ANSWER);
    }

    /// Logs in at a serial console that asks for it, and waits for the prompt of a shell.
    #[track_caller]
    pub fn logs_in(&mut self, user: &str, password: &str, prompt: &str) {
        // What is typed while getty makes way for login is lost, and the kernel writes over the prompt.
        for _ in 0..6 {
            self.types("\r");
            if !self.sees_in("login:", Duration::from_secs(30)) {
                continue;
            }
            self.types(&format!("{user}\r"));
            if self.sees_in("Password:", Duration::from_secs(30)) {
                self.types(&format!("{password}\r"));
                return self.sees(prompt, ANSWER);
            }
        }
        panic!("no password was asked for:\n{}", self.shown);
    }

    /// Ctrl-], and what the command said to the end.
    pub fn detaches(mut self) -> Answer {
        self.types("\x1d");
        self.child.wait_with_output().unwrap().into()
    }

    /// The command's own end.
    pub fn ends(self) -> Answer {
        let Self { child, keys, .. } = self;
        let answer = child.wait_with_output().unwrap().into();
        drop(keys);
        answer
    }

    fn read(&mut self, piece: &[u8]) {
        for byte in piece {
            self.escape = match (self.escape, byte) {
                (_, 0x1b) => Escape::Begun,
                (Escape::Begun, b'[') => Escape::Sequence,
                (Escape::Begun, b'(' | b')') => Escape::Begun,
                (Escape::Begun, _) => Escape::None,
                (Escape::Sequence, 0x40..=0x7e) => Escape::None,
                (Escape::Sequence, _) => Escape::Sequence,
                (Escape::None, b'\r') => Escape::None,
                (Escape::None, byte) => {
                    self.shown.push(char::from(*byte));
                    Escape::None
                }
            };
        }
    }
}

/// Where in an escape sequence of ECMA-48 we are.
#[derive(Clone, Copy)]
enum Escape {
    None,
    Begun,
    Sequence,
}

impl Home {
    /// All that a VM has printed.
    pub fn printed(&self, vm: &str) -> String {
        let log = self.state().join("run").join(vm).join("console.log");
        String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
    }

    /// Looks until a VM has printed this.
    #[track_caller]
    pub fn prints(&self, vm: &str, text: &str, limit: Duration) {
        let end = Instant::now() + limit;
        while !self.printed(vm).contains(text) {
            assert!(
                Instant::now() < end,
                "{text:?} never came, but\n{}",
                self.printed(vm)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The guest switched itself off: QEMU says so, and nobody ended QEMU.
    #[track_caller]
    pub fn ended_by_itself(&self, vm: &str) {
        let run = self.state().join("run").join(vm);
        let journal = std::fs::read_to_string(run.join("journal.out")).unwrap();
        assert!(journal.contains("guest-shutdown"), "{journal}");
        assert!(!run.join("stopping").exists(), "it was ended by force");
        // Its console ends before its process does.
        until("it has ended", || {
            (self.state_of(vm) == "stopped").then_some(())
        });
    }
}

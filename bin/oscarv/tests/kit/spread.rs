//! Receivers and senders that are processes, and what they send.

use super::program;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// A receiver that is a process. It ends with this.
pub struct Receiver {
    pub process: Child,
    pub address: String,
    pub into: PathBuf,
    /// What it has said since it listens, a line each.
    said: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// Waits until it has said something with these words, and returns that line.
    #[track_caller]
    pub fn says(&self, words: &str) -> String {
        let begin = Instant::now();
        loop {
            let said = self.said.lock().unwrap().clone();
            if let Some(line) = said.iter().find(|line| line.contains(words)) {
                return line.clone();
            }
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "{words:?} is not in {said:#?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, with a state in this directory.
pub fn command(home: &Path) -> Command {
    let mut command = Command::new(program());
    command
        .env("OSCARV_STATE", home.join("state"))
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// A receiver on a port that was free; returns when it listens.
pub fn receiver(home: &Path, name: &str, options: &[&str]) -> Receiver {
    receiver_at(home, name, "127.0.0.1:0", options)
}

/// The same on this address.
pub fn receiver_at(home: &Path, name: &str, listen: &str, options: &[&str]) -> Receiver {
    let into = home.join(name);
    let mut process = command(home)
        .args(["spread", "receive", "--listen", listen])
        .args(options)
        .arg(&into)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line.rsplit(' ').next().unwrap().to_owned();
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = said.clone();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            heard.lock().unwrap().push(line);
        }
    });
    Receiver {
        process,
        address,
        into,
        said,
    }
}

/// Sends; returns when that has ended.
pub fn send(home: &Path, arguments: &[&str]) -> Output {
    let mut command = command(home);
    command.args(["spread", "send"]).args(arguments);
    command.output().unwrap()
}

/// Sends with a report as JSON: the exit code, the report, and what was said.
pub fn reported(home: &Path, arguments: &[&str]) -> (i32, Value, String) {
    let output = send(home, &[arguments, &["--output", "json"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), report, said)
}

/// Address of a port that was free a moment ago, and now is again.
pub fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A receiver that says this to each offer, whatever it is; its address.
pub fn played(answer: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address.to_string()
}

/// A second version: a little of it is new.
pub fn change(home: &Path, name: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(home.join(name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 5000].fill(7);
    std::fs::write(home.join(name), &bytes).unwrap();
    bytes
}

/// A file of so many MiB; its bytes.
pub fn make(home: &Path, name: &str, mib: usize) -> Vec<u8> {
    let bytes = (0..mib << 18).flat_map(|word: usize| {
        // No pattern that compresses well.
        (word as u32)
            .wrapping_mul(2_654_435_761)
            .rotate_left(word as u32 % 31)
            .to_le_bytes()
    });
    let bytes: Vec<u8> = bytes.collect();
    std::fs::write(home.join(name), &bytes).unwrap();
    bytes
}

/// All that is below a directory: kind, mode, time, and what is in it or where it points.
pub fn all_of(top: &Path) -> BTreeMap<PathBuf, (u32, SystemTime, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let data = path.symlink_metadata().unwrap();
        let what = match data.file_type() {
            kind if kind.is_dir() => {
                let entries = std::fs::read_dir(&path).unwrap();
                open.extend(entries.map(|entry| entry.unwrap().path()));
                Vec::new()
            }
            kind if kind.is_symlink() => {
                let to = std::fs::read_link(&path).unwrap();
                to.into_os_string().into_encoded_bytes()
            }
            _ => std::fs::read(&path).unwrap(),
        };
        let name = path.strip_prefix(top).unwrap().to_owned();
        all.insert(name, (data.mode(), data.modified().unwrap(), what));
    }
    all
}

/// Bytes that do not compress.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let words = (0..len / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// An image as `oscarv image build` leaves it, as far as this matters here; its id.
pub fn image(state: &Path, tag: &str, disk: &[u8]) -> String {
    let first: Vec<String> = noise(32, u64::from(disk[3 << 20]) + 1)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let id = first.concat();
    let directory = state.join("images").join(&id);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::create_dir_all(state.join("tags")).unwrap();
    std::fs::write(directory.join("disk.raw"), disk).unwrap();
    let recipe = serde_json::json!({
        "distribution": "debian", "release": "bookworm", "packages": [], "opkgs": [], "kernel": null, "mirror": null,
    });
    let manifest = serde_json::json!({
        "format": 1, "key": id, "id": id, "recipe": recipe, "architecture": "amd64", "opkgs": [], "packages": [],
        "kernel_release": "6", "kernel_unpacked": false, "layers": [], "modules": [], "digests": {}, "sizes": {},
        "files": 1, "built": 0, "built_by": "a test", "epoch": 0, "sources": [],
    });
    std::fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    let link = state.join("tags").join(tag);
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(Path::new("../images").join(&id), link).unwrap();
    id
}

//! `oscarv spread` as people use it: receivers and a sender that are processes of their own, on loopback.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::program;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

struct Receiver {
    process: Child,
    address: String,
    into: PathBuf,
    /// What it has said since it listens, a line each.
    said: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// Waits until it has said something with these words, and returns that line.
    #[track_caller]
    fn says(&self, words: &str) -> String {
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

fn command(home: &Path) -> Command {
    let mut command = Command::new(program());
    command
        .env("OSCARV_STATE", home.join("state"))
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// A receiver on a port that was free; returns when it listens.
fn receiver(home: &Path, name: &str, options: &[&str]) -> Receiver {
    receiver_at(home, name, "127.0.0.1:0", options)
}

fn receiver_at(home: &Path, name: &str, listen: &str, options: &[&str]) -> Receiver {
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

fn send(home: &Path, arguments: &[&str]) -> Output {
    let mut command = command(home);
    command.args(["spread", "send"]).args(arguments);
    command.output().unwrap()
}

/// Sends with a report as JSON: the exit code, the report, and what was said.
fn reported(home: &Path, arguments: &[&str]) -> (i32, Value, String) {
    let output = send(home, &[arguments, &["--output", "json"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), report, said)
}

/// Address of a port that was free a moment ago, and now is again.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A receiver that says this to each offer, whatever it is; its address.
fn played(answer: &'static str) -> String {
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
fn change(home: &Path, name: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(home.join(name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 5000].fill(7);
    std::fs::write(home.join(name), &bytes).unwrap();
    bytes
}

fn make(home: &Path, name: &str, mib: usize) -> Vec<u8> {
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

#[test]
fn a_file_comes_to_hosts_and_the_report_says_so() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    assert!(
        command(home)
            .args(["spread", "key"])
            .output()
            .unwrap()
            .status
            .success()
    );
    let bytes = make(home, "disk.raw", 20);
    let hosts = [
        receiver(home, "one", &[]),
        receiver(home, "two", &["--idle"]),
    ];
    let to = format!("{},{}", hosts[0].address, hosts[1].address);
    let sent = send(
        home,
        &[
            "disk.raw",
            "--to",
            &to,
            "--output",
            "json",
            "--progress",
            "json",
        ],
    );
    let said = String::from_utf8(sent.stderr).unwrap();
    assert!(sent.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(report["bytes"], bytes.len());
    assert_eq!(report["failed"], serde_json::json!([]));
    assert_eq!(report["ok"].as_array().unwrap().len(), 2);
    for host in &hosts {
        assert!(std::fs::read(host.into.join("disk.raw")).unwrap() == bytes);
    }
    // Progress is JSON, a line each.
    for line in said.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    // The one that stands back does so with all of its threads: SCHED_IDLE is 5, the 41st field of proc_pid_stat(5).
    for (host, policy) in [(&hosts[0], "0"), (&hosts[1], "5")] {
        let tasks = format!("/proc/{}/task", host.process.id());
        for task in std::fs::read_dir(tasks).unwrap() {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            assert_eq!(fields[41 - 3], policy, "{stat}");
        }
    }
}

/// All that is below a directory: kind, mode, time, and what is in it or where it points.
fn all_of(top: &Path) -> BTreeMap<PathBuf, (u32, SystemTime, Vec<u8>)> {
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

/// The second time only what is new goes over the network; what somebody has changed there is not replaced.
#[test]
fn a_directory_comes_whole_and_then_what_is_new_in_it() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let tree = home.join("root");
    std::fs::create_dir_all(tree.join("usr/empty")).unwrap();
    let library = make(home, "root/usr/library", 4);
    std::fs::write(tree.join("run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(tree.join("run"), Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("usr/library", tree.join("link")).unwrap();
    let hosts = [receiver(home, "one", &[]), receiver(home, "two", &[])];
    let to = format!("{},{}", hosts[0].address, hosts[1].address);
    let sent = || {
        let output = send(home, &["root", "--to", &to, "--output", "json"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        for host in &hosts {
            assert_eq!(all_of(&host.into.join("root")), all_of(&tree));
        }
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = report["hosts"].as_array().unwrap().iter();
        let received: Vec<u64> = list
            .map(|host| host["received"].as_u64().unwrap())
            .collect();
        assert_eq!(received.len(), 2, "{report:#}");
        received
    };
    let first = sent();
    assert!(
        first.iter().all(|bytes| *bytes > library.len() as u64 / 2),
        "{first:?}"
    );
    // In the middle, so that all that follows stands somewhere else.
    let mut changed = library.clone();
    changed.splice(1_000_000..1_000_000, *b"new words");
    std::fs::write(tree.join("usr/library"), changed).unwrap();
    std::fs::write(tree.join("added"), "added").unwrap();
    std::fs::remove_file(tree.join("link")).unwrap();
    let second = sent();
    assert!(second.iter().all(|bytes| *bytes < 200 << 10), "{second:?}");
    // Nothing is left beside it but what it is known by.
    let mut left: Vec<_> = std::fs::read_dir(hosts[0].into.join(".spread"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.retain(|name| {
        ["part", "new", "tree"]
            .iter()
            .any(|end| name.to_string_lossy().ends_with(end))
    });
    assert!(left.is_empty(), "{left:?}");

    std::fs::write(hosts[1].into.join("root/added"), "by somebody else").unwrap();
    std::fs::write(tree.join("added"), "again").unwrap();
    let output = send(home, &["root", "--to", &to]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("did not come from here"), "{said}");
    assert_eq!(all_of(&hosts[0].into.join("root")), all_of(&tree));
    assert_eq!(
        std::fs::read(hosts[1].into.join("root/added")).unwrap(),
        b"by somebody else"
    );
}

#[test]
fn a_host_that_is_listed_twice_is_told() {
    let home = TempDir::new().unwrap();
    make(home.path(), "disk.raw", 1);
    for (to, words) in [
        ("127.0.0.1,localhost", "are the same host: 127.0.0.1:7117"),
        ("10.0.0.1,10.0.0.1", "10.0.0.1 is listed twice"),
        ("10.0.0.1:x", "\"x\" is not a port"),
        (" , ", "no hosts are named"),
    ] {
        let sent = send(home.path(), &["disk.raw", "--to", to]);
        let said = String::from_utf8(sent.stderr).unwrap();
        assert_eq!(sent.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn nobody_there_is_a_report_and_not_a_hang() {
    let home = TempDir::new().unwrap();
    make(home.path(), "disk.raw", 1);
    // A port that was free a moment ago, and now is again.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    drop(listener);
    let sent = send(
        home.path(),
        &[
            "disk.raw",
            "--to",
            &to,
            "--patience",
            "1s",
            "--output",
            "json",
        ],
    );
    assert_eq!(sent.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(report["failed"], serde_json::json!([to]));
}

#[test]
fn what_is_wrong_with_a_topology_is_said_with_file_and_line() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 1);
    std::fs::write(
        home.join("topology.conf"),
        "SwitchName=r1 Nodes=n[1-3]\nSwitchName=top Switches=r[1-2]\nNodes=n[4-\n",
    )
    .unwrap();
    let to = [
        "disk.raw",
        "--to",
        "127.0.0.1:1",
        "--topology",
        "topology.conf",
    ];
    let output = send(home, &to);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("topology.conf:2: there is no line for the switch r2"),
        "{said}"
    );
    assert!(said.contains("topology.conf:3: "), "{said}");
}

/// Named by `--from`, the one gives and the other gets nothing.
#[test]
fn a_host_that_has_it_is_a_source_and_one_that_has_not_is_named() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let bytes = make(home, "disk.raw", 3);
    let (a, b, c) = (
        receiver(home, "a", &[]),
        receiver(home, "b", &[]),
        receiver(home, "c", &[]),
    );
    assert_eq!(
        send(home, &["disk.raw", "--to", &a.address]).status.code(),
        Some(0)
    );
    let from = format!("{},{}", a.address, c.address);
    let output = send(home, &["disk.raw", "--to", &b.address, "--from", &from]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let named = format!("nothing came from {}: ", c.address);
    assert!(
        said.contains(&named) && !said.contains(&a.address),
        "{said}"
    );
    assert!(std::fs::read(b.into.join("disk.raw")).unwrap() == bytes);
    assert!(!c.into.join("disk.raw").exists());
}

#[test]
fn the_simulation_of_parts_of_a_hundred_is_the_same_for_the_same_seed() {
    let home = TempDir::new().unwrap();
    let simulate = |seed: &str| {
        let mut command = command(home.path());
        command.args(["--output", "json", "spread", "simulate", "--hosts", "200"]);
        command.args([
            "--slow", "1%:0.5", "--killed", "1%", "--have", "50", "--seed", seed,
        ]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let one = simulate("7");
    assert_eq!(one, simulate("7"));
    assert_ne!(one, simulate("8"));
    assert_eq!(one["seconds"].as_array().unwrap().len(), 200);
    let (floor, others) = (
        one["floor"].as_f64().unwrap(),
        one["others"].as_f64().unwrap(),
    );
    assert!(
        others >= floor && others < 1.2 * floor,
        "{others} of {floor}"
    );
}

#[test]
fn private_content_needs_a_bundle_on_both_sides() {
    use std::os::unix::fs::PermissionsExt;
    let home = TempDir::new().unwrap();
    let home = home.path();
    let bytes = make(home, "disk.raw", 3);
    let fails = |output: Output, words: &[&str]| {
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "{said}");
        }
    };
    let without = send(home, &["disk.raw", "--to", "127.0.0.1", "--private"]);
    fails(without, &["no bundle", "oscarv spread bundle HOST"]);
    let bundle = |arguments: &[&str]| {
        let made = command(home)
            .args(["spread", "bundle"])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        // Secrets are in files, and nowhere else.
        assert!(!said.contains("PRIVATE") && !made.stdout.windows(7).any(|w| w == b"PRIVATE"));
    };
    bundle(&["127.0.0.1", "node[1-2]", "--into", "bundles"]);
    for file in ["127.0.0.1.pem", "node1.pem", "node2.pem"] {
        let file = std::fs::metadata(home.join("bundles").join(file)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
    let options = ["--private", "--bundle", "bundles/127.0.0.1.pem"];
    let one = receiver(home, "one", &options);
    let sent = send(home, &["disk.raw", "--to", &one.address, "--private"]);
    assert!(sent.status.success(), "{sent:?}");
    assert!(std::fs::read(one.into.join("disk.raw")).unwrap() == bytes);
    let plain = send(
        home,
        &["disk.raw", "--to", &one.address, "--output", "json"],
    );
    let report: Value = serde_json::from_slice(&plain.stdout).unwrap();
    let note = report["hosts"][0]["notes"][0].as_str().unwrap();
    assert!(
        note.contains("only what is sent with --private"),
        "{report}"
    );
    bundle(&["--revoke", "127.0.0.1"]);
    let revoked = send(
        home,
        &[
            "disk.raw",
            "--to",
            &one.address,
            "--private",
            "--output",
            "json",
        ],
    );
    let report: Value = serde_json::from_slice(&revoked.stdout).unwrap();
    assert_eq!(report["hosts"][0]["state"], "refused", "{report}");
    let file = home.join("bundles/node1.pem");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let open = [
        "disk.raw",
        "--to",
        "127.0.0.1",
        "--private",
        "--bundle",
        "bundles/node1.pem",
    ];
    fails(
        send(home, &open),
        &["bundles/node1.pem", "0644", "chmod 600"],
    );
}

/// One got what was new, the other all of it, made a moment later: offered what is new again, it said that it had something
/// newer.
#[test]
fn what_some_have_as_news_and_others_as_a_whole_is_the_same_to_both() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 6);
    let (a, b) = (receiver(home, "a", &[]), receiver(home, "b", &[]));
    let both = format!("{},{}", a.address, b.address);
    assert_eq!(reported(home, &["disk.raw", "--to", &a.address]).0, 0);
    let bytes = change(home, "disk.raw");
    let (code, report, said) = reported(home, &["disk.raw", "--to", &both]);
    assert_eq!(code, 0, "{said}{report:#}");
    let received =
        |report: &Value, host: usize| report["hosts"][host]["received"].as_u64().unwrap();
    assert!(received(&report, 0) < 200 << 10, "{report:#}");
    assert!(received(&report, 1) > 1 << 20, "{report:#}");
    for more in [&[][..], &["--whole"]] {
        let arguments = [&["disk.raw", "--to", &both], more].concat();
        let (code, report, said) = reported(home, &arguments);
        assert_eq!(code, 0, "{more:?} {said}{report:#}");
        assert_eq!(
            (received(&report, 0), received(&report, 1)),
            (0, 0),
            "{report:#}"
        );
    }
    for host in [a, b] {
        assert!(std::fs::read(host.into.join("disk.raw")).unwrap() == bytes);
    }
}

/// Such a host was in no report, and the exit code was 0.
#[test]
fn a_host_that_misses_a_base_where_there_is_none_has_not_got_it() {
    let home = TempDir::new().unwrap();
    make(home.path(), "disk.raw", 1);
    let to = played("\"no-base\"\n");
    let arguments = ["disk.raw", "--to", &to, "--patience", "1s"];
    let (code, report, said) = reported(home.path(), &arguments);
    assert_eq!(code, 1, "{said}{report:#}");
    assert_eq!(report["failed"], serde_json::json!([to]));
    let notes = report["hosts"][0]["notes"].to_string();
    assert!(notes.contains("does not keep to the protocol"), "{notes}");
}

/// Hosts that needed all of it were only sent anything when whoever was to get what is new had it or was given up; and a
/// host that was not there then got nothing.
#[test]
fn nobody_waits_for_those_who_get_what_is_new() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 6);
    let (a, b) = (receiver(home, "a", &[]), receiver(home, "b", &[]));
    assert_eq!(reported(home, &["disk.raw", "--to", &a.address]).0, 0);
    let bytes = change(home, "disk.raw");
    let late = nobody();
    let to = format!("{},{},{late}", a.address, b.address);
    let mut sender = command(home)
        .args(["spread", "send", "disk.raw", "--to", &to])
        .args(["--patience", "60s", "--output", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let mut waits = false;
    while !waits && !b.into.join("disk.raw").exists() {
        waits = begin.elapsed() > Duration::from_secs(30);
        std::thread::sleep(Duration::from_millis(10));
    }
    if waits {
        let _ = sender.kill();
        let _ = sender.wait();
    }
    assert!(!waits, "b waits for the absent one");
    let c = receiver_at(home, "c", &late, &[]);
    let output = sender.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert!(begin.elapsed() < Duration::from_secs(50));
    for host in [a, b, c] {
        assert!(std::fs::read(host.into.join("disk.raw")).unwrap() == bytes);
    }
}

/// Bytes that do not compress.
fn noise(len: usize, seed: u64) -> Vec<u8> {
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
fn image(state: &Path, tag: &str, disk: &[u8]) -> String {
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

/// Each image has another name, and was always sent whole.
#[test]
fn the_next_image_is_made_from_the_one_before_although_its_name_is_another() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let state = home.join("state");
    let one = image(&state, "web", &noise(6 << 20, 1));
    let a = receiver(home, "a", &[]);
    assert_eq!(reported(home, &[&one[..12], "--to", &a.address]).0, 0);
    let mut bytes = noise(6 << 20, 1);
    bytes[3 << 20..][..5000].fill(7);
    let two = image(&state, "web", &bytes);
    let (code, report, said) = reported(home, &["web", "--to", &a.address]);
    assert_eq!(code, 0, "{said}");
    let received = report["hosts"][0]["received"].as_u64().unwrap();
    assert!(received < 200 << 10, "{report:#}");
    let there = a.into.join(format!("{}.raw", &two[..12]));
    assert!(std::fs::read(there).unwrap() == bytes);
}

/// A file with a secret was quoted as a whole, and a path with a slip in it was "not a public key".
#[test]
fn a_secret_key_is_never_shown() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let made = command(home).args(["spread", "key"]).output().unwrap();
    assert!(made.status.success());
    let file = home.join("state/spread/key");
    let text = std::fs::read_to_string(&file).unwrap();
    let secret = text.lines().nth(1).unwrap();
    let path = file.to_str().unwrap();
    for (key, words) in [
        (path, "this is a secret key"),
        (secret, "this is a secret key"),
        ("state/spread/kye", "there is no file state/spread/kye"),
        ("/etc/passwd", "/etc/passwd: this is not a public key"),
    ] {
        let mut receive = command(home);
        receive.args([
            "spread",
            "receive",
            "--listen",
            "127.0.0.1:0",
            "--key",
            key,
            "in",
        ]);
        let output = receive.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(
            !said.contains(&secret[..20]) && !said.contains("root:"),
            "{said}"
        );
    }
}

#[test]
fn an_earlier_version_comes_back_where_that_is_asked_for() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let first = make(home, "v1", 4);
    std::fs::copy(home.join("v1"), home.join("v2")).unwrap();
    let second = change(home, "v2");
    let (a, b) = (receiver(home, "a", &[]), receiver(home, "b", &[]));
    let to = format!("{},{}", a.address, b.address);
    let sent = |file: &str, options: &[&str]| {
        let arguments = [&[file, "--name", "disk", "--to", &to], options].concat();
        reported(home, &arguments)
    };
    assert_eq!(sent("v1", &[]).0, 0);
    assert_eq!(sent("v2", &[]).0, 0);
    let (code, report, _) = sent("v1", &[]);
    let notes = report["hosts"][0]["notes"].to_string();
    assert_eq!(code, 1, "{report:#}");
    assert!(
        notes.contains("is newer") && notes.contains("--anew"),
        "{notes}"
    );
    assert!(std::fs::read(a.into.join("disk")).unwrap() == second);
    // What they have in common is not sent again.
    let (code, report, said) = sent("v1", &["--anew"]);
    assert_eq!(code, 0, "{said}{report:#}");
    for (host, receiver) in [&a, &b].into_iter().enumerate() {
        let received = report["hosts"][host]["received"].as_u64().unwrap();
        assert!(received < 200 << 10, "{report:#}");
        assert!(std::fs::read(receiver.into.join("disk")).unwrap() == first);
    }
    // From now on this is the newest.
    assert_eq!(sent("v1", &[]).0, 0);
    assert_eq!(sent("v2", &[]).0, 1);
}

#[test]
fn refusals_say_who_was_refused_and_what_helps() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 1);
    make(home, "Windows 11.qcow2", 1);
    let other = home.join("other");
    std::fs::create_dir(&other).unwrap();
    // It trusts its own key only.
    let stranger = receiver(&other, "a", &[]);
    let (code, report, _) = reported(home, &["disk.raw", "--to", &stranger.address]);
    assert_eq!(code, 1);
    let notes = report["hosts"][0]["notes"].to_string();
    assert!(
        notes.contains("--key") && notes.contains("oscarv spread key"),
        "{notes}"
    );
    let line = stranger.says("refused");
    assert!(line.contains("refused what 127.0.0.1:"), "{line}");
    let (code, _, said) = reported(home, &["Windows 11.qcow2", "--to", &stranger.address]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("hint: --name"), "{said}");
    // Something of that name that did not come this way.
    let own = receiver(home, "b", &[]);
    std::fs::write(own.into.join("disk.raw"), "mine").unwrap();
    assert_eq!(reported(home, &["disk.raw", "--to", &own.address]).0, 1);
    let line = own.says("refused");
    assert!(line.contains("refused disk.raw from 127.0.0.1:"), "{line}");
}

/// Of each host: begun with a unit, further and further, and ended.
#[test]
fn progress_of_each_host_begins_and_ends() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let bytes = make(home, "disk.raw", 8).len() as u64;
    let (a, gone) = (receiver(home, "a", &["--progress", "json"]), nobody());
    let to = format!("{},{gone}", a.address);
    let arguments = [
        "disk.raw",
        "--to",
        &to,
        "--patience",
        "1s",
        "--progress",
        "json",
    ];
    let (code, report, said) = reported(home, &arguments);
    assert_eq!(code, 1);
    assert_eq!(report["id"].as_str().unwrap().len(), 32, "{report:#}");
    let events: Vec<Value> = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let of = |stage: &str| {
        let its = events.iter().filter(|event| event["stage"] == stage);
        its.cloned().collect::<Vec<_>>()
    };
    let stage = of(&format!("disk.raw to {}", a.address));
    let (first, last) = (stage.first().unwrap(), stage.last().unwrap());
    assert_eq!(
        (&first["event"], &first["unit"]),
        (&"started".into(), &"bytes".into()),
        "{said}"
    );
    assert_eq!(first["total"], bytes);
    assert_eq!(last["event"], "done", "{said}");
    assert_eq!(stage[stage.len() - 2]["done"], bytes, "{said}");
    let begun = |stage: &[Value]| {
        stage
            .iter()
            .filter(|event| event["event"] == "started")
            .count()
    };
    assert_eq!(begun(&stage), 1);
    let all = of("disk.raw");
    assert_eq!(
        (begun(&all), &all.last().unwrap()["event"]),
        (1, &"failed".into()),
        "{said}"
    );
    let absent = of(&format!("disk.raw to {gone}"));
    assert_eq!(absent.last().unwrap()["event"], "failed", "{said}");
    // The receiver tells of its part.
    let told: Value = serde_json::from_str(&a.says("\"done\",")).unwrap();
    assert_eq!(
        (&told["event"], &told["stage"]),
        (&"done".into(), &"disk.raw".into())
    );
    let told: Value = serde_json::from_str(&a.says("\"started\"")).unwrap();
    assert_eq!(
        (&told["unit"], &told["total"]),
        (&"bytes".into(), &bytes.into())
    );
}

/// Names that are no names of nodes of ours were errors.
#[test]
fn hosts_and_switches_are_called_as_the_system_calls_them() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 1);
    std::fs::write(
        home.join("topology.conf"),
        "SwitchName=Leaf_1 Nodes=Node[1-4],gpu_[0-3]\nSwitchName=Spine Switches=Leaf_1\n",
    )
    .unwrap();
    let a = receiver(home, "a", &[]);
    let to = format!("{},Node[1-2].invalid,gpu_[0-1].invalid", a.address);
    let arguments = ["disk.raw", "--to", &to, "--topology", "topology.conf"];
    let (code, report, said) = reported(home, &arguments);
    // One that has no address is a host that has failed, and the others get it.
    assert_eq!(code, 1, "{said}");
    let failed = [
        "Node1.invalid",
        "Node2.invalid",
        "gpu_0.invalid",
        "gpu_1.invalid",
    ];
    assert_eq!(report["ok"], serde_json::json!([a.address]), "{report:#}");
    assert_eq!(report["failed"], serde_json::json!(failed), "{report:#}");
    let note = report["hosts"][1]["notes"][0].as_str().unwrap();
    assert!(note.starts_with("its address is not known: "), "{note}");
    assert!(a.into.join("disk.raw").exists());
}

/// Where a firewall lets through one port.
#[test]
fn the_port_of_a_source_can_be_chosen() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 1);
    let a = receiver(home, "a", &[]);
    let port = nobody();
    let arguments = ["disk.raw", "--to", &a.address, "--listen", &port];
    let (code, report, said) = reported(home, &arguments);
    assert_eq!(code, 0, "{said}{report:#}");
    let taken = [arguments[0], "--to", &a.address, "--listen", &a.address];
    let (code, _, said) = reported(home, &taken);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(&format!("{} cannot be listened on", a.address)),
        "{said}"
    );
}

/// What was a host's newest certificate is so until the file with the next one is there.
#[test]
fn a_bundle_that_cannot_be_saved_revokes_nothing() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let bundle = |into: &str| {
        let mut command = command(home);
        command.args(["spread", "bundle", "node1", "--into", into]);
        command.output().unwrap().status.code()
    };
    let newest = || std::fs::read_to_string(home.join("state/spread/ca/hosts/node1.pem")).unwrap();
    assert_eq!(bundle("bundles"), Some(0));
    let before = newest();
    std::fs::create_dir_all(home.join("full/node1.pem")).unwrap();
    assert_eq!(bundle("full"), Some(1));
    assert_eq!(newest(), before);
    assert_eq!(bundle("bundles"), Some(0));
    assert_ne!(newest(), before);
}

#[test]
fn a_simulation_in_which_nobody_has_it_says_so() {
    let home = TempDir::new().unwrap();
    let mut command = command(home.path());
    command.args(["spread", "simulate", "--hosts", "1", "--killed", "1:1s"]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(said.contains("never") && !said.contains("NaN"), "{said}");
}

/// Who would get what from whom, and nothing is changed, here or there.
#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 6);
    let hosts = ["a", "b", "c"].map(|name| receiver(home, name, &[]));
    let [a, b, c] = &hosts;
    let gone = nobody();
    let to = format!("{},{},{},{gone}", a.address, b.address, c.address);
    let dry = |to: &str| reported(home, &["disk.raw", "--to", to, "--dry-run"]);
    let of = |report: &Value, what: &str| -> Vec<Value> {
        let hosts = report["hosts"].as_array().unwrap().iter();
        hosts.map(|host| host[what].clone()).collect()
    };
    // Nobody has anything: a chain.
    let (code, report, said) = dry(&to);
    assert_eq!(code, 1, "{said}");
    assert_eq!(
        of(&report, "has"),
        ["nothing", "nothing", "nothing", "away"],
        "{report:#}"
    );
    assert_eq!(
        of(&report, "parent"),
        [
            Value::Null,
            a.address.as_str().into(),
            b.address.as_str().into(),
            Value::Null
        ]
    );
    assert_eq!(report["most"], 3 * (6 << 20));
    assert!(!home.join("state/spread/sent").exists());
    // One has it, and then the version before.
    assert_eq!(reported(home, &["disk.raw", "--to", &a.address]).0, 0);
    let (_, report, _) = dry(&to);
    assert_eq!(
        of(&report, "has"),
        ["it", "nothing", "nothing", "away"],
        "{report:#}"
    );
    change(home, "disk.raw");
    let remembered = all_of(&home.join("state"));
    let (_, report, _) = dry(&to);
    assert_eq!(
        of(&report, "has"),
        ["base", "nothing", "nothing", "away"],
        "{report:#}"
    );
    assert_eq!(all_of(&home.join("state")), remembered);
    for host in [b, c] {
        assert!(!host.into.join("disk.raw").exists() && !host.into.join(".spread").exists());
    }
    let reachable = format!("{},{}", a.address, b.address);
    assert_eq!(dry(&reachable).0, 0);
}

#[test]
fn a_source_that_hosts_cannot_reach_says_which_option_helps() {
    let home = TempDir::new().unwrap();
    make(home.path(), "disk.raw", 1);
    let to = played(
        "{\"accept\":{\"frames\":0}}\n\
         {\"lost\":{\"parent\":\"192.0.2.1:9\",\"why\":\"it cannot be reached: timed out\"}}\n\
         {\"failed\":{\"reason\":\"nobody had more of it\"}}\n",
    );
    let (code, _, said) = reported(home.path(), &["disk.raw", "--to", &to]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("--listen ADDRESS:PORT"), "{said}");
}

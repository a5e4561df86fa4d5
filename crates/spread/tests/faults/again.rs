//! A source that is killed before it has made all of it, and started again: hosts keep what they have, and get what they have
//! not.

use super::lab::Process;
use crate::kit::{Place, noise, options};
use serde_json::Value;
use spread::send::{self, State};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const HOSTS: [&str; 2] = ["a", "b"];

/// Of the file, with one that is not full at the end: a source makes 64 with bytes before anybody wants them, and has to be
/// killed before it has made all.
const FRAMES: u64 = 161;

/// Bytes a second, so that there is a middle.
const RATE: u64 = 24 << 20;

/// Bytes of frames that had not come to their end, or waited to be decompressed, when all ended: of these nothing is kept.
const ON_THE_WAY: u64 = 4 << 20;

fn received(hosts: &Value, host: usize) -> u64 {
    hosts[host]["received"].as_u64().unwrap()
}

/// How many frames a host had at the beginning.
fn had(hosts: &Value, host: usize) -> u64 {
    let notes = hosts[host]["notes"].to_string();
    let count = |words: &str| {
        let rest = notes.rsplit_once(words)?.1;
        rest.split(' ').next()?.parse().ok()
    };
    let number = count("joined with ").or_else(|| count("had "));
    number.unwrap_or_else(|| panic!("{hosts:#}"))
}

struct Run {
    lab: Place,
    receivers: Vec<Process>,
}

impl Run {
    fn new() -> Self {
        let lab = Place::new();
        let start = |name| lab.start_receiver(name, "127.0.0.1:0", &[]);
        let receivers = HOSTS.into_iter().map(start).collect();
        Self { lab, receivers }
    }

    fn hosts(&self) -> Vec<(&'static str, SocketAddr)> {
        let addresses = self.receivers.iter().map(|receiver| receiver.address);
        HOSTS.into_iter().zip(addresses).collect()
    }

    /// Sends it until every host has more than a third of it, and kills the source. Returns what is known of the hosts.
    fn half(&self, file: &Path) -> Value {
        let mut source = self.lab.start_source(file, &self.hosts(), RATE);
        let hosts = source.hosts(|hosts| {
            let frames = |host: usize| hosts[host]["frames"].as_u64().unwrap();
            frames(0) > FRAMES / 3 && frames(1) > FRAMES / 3
        });
        source.kill();
        let begun = self.remembered();
        assert_eq!(begun.len(), 1);
        assert!(!begun[0].join("head.json").exists(), "all of it was made");
        hosts
    }

    fn again(&self, file: &Path) -> Value {
        let report = self.lab.start_source(file, &self.hosts(), 0).report();
        for host in 0..HOSTS.len() {
            assert_eq!(report[host]["state"], "done", "{report:#}");
        }
        report
    }

    /// Bytes that all of it is on the network.
    fn all(&self, file: &Path) -> u64 {
        let fresh = self.lab.start_receiver("fresh", "127.0.0.1:0", &[]);
        let hosts = [("fresh", fresh.address)];
        received(&self.lab.start_source(file, &hosts, 0).report(), 0)
    }

    fn remembered(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.lab.path("memory")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_dir()).collect()
    }
}

/// Everything began anew: another id, and so what hosts had was of nothing.
#[test]
fn what_came_from_a_source_that_was_killed_does_not_come_again() {
    let run = Run::new();
    let file = run.lab.file("source", FRAMES as usize - 1);
    let before = run.half(&file);
    // Once more, as soon as both are there again.
    let between = run.half(&file);
    let report = run.again(&file);
    let all = run.all(&file);
    for (host, name) in HOSTS.into_iter().enumerate() {
        assert!(run.lab.has(name, &file), "{name}");
        run.lab.is_tidy(name);
        assert!(had(&report, host) > FRAMES / 3, "{report:#}");
        let came = [&before, &between, &report].map(|hosts| received(hosts, host));
        println!("{name}: {came:?} bytes; all of it has {all}");
        let sum: u64 = came.iter().sum();
        assert!(sum <= all + 2 * ON_THE_WAY, "{came:?} of {all}");
        assert!(came[2] < all / 4 * 3, "{came:?} of {all}");
    }
    // What was begun is what is remembered.
    let remembered = run.remembered();
    assert_eq!(remembered.len(), 1, "{remembered:?}");
    assert!(remembered[0].join("head.json").exists());
    assert!(!remembered[0].join("begun.json").exists());
}

/// Of what a host has, and what it has compressed for others, one bit each is another one.
#[test]
fn what_was_spoilt_between_is_found_and_comes_again() {
    let mut run = Run::new();
    let file = run.lab.file("source", FRAMES as usize - 1);
    run.half(&file);
    let addresses = run.hosts();
    for receiver in &mut run.receivers {
        receiver.kill();
    }
    for what in ["part", "spool"] {
        let path = run.lab.path(&format!("a/.spread/disk.raw.{what}"));
        let mut options = std::fs::File::options();
        let spoilt = options.read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        spoilt.read_exact_at(&mut byte, 5000).unwrap();
        spoilt.write_all_at(&[byte[0] ^ 4], 5000).unwrap();
    }
    for (at, (name, address)) in addresses.into_iter().enumerate() {
        run.receivers[at] = run.lab.start_receiver(name, &address.to_string(), &[]);
    }
    let report = run.again(&file);
    for name in HOSTS {
        assert!(run.lab.has(name, &file), "{name}");
    }
    // All else was good.
    assert!(had(&report, 0) + 2 > FRAMES / 3, "{report:#}");
}

#[test]
fn what_was_begun_of_a_file_that_was_changed_since_is_nothing() {
    let run = Run::new();
    let file = run.lab.file("source", FRAMES as usize - 1);
    run.half(&file);
    let begun = run.remembered();
    let changed = std::fs::File::options().write(true).open(&file).unwrap();
    changed.write_all_at(b"other", 3 << 20).unwrap();
    drop(changed);
    run.again(&file);
    for name in HOSTS {
        assert!(run.lab.has(name, &file), "{name}");
        run.lab.is_tidy(name);
    }
    assert!(!begun[0].exists(), "{begun:?}");
    assert_eq!(run.remembered().len(), 1);
}

#[test]
fn a_tree_goes_on_as_well() {
    let run = Run::new();
    let tree = run.lab.path("tree");
    for number in 0..FRAMES {
        let dir = tree.join(format!("dir{}", number % 4));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(number.to_string()), noise(number, 1_000_000)).unwrap();
    }
    let before = run.half(&tree);
    let report = run.again(&tree);
    let all = run.all(&tree);
    for (host, name) in HOSTS.into_iter().enumerate() {
        for number in 0..FRAMES {
            let file = format!("{name}/disk.raw/dir{}/{number}", number % 4);
            let there = std::fs::read(run.lab.path(&file)).unwrap();
            assert!(there == noise(number, 1_000_000), "{file}");
        }
        let (first, then) = (received(&before, host), received(&report, host));
        println!("{name}: {first} bytes, then {then}; all of it has {all}");
        assert!(
            first + then <= all + ON_THE_WAY,
            "{first} + {then} of {all}"
        );
    }
}

/// A source that ends by itself because nobody is there any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_before_all_hosts_went_is_gone_on_with() {
    let lab = Place::new();
    let file = lab.file("source", 160);
    let mut receiver = lab.start_receiver("a", "127.0.0.1:0", &[]);
    let hosts = [("a", receiver.address)];
    let source = lab.source(&file);
    let id = source.transfer.header.id;
    let mut options = options(&hosts, Some(RATE));
    options.patience = Duration::from_millis(100);
    let sent = send::send(source.transfer.clone(), options, |hosts| {
        if hosts[0].frames > 5 && hosts[0].state == State::Receiving {
            receiver.kill();
        }
    });
    assert_eq!(sent.await.unwrap()[0].state, State::Failed);
    drop(source);
    let source = lab.source(&file);
    assert_eq!(source.transfer.header.id, id);
    let (known, all) = (source.transfer.known().1, source.transfer.header.frames());
    assert!(known > 5 && known < all, "{known} of {all}");
}

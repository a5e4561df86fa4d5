//! `kill -9` of each role in each state, with real processes: source, first, middle and last receiver.
//!
//! Whatever is killed when: who lives gets all of it, nobody has half of it under its name, who comes back goes on where
//! it stood, and a second run brings it to everybody. `SPREAD_SEED` chooses other moments.

use super::lab::Process;
use crate::kit::Place;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const HOSTS: [&str; 3] = ["a", "b", "c"];

/// Frames of the file, about half of which are sent; and bytes a second, so that states last.
const FRAMES: u64 = 25;
const RATE: u64 = 24 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Offering,
    Streaming,
    /// The last host has come late.
    Behind,
    Finishing,
    Done,
}

struct Run {
    lab: Place,
    file: PathBuf,
    receivers: Vec<Option<Process>>,
    addresses: Vec<SocketAddr>,
}

impl Run {
    fn new() -> Self {
        let lab = Place::new();
        let file = lab.file("source", FRAMES as usize - 1);
        Self {
            lab,
            file,
            receivers: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn hosts(&self) -> Vec<(&'static str, SocketAddr)> {
        HOSTS.into_iter().zip(self.addresses.clone()).collect()
    }

    fn start(&mut self, host: usize) {
        let listen = self.addresses[host].to_string();
        self.receivers[host] = Some(self.lab.start_receiver(HOSTS[host], &listen, &[]));
    }

    fn kill(&mut self, host: usize) {
        self.receivers[host].take().unwrap().kill();
    }

    /// Is all of it there, or nothing of that name?
    fn whole_or_nothing(&self) {
        for host in HOSTS {
            let is_there = self.lab.path(host).join("disk.raw").exists();
            assert!(!is_there || self.lab.has(host, &self.file), "{host}");
        }
    }
}

fn frames(hosts: &Value, host: usize) -> u64 {
    hosts[host]["frames"].as_u64().unwrap()
}

fn is_done(hosts: &Value, host: usize) -> bool {
    hosts[host]["state"] == "done"
}

/// Returns when the host's last steps have begun: what proves the file is there, or it has its name.
fn finishing(run: &Run, host: usize) {
    let begin = Instant::now();
    let dir = run.lab.path(HOSTS[host]);
    let begun = [
        dir.join(".spread/disk.raw.manifest.minisig.new"),
        dir.join("disk.raw"),
    ];
    while !begun.iter().any(|file| file.exists()) {
        assert!(begin.elapsed() < crate::kit::LONG);
        std::thread::yield_now();
    }
}

/// One case. `victim`: a host, or none for the source. Returns how many frames the victim had when it came back.
fn case(victim: Option<usize>, state: State, back: bool, pause: Duration) {
    let what = format!("{victim:?} {state:?} back: {back}, after {pause:?}");
    println!("{what}");
    let mut run = Run::new();
    for host in HOSTS {
        let receiver = run.lab.start_receiver(host, "127.0.0.1:0", &[]);
        run.addresses.push(receiver.address);
        run.receivers.push(Some(receiver));
    }
    if state == State::Behind {
        run.kill(2);
    }
    let mut source = run
        .lab
        .start_source_for(&run.file, &run.hosts(), RATE, 2000);
    let seen = victim.unwrap_or(0);
    let mut had = 0;
    match state {
        State::Offering => match victim {
            Some(host) => drop(run.receivers[host].as_mut().unwrap().wait(|l| l == "begun")),
            None => drop(source.hosts(|_| true)),
        },
        State::Streaming => {
            let hosts = source.hosts(|hosts| frames(hosts, seen) > FRAMES / 3);
            had = frames(&hosts, seen);
        }
        State::Behind => {
            source.hosts(|hosts| frames(hosts, 0) > FRAMES / 3);
            run.start(2);
            source.hosts(|hosts| frames(hosts, 2) > 0);
        }
        State::Finishing => finishing(&run, seen),
        State::Done => drop(source.hosts(|hosts| is_done(hosts, seen))),
    }
    std::thread::sleep(pause);
    match victim {
        Some(host) => run.kill(host),
        None => source.kill(),
    }
    run.whole_or_nothing();
    if back && let Some(host) = victim {
        run.start(host);
    }
    if victim.is_some() {
        let report = source.report();
        for (host, name) in HOSTS.into_iter().enumerate() {
            // Who is back may come when all others have it, and nobody waits any more.
            assert!(
                is_done(&report, host) || victim == Some(host),
                "{what}: {report:#}"
            );
            if is_done(&report, host) {
                assert!(run.lab.has(name, &run.file), "{what}: {report:#}");
                if victim == Some(host) && had > 0 {
                    went_on(&report, host, &what);
                }
            }
        }
    }
    run.whole_or_nothing();
    drop(source);
    if let Some(host) = victim.filter(|host| run.receivers[*host].is_none()) {
        run.start(host);
    }
    let report = run.lab.start_source(&run.file, &run.hosts(), 0).report();
    for (host, name) in HOSTS.into_iter().enumerate() {
        assert!(is_done(&report, host), "{what}: {report:#}");
        assert!(run.lab.has(name, &run.file), "{what}: {name}");
        run.lab.is_tidy(name);
    }
    if had > 0
        && !back
        && let Some(host) = victim
    {
        went_on(&report, host, &what);
    }
    // At the source, too, nothing is left of the run that was killed.
    for entry in std::fs::read_dir(run.lab.path("memory")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.ends_with(".half"), "{what}: {name}");
    }
}

/// A host that had something of it did not get that again.
fn went_on(report: &Value, host: usize, what: &str) {
    let notes = report[host]["notes"].to_string();
    let count = |before: &str| {
        let rest = notes.rsplit_once(before)?.1;
        rest.split(' ').next()?.parse::<u64>().ok()
    };
    let had = count("joined with ").max(count("had ")).unwrap_or(0);
    // Of all frames a quarter are zeros, which are known with the first page.
    assert!(had > FRAMES / 4, "{what}: {report:#}");
    let received = report[host]["received"].as_u64().unwrap();
    assert!(received < (FRAMES << 20) / 2, "{what}: {report:#}");
}

/// All states of one role; whether it comes back, and how long after the state was seen it is killed, by the seed.
fn states(victim: Option<usize>) {
    let seed = std::env::var("SPREAD_SEED").map_or(1, |seed| seed.parse().unwrap());
    let states = [
        State::Offering,
        State::Streaming,
        State::Behind,
        State::Finishing,
        State::Done,
    ];
    for (number, state) in (0_u64..).zip(states) {
        let role = victim.map_or(9, |host| host as u64);
        let chance = blake3::hash(format!("{seed} {role} {number}").as_bytes());
        let back = (number + role + seed).is_multiple_of(2);
        let pause = Duration::from_micros(u64::from(chance.as_bytes()[0]) * 40);
        case(victim, state, back, pause);
    }
}

#[test]
fn the_source_is_killed() {
    states(None);
}

#[test]
fn the_first_receiver_is_killed() {
    states(Some(0));
}

#[test]
fn a_receiver_in_the_middle_is_killed() {
    states(Some(1));
}

#[test]
fn the_last_receiver_is_killed() {
    states(Some(2));
}

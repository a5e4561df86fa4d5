//! `kill -9` of the command at any moment, and two commands at once: the next one goes on from there, and nothing is
//! left behind.

#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use api::Name;
use kit::{Home, until};
use std::time::{Duration, Instant};
use v3m_fake::Failure;

const LIMIT: Duration = Duration::from_secs(20);

/// How long a command takes here, so that kills meet all of it.
fn takes(home: &Home, arguments: &[&str]) -> Duration {
    let began = Instant::now();
    home.ok(arguments);
    began.elapsed()
}

/// So many kills, spread over a command's length. Where one comes too late the machine has become faster, and the
/// others come earlier.
struct Moments {
    length: Duration,
    next: u32,
    number: u32,
}

impl Moments {
    fn new(number: u32, length: Duration) -> Self {
        Self {
            length,
            next: 0,
            number,
        }
    }

    fn next(&mut self) -> Option<Duration> {
        let moment = self.length * self.next / self.number;
        self.next += 1;
        (self.next <= self.number).then_some(moment)
    }

    fn met(&mut self, met: bool) {
        if !met {
            self.length = self.length * 4 / 5;
        }
    }
}

#[test]
fn up_killed_at_any_moment() {
    let home = Home::new();
    let file = home.fake("cut", 3);
    let length = takes(&home, &["up", &file]);
    home.ok(&["down", "cut", "--yes"]);
    let (mut cut, mut moments) = (0, Moments::new(24, length));
    while let Some(moment) = moments.next() {
        let met = home.killed(&["up", &file], moment);
        cut += u32::from(met);
        moments.met(met);
        let at = format!("killed after {moment:?}");
        // One half goes on, the other gives up; both from what the kill has left.
        if moments.next.is_multiple_of(2) {
            let answer = home.run(&["up", &file]);
            assert_eq!(answer.code, 0, "{at}: {}", answer.err);
            let status = home.status("cut");
            assert_eq!(status["health"], "ready", "{at}: {status}");
            assert_eq!(status["nodes"].as_array().unwrap().len(), 4, "{at}");
        }
        let answer = home.run(&["down", "cut", "--yes"]);
        assert_eq!(answer.code, 0, "{at}: {}", answer.err);
        home.is_clean("cut");
    }
    assert!(cut >= 12, "only {cut} of 24 kills met the command");
}

#[test]
fn down_killed_at_any_moment() {
    let home = Home::new();
    let file = home.fake("fall", 3);
    home.ok(&["up", &file]);
    let length = takes(&home, &["down", "fall", "--yes"]);
    let mut moments = Moments::new(12, length);
    while let Some(moment) = moments.next() {
        home.ok(&["up", &file]);
        moments.met(home.killed(&["down", "fall", "--yes"], moment));
        let at = format!("killed after {moment:?}");
        if moments.next.is_multiple_of(2) {
            // What is left of it is whatever it is; up makes it whole.
            let answer = home.run(&["up", &file, "--yes"]);
            assert_eq!(answer.code, 0, "{at}: {}", answer.err);
            assert_eq!(home.status("fall")["health"], "ready", "{at}");
        }
        let answer = home.run(&["down", "fall", "--yes"]);
        assert_eq!(answer.code, 0, "{at}: {}", answer.err);
        home.is_clean("fall");
    }
}

/// A change of the file, cut off: a node more, a node less.
#[test]
fn a_change_killed_at_any_moment() {
    let home = Home::new();
    let file = home.fake("turn", 2);
    home.ok(&["up", &file]);
    home.fake("turn", 4);
    let length = takes(&home, &["up", &file]);
    let mut moments = Moments::new(6, length);
    while let Some(moment) = moments.next() {
        for compute in [2, 4] {
            home.fake("turn", compute);
            moments.met(home.killed(&["up", &file, "--yes"], moment));
            let answer = home.run(&["up", &file, "--yes"]);
            assert_eq!(answer.code, 0, "killed after {moment:?}: {}", answer.err);
            let status = home.status("turn");
            assert_eq!(status["health"], "ready", "{status}");
            let nodes = status["nodes"].as_array().unwrap().len();
            assert_eq!(nodes, compute as usize + 1);
            let disks = home.state().join("clusters/turn/disks");
            assert_eq!(std::fs::read_dir(disks).unwrap().count(), nodes);
        }
    }
}

/// The second is told who is at work, and does nothing.
#[test]
fn two_at_work_on_one_cluster() {
    let home = Home::new();
    let file = home.fake("busy", 1);
    let hypervisor = home.hypervisor("busy");
    let node = Name::new("compute1").unwrap();
    hypervisor.fail(&node, Some(Failure::NeverReady)).unwrap();
    let first = home.spawn(&["up", &file, "--time-limit", "1m"]);
    until(LIMIT, "the first is at work", || {
        let status = home.run(&["status", "busy", "--output", "json"]);
        status.out.contains("\"busy\": ").then_some(())?;
        (home.status("busy")["busy"] == first.pid()).then_some(())
    });
    let pid = format!("pid {}", first.pid());
    for arguments in [&["up", &file][..], &["down", "busy", "--yes"]] {
        home.run(arguments)
            .is(5)
            .says(&["another oscarv", &pid, "hint: wait until it has ended"]);
    }
    // Looking is always possible.
    let table = home.ok(&["status", "busy"]).out;
    assert!(
        table.contains("another oscarv") && table.contains(&first.pid().to_string()),
        "{table}"
    );

    first.signal(rustix::process::Signal::INT);
    first.wait().is(130).says(&["goes on from here"]);
    hypervisor.fail(&node, None).unwrap();
    home.ok(&["down", "busy", "--yes"]);
    home.is_clean("busy");
}

/// Without anything that holds one of them up: one does it, and the other does nothing or is told.
#[test]
fn a_race_of_two() {
    let home = Home::new();
    let file = home.fake("race", 3);
    for _ in 0..4 {
        let (first, second) = (home.spawn(&["up", &file]), home.spawn(&["up", &file]));
        let (first, second) = (first.wait(), second.wait());
        let codes = [first.code, second.code];
        assert!(
            codes.contains(&0) && codes.iter().all(|c| [0, 5].contains(c)),
            "{codes:?}\n{}\n{}",
            first.err,
            second.err
        );
        assert_eq!(home.status("race")["health"], "ready");
        let (first, second) = (
            home.spawn(&["down", "race", "--yes"]),
            home.spawn(&["down", "race", "--yes"]),
        );
        let codes = [first.wait().code, second.wait().code];
        assert!(
            codes.contains(&0) && codes.iter().all(|c| [0, 5].contains(c)),
            "{codes:?}"
        );
        home.is_clean("race");
    }
}

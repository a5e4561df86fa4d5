//! `oscarv spread receive` as a process: where it listens, and how it stands back.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::spread::{command, make, receiver, receiver_at, reported};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// On `[::]` it called a source that came by IPv4 `::ffff:127.0.0.1`.
#[test]
fn one_receiver_takes_what_comes_by_ipv4_and_by_ipv6() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    for name in ["a.raw", "b.raw", "c.raw"] {
        make(home, name, 1);
    }
    let a = receiver_at(home, "a", "[::]:0", &[]);
    std::fs::write(a.into.join("a.raw"), "mine").unwrap();
    let port = a.address.rsplit(':').next().unwrap();
    let to = |address: &str| format!("{address}:{port}");
    assert_eq!(reported(home, &["a.raw", "--to", &to("127.0.0.1")]).0, 1);
    let line = a.says("refused");
    assert!(line.contains("refused a.raw from 127.0.0.1:"), "{line}");
    for (name, address) in [("b.raw", "[::1]"), ("c.raw", "[::ffff:127.0.0.1]")] {
        let (code, report, said) = reported(home, &[name, "--to", &to(address)]);
        assert_eq!(code, 0, "{report} {said}");
        assert!(a.into.join(name).exists());
    }
}

/// Scheduling policy of a process's threads, and their I/O class, by name.
fn priorities(process: &str) -> Vec<(String, String, String)> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |thread: PathBuf| {
        let name = std::fs::read_to_string(thread.join("comm")).ok()?;
        let stat = std::fs::read_to_string(thread.join("stat")).ok()?;
        // proc(5): the 41st word, of which the name is the second and may have spaces.
        let policy = stat.rsplit_once(") ")?.1.split(' ').nth(38)?.to_owned();
        let id = thread.file_name()?.to_owned();
        let class = Command::new("ionice").arg("-p").arg(id).output().unwrap();
        let class = String::from_utf8(class.stdout).unwrap().trim().to_owned();
        Some((name.trim().to_owned(), policy, class))
    };
    threads
        .filter_map(|thread| of(thread.unwrap().path()))
        .collect()
}

/// `SCHED_IDLE` and I/O class idle, in each thread that is there while something comes; without the option none has it.
#[test]
fn a_receiver_that_stands_back_does_so_in_every_thread() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 4);
    for (name, options) in [("a", vec!["--idle"]), ("b", vec![])] {
        let receiver = receiver(home, name, &options);
        let mut sends = command(home)
            .args(["spread", "send", "disk.raw", "--limit", "1M", "--to"])
            .arg(&receiver.address)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let id = receiver.process.id().to_string();
        let begin = Instant::now();
        let all = loop {
            let all = priorities(&id);
            if all.iter().any(|(thread, ..)| thread == "flow") {
                break all;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "{all:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(all.len() >= 4, "{all:?}");
        let idle =
            |(_, policy, class): &&(String, String, String)| policy == "5" && class == "idle";
        let count = all.iter().filter(idle).count();
        assert_eq!(
            count,
            if options.is_empty() { 0 } else { all.len() },
            "{all:?}"
        );
        assert!(sends.wait().unwrap().success());
    }
}

/// It was killed by it.
#[test]
fn a_receiver_that_is_told_to_end_ends_in_order() {
    let home = TempDir::new().unwrap();
    let mut receiver = receiver(home.path(), "a", &[]);
    let id = rustix::process::Pid::from_child(&receiver.process);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(receiver.process.wait().unwrap().code(), Some(0));
}

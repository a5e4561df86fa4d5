//! What V3M's start costs over the same QEMU by hand: `cargo bench -p v3m-qemu --bench start`.
//!
//! Pairs of runs, each of a boot sector that writes to the serial port: once by V3M (`start`, which returns when QEMU
//! says that the guest runs), once the argument vector of the VM that V3M has just run, started by hand. Both are
//! timed until the guest's first byte is in the console's log, which is what both are for; V3M's call is timed too.
//! Then: what a list of 100 VMs costs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

#[path = "../tests/guests/mod.rs"]
mod guests;

use guests::{Guest, Place, length};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use v3m::Driver;

const PAIRS: usize = 40;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let place = Place::new();
    let vm = place.vm("a", Guest::Dots);
    let driver = place.driver();
    runtime.block_on(driver.define(&vm)).unwrap();
    let home = place.vms().join("a");
    let log = home.join("console.log");
    let hand = place.dir.path().join("hand");
    fs::create_dir(&hand).unwrap();

    let (mut by_v3m, mut call, mut by_hand, mut extra) = (vec![], vec![], vec![], vec![]);
    let mut command_line = Vec::new();
    for pair in 0..=PAIRS {
        let mut plain = None;
        // Who is first may find the caches colder: they take turns.
        if pair % 2 == 1 {
            plain = Some(start_by_hand(&command_line, &hand));
        }
        let before = length(&log);
        let begin = Instant::now();
        runtime.block_on(driver.start(&vm.name)).unwrap();
        let called = begin.elapsed();
        printed(&log, before);
        let v3m = begin.elapsed();
        let pid = daemon::running(&home.join("qemu.lock")).unwrap().unwrap();
        command_line = argv(pid);
        runtime
            .block_on(driver.stop(&vm.name, Duration::ZERO))
            .unwrap();
        let plain = plain.unwrap_or_else(|| start_by_hand(&command_line, &hand));
        if pair > 0 {
            by_v3m.push(ms(v3m));
            call.push(ms(called));
            by_hand.push(ms(plain));
            extra.push(ms(v3m) - ms(plain));
        }
    }
    let (v3m, plain) = (median(&mut by_v3m), median(&mut by_hand));
    println!("{PAIRS} pairs, medians, until the guest's first byte:");
    println!("  by hand      {plain:7.1} ms");
    println!(
        "  V3M          {v3m:7.1} ms   (the call itself returns after {:.1} ms)",
        median(&mut call)
    );
    let extra = median(&mut extra);
    println!(
        "  difference   {extra:7.1} ms   ({:+.1} %)",
        100.0 * extra / plain
    );

    for number in 0..100 {
        let vm = place.vm(&format!("n{number}"), Guest::Dots);
        runtime.block_on(driver.define(&vm)).unwrap();
        // As after a start: the list reads all there is to read.
        for file in ["run.json", "journal.out", "qemu.lock", "qemu.log"] {
            fs::copy(home.join(file), place.vms().join(&vm.name).join(file)).unwrap();
        }
    }
    let mut lists: Vec<f64> = (0..20)
        .map(|_| {
            let begin = Instant::now();
            runtime.block_on(driver.list()).unwrap();
            ms(begin.elapsed())
        })
        .collect();
    println!("list of 101 VMs {:5.1} ms", median(&mut lists));
}

/// The same command line, with what it expects, and no more.
fn start_by_hand(argv: &[OsString], dir: &Path) -> Duration {
    for file in ["journal.in", "console.log", "qmp.sock", "console.sock"] {
        let _ = fs::remove_file(dir.join(file));
    }
    let log = dir.join("console.log");
    let begin = Instant::now();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("journal.in"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    fs::write(dir.join("journal.out"), "").unwrap();
    let sockets: [OwnedFd; 2] =
        ["qmp.sock", "console.sock"].map(|name| UnixListener::bind(dir.join(name)).unwrap().into());
    let wanted = [
        number_of(argv, "socket,id=qmp,fd="),
        number_of(argv, "socket,id=console,fd="),
    ];
    let pairs = [
        (sockets[0].as_raw_fd(), wanted[0]),
        (sockets[1].as_raw_fd(), wanted[1]),
    ];
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: only setsid and dup2 between fork and exec; first out of each other's way, then to where they belong.
    unsafe {
        command.pre_exec(move || {
            // A session is a scheduling group of its own; V3M's VMs have one, so both have.
            libc::setsid();
            for (index, (have, _)) in pairs.iter().enumerate() {
                if libc::dup2(*have, 200 + index as libc::c_int) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            for (index, (_, want)) in pairs.iter().enumerate() {
                if libc::dup2(200 + index as libc::c_int, *want) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    printed(&log, 0);
    let time = begin.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    time
}

/// Waits until the guest has printed: looks every 0.2 ms, for both alike.
fn printed(log: &Path, before: u64) {
    let end = Instant::now() + Duration::from_secs(30);
    while length(log) <= before {
        assert!(Instant::now() < end, "the guest says nothing");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn argv(pid: u32) -> Vec<OsString> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    bytes
        .split(|b| *b == 0)
        .filter(|part| !part.is_empty())
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

fn number_of(argv: &[OsString], prefix: &str) -> RawFd {
    let argument = argv
        .iter()
        .filter_map(|a| a.to_str())
        .find(|a| a.starts_with(prefix))
        .unwrap();
    argument[prefix.len()..]
        .split(',')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

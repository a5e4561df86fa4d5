//! The life of a VM: it runs, waits, goes on, ends in each of the ways there are, and is found by who comes later.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod guests;

use guests::{Guest, Place, eventually, length};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use v3m::{Driver, Error, State};
use v3m_qemu::{Options, QemuDriver};

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn a_paused_guest_stands_still() {
    let place = Place::new();
    let driver = place.driver();
    let vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let log = driver.console(&vm.name).await.unwrap().log;
    let counted = || {
        fs::read(&log)
            .unwrap()
            .iter()
            .filter(|b| **b == b'.')
            .count()
    };
    eventually("the guest counts", || counted() > 5);
    driver.pause(&vm.name).await.unwrap();
    let stood = counted();
    // What is to be seen is that nothing happens while another such guest counts on.
    let other = place.vm("b", Guest::Dots);
    driver.define(&other).await.unwrap();
    driver.start(&other.name).await.unwrap();
    let clock = driver.console(&other.name).await.unwrap().log;
    eventually("the other guest counts", || {
        fs::read(&clock)
            .unwrap()
            .iter()
            .filter(|b| **b == b'.')
            .count()
            > 8
    });
    driver.stop(&other.name, NOW).await.unwrap();
    assert_eq!(counted(), stood);
    driver.resume(&vm.name).await.unwrap();
    eventually("the guest counts on", || counted() > stood + 3);
    driver.stop(&vm.name, NOW).await.unwrap();
    // What was printed stays, and the next run is added to it.
    let before = counted();
    driver.start(&vm.name).await.unwrap();
    eventually("it counts again", || counted() > before);
    driver.stop(&vm.name, NOW).await.unwrap();
    driver.undefine(&vm.name).await.unwrap();
    assert!(!place.vms().join("a").exists());
}

#[tokio::test]
async fn a_guest_that_powers_off_is_stopped_and_one_that_is_killed_has_crashed() {
    let place = Place::new();
    let driver = place.driver();
    let vm = place.vm("a", Guest::Off);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let lock = place.vms().join("a/qemu.lock");
    assert!(daemon::wait(&lock, Duration::from_secs(30)).unwrap());
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!((status.state, status.pid), (State::Stopped, None));

    let vm = place.vm("b", Guest::Dots);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    daemon::kill(&place.vms().join("b/qemu.lock"), Duration::from_secs(10)).unwrap();
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!(status.state, State::Crashed);
    assert!(status.reason.unwrap().contains("was killed"));
    driver.start(&vm.name).await.unwrap();
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Running);
}

#[tokio::test]
async fn a_guest_that_ignores_its_power_button_is_ended_after_the_grace() {
    let place = Place::new();
    let driver = place.driver();
    let vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let begin = Instant::now();
    let grace = Duration::from_millis(300);
    driver.stop(&vm.name, grace).await.unwrap();
    assert!(begin.elapsed() >= grace && begin.elapsed() < Duration::from_secs(5));
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Stopped);
}

#[tokio::test]
async fn a_qemu_that_does_not_listen_is_stopped_all_the_same() {
    let place = Place::new();
    let driver = place.driver();
    let vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let lock = place.vms().join("a/qemu.lock");
    assert!(daemon::signal(&lock, rustix::process::Signal::STOP).unwrap());
    // Neither needs an answer of QEMU.
    assert_eq!(driver.list().await.unwrap()[0].state, State::Running);
    driver
        .stop(&vm.name, Duration::from_millis(100))
        .await
        .unwrap();
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Stopped);
}

#[tokio::test]
async fn a_guest_that_qemu_stops_by_itself_has_crashed_and_starts_anew() {
    let place = Place::new();
    let driver = place.driver();
    let vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let old = driver.status(&vm.name).await.unwrap().pid;
    // As after an internal error: stopped, and not by the driver.
    let stream = v3m::connect(&place.vms().join("a/qmp.sock")).unwrap();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::UnixStream::from_std(stream).unwrap();
    let mut qmp = v3m_qemu::qmp::Qmp::new(stream, Duration::from_secs(10))
        .await
        .unwrap();
    qmp.execute("stop", serde_json::json!({})).await.unwrap();
    assert_eq!(qmp.event().await.unwrap().name, "STOP");
    drop(qmp);
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!((status.state, status.pid), (State::Crashed, old));
    assert!(driver.resume(&vm.name).await.is_err());
    driver.start(&vm.name).await.unwrap();
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!(status.state, State::Running);
    assert_ne!(status.pid, old);
    driver.stop(&vm.name, NOW).await.unwrap();
}

#[tokio::test]
async fn a_qemu_that_dies_while_starting_says_why() {
    let place = Place::new();
    let driver = place.driver();
    let mut vm = place.vm("a", Guest::Dots);
    vm.disks[0].path = "/nonexistent/disk,with=comma.raw".into();
    driver.define(&vm).await.unwrap();
    let error = driver.start(&vm.name).await.unwrap_err();
    assert!(
        matches!(&error, Error::StartFailed { reason, .. } if reason.contains("/nonexistent/disk,with=comma.raw")),
        "{error}"
    );
    // Seen before QEMU was started.
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!(status.state, State::Defined);
    driver.undefine(&vm.name).await.unwrap();

    let mut vm = place.vm("a", Guest::Dots);
    vm.extra = vec!["-device".to_owned(), "perpetuum-mobile".to_owned()];
    driver.define(&vm).await.unwrap();
    let error = driver.start(&vm.name).await.unwrap_err();
    assert!(
        matches!(&error, Error::StartFailed { reason, .. } if reason.contains("perpetuum-mobile")),
        "{error}"
    );
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!(status.state, State::Crashed);
    assert!(status.reason.unwrap().contains("perpetuum-mobile"));
    driver.undefine(&vm.name).await.unwrap();

    let driver = place.driver().program(Path::new("/nonexistent/qemu"));
    let vm = place.vm("b", Guest::Dots);
    driver.define(&vm).await.unwrap();
    let error = driver.start(&vm.name).await.unwrap_err().to_string();
    assert!(error.contains("cannot run /nonexistent/qemu"), "{error}");
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Defined);
}

#[tokio::test]
async fn files_are_private_and_paths_may_be_long() {
    let place = Place::new();
    let long = place.dir.path().join("l".repeat(100));
    let driver = QemuDriver::open(&long, Options::default()).unwrap();
    let vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let console = driver.console(&vm.name).await.unwrap();
    let mut stream = console.connect().unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    stream.write_all(b"x").unwrap();
    for entry in fs::read_dir(long.join("a")).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
    let mode = fs::metadata(&long).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    driver.stop(&vm.name, NOW).await.unwrap();
    driver.undefine(&vm.name).await.unwrap();
    assert!(!long.join("a").exists());
}

/// As root only: QEMU is another user, without any right, and what it may not change stays root's.
#[tokio::test]
async fn qemu_lets_go_of_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (uid, gid) = (65534, 65534);
    let place = Place::new();
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let owner = Some((uid, gid));
    let driver = QemuDriver::open(&place.vms(), Options { owner }).unwrap();
    fs::set_permissions(place.vms(), fs::Permissions::from_mode(0o711)).unwrap();
    let mut vm = place.vm("a", Guest::Dots);
    fs::set_permissions(&vm.disks[0].path, fs::Permissions::from_mode(0o600)).unwrap();
    vm.disks[0].read_only = false;
    vm.channels.push(profile::Channel {
        name: "org.oscarv.events".to_owned(),
        log: place.vms().join("a/events.log"),
    });
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let pid = driver.status(&vm.name).await.unwrap().pid.unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |key: &str| {
        let line = text.lines().find(|l| l.starts_with(key)).unwrap();
        line.split_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), ["65534"; 4]);
    assert_eq!(field("Gid:"), ["65534"; 4]);
    assert!(field("Groups:").is_empty());
    assert_eq!(field("CapEff:"), ["0000000000000000"]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    assert_eq!(field("Seccomp:"), ["2"]);
    let dir = place.vms().join("a");
    assert_eq!(fs::metadata(&dir).unwrap().uid(), 0);
    assert_eq!(fs::metadata(dir.join("vm.json")).unwrap().uid(), 0);
    driver.pause(&vm.name).await.unwrap();
    driver.stop(&vm.name, NOW).await.unwrap();
    driver.undefine(&vm.name).await.unwrap();
    assert!(dir.join("events.log").exists(), "the log is its reader's");
}

/// Not a test of its own: what `killed_at_any_moment` runs and kills.
#[tokio::test]
async fn caller() {
    let Some(dir) = std::env::var_os("V3M_TEST_CALLER") else {
        return;
    };
    let driver = QemuDriver::open(Path::new(&dir), Options::default()).unwrap();
    driver.start(&api::Name::new("a").unwrap()).await.unwrap();
}

#[tokio::test]
async fn killed_at_any_moment() {
    let place = Place::new();
    let vm = place.vm("a", Guest::Dots);
    let console = place.vms().join("a/console.log");
    place.driver().define(&vm).await.unwrap();
    let call = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "caller"])
            .env("V3M_TEST_CALLER", place.vms())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let begin = Instant::now();
    assert!(call().wait().unwrap().success());
    let whole = begin.elapsed();
    place.driver().stop(&vm.name, NOW).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    // From its first moment to a little after its last.
    for step in 0..24 {
        let mut child = call();
        std::thread::sleep(whole * step / 20);
        child.kill().unwrap();
        child.wait().unwrap();
        let driver = place.driver();
        let status = driver.status(&vm.name).await.unwrap();
        seen.insert(status.state.to_string());
        assert_ne!(status.state, State::Unknown);
        driver.start(&vm.name).await.unwrap();
        let now = driver.status(&vm.name).await.unwrap();
        assert_eq!(now.state, State::Running);
        if status.pid.is_some() {
            assert_eq!(now.pid, status.pid, "found, not started again");
        }
        let before = length(&console);
        eventually("the guest counts", || length(&console) > before);
        driver.stop(&vm.name, NOW).await.unwrap();
    }
    // The kills came early and late.
    assert!(seen.len() >= 2, "{seen:?}");
}

#[tokio::test]
async fn two_starts_at_once_are_one() {
    let place = Place::new();
    let vm = place.vm("a", Guest::Dots);
    let (one, two) = (place.driver(), place.driver());
    one.define(&vm).await.unwrap();
    let (a, b) = tokio::join!(one.start(&vm.name), two.start(&vm.name));
    a.unwrap();
    b.unwrap();
    let (a, b) = (
        one.status(&vm.name).await.unwrap(),
        two.status(&vm.name).await.unwrap(),
    );
    assert_eq!(a, b);
    one.stop(&vm.name, NOW).await.unwrap();
}

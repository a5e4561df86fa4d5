//! Snapshots, stats and reboots of real VMs; and capabilities that say what there is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod guests;

use api::{MiB, Name};
use guests::{Guest, Place, eventually, length};
use profile::{Disk, DiskFormat, Vm};
use std::io::Write as _;
use std::time::Duration;
use v3m::{Driver, Error, Snapshots, State};
use v3m_qemu::{QemuDriver, disk};

const NOW: Duration = Duration::ZERO;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The guest on a read-only disk, and two qcow2 disks beside it.
fn with_disks(place: &Place) -> Vm {
    let mut vm = place.vm("a", Guest::Dots);
    for file in ["one.qcow2", "two.qcow2"] {
        let path = place.dir.path().join(file);
        disk::create(&path, DiskFormat::Qcow2, MiB(64)).unwrap();
        vm.disks.push(Disk::new(path, DiskFormat::Qcow2, false));
    }
    vm
}

async fn snapshots(driver: &QemuDriver, vm: &Vm) -> Vec<(String, bool)> {
    let list = Snapshots::list(driver, &vm.name).await.unwrap();
    list.into_iter().map(|s| (s.name, s.memory)).collect()
}

#[test]
fn capabilities_agree_with_what_is_handed_out() {
    let place = Place::new();
    let driver = place.driver();
    for capabilities in driver.capabilities() {
        assert_eq!(capabilities.snapshot, driver.snapshots().is_some());
        assert_eq!(capabilities.stats, driver.stats().is_some());
    }
}

#[tokio::test]
async fn snapshots_of_a_vm_that_stands_and_one_that_runs() {
    let place = Place::new();
    let driver = place.driver();
    let vm = with_disks(&place);
    driver.define(&vm).await.unwrap();
    let snapshot = driver.snapshots().unwrap();
    snapshot.create(&vm.name, &name("cold")).await.unwrap();
    assert!(snapshot.create(&vm.name, &name("cold")).await.is_err());
    driver.start(&vm.name).await.unwrap();
    let log = driver.console(&vm.name).await.unwrap().log;
    eventually("the guest speaks", || length(&log) > 3);
    let pid = driver.status(&vm.name).await.unwrap().pid;

    snapshot.create(&vm.name, &name("warm")).await.unwrap();
    assert!(snapshot.create(&vm.name, &name("warm")).await.is_err());
    let expected = [("cold".to_owned(), false), ("warm".to_owned(), true)];
    assert_eq!(snapshots(&driver, &vm).await, expected);
    let after = |what: &str| {
        let before = length(&log);
        eventually(what, || length(&log) > before);
    };
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Running);
    after("it goes on after the snapshot");
    snapshot.apply(&vm.name, &name("warm")).await.unwrap();
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Running);
    after("it goes on from the snapshot");
    let error = snapshot.apply(&vm.name, &name("cold")).await.unwrap_err();
    assert!(error.to_string().contains("has no memory"), "{error}");
    assert!(snapshot.apply(&vm.name, &name("none")).await.is_err());
    after("what fails leaves it running");
    // Paused before, paused after.
    driver.pause(&vm.name).await.unwrap();
    snapshot.apply(&vm.name, &name("warm")).await.unwrap();
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Paused);
    driver.resume(&vm.name).await.unwrap();
    after("it resumes");
    assert_eq!(driver.status(&vm.name).await.unwrap().pid, pid);
    snapshot.delete(&vm.name, &name("warm")).await.unwrap();
    assert!(snapshot.delete(&vm.name, &name("warm")).await.is_err());
    driver.stop(&vm.name, NOW).await.unwrap();

    assert_eq!(snapshots(&driver, &vm).await, [("cold".to_owned(), false)]);
    snapshot.apply(&vm.name, &name("cold")).await.unwrap();
    snapshot.delete(&vm.name, &name("cold")).await.unwrap();
    for disk in &vm.disks[1..] {
        v3m_qemu::disk::check(&disk.path, DiskFormat::Qcow2).unwrap();
    }
    assert_eq!(snapshots(&driver, &vm).await, []);
}

/// A killed command's job goes on in QEMU, which holds the guest for it: that is no pause, and the next command's guest
/// runs.
#[tokio::test]
async fn a_guest_held_by_the_job_of_a_killed_command_runs_after_the_next() {
    let place = Place::new();
    let driver = place.driver();
    let vm = with_disks(&place);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let snapshot = driver.snapshots().unwrap();
    for round in 0..5 {
        // What the killed command had done: its mark, and its question.
        std::fs::write(place.vms().join("a/paused"), "").unwrap();
        let mut stream = v3m::connect(&place.vms().join("a/qmp.sock")).unwrap();
        let save = format!(
            "{{\"execute\":\"qmp_capabilities\"}}\n{{\"execute\":\"snapshot-save\",\"arguments\":{{\"job-id\":\
             \"oscarv-1-snapshot-save\",\"tag\":\"killed{round}\",\"devices\":[\"disk1\",\"disk2\"],\"vmstate\":\
             \"disk1\"}}}}\n"
        );
        stream.write_all(save.as_bytes()).unwrap();
        let journal = place.vms().join("a/journal.out");
        eventually("QEMU holds the guest", || {
            let said = std::fs::read_to_string(&journal).unwrap();
            said.matches("\"STOP\"").count() > 2 * round
        });
        drop(stream);
        let next = name(&format!("next{round}"));
        snapshot.create(&vm.name, &next).await.unwrap();
        let state = driver.status(&vm.name).await.unwrap().state;
        assert_eq!(state, State::Running, "round {round}");
    }
    assert_eq!(snapshots(&driver, &vm).await.len(), 10);
}

#[tokio::test]
async fn vms_that_cannot_have_snapshots() {
    let place = Place::new();
    let driver = place.driver();
    let mut vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    let snapshot = driver.snapshots().unwrap();
    let error = snapshot.create(&vm.name, &name("s")).await.unwrap_err();
    assert!(error.to_string().contains("no writable disk"), "{error}");
    driver.undefine(&vm.name).await.unwrap();
    let error = snapshot.create(&vm.name, &name("s")).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchVm(_)));
    vm.disks[0].read_only = false;
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let error = snapshot.create(&vm.name, &name("s")).await.unwrap_err();
    assert!(error.to_string().contains("is not qcow2"), "{error}");
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Running);
}

#[tokio::test]
async fn usage_is_of_the_live() {
    let place = Place::new();
    let driver = place.driver();
    let vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    driver.define(&place.vm("b", Guest::Dots)).await.unwrap();
    let stats = driver.stats().unwrap();
    assert_eq!(stats.usage().await.unwrap(), []);
    driver.start(&vm.name).await.unwrap();
    let log = driver.console(&vm.name).await.unwrap().log;
    eventually("the guest speaks", || length(&log) > 3);
    let usage = stats.usage().await.unwrap();
    assert_eq!(usage.len(), 1);
    let one = &usage[0];
    assert_eq!(Some(one.pid), driver.status(&vm.name).await.unwrap().pid);
    assert!(
        one.memory > 1 << 20 && one.memory_configured == 16 << 20,
        "{one:?}"
    );
    assert!(
        one.cpu > Duration::ZERO && one.uptime > Duration::ZERO,
        "{one:?}"
    );
    assert!(one.uptime < Duration::from_secs(600), "{one:?}");
    assert!(
        one.disk_read.is_some() && one.net_sent == Some(0),
        "{one:?}"
    );
    driver.stop(&vm.name, NOW).await.unwrap();
    assert_eq!(stats.usage().await.unwrap(), []);
}

#[tokio::test]
async fn a_reboot_is_a_reset_of_the_same_process_or_a_new_start() {
    let place = Place::new();
    let driver = place.driver();
    let vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let pid = driver.status(&vm.name).await.unwrap().pid;
    let log = driver.console(&vm.name).await.unwrap().log;
    // SeaBIOS hangs when it is reset in its own first 50 ms, with QEMU by hand too.
    eventually("it speaks", || length(&log) > 3);
    for grace in [NOW, Duration::from_millis(100)] {
        driver.reboot(&vm.name, grace).await.unwrap();
        let before = length(&log);
        eventually("it speaks again", || length(&log) > before);
        // This guest does not know its power button, so it is reset.
        assert_eq!(driver.status(&vm.name).await.unwrap().pid, pid);
    }
    driver.pause(&vm.name).await.unwrap();
    let error = driver.reboot(&vm.name, NOW).await.unwrap_err();
    assert!(matches!(error, Error::WrongState { .. }), "{error}");
    driver.stop(&vm.name, NOW).await.unwrap();
}

//! Disks that are full, directories that nobody may write to, or that are gone.

use super::lab::{Process, may_not};
use crate::kit::Place;
use serde_json::Value;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};

/// An ordinary user, who owns nothing.
const NOBODY: u32 = 65534;

fn hosts<'a>(names: &[&'a str], receivers: &[Process]) -> Vec<(&'a str, SocketAddr)> {
    let addresses = receivers.iter().map(|receiver| receiver.address);
    names.iter().copied().zip(addresses).collect()
}

fn is_done(report: &Value, host: usize) {
    assert_eq!(report[host]["state"], "done", "{report:#}");
}

fn has_failed(report: &Value, host: usize, words: &[&str]) {
    assert_ne!(report[host]["state"], "done", "{report:#}");
    let notes = report[host]["notes"].to_string();
    for words in words {
        assert!(notes.contains(words), "{words}: {report:#}");
    }
}

/// Three hosts in a row; the second one has a disk of so many MiB. Whoever is behind it has it from another one. `limit`:
/// MiB a second.
fn full(mib: u32, kind: impl Fn(usize) -> usize, limit: u64) {
    let lab = Place::new();
    let file = lab.file_of("source", 24, kind);
    let small = [("SPREAD_MOUNT", format!("size={mib}m,mode=755"))];
    let names = ["a", "b", "c"];
    let mut receivers = Vec::new();
    for name in names {
        let settings: &[_] = if name == "b" { &small } else { &[] };
        receivers.push(lab.start_receiver(name, "127.0.0.1:0", settings));
    }
    let report = lab
        .start_source(&file, &hosts(&names, &receivers), limit << 20)
        .report();
    is_done(&report, 0);
    is_done(&report, 2);
    assert!(lab.has("a", &file) && lab.has("c", &file));
    let full = format!("{} is full: disk.raw needs up to ", lab.path("b").display());
    has_failed(&report, 1, &[&full, "bytes more"]);
    // As its process sees it.
    let inside = format!("/proc/{}/root", receivers[1].child.id());
    let there = lab.path("b/disk.raw");
    let there = std::path::Path::new(&inside).join(there.strip_prefix("/").unwrap());
    assert!(there.parent().unwrap().join(".spread").exists());
    assert!(!there.exists());
}

#[test]
fn a_full_disk_is_that_hosts_trouble_alone() {
    if may_not("a disk that is full") {
        return;
    }
    full(12, |block| block >> 8 & 3, 40);
}

/// There is room for the file, but not for its compressed frames besides, which children may want.
#[test]
fn no_room_for_the_spool() {
    if may_not("a disk without room for a spool") {
        return;
    }
    // So slowly that compressing pays, whatever else this machine does.
    full(26, |_| 2, 10);
}

#[test]
fn a_directory_that_may_not_be_written_to() {
    if may_not("a directory of another user") {
        return;
    }
    let lab = Place::new();
    let file = lab.file("source", 3);
    // Its owner's files are in a directory that others may come through.
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(lab.path(""), open.clone()).unwrap();
    std::fs::create_dir(lab.path("a")).unwrap();
    std::fs::set_permissions(lab.path("a"), open).unwrap();
    let user = [("SPREAD_USER", NOBODY.to_string())];
    let receivers = [lab.start_receiver("a", "127.0.0.1:0", &user)];
    let names = hosts(&["a"], &receivers);
    let report = lab.start_source(&file, &names, 0).report();
    assert_eq!(report[0]["state"], "refused");
    let directory = lab.path("a").display().to_string();
    has_failed(&report, 0, &[&directory, "cannot be written to", "denied"]);
    // In the middle it is taken away from it: at the end there is no name to be given.
    chown(lab.path("a"), Some(NOBODY), None).unwrap();
    let slow = lab.file("source", 10);
    let mut source = lab.start_source(&slow, &names, 4 << 20);
    source.hosts(|hosts| hosts[0]["frames"].as_u64().unwrap() > 4);
    chown(lab.path("a"), Some(0), None).unwrap();
    let report = source.report();
    has_failed(&report, 0, &["could not be given its name", &directory]);
    assert!(!lab.path("a/disk.raw").exists());
    // Put right, it goes on.
    chown(lab.path("a"), Some(NOBODY), None).unwrap();
    let report = lab.start_source(&slow, &names, 0).report();
    is_done(&report, 0);
    assert!(lab.has("a", &slow));
}

#[test]
fn a_directory_that_is_gone_is_said_and_made_again() {
    let lab = Place::new();
    let file = lab.file("source", 10);
    let receivers = [lab.start_receiver("a", "127.0.0.1:0", &[])];
    let names = hosts(&["a"], &receivers);
    let mut source = lab.start_source(&file, &names, 4 << 20);
    source.hosts(|hosts| hosts[0]["frames"].as_u64().unwrap() > 4);
    std::fs::rename(lab.path("a"), lab.path("away")).unwrap();
    let report = source.report();
    let directory = lab.path("a").display().to_string();
    has_failed(&report, 0, &[&directory, "No such file"]);
    let report = lab.start_source(&file, &names, 0).report();
    is_done(&report, 0);
    assert!(lab.has("a", &file));
    lab.is_tidy("a");
}

#[test]
fn a_directory_of_the_files_name_is_left_alone() {
    let lab = Place::new();
    let file = lab.file("source", 3);
    std::fs::create_dir_all(lab.path("a/disk.raw/mine")).unwrap();
    let receivers = [lab.start_receiver("a", "127.0.0.1:0", &[])];
    let report = lab
        .start_source(&file, &hosts(&["a"], &receivers), 0)
        .report();
    has_failed(&report, 0, &["is a directory"]);
    assert!(lab.path("a/disk.raw/mine").exists());
}

/// Two processes that receive into one directory.
#[test]
fn a_directory_that_another_receiver_has() {
    let lab = Place::new();
    let file = lab.file("source", 10);
    let receivers = [
        lab.start_receiver("a", "127.0.0.1:0", &[]),
        lab.start_receiver("a", "127.0.0.1:0", &[]),
    ];
    let report = lab
        .start_source(&file, &hosts(&["one", "two"], &receivers), 8 << 20)
        .report();
    // Whoever came second finds it there, as soon as the first one has finished.
    is_done(&report, 0);
    is_done(&report, 1);
    let received = |host: usize| report[host]["received"].as_u64().unwrap();
    assert!(received(0) == 0 || received(1) == 0, "{report:#}");
    assert!(lab.has("a", &file));
    lab.is_tidy("a");
}

/// Where a source keeps what it has compressed there was no room for a second file, and all its hosts failed.
#[test]
fn a_source_forgets_for_want_of_room_and_says_where_there_is_none() {
    if may_not("a disk that is full") {
        return;
    }
    let lab = Place::new();
    let memory = lab.path("memory");
    let room = |mib: u32| {
        let mount = ("SPREAD_MOUNT", format!("size={mib}m,mode=755"));
        [mount, ("SPREAD_DIR", memory.display().to_string())]
    };
    let receiver = lab.start_receiver("a", "127.0.0.1:0", &[]);
    let hosts = [("a", receiver.address)];
    // All of it compresses, to some fifth: one has room, and not two.
    let packs = |_| 2;
    let (first, second) = (
        lab.file_of("one", 40, packs),
        lab.file_of("other", 40, packs),
    );
    let both = format!("{}:{}", first.display(), second.display());
    let mut source = lab.start_source_with(both.as_ref(), &hosts, 0, 5000, &room(12));
    is_done(&source.report(), 0);
    is_done(&source.report(), 0);
    assert!(lab.has("a", &second));
    let much = lab.file_of("much", 40, packs);
    let report = lab
        .start_source_with(&much, &hosts, 0, 5000, &room(2))
        .report();
    let full = format!(
        "{} is full: what is compressed needs room",
        memory.display()
    );
    has_failed(&report, 0, &[&full]);
}

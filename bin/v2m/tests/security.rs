//! Whose rights are used on whose files: what users prepare leads root nowhere, a VM's QEMU has no rights of root's, and what v2m
//! removes is what v2m made. What is said for root only is skipped for others.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::guests::{ECHO, boot_sector, echo};
use kit::{Home, fake, tree, until};
use rustix::process::geteuid;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const ALICE: u32 = 54321;

/// Root of the host, or of a user namespace that has other ids.
fn has_users() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let all = map.split_whitespace().next_back() == Some("4294967295");
    if !(geteuid().is_root() && all) {
        eprintln!("skipped: only root works among other users' files");
    }
    geteuid().is_root() && all
}

fn give(path: &Path, group: u32) {
    lchown(path, Some(ALICE), Some(group)).unwrap();
}

/// A directory that is a user's.
fn hers(home: &Home) -> PathBuf {
    let path = home.path("hers");
    fs::create_dir(&path).unwrap();
    give(&path, ALICE);
    path
}

fn vm(home: &Home, name: &str, disks: &[&str]) -> String {
    let mut text = format!("name = \"{name}\"\ntype = \"qemu\"\nmemory = \"16M\"\n");
    for disk in disks {
        text += &format!("[[disk]]\n{disk}\nformat = \"raw\"\n");
    }
    let file = format!("{name}.toml");
    home.file(&file, text);
    file
}

/// Real and effective ids of a VM's process.
fn ids(home: &Home, vm: &str) -> (Vec<u32>, Vec<u32>) {
    let pid = home.json(&["status", vm])["pid"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let words = line.unwrap().split_whitespace();
        words
            .map(|word| word.parse().unwrap())
            .collect::<Vec<u32>>()
    };
    (of("Uid:"), of("Gid:"))
}

#[test]
fn a_users_link_leads_root_to_nothing() {
    if !has_users() {
        return;
    }
    let home = Home::new();
    let (hers, roots) = (hers(&home), home.path("roots"));
    fs::create_dir(&roots).unwrap();
    fs::set_permissions(&roots, Permissions::from_mode(0o755)).unwrap();
    let secret = roots.join("disk.raw");
    let untouched = || {
        let metadata = fs::metadata(&secret).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o600));
        assert!(fs::read(&secret).unwrap() == boot_sector(ECHO));
    };
    // What v2m made, and what she has put in its place since then.
    let file = vm(&home, "web", &["path = \"hers/d/disk.raw\"\nsize = \"1M\""]);
    fs::create_dir(hers.join("d")).unwrap();
    home.ok(&["start", &file]);
    assert!(hers.join("d/disk.raw").exists());
    home.ok(&["stop", "web", "--grace", "0"]);
    fs::rename(hers.join("d"), hers.join("mine")).unwrap();
    fs::write(&secret, boot_sector(ECHO)).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    symlink(&roots, hers.join("d")).unwrap();
    give(&hers.join("d"), ALICE);
    home.run(&["start", "web"])
        .is(2)
        .says("is a link of user 54321's");
    untouched();
    home.ok(&["destroy", "web", "--disks", "--yes"]);
    untouched();
    // A new one is refused before anything is written down.
    home.run(&["create", &file])
        .is(2)
        .says("is a link of user 54321's");
    assert_eq!(tree(&home.path("state/vms")), Vec::<PathBuf>::new());
    home.run(&["image", "create", "hers/d/new.raw", "1M"]).is(1);
    home.run(&["image", "info", "hers/d/disk.raw"]).is(1);
    assert_eq!(tree(&roots), std::slice::from_ref(&secret));
    untouched();
}

/// A disk may be a link, if it is root's.
#[test]
fn a_disk_that_is_a_link_starts_and_goes() {
    let home = Home::new();
    home.file("echo.raw", boot_sector(ECHO));
    symlink("echo.raw", home.path("link.raw")).unwrap();
    let file = vm(&home, "web", &["path = \"link.raw\""]);
    home.ok(&["start", &file, "--wait-ready=>"]);
    home.ok(&["destroy", "web", "--yes"]);
    let metadata = fs::metadata(home.path("echo.raw")).unwrap();
    assert_eq!(metadata.uid(), geteuid().as_raw(), "it is given back");
}

/// The ids of clusters are below those of VMs, and no account has them either.
#[test]
fn a_clusters_disk_makes_no_vm_the_clusters() {
    if !has_users() {
        return;
    }
    let home = Home::new();
    home.file("echo.raw", boot_sector(ECHO));
    lchown(home.path("echo.raw"), Some(0x7000_0001), Some(0x7000_0001)).unwrap();
    let file = vm(&home, "web", &["path = \"echo.raw\""]);
    home.run(&["start", &file]).is(2).says("it is a cluster's");
    let metadata = fs::metadata(home.path("echo.raw")).unwrap();
    assert_eq!(metadata.uid(), 0x7000_0001);
}

#[test]
fn a_refused_start_takes_no_disk_from_a_vm_that_runs() {
    if !has_users() {
        return;
    }
    let home = Home::new();
    home.file("mine.raw", boot_sector(ECHO));
    home.file("echo.raw", boot_sector(ECHO));
    let first = vm(&home, "first", &["path = \"echo.raw\""]);
    let second = vm(
        &home,
        "second",
        &["path = \"mine.raw\"", "path = \"echo.raw\""],
    );
    let owner = |disk: &str| fs::metadata(home.path(disk)).unwrap().uid();
    home.ok(&["start", &first, "--wait-ready=>"]);
    let firsts = owner("echo.raw");
    home.run(&["start", &second]).is(1).says("is in use by");
    assert_eq!((owner("echo.raw"), owner("mine.raw")), (firsts, 0));
    assert_eq!(home.state_of("first"), "running");
    // Of one that does not run it is taken.
    home.ok(&["stop", "first", "--grace", "0"]);
    home.ok(&["start", &second]);
    assert_ne!(owner("echo.raw"), firsts);
}

#[test]
fn qemu_has_the_users_own_group_and_never_roots() {
    if !has_users() {
        return;
    }
    let home = Home::new();
    home.file("echo.raw", boot_sector(ECHO));
    give(&home.path("echo.raw"), 0);
    let file = vm(&home, "web", &["path = \"echo.raw\""]);
    home.ok(&["start", &file, "--wait-ready=>"]);
    let (users, groups) = ids(&home, "web");
    assert_eq!(users, [ALICE; 4]);
    assert!(!groups.contains(&0), "{groups:?}");
    assert_eq!(
        fs::metadata(home.path("echo.raw")).unwrap().gid(),
        0,
        "her file is as she has it"
    );
    home.ok(&["destroy", "web", "--yes"]);
}

/// What was decided at the start is what counts until the next.
#[test]
fn a_vm_whose_disks_changed_hands_can_be_stopped() {
    if !has_users() {
        return;
    }
    let home = Home::new();
    for name in ["a.raw", "b.raw"] {
        home.file(name, boot_sector(ECHO));
    }
    let file = vm(&home, "web", &["path = \"a.raw\"", "path = \"b.raw\""]);
    home.ok(&["start", &file, "--wait-ready=>"]);
    give(&home.path("a.raw"), ALICE);
    lchown(home.path("b.raw"), Some(ALICE + 1), None).unwrap();
    assert_eq!(home.state_of("web"), "running");
    home.ok(&["pause", "web"]);
    home.ok(&["resume", "web"]);
    home.ok(&["list"]);
    home.ok(&["start", "web"]);
    home.ok(&["stop", "web", "--grace", "0"]);
    home.run(&["start", "web"])
        .is(2)
        .says("belong to different users");
    home.ok(&["destroy", "web", "--yes"]);
}

#[test]
fn disks_that_another_vm_has_stay() {
    let home = Home::new();
    let new = "path = \"new.raw\"\nsize = \"1M\"";
    let (a, b) = (vm(&home, "a", &[new]), vm(&home, "b", &[new]));
    home.ok(&["create", &a, &b]);
    // It was not there when both were created; b makes it.
    home.ok(&["start", "b"]);
    home.ok(&["destroy", "a", "--disks", "--yes"]);
    assert!(home.path("new.raw").exists());
    // Another that has it comes later, or as a link.
    symlink("new.raw", home.path("link.raw")).unwrap();
    home.ok(&["create", &vm(&home, "c", &["path = \"link.raw\""])]);
    home.ok(&["destroy", "b", "--disks", "--yes"])
        .says("VM c has it, too");
    assert!(home.path("new.raw").exists());
    home.ok(&["destroy", "c", "--yes"]);
    // It may be what another's disk stands on.
    fs::remove_file(home.path("new.raw")).unwrap();
    home.ok(&["start", &a]);
    home.ok(&["stop", "a", "--grace", "0"]);
    home.ok(&["image", "create", "over.qcow2", "--backing", "new.raw"]);
    let file = vm(&home, "d", &["path = \"over.qcow2\""]);
    let text = fs::read_to_string(home.path(&file)).unwrap();
    home.file(
        &file,
        text.replace("format = \"raw\"", "format = \"qcow2\""),
    );
    home.ok(&["create", &file]);
    home.ok(&["destroy", "a", "--disks", "--yes"])
        .says("VM d has it, too");
    assert!(home.path("new.raw").exists());
}

#[test]
fn a_disk_that_only_removed_vms_have_goes_with_the_last() {
    let home = Home::new();
    let new = "path = \"new.raw\"\nsize = \"1M\"";
    let (a, b) = (vm(&home, "a", &[new]), vm(&home, "b", &[new]));
    home.ok(&["create", &b]);
    home.ok(&["start", &a]);
    let dry = home.json(&["destroy", "a", "b", "--disks", "--dry-run"]);
    assert_eq!(dry["disks"].as_array().unwrap().len(), 1, "{dry}");
    home.ok(&["destroy", "a", "b", "--disks", "--yes"]);
    assert!(!home.path("new.raw").exists());
}

#[test]
fn disks_that_a_profile_no_longer_names_stay_with_who_has_them() {
    let home = Home::new();
    let disk = |name: &str| format!("path = \"{name}\"\nsize = \"1M\"");
    home.ok(&["start", &vm(&home, "a", &[&disk("old.raw")])]);
    home.ok(&["stop", "a", "--grace", "0"]);
    home.ok(&["create", "--replace", &vm(&home, "a", &[&disk("new.raw")])]);
    home.ok(&["start", &vm(&home, "b", &["path = \"old.raw\""])]);
    home.ok(&["start", "a"]);
    let dry = home.json(&["destroy", "a", "--disks", "--dry-run"]);
    assert_eq!(dry["disks"].as_array().unwrap().len(), 1, "{dry}");
    home.ok(&["destroy", "a", "--disks", "--yes"]);
    assert!(home.path("old.raw").exists() && !home.path("new.raw").exists());
    assert_eq!(home.state_of("b"), "running");
}

#[test]
fn a_disk_that_came_into_anothers_place_stays() {
    let home = Home::new();
    let file = vm(&home, "web", &["path = \"web.raw\"\nsize = \"1M\""]);
    // Nothing was made yet.
    home.ok(&["create", &file]);
    home.file("web.raw", "somebody's own");
    home.run(&["create-image-from-cdrom", &file]).is(2);
    home.ok(&["destroy", "web", "--disks", "--yes"]);
    assert!(home.path("web.raw").exists());
    fs::remove_file(home.path("web.raw")).unwrap();
    // It was made, and is another since.
    home.ok(&["start", &file]);
    home.ok(&["stop", "web", "--grace", "0"]);
    fs::remove_file(home.path("web.raw")).unwrap();
    home.file("web.raw", "somebody's own");
    home.ok(&["destroy", "web", "--disks", "--yes"])
        .says("another file than v2m made");
    assert!(home.path("web.raw").exists());
}

#[test]
fn numbers_are_safe_when_records_are_not() {
    if !has_users() {
        return;
    }
    let home = Home::new();
    for name in ["a", "b"] {
        let disk = format!("path = \"{name}.raw\"\nsize = \"1M\"");
        home.ok(&["start", &vm(&home, name, &[&disk])]);
        fs::write(home.path(&format!("state/vms/{name}/record.json")), "{").unwrap();
    }
    let (a, b) = (ids(&home, "a"), ids(&home, "b"));
    assert!(a != b, "{a:?} {b:?}");
    home.run(&["create", "--replace", "a.toml"])
        .is(1)
        .says("v2m stop a");
    home.ok(&["stop", "a", "--grace", "0"]);
    home.ok(&["create", "--replace", "a.toml"]);
    home.ok(&["start", "a"]);
    assert_eq!(ids(&home, "a"), a);
    home.ok(&["destroy", "a", "b", "--yes"]);
    assert_eq!(tree(&home.path("state/vms")), Vec::<PathBuf>::new());
    assert_eq!(tree(&home.path("state/run")), Vec::<PathBuf>::new());
}

/// The driver's own definition of a running VM.
#[test]
fn a_vm_whose_definition_is_damaged_is_seen_and_ended() {
    let home = Home::new();
    let (one, two) = (echo(&home, "one"), echo(&home, "two"));
    home.ok(&["start", &one, &two]);
    fs::write(home.path("state/run/one/vm.json"), "{").unwrap();
    let states = || {
        let list = home.json(&["list"]);
        let all = list["vms"].as_array().unwrap().iter();
        all.map(|vm| vm["state"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(states(), ["running", "running"]);
    fs::write(home.path("state/run/one/run.json"), "{").unwrap();
    assert_eq!(states(), ["unknown", "running"]);
    home.ok(&["stop", "one", "--grace", "0"]);
    home.ok(&["start", "one", "--wait-ready=>"]);
    fs::write(home.path("state/run/one/vm.json"), "{").unwrap();
    home.ok(&["destroy", "one", "--yes"]);
}

#[test]
fn a_state_directory_of_others_is_refused() {
    let home = Home::new();
    let file = home.fake("web");
    let refused = |state: &Path| {
        for command in [&["create", &file][..], &["list"], &["status", "web"]] {
            let mut words = vec!["--state", state.to_str().unwrap()];
            words.extend(command);
            home.run(&words).is(2).says("cannot hold VMs");
        }
    };
    let open = home.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    refused(&open);
    if !has_users() {
        return;
    }
    // Her own, with a link where a file of ours is written first.
    let theirs = hers(&home).join("fs");
    fs::create_dir_all(theirs.join("vms/web")).unwrap();
    for path in ["", "vms", "vms/web"] {
        give(&theirs.join(path), ALICE);
    }
    let victim = home.path("victim");
    fs::write(&victim, "whole").unwrap();
    symlink(&victim, theirs.join("vms/web/record.half")).unwrap();
    refused(&theirs);
    refused(&theirs.join("not/yet"));
    assert_eq!(fs::read(&victim).unwrap(), b"whole");
}

/// In a user namespace with no other ids there is nobody to become, and root there is who made it.
#[test]
fn a_namespace_without_ids_is_told() {
    let possible = Command::new("unshare").args(["-Ur", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no user namespace can be made here");
        return;
    }
    let home = Home::new();
    let file = echo(&home, "web");
    let inner = home.command(&["start", &file, "--wait-ready=>"]);
    let mut outer = Command::new("unshare");
    outer
        .arg("-Ur")
        .arg(inner.get_program())
        .args(inner.get_args());
    outer
        .env("V2M_STATE", home.state())
        .current_dir(home.path(""));
    let answer = kit::Answer::from(outer.output().unwrap());
    answer.is(0).says("no ids for VMs");
}

/// Whoever waits for one VM delays nobody who makes another.
#[test]
fn a_vm_that_is_locked_delays_no_other() {
    let home = Home::new();
    home.ok(&["create", &home.fake("a")]);
    let stuck = fs::File::open(home.path("state/vms/a")).unwrap();
    stuck.lock().unwrap();
    let mut waiting = home.spawn(&["create", "a.toml"]);
    until("it waits for the lock", || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let inode = stuck.metadata().unwrap().ino().to_string();
        let waits = |line: &str| line.contains("->") && line.contains(&format!(":{inode} "));
        locks.lines().any(waits).then_some(())
    });
    home.ok(&["create", &home.fake("b")]);
    home.ok(&["create", &echo(&home, "c")]);
    assert!(waiting.try_wait().unwrap().is_none());
    drop(stuck);
    assert!(waiting.wait().unwrap().success());
}

/// v2m is killed while an image is converted: nobody goes on with it, and the next image made there sweeps up.
#[test]
fn a_conversion_ends_with_who_asked_for_it() {
    let home = Home::new();
    home.file("a.raw", vec![7; 192 << 20]);
    let half = || {
        let names = fs::read_dir(home.path("")).unwrap().flatten();
        let mut names = names.map(|entry| entry.path());
        names.find(|path| path.extension().is_some_and(|e| e == "half"))
    };
    let working = |half: &Path| {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|process| fs::read_dir(process.path().join("fd")).ok())
            .flat_map(|fds| fds.flatten())
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|file| file.starts_with(half)))
    };
    let mut child = home.spawn(&["image", "convert", "a.raw", "b.vmdk"]);
    let left = until("it is on its way", || half().filter(|half| working(half)));
    child.kill().unwrap();
    child.wait().unwrap();
    until("qemu-img is gone", || (!working(&left)).then_some(()));
    assert!(left.exists() && !home.path("b.vmdk").exists());
    home.ok(&["image", "create", "c.raw", "1M"]);
    assert!(!left.exists());
    home.ok(&["image", "convert", "a.raw", "b.vmdk"]);
    home.ok(&["image", "check", "b.vmdk"]);
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let home = Home::new();
    let fifo = home.path("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for command in [
        &["image", "info", "fifo", "--format", "raw"][..],
        &["image", "import", "fifo", "to.raw"],
        &["image", "info", "/dev/zero", "--format", "raw"],
    ] {
        home.run(command).is(1).says("neither a file nor a disk");
    }
    let text = "name = \"web\"\ntype = \"qemu\"\nmemory = \"16M\"\n[boot]\nkernel = \"fifo\"\n";
    home.file("web.toml", text);
    let answer = home.run(&["start", "web.toml"]);
    assert!(
        answer.code != 0 && answer.err.contains("is no file"),
        "{answer:?}"
    );
}

#[test]
fn images_are_told_in_words_of_the_person() {
    let home = Home::new();
    home.run(&["image", "create", "nodir/x.raw", "1M"])
        .is(1)
        .says("nodir/x.raw: there is no directory nodir");
    home.ok(&["image", "create", "base.qcow2", "64M"]);
    home.run(&[
        "image",
        "create",
        "over.qcow2",
        "1M",
        "--backing",
        "base.qcow2",
    ])
    .is(1)
    .says("1 MiB are less than");
    assert!(!home.path("over.qcow2").exists());
    home.ok(&[
        "image",
        "create",
        "over.qcow2",
        "65M",
        "--backing",
        "base.qcow2",
    ]);
    assert_eq!(
        home.json(&["image", "info", "over.qcow2"])["virtual_size"],
        65 << 20
    );
    home.ok(&["image", "convert", "base.qcow2", "base.vdi"]);
    home.run(&["image", "resize", "base.vdi", "65M"])
        .is(1)
        .says("convert");
}

#[test]
fn going_back_to_a_snapshot_is_asked_for() {
    let home = Home::new();
    home.ok(&["image", "create", "a.qcow2", "1M"]);
    home.ok(&["image", "snapshot", "create", "a.qcow2", "one"]);
    // Another program's.
    let done = Command::new("qemu-img")
        .args(["snapshot", "-c", "Snap 1", "a.qcow2"])
        .current_dir(home.path(""))
        .status();
    assert!(done.unwrap().success());
    home.run(&["image", "snapshot", "apply", "a.qcow2", "one"])
        .is(2)
        .says("--yes");
    home.ok(&["image", "snapshot", "apply", "a.qcow2", "Snap 1", "--yes"]);
    let list = home.ok(&["image", "snapshot", "list", "a.qcow2"]).out;
    assert!(list.contains(" UTC"), "{list}");
    home.ok(&["image", "snapshot", "delete", "a.qcow2", "Snap 1"]);
    home.ok(&["create", &home.fake("web")]);
    home.run(&["image", "snapshot", "delete", "web", "Snap 1"])
        .is(1);
}

#[test]
fn a_destroyed_vm_takes_nothing_that_was_planted() {
    let home = Home::new();
    home.file("a.toml", fake("a"));
    home.ok(&["create", "a.toml"]);
    let victim = home.path("victim");
    fs::write(&victim, "whole").unwrap();
    let planted = home.path("state/vms/a/record.half");
    symlink(&victim, &planted).unwrap();
    home.file("a.toml", fake("a").replace("64M", "65M"));
    home.ok(&["create", "--replace", "a.toml"]);
    assert_eq!(fs::read(&victim).unwrap(), b"whole");
    assert!(fs::symlink_metadata(&planted).is_err());
    home.ok(&["destroy", "a", "--yes"]);
}

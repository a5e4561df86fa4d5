//! Full file systems: a guest that writes while the host's disk is full waits, and goes on; commands that cannot write change
//! nothing.
//!
//! Each test runs itself again in a mount namespace of its own, with a small tmpfs; an ordinary user's is in a user
//! namespace, in which he is root.

#![allow(clippy::unwrap_used)]

#[path = "kit/inside.rs"]
mod inside;
mod kit;

use inside::inside;
use kit::guests::{PACKET, WRITER, boot_sector, echo};
use kit::{Home, until};
use std::path::Path;
use std::process::Command;

const MOUNTS: [&str; 3] = ["--mount", "--propagation", "private"];

/// Gives a directory a file system of this size, or another size.
fn sized(directory: &Path, size: &str, again: bool) {
    std::fs::create_dir_all(directory).unwrap();
    let again = if again { "remount," } else { "" };
    let done = Command::new("mount")
        .args(["-t", "tmpfs", "-o"])
        .arg(format!("{again}size={size},mode=0711"))
        .arg("tmpfs")
        .arg(directory)
        .status();
    assert!(done.unwrap().success());
}

#[test]
fn a_guest_waits_for_space_and_goes_on() {
    if !inside("a_guest_waits_for_space_and_goes_on", &MOUNTS) {
        return;
    }
    let home = Home::new();
    let small = home.path("small");
    sized(&small, "4M", false);
    let mut disk = boot_sector(WRITER);
    disk[0x40..0x40 + PACKET.len()].copy_from_slice(PACKET);
    std::fs::write(small.join("web.raw"), disk).unwrap();
    // The disk has 16 MiB, of which the file system has room for 4.
    let file = std::fs::File::options()
        .write(true)
        .open(small.join("web.raw"));
    file.unwrap().set_len(16 << 20).unwrap();
    home.file(
        "web.toml",
        "name = \"web\"\ntype = \"qemu\"\nmemory = \"16M\"\n\
         [[disk]]\npath = \"small/web.raw\"\nformat = \"raw\"\n",
    );
    home.ok(&["start", "web.toml", "--wait-ready=w"]);
    let status = || home.json(&["status", "web"]);
    let waits = || (status()["state"] == "paused").then(status);
    let waiting = until("the guest waits", waits);
    let reason = waiting["reason"].as_str().unwrap();
    assert!(reason.contains("disk is full"), "{reason}");
    assert!(reason.contains("resume"), "{reason}");
    assert!(home.ok(&["list"]).out.contains("paused"));
    assert_eq!(home.ok(&["status", "web", "--word"]).out, "paused\n");
    // While it is full as before, it waits again; nothing was lost.
    home.ok(&["resume", "web"]);
    until("it waits again", waits);
    sized(&small, "32M", true);
    home.ok(&["resume", "web"]);
    let log = home.path("state/run/web/console.log");
    let written = until("the guest comes to the end of its disk", || {
        let text = std::fs::read_to_string(&log).ok()?;
        let said = text.rsplit("Hard Disk...").next()?;
        said.ends_with('!').then(|| said.matches('w').count())
    });
    assert_eq!(written, (15 << 20) / (32 << 10), "each write was done once");
    assert_eq!(home.state_of("web"), "running");
    home.ok(&["destroy", "web", "--yes"]);
}

#[test]
fn commands_on_a_full_file_system_change_nothing() {
    if !inside("commands_on_a_full_file_system_change_nothing", &MOUNTS) {
        return;
    }
    let home = Home::new();
    let state = home.state();
    sized(&state, "2M", false);
    let (one, two) = (echo(&home, "one"), echo(&home, "two"));
    home.ok(&["start", &one, "--wait-ready=>"]);
    home.ok(&["create", &two]);
    let full = state.join("full");
    let fill = || {
        use std::io::Write;
        let mut file = std::fs::File::create(&full).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    };
    fill();
    for command in [&["start", "two"][..], &["create", &home.fake("three")]] {
        home.run(command).is(1).says("No space left on device");
    }
    home.run(&["status", "three"]).is(4);
    assert_eq!(home.state_of("two"), "defined");
    // What runs, runs on, and what needs no space is done.
    assert_eq!(home.state_of("one"), "running");
    home.ok(&["list"]);
    home.ok(&["pause", "one"]);
    home.ok(&["resume", "one"]);
    home.ok(&["stop", "one", "--grace", "0"]);
    home.ok(&["destroy", "one", "--yes"]);
    home.run(&["image", "create", "state/new.raw.qcow2", "1G"])
        .is(1);
    assert!(!state.join("new.raw.qcow2").exists());
    std::fs::remove_file(&full).unwrap();
    home.ok(&["start", "two", "--wait-ready=>"]);
    home.ok(&["destroy", "two", "--yes"]);
}

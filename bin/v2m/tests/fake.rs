//! The whole command line on VMs that are states only.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::{Home, fake, tree};
use std::time::{Duration, Instant};

#[test]
fn a_whole_life() {
    let home = Home::new();
    let file = home.fake("web");
    home.ok(&["create", &file]).says("web is defined");
    assert_eq!(home.state_of("web"), "defined");
    home.ok(&["create", &file]).says("the same");
    for verb in ["pause", "resume", "reboot"] {
        home.run(&[verb, "web"]).is(1).says("while it is defined");
    }
    home.ok(&["stop", "web"]);
    home.ok(&["start", "web"]).says("web is running");
    home.ok(&["start", "web", "web"]).says("web is running");
    home.ok(&["pause", "web"]).says("web is paused");
    home.run(&["start", "web"]).is(1).says("paused");
    home.ok(&["resume", "web"]);
    home.ok(&["reboot", "web"]).says("web is running");
    home.ok(&["stop", "web"]).says("web is stopped");
    assert_eq!(home.state_of("web"), "stopped");
    home.ok(&["start", "web"]);
    home.run(&["destroy", "web"]).is(2).says("--yes");
    home.ok(&["destroy", "web", "--dry-run"])
        .says("would remove: web");
    assert_eq!(home.state_of("web"), "running");
    home.ok(&["destroy", "web", "--yes"]).says("web is removed");
    home.run(&["status", "web"]).is(4).says("v2m list");
    assert_eq!(tree(&home.state()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn start_makes_what_a_profile_says() {
    let home = Home::new();
    let file = home.fake("web");
    home.ok(&["start", &file]);
    let listed = home.json(&["list"]);
    assert_eq!(listed["vms"][0]["name"], "web");
    assert_eq!(listed["vms"][0]["state"], "running");
    assert_eq!(listed["vms"][0]["memory"], 64);
    // By its profile it is known, too.
    home.ok(&["stop", &file]);
    assert_eq!(home.state_of(&file), "stopped");
    home.ok(&["start", "--wait-ready=started", "web"]);
    home.run(&[
        "start",
        "--wait-ready=never",
        "--time-limit",
        "100ms",
        "web",
    ])
    .is(6)
    .says("has not printed");
}

#[test]
fn a_profile_that_changed_is_taken_when_asked() {
    let home = Home::new();
    let file = home.fake("web");
    home.ok(&["start", &file]);
    home.file(&file, fake("web").replace("64M", "128M"));
    home.run(&["start", &file]).is(1).says("--replace");
    home.run(&["create", "--replace", &file])
        .is(1)
        .says("v2m stop web");
    assert_eq!(home.json(&["list"])["vms"][0]["memory"], 64);
    home.ok(&["stop", "web"]);
    home.ok(&["create", "--replace", &file]).says("anew");
    home.ok(&["start", "web"]);
    assert_eq!(home.json(&["list"])["vms"][0]["memory"], 128);
}

#[test]
fn the_originals_words() {
    let home = Home::new();
    let file = home.fake("web");
    let word = |code| home.run(&[&file, "--status"]).is(code).out;
    home.ok(&[&file, "--validate-profile"]);
    assert_eq!(word(4), "not found\n");
    home.ok(&["create", &file]);
    assert_eq!(word(0), "shutdown\n");
    home.ok(&[&file, "--boot-vm"]);
    assert_eq!(word(0), "running\n");
    home.ok(&[&file, "--pause-vm"]);
    assert_eq!(word(0), "paused\n");
    home.ok(&[&file, "--unpause-vm"]);
    home.ok(&["vm_pause", &file]);
    home.ok(&["vm_unpause", &file]);
    home.ok(&["stop", "web"]);
    home.ok(&["vm_create", &file]);
    assert_eq!(word(0), "running\n");
    let before = tree(&home.state());
    for command in [
        &[&file, "--migrate-vm", "n1"][..],
        &["vm_migrate", &file, "n1"],
        &[&file, "--install-vm-with-oscar"],
        &["create_image_with_oscar", &file],
    ] {
        home.run(command).is(7).says("nothing was done");
    }
    assert_eq!(tree(&home.state()), before);
    // A fake VM's profile has no CD.
    for command in [
        &[&file, "--create-vm-image-from-cdrom"][..],
        &["create_image_from_cdrom", &file],
    ] {
        home.run(command).is(2).says("has no CD");
    }
}

#[test]
fn fifty_commands_at_once_on_one_vm() {
    let home = Home::new();
    let file = home.fake("web");
    let verbs: [&[&str]; 5] = [
        &["start", &file],
        &["stop", &file],
        &["pause", &file],
        &["resume", &file],
        &["destroy", &file, "--yes"],
    ];
    let children: Vec<_> = (0..50)
        .map(|n| home.spawn(verbs[n % verbs.len()]))
        .collect();
    for child in children {
        let answer = kit::Answer::from(child.wait_with_output().unwrap());
        // Done, or refused for its state; never a panic or a damaged file.
        assert!(
            matches!(answer.code, 0 | 4)
                || (answer.code == 1
                    && (answer.err.contains("is not possible while")
                        // Another command stopped it in the same moment.
                        || answer.err.contains("web was started and is "))),
            "{answer:?}"
        );
    }
    home.ok(&["start", &file]);
    home.ok(&["resume", &file]);
    assert_eq!(home.state_of("web"), "running");
    home.ok(&["destroy", "web", "-y"]);
    assert_eq!(tree(&home.state()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn killed_at_any_moment_the_next_command_goes_on() {
    let home = Home::new();
    let file = home.fake("web");
    for round in 0..40u64 {
        let verb: &[&str] = match round % 2 {
            0 => &["start", &file],
            _ => &["destroy", &file, "--yes"],
        };
        let mut child = home.spawn(verb);
        // The one place where time itself is what the test is about.
        std::thread::sleep(Duration::from_micros(round * 137));
        child.kill().unwrap();
        child.wait().unwrap();
        let again = home.run(verb);
        assert!(matches!(again.code, 0 | 4), "{again:?}");
    }
    home.ok(&["start", &file]);
    assert_eq!(home.state_of("web"), "running");
    home.ok(&["destroy", "web", "-y"]);
    assert_eq!(tree(&home.state()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn five_hundred_are_listed() {
    let home = Home::new();
    let files: Vec<String> = (0..500).map(|n| home.fake(&format!("vm{n}"))).collect();
    let mut words = vec!["create", "--start", "--quiet"];
    words.extend(files.iter().map(String::as_str));
    home.ok(&words);
    let best = (0..5)
        .map(|_| {
            let began = Instant::now();
            let answer = home.ok(&["list"]);
            assert_eq!(answer.out.lines().count(), 501);
            began.elapsed()
        })
        .min()
        .unwrap();
    println!("list of 500 fake VMs: {best:?}");
    // A figure for the eye; on a busy machine and unoptimised only a blunder is caught.
    assert!(best < Duration::from_secs(2), "{best:?}");
}

#[test]
fn a_vm_goes_before_a_file_of_its_name() {
    let home = Home::new();
    let file = home.fake("web");
    home.ok(&["start", &file]);
    home.file("web", "no profile");
    assert_eq!(home.state_of("web"), "running");
    home.run(&["status", "./web"]).is(2);
    home.run(&["start", "No_Such"]).is(2).says("names no VM");
}

/// It is told, what runs can be seen and ended by what its driver knows, and nothing is written over while it runs.
#[test]
fn a_damaged_record_is_no_reason_to_lose_the_vm() {
    let home = Home::new();
    home.ok(&["start", &home.fake("a"), &home.fake("b")]);
    let record = home.state().join("vms/a/record.json");
    std::fs::write(&record, "{").unwrap();
    let listed = home.json(&["list"]);
    assert_eq!(listed["vms"][0]["name"], "a");
    assert_eq!(listed["vms"][0]["state"], "running");
    assert_eq!(listed["vms"][0]["reason"], "its record is damaged");
    home.ok(&["list"]).says("v2m create --replace FILE");
    assert_eq!(home.state_of("a"), "running");
    home.run(&["start", "a"])
        .is(1)
        .says("record.json cannot be used");
    home.run(&["create", "a.toml"])
        .is(1)
        .says("record.json cannot be used");
    home.run(&["create", "--replace", "a.toml"])
        .is(1)
        .says("v2m stop a");
    home.ok(&["pause", "a"]);
    home.ok(&["stop", "a"]);
    home.ok(&["create", "--replace", "a.toml"]);
    home.ok(&["start", "a"]);
    // Of one whose driver knows nothing either.
    std::fs::write(&record, "").unwrap();
    std::fs::write(home.state().join("fake/a/vm.json"), "").unwrap();
    assert_eq!(home.json(&["list"])["vms"].as_array().unwrap().len(), 2);
    home.ok(&["destroy", "a", "b", "--yes"]);
    assert_eq!(
        tree(&home.state().join("vms")),
        Vec::<std::path::PathBuf>::new()
    );
}

//! `oscarv spread` with versions of the same content: only what is new goes over the network. And dry runs, which say so
//! beforehand.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::spread::{
    Receiver, all_of, change, command, image, make, nobody, noise, played, receiver, receiver_at,
    reported, send,
};
use serde_json::Value;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The second time only what is new goes over the network; what somebody has changed there is not replaced.
#[test]
fn a_directory_comes_whole_and_then_what_is_new_in_it() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let tree = home.join("root");
    std::fs::create_dir_all(tree.join("usr/empty")).unwrap();
    let library = make(home, "root/usr/library", 4);
    std::fs::write(tree.join("run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(tree.join("run"), Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("usr/library", tree.join("link")).unwrap();
    let hosts = [
        receiver(home, "one", &[]),
        receiver(home, "two", &["--in-place"]),
    ];
    let inodes = || {
        let of = |host: &Receiver| host.into.join("root/run").metadata().unwrap().ino();
        [of(&hosts[0]), of(&hosts[1])]
    };
    let to = format!("{},{}", hosts[0].address, hosts[1].address);
    let sent = || {
        let output = send(home, &["root", "--to", &to, "--output", "json"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        for host in &hosts {
            assert_eq!(all_of(&host.into.join("root")), all_of(&tree));
        }
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = report["hosts"].as_array().unwrap().iter();
        let received: Vec<u64> = list
            .map(|host| host["received"].as_u64().unwrap())
            .collect();
        assert_eq!(received.len(), 2, "{report:#}");
        received
    };
    let first = sent();
    assert!(
        first.iter().all(|bytes| *bytes > library.len() as u64 / 2),
        "{first:?}"
    );
    // In the middle, so that all that follows stands somewhere else.
    let mut changed = library.clone();
    changed.splice(1_000_000..1_000_000, *b"new words");
    std::fs::write(tree.join("usr/library"), changed).unwrap();
    std::fs::write(tree.join("added"), "added").unwrap();
    std::fs::remove_file(tree.join("link")).unwrap();
    let before = inodes();
    let second = sent();
    assert!(second.iter().all(|bytes| *bytes < 200 << 10), "{second:?}");
    // One tree is another one, the other one is the same.
    assert_ne!(inodes()[0], before[0]);
    assert_eq!(inodes()[1], before[1]);
    // Nothing is left beside it but what it is known by.
    let mut left: Vec<_> = std::fs::read_dir(hosts[0].into.join(".spread"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.retain(|name| {
        ["part", "new", "tree"]
            .iter()
            .any(|end| name.to_string_lossy().ends_with(end))
    });
    assert!(left.is_empty(), "{left:?}");

    std::fs::write(hosts[1].into.join("root/added"), "by somebody else").unwrap();
    std::fs::write(tree.join("added"), "again").unwrap();
    let output = send(home, &["root", "--to", &to]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("was changed since it came"), "{said}");
    assert_eq!(all_of(&hosts[0].into.join("root")), all_of(&tree));
    assert_eq!(
        std::fs::read(hosts[1].into.join("root/added")).unwrap(),
        b"by somebody else"
    );
}

/// One got what was new, the other all of it, made a moment later: offered what is new again, it said that it had something
/// newer.
#[test]
fn what_some_have_as_news_and_others_as_a_whole_is_the_same_to_both() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 6);
    let (a, b) = (receiver(home, "a", &[]), receiver(home, "b", &[]));
    let both = format!("{},{}", a.address, b.address);
    assert_eq!(reported(home, &["disk.raw", "--to", &a.address]).0, 0);
    let bytes = change(home, "disk.raw");
    let (code, report, said) = reported(home, &["disk.raw", "--to", &both]);
    assert_eq!(code, 0, "{said}{report:#}");
    let received =
        |report: &Value, host: usize| report["hosts"][host]["received"].as_u64().unwrap();
    assert!(received(&report, 0) < 200 << 10, "{report:#}");
    assert!(received(&report, 1) > 1 << 20, "{report:#}");
    for more in [&[][..], &["--whole"]] {
        let arguments = [&["disk.raw", "--to", &both], more].concat();
        let (code, report, said) = reported(home, &arguments);
        assert_eq!(code, 0, "{more:?} {said}{report:#}");
        assert_eq!(
            (received(&report, 0), received(&report, 1)),
            (0, 0),
            "{report:#}"
        );
    }
    for host in [a, b] {
        assert!(std::fs::read(host.into.join("disk.raw")).unwrap() == bytes);
    }
}

/// Such a host was in no report, and the exit code was 0.
#[test]
fn a_host_that_misses_a_base_where_there_is_none_has_not_got_it() {
    let home = TempDir::new().unwrap();
    make(home.path(), "disk.raw", 1);
    let to = played("\"no-base\"\n");
    let arguments = ["disk.raw", "--to", &to, "--patience", "1s"];
    let (code, report, said) = reported(home.path(), &arguments);
    assert_eq!(code, 1, "{said}{report:#}");
    assert_eq!(report["failed"], serde_json::json!([to]));
    let notes = report["hosts"][0]["notes"].to_string();
    assert!(notes.contains("does not keep to the protocol"), "{notes}");
}

/// Hosts that needed all of it were only sent anything when whoever was to get what is new had it or was given up; and a
/// host that was not there then got nothing.
#[test]
fn nobody_waits_for_those_who_get_what_is_new() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 6);
    let (a, b) = (receiver(home, "a", &[]), receiver(home, "b", &[]));
    assert_eq!(reported(home, &["disk.raw", "--to", &a.address]).0, 0);
    let bytes = change(home, "disk.raw");
    let late = nobody();
    let to = format!("{},{},{late}", a.address, b.address);
    let mut sender = command(home)
        .args(["spread", "send", "disk.raw", "--to", &to])
        .args(["--patience", "60s", "--output", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let mut waits = false;
    while !waits && !b.into.join("disk.raw").exists() {
        waits = begin.elapsed() > Duration::from_secs(30);
        std::thread::sleep(Duration::from_millis(10));
    }
    if waits {
        let _ = sender.kill();
        let _ = sender.wait();
    }
    assert!(!waits, "b waits for the absent one");
    let c = receiver_at(home, "c", &late, &[]);
    let output = sender.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert!(begin.elapsed() < Duration::from_secs(50));
    for host in [a, b, c] {
        assert!(std::fs::read(host.into.join("disk.raw")).unwrap() == bytes);
    }
}

/// Each image has another name, and was always sent whole.
#[test]
fn the_next_image_is_made_from_the_one_before_although_its_name_is_another() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let state = home.join("state");
    let one = image(&state, "web", &noise(6 << 20, 1));
    let a = receiver(home, "a", &[]);
    assert_eq!(reported(home, &[&one[..12], "--to", &a.address]).0, 0);
    let mut bytes = noise(6 << 20, 1);
    bytes[3 << 20..][..5000].fill(7);
    let two = image(&state, "web", &bytes);
    let (code, report, said) = reported(home, &["web", "--to", &a.address]);
    assert_eq!(code, 0, "{said}");
    let received = report["hosts"][0]["received"].as_u64().unwrap();
    assert!(received < 200 << 10, "{report:#}");
    let there = a.into.join(format!("{}.raw", &two[..12]));
    assert!(std::fs::read(there).unwrap() == bytes);
}

#[test]
fn an_earlier_version_comes_back_where_that_is_asked_for() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let first = make(home, "v1", 4);
    std::fs::copy(home.join("v1"), home.join("v2")).unwrap();
    let second = change(home, "v2");
    let (a, b) = (receiver(home, "a", &[]), receiver(home, "b", &[]));
    let to = format!("{},{}", a.address, b.address);
    let sent = |file: &str, options: &[&str]| {
        let arguments = [&[file, "--name", "disk", "--to", &to], options].concat();
        reported(home, &arguments)
    };
    assert_eq!(sent("v1", &[]).0, 0);
    assert_eq!(sent("v2", &[]).0, 0);
    let (code, report, _) = sent("v1", &[]);
    let notes = report["hosts"][0]["notes"].to_string();
    assert_eq!(code, 1, "{report:#}");
    assert!(
        notes.contains("is newer") && notes.contains("--anew"),
        "{notes}"
    );
    assert!(std::fs::read(a.into.join("disk")).unwrap() == second);
    // What they have in common is not sent again.
    let (code, report, said) = sent("v1", &["--anew"]);
    assert_eq!(code, 0, "{said}{report:#}");
    for (host, receiver) in [&a, &b].into_iter().enumerate() {
        let received = report["hosts"][host]["received"].as_u64().unwrap();
        assert!(received < 200 << 10, "{report:#}");
        assert!(std::fs::read(receiver.into.join("disk")).unwrap() == first);
    }
    // From now on this is the newest.
    assert_eq!(sent("v1", &[]).0, 0);
    assert_eq!(sent("v2", &[]).0, 1);
}

/// Who would get what from whom, and nothing is changed, here or there.
#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 6);
    let hosts = ["a", "b", "c"].map(|name| receiver(home, name, &[]));
    let [a, b, c] = &hosts;
    let gone = nobody();
    let to = format!("{},{},{},{gone}", a.address, b.address, c.address);
    let dry = |to: &str| reported(home, &["disk.raw", "--to", to, "--dry-run"]);
    let of = |report: &Value, what: &str| -> Vec<Value> {
        let hosts = report["hosts"].as_array().unwrap().iter();
        hosts.map(|host| host[what].clone()).collect()
    };
    // Nobody has anything: a chain.
    let (code, report, said) = dry(&to);
    assert_eq!(code, 1, "{said}");
    assert_eq!(
        of(&report, "has"),
        ["nothing", "nothing", "nothing", "away"],
        "{report:#}"
    );
    assert_eq!(
        of(&report, "parent"),
        [
            Value::Null,
            a.address.as_str().into(),
            b.address.as_str().into(),
            Value::Null
        ]
    );
    assert_eq!(report["most"], 3 * (6 << 20));
    assert!(!home.join("state/spread/sent").exists());
    // One has it, and then the version before.
    assert_eq!(reported(home, &["disk.raw", "--to", &a.address]).0, 0);
    let (_, report, _) = dry(&to);
    assert_eq!(
        of(&report, "has"),
        ["it", "nothing", "nothing", "away"],
        "{report:#}"
    );
    change(home, "disk.raw");
    let remembered = all_of(&home.join("state"));
    let (_, report, _) = dry(&to);
    assert_eq!(
        of(&report, "has"),
        ["base", "nothing", "nothing", "away"],
        "{report:#}"
    );
    assert_eq!(all_of(&home.join("state")), remembered);
    for host in [b, c] {
        assert!(!host.into.join("disk.raw").exists() && !host.into.join(".spread").exists());
    }
    let reachable = format!("{},{}", a.address, b.address);
    assert_eq!(dry(&reachable).0, 0);
}

/// Hosts that refuse it were said to lack it.
#[test]
fn a_dry_run_says_what_would_be_refused() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "v1", 2);
    std::fs::copy(home.join("v1"), home.join("v2")).unwrap();
    change(home, "v2");
    let [a, b] = ["a", "b"].map(|name| receiver(home, name, &[]));
    std::fs::write(b.into.join("disk"), "mine").unwrap();
    let send = |file: &str, to: &str, options: &[&str]| {
        let arguments = [&[file, "--name", "disk", "--to", to], options].concat();
        reported(home, &arguments)
    };
    assert_eq!(send("v1", &a.address, &[]).0, 0);
    assert_eq!(send("v2", &a.address, &[]).0, 0);
    let to = format!("{},{}", a.address, b.address);
    let (code, report, said) = send("v1", &to, &["--dry-run"]);
    assert_eq!(code, 1, "{said}{report:#}");
    for (host, why) in ["what is here is newer", "did not come from here"]
        .into_iter()
        .enumerate()
    {
        let host = &report["hosts"][host];
        assert_eq!(host["has"], "refuses", "{report:#}");
        assert!(host["note"].as_str().unwrap().contains(why), "{report:#}");
    }
    // That is what they do.
    let (_, report, _) = send("v1", &to, &[]);
    for host in report["hosts"].as_array().unwrap() {
        assert_eq!(host["state"], "refused", "{report:#}");
    }
    let (code, report, _) = send("v1", &a.address, &["--dry-run", "--anew"]);
    assert_eq!(
        (code, &report["hosts"][0]["has"]),
        (0, &"base".into()),
        "{report:#}"
    );
}

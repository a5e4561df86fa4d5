//! `oscarv spread` as people use it: receivers and a sender that are processes of their own, on loopback.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::spread::{command, make, nobody, played, receiver, reported, send};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn a_file_comes_to_hosts_and_the_report_says_so() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    assert!(
        command(home)
            .args(["spread", "key"])
            .output()
            .unwrap()
            .status
            .success()
    );
    let bytes = make(home, "disk.raw", 20);
    let hosts = [
        receiver(home, "one", &[]),
        receiver(home, "two", &["--idle"]),
    ];
    let to = format!("{},{}", hosts[0].address, hosts[1].address);
    let sent = send(
        home,
        &[
            "disk.raw",
            "--to",
            &to,
            "--output",
            "json",
            "--progress",
            "json",
        ],
    );
    let said = String::from_utf8(sent.stderr).unwrap();
    assert!(sent.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(report["bytes"], bytes.len());
    assert_eq!(report["failed"], serde_json::json!([]));
    assert_eq!(report["ok"].as_array().unwrap().len(), 2);
    for host in &hosts {
        assert!(std::fs::read(host.into.join("disk.raw")).unwrap() == bytes);
    }
    // Progress is JSON, a line each.
    for line in said.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    // The one that stands back does so with all of its threads: SCHED_IDLE is 5, the 41st field of proc_pid_stat(5).
    for (host, policy) in [(&hosts[0], "0"), (&hosts[1], "5")] {
        let tasks = format!("/proc/{}/task", host.process.id());
        for task in std::fs::read_dir(tasks).unwrap() {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            assert_eq!(fields[41 - 3], policy, "{stat}");
        }
    }
}

#[test]
fn a_host_that_is_listed_twice_is_told() {
    let home = TempDir::new().unwrap();
    make(home.path(), "disk.raw", 1);
    for (to, words) in [
        ("127.0.0.1,localhost", "are the same host: 127.0.0.1:7117"),
        ("10.0.0.1,10.0.0.1", "10.0.0.1 is listed twice"),
        ("10.0.0.1:x", "\"x\" is not a port"),
        (" , ", "no hosts are named"),
        (
            "::ffff:10.0.0.1,10.0.0.1",
            "are the same host: 10.0.0.1:7117",
        ),
        ("fe80::1%eth0", "is a link-local address"),
        ("[fe80::1%2]:7000", "hint: list it by its name"),
    ] {
        let sent = send(home.path(), &["disk.raw", "--to", to]);
        let said = String::from_utf8(sent.stderr).unwrap();
        assert_eq!(sent.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn nobody_there_is_a_report_and_not_a_hang() {
    let home = TempDir::new().unwrap();
    make(home.path(), "disk.raw", 1);
    let to = nobody();
    let sent = send(
        home.path(),
        &[
            "disk.raw",
            "--to",
            &to,
            "--patience",
            "1s",
            "--output",
            "json",
        ],
    );
    assert_eq!(sent.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(report["failed"], serde_json::json!([to]));
}

#[test]
fn what_is_wrong_with_a_topology_is_said_with_file_and_line() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 1);
    std::fs::write(
        home.join("topology.conf"),
        "SwitchName=r1 Nodes=n[1-3]\nSwitchName=top Switches=r[1-2]\nNodes=n[4-\n",
    )
    .unwrap();
    let to = [
        "disk.raw",
        "--to",
        "127.0.0.1:1",
        "--topology",
        "topology.conf",
    ];
    let output = send(home, &to);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("topology.conf:2: there is no line for the switch r2"),
        "{said}"
    );
    assert!(said.contains("topology.conf:3: "), "{said}");
}

/// Named by `--from`, the one gives and the other gets nothing.
#[test]
fn a_host_that_has_it_is_a_source_and_one_that_has_not_is_named() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let bytes = make(home, "disk.raw", 3);
    let (a, b, c) = (
        receiver(home, "a", &[]),
        receiver(home, "b", &[]),
        receiver(home, "c", &[]),
    );
    assert_eq!(
        send(home, &["disk.raw", "--to", &a.address]).status.code(),
        Some(0)
    );
    let from = format!("{},{}", a.address, c.address);
    let output = send(home, &["disk.raw", "--to", &b.address, "--from", &from]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let named = format!("nothing came from {}: ", c.address);
    assert!(
        said.contains(&named) && !said.contains(&a.address),
        "{said}"
    );
    assert!(std::fs::read(b.into.join("disk.raw")).unwrap() == bytes);
    assert!(!c.into.join("disk.raw").exists());
}

#[test]
fn the_simulation_of_parts_of_a_hundred_is_the_same_for_the_same_seed() {
    let home = TempDir::new().unwrap();
    let simulate = |seed: &str| {
        let mut command = command(home.path());
        command.args(["--output", "json", "spread", "simulate", "--hosts", "200"]);
        command.args([
            "--slow", "1%:0.5", "--killed", "1%", "--have", "50", "--seed", seed,
        ]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let one = simulate("7");
    assert_eq!(one, simulate("7"));
    assert_ne!(one, simulate("8"));
    assert_eq!(one["seconds"].as_array().unwrap().len(), 200);
    let (floor, others) = (
        one["floor"].as_f64().unwrap(),
        one["others"].as_f64().unwrap(),
    );
    assert!(
        others >= floor && others < 1.2 * floor,
        "{others} of {floor}"
    );
}

#[test]
fn refusals_say_who_was_refused_and_what_helps() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 1);
    make(home, "Windows 11.qcow2", 1);
    let other = home.join("other");
    std::fs::create_dir(&other).unwrap();
    // It trusts its own key only.
    let stranger = receiver(&other, "a", &[]);
    let (code, report, _) = reported(home, &["disk.raw", "--to", &stranger.address]);
    assert_eq!(code, 1);
    let notes = report["hosts"][0]["notes"].to_string();
    assert!(
        notes.contains("--key") && notes.contains("oscarv spread key"),
        "{notes}"
    );
    let line = stranger.says("refused");
    assert!(line.contains("refused what 127.0.0.1:"), "{line}");
    let (code, _, said) = reported(home, &["Windows 11.qcow2", "--to", &stranger.address]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("hint: --name"), "{said}");
    // Something of that name that did not come this way.
    let own = receiver(home, "b", &[]);
    std::fs::write(own.into.join("disk.raw"), "mine").unwrap();
    assert_eq!(reported(home, &["disk.raw", "--to", &own.address]).0, 1);
    let line = own.says("refused");
    assert!(line.contains("refused disk.raw from 127.0.0.1:"), "{line}");
}

/// Of each host: begun with a unit, further and further, and ended.
#[test]
fn progress_of_each_host_begins_and_ends() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let bytes = make(home, "disk.raw", 8).len() as u64;
    let (a, gone) = (receiver(home, "a", &["--progress", "json"]), nobody());
    let to = format!("{},{gone}", a.address);
    let arguments = [
        "disk.raw",
        "--to",
        &to,
        "--patience",
        "1s",
        "--progress",
        "json",
    ];
    let (code, report, said) = reported(home, &arguments);
    assert_eq!(code, 1);
    assert_eq!(report["id"].as_str().unwrap().len(), 32, "{report:#}");
    let events: Vec<Value> = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let of = |stage: &str| {
        let its = events.iter().filter(|event| event["stage"] == stage);
        its.cloned().collect::<Vec<_>>()
    };
    let stage = of(&format!("disk.raw to {}", a.address));
    let (first, last) = (stage.first().unwrap(), stage.last().unwrap());
    assert_eq!(
        (&first["event"], &first["unit"]),
        (&"started".into(), &"bytes".into()),
        "{said}"
    );
    assert_eq!(first["total"], bytes);
    assert_eq!(last["event"], "done", "{said}");
    assert_eq!(stage[stage.len() - 2]["done"], bytes, "{said}");
    let begun = |stage: &[Value]| {
        stage
            .iter()
            .filter(|event| event["event"] == "started")
            .count()
    };
    assert_eq!(begun(&stage), 1);
    let all = of("disk.raw");
    assert_eq!(
        (begun(&all), &all.last().unwrap()["event"]),
        (1, &"failed".into()),
        "{said}"
    );
    let absent = of(&format!("disk.raw to {gone}"));
    assert_eq!(absent.last().unwrap()["event"], "failed", "{said}");
    // The receiver tells of its part.
    let told: Value = serde_json::from_str(&a.says("\"done\",")).unwrap();
    assert_eq!(
        (&told["event"], &told["stage"]),
        (&"done".into(), &"disk.raw".into())
    );
    let told: Value = serde_json::from_str(&a.says("\"started\"")).unwrap();
    assert_eq!(
        (&told["unit"], &told["total"]),
        (&"bytes".into(), &bytes.into())
    );
}

/// Names that are no names of nodes of ours were errors.
#[test]
fn hosts_and_switches_are_called_as_the_system_calls_them() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 1);
    std::fs::write(
        home.join("topology.conf"),
        "SwitchName=Leaf_1 Nodes=Node[1-4],gpu_[0-3]\nSwitchName=Spine Switches=Leaf_1\n",
    )
    .unwrap();
    let a = receiver(home, "a", &[]);
    let to = format!("{},Node[1-2].invalid,gpu_[0-1].invalid", a.address);
    let arguments = ["disk.raw", "--to", &to, "--topology", "topology.conf"];
    let (code, report, said) = reported(home, &arguments);
    // One that has no address is a host that has failed, and the others get it.
    assert_eq!(code, 1, "{said}");
    let failed = [
        "Node1.invalid",
        "Node2.invalid",
        "gpu_0.invalid",
        "gpu_1.invalid",
    ];
    assert_eq!(report["ok"], serde_json::json!([a.address]), "{report:#}");
    assert_eq!(report["failed"], serde_json::json!(failed), "{report:#}");
    let note = report["hosts"][1]["notes"][0].as_str().unwrap();
    assert!(note.starts_with("its address is not known: "), "{note}");
    assert!(a.into.join("disk.raw").exists());
}

/// Where a firewall lets through one port.
#[test]
fn the_port_of_a_source_can_be_chosen() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 1);
    let a = receiver(home, "a", &[]);
    let port = nobody();
    let arguments = ["disk.raw", "--to", &a.address, "--listen", &port];
    let (code, report, said) = reported(home, &arguments);
    assert_eq!(code, 0, "{said}{report:#}");
    let taken = [arguments[0], "--to", &a.address, "--listen", &a.address];
    let (code, _, said) = reported(home, &taken);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(&format!("{} cannot be listened on", a.address)),
        "{said}"
    );
}

#[test]
fn a_simulation_in_which_nobody_has_it_says_so() {
    let home = TempDir::new().unwrap();
    let mut command = command(home.path());
    command.args(["spread", "simulate", "--hosts", "1", "--killed", "1:1s"]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(said.contains("never") && !said.contains("NaN"), "{said}");
}

#[test]
fn a_source_that_hosts_cannot_reach_says_which_option_helps() {
    let home = TempDir::new().unwrap();
    make(home.path(), "disk.raw", 1);
    let to = played(
        "{\"accept\":{\"frames\":0}}\n\
         {\"lost\":{\"parent\":\"192.0.2.1:9\",\"why\":\"it cannot be reached: timed out\"}}\n\
         {\"failed\":{\"reason\":\"nobody had more of it\"}}\n",
    );
    let (code, _, said) = reported(home.path(), &["disk.raw", "--to", &to]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("--listen ADDRESS:PORT"), "{said}");
}

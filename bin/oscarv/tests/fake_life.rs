//! A cluster's life without VMs: made, changed, looked at, taken down.

#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use kit::{Home, fake};
use serde_json::{Value, json};

fn addresses(status: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let nodes = status["nodes"].as_array().unwrap();
    let nodes = nodes.iter();
    nodes
        .map(|n| (text(&n["name"]), text(&n["address"]), text(&n["mac"])))
        .collect()
}

#[test]
fn up_is_seen_and_down_leaves_nothing() {
    let home = Home::new();
    let file = home.fake("life", 3);
    home.ok(&["up", &file])
        .says(&["life is ready: 4 nodes after"]);

    let list = home.json(&["list"]);
    assert_eq!(
        list,
        json!({"clusters": [{
            "name": "life", "health": "ready", "nodes": 4, "running": 4, "ready": 4,
            "backend": "fake", "cpus": 4, "memory": 2048,
        }]})
    );
    let table = home.ok(&["list"]).out;
    let words: Vec<&str> = table
        .lines()
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(
        words,
        ["life", "ready", "4", "4", "4", "4", "2G", "fake"],
        "{table}"
    );

    let status = home.status("life");
    assert_eq!(
        (&status["health"], &status["busy"]),
        (&json!("ready"), &Value::Null)
    );
    let nodes = status["nodes"].as_array().unwrap();
    let names: Vec<&str> = nodes.iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["head", "compute1", "compute2", "compute3"]);
    for node in nodes {
        assert_eq!(node["state"], "running", "{node}");
        assert_eq!(node["ready"], json!({"is": "ready"}), "{node}");
    }
    let table = home.ok(&["status", "life"]).out;
    assert_eq!(table.matches(" running ").count(), 4, "{table}");

    home.ok(&["down", "life", "--yes"]).says(&["life is down"]);
    home.is_clean("life");
    assert_eq!(home.json(&["list"]), json!({"clusters": []}));
    home.run(&["status", "life"]).is(4);
}

#[test]
fn up_again_does_nothing() {
    let home = Home::new();
    let file = home.fake("again", 2);
    home.ok(&["up", &file]);
    let before = home.status("again");
    let files = kit::snapshot(&home.state().join("clusters/again/disks"));
    home.ok(&["up", &file])
        .says(&["nothing to do: cluster again is as it should be"]);
    assert_eq!(home.status("again"), before);
    let after = kit::snapshot(&home.state().join("clusters/again/disks"));
    assert!(files == after, "a file of a node was written");
}

#[test]
fn more_nodes_change_nothing_of_those_that_are() {
    let home = Home::new();
    let file = home.fake("grow", 2);
    home.ok(&["up", &file]);
    let before = addresses(&home.status("grow"));
    home.fake("grow", 5);
    let plan = home.json(&["up", &file, "--dry-run"]);
    assert_eq!(plan["summary"]["create"], 3, "{plan}");
    for what in ["replace", "restart", "remove"] {
        assert_eq!(plan["summary"][what], 0, "{what}: {plan}");
    }
    // No consent is needed.
    home.ok(&["up", &file]);
    let after = addresses(&home.status("grow"));
    assert_eq!(after[..3], before[..]);
    assert_eq!(after.len(), 6);
    let console = home
        .state()
        .join("clusters/grow/nodes/compute1/console.log");
    let console = std::fs::read_to_string(console).unwrap();
    assert_eq!(
        console.matches("started").count(),
        1,
        "it was started again"
    );
}

/// What loses a disk, or ends what runs, is agreed to first.
#[test]
fn what_loses_something_is_asked_for() {
    let home = Home::new();
    let file = home.fake("less", 3);
    home.ok(&["up", &file]);
    let before = home.status("less");
    let changes = [
        fake("less", 1),
        fake("less", 3) + "memory = \"1G\"\n",
        fake("less", 3) + "disk = \"8G\"\n",
    ];
    for (change, what) in changes.iter().zip(["remove", "restart", "replace"]) {
        home.file("less", change);
        let plan = home.json(&["up", &file, "--dry-run"]);
        assert!(plan["summary"][what].as_u64() > Some(0), "{what}: {plan}");
        home.run(&["up", &file]).is(2).says(&["--yes", what]);
        assert_eq!(home.status("less"), before, "{what}: something was done");
    }
    home.file("less", &changes[1]);
    home.ok(&["up", &file, "--yes"]);
    let after = home.status("less");
    assert_eq!(after["nodes"][1]["memory"], 1024);
    assert_eq!(addresses(&after), addresses(&before));
    home.file("less", &changes[0]);
    home.ok(&["up", &file, "--yes"]);
    let after = home.status("less");
    assert_eq!(addresses(&after), addresses(&before)[..2]);
    assert!(!home.state().join("clusters/less/disks/compute3").exists());

    home.run(&["down", "less"]).is(2).says(&["--yes"]);
    assert_eq!(home.status("less"), after);
}

#[test]
fn a_rehearsal_changes_nothing() {
    let home = Home::new();
    let file = home.fake("dry", 2);
    home.ok(&["list"]);
    home.ok(&["up", &file, "--dry-run"]);
    home.json(&["up", &file, "--dry-run"]);
    assert_eq!(kit::tree(&home.state().join("clusters")).len(), 0);
    home.is_clean("dry");

    home.ok(&["up", &file]);
    let before = kit::snapshot(home.state());
    for compute in [1, 2, 4] {
        home.fake("dry", compute);
        home.ok(&["up", &file, "--dry-run"]);
    }
    let after = kit::snapshot(home.state());
    for (before, after) in before.iter().zip(&after) {
        assert!(
            before == after,
            "{} or {} was written",
            before.0.display(),
            after.0.display()
        );
    }
    assert_eq!(before.len(), after.len());
}

/// Disks, keys and addresses stay with --keep; the nodes start with them again.
#[test]
fn what_is_kept_comes_back() {
    let home = Home::new();
    let file = home.fake("kept", 2);
    home.ok(&["up", &file]);
    let before = home.status("kept");
    let keys = kit::snapshot(&home.state().join("clusters/kept/keys"));
    home.ok(&["down", "kept", "--keep"]);
    let status = home.status("kept");
    assert_eq!(status["health"], "down", "{status}");
    assert_eq!(home.json(&["list"])["clusters"][0]["running"], 0);
    home.ok(&["up", &file]);
    assert_eq!(home.status("kept"), before);
    assert!(keys == kit::snapshot(&home.state().join("clusters/kept/keys")));
    home.ok(&["down", "kept", "--keep"]);
    home.ok(&["down", "kept", "--yes"]);
    home.is_clean("kept");
}

#[test]
fn which_cluster_and_which_nodes() {
    let home = Home::new();
    let (one, two) = (home.fake("one", 2), home.fake("two", 3));
    home.ok(&["up", &one]);
    // The only one there is.
    home.ok(&["ssh-config"]);
    home.ok(&["up", &two]);
    home.run(&["ssh-config"])
        .is(2)
        .says(&["one, two", "OSCARV_CLUSTER"]);
    let asked = |set: &str| home.run(&["exec", set, "--", "true"]).err;
    assert!(asked("two:compute[3-4]").contains("no node or group compute4"));
    assert!(asked("two:gpu").contains("groups: head, compute"));
    assert!(asked("three:all").contains("there are: one, two"));

    home.set("OSCARV_CLUSTER", "two");
    let config = home.ok(&["ssh-config"]).out;
    assert!(config.contains("nodes of cluster two"), "{config}");
    assert!(asked("compute[3-4]").contains("cluster two has no node or group compute4"));
    // What is named on the command line goes before the environment.
    let status = home.json(&["status", "-c", "one"]);
    assert_eq!(status["clusters"][0]["name"], "one");
    home.run(&["logs", "compute"])
        .is(2)
        .says(&["one node is needed", "compute[1-3]"]);
    let log = home.ok(&["logs", "compute2"]).out;
    assert!(log.contains("started"), "{log}");

    home.run(&["status", "three"]).is(4).says(&["one, two"]);
    home.set("OSCARV_CLUSTER", "Not A Name");
    home.run(&["ssh-config"]).is(2).says(&["OSCARV_CLUSTER"]);
}

/// One store, one place for clusters, and nothing in common.
#[test]
fn two_clusters_at_once() {
    let home = Home::new();
    let (one, two) = (home.fake("left", 4), home.fake("right", 4));
    let (first, second) = (home.spawn(&["up", &one]), home.spawn(&["up", &two]));
    first.wait().is(0);
    second.wait().is(0);
    let slots = |cluster| -> Vec<String> {
        let mut entries = home.entries(cluster);
        entries.retain(|entry| entry.starts_with("slot/"));
        entries
    };
    assert_eq!((slots("left").len(), slots("right").len()), (1, 1));
    assert_ne!(slots("left"), slots("right"));
    let macs = |cluster| addresses(&home.status(cluster)).into_iter().map(|n| n.2);
    let mut all: Vec<String> = macs("left").chain(macs("right")).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 10, "a MAC is there twice");
    home.ok(&["down", "left", "--yes"]);
    home.is_clean("left");
    assert_eq!(home.status("right")["health"], "ready");
}

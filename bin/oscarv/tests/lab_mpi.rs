//! The main job, for real: the cluster of examples/mpi.toml under another name, from `up` to `down`, with all that a
//! person does in between.

#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use kit::lab::{LIMIT, UP};
use kit::{Home, answer, until};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

const EXAMPLE: &str = include_str!("../../../examples/mpi.toml");
const NODES: [&str; 4] = ["head", "compute1", "compute2", "compute3"];

fn cluster(compute: u32) -> String {
    let text = EXAMPLE.replacen("name = \"mpi\"", "name = \"labmpi\"", 1);
    text.replacen("count = 3", &format!("count = {compute}"), 1)
}

#[test]
fn a_cluster_for_mpi() {
    let Some((home, _one)) = kit::lab::home() else {
        return;
    };
    let file = home.file("labmpi", &cluster(3));
    let ssh = home.path(".ssh");
    fs::create_dir(&ssh).unwrap();
    fs::write(ssh.join("known_hosts"), "elsewhere ssh-ed25519 AAAA\n").unwrap();
    let before = kit::snapshot(&ssh);

    home.ok(&["up", &file, "--yes", "--time-limit", UP])
        .says(&["labmpi is ready: 4 nodes"]);
    let status = home.status("labmpi");
    assert_eq!(status["health"], "ready", "{status}");
    assert_eq!(status["network"]["up"], true, "{status}");
    home.things("labmpi").are_there(NODES.len());
    home.ok(&["up", &file]).says(&["nothing to do"]);

    programs(&home);
    files(&home);
    console(&home);
    plain_ssh(&home);
    tests(&home);
    assert!(before == kit::snapshot(&ssh), "~/.ssh was touched");

    one_node_more(&home, &file);
    one_node_killed(&home, &file);

    let things = home.things("labmpi");
    things.are_there(5);
    home.ok(&["down", "labmpi", "--yes"]);
    things.are_gone();
    home.is_clean("labmpi");
}

/// Equal answers are shown once, codes are the programs' own, and Slurm spreads a job.
fn programs(home: &Home) {
    let answer = home.ok(&[
        "exec",
        "labmpi:all",
        "--",
        "sh",
        "-c",
        "echo same $((40 + 2))",
    ]);
    assert_eq!(answer.out, "── compute[1-3],head (4)\nsame 42\n");
    let answer = home.ok(&["exec", "labmpi:compute[2-3]", "--", "hostname"]);
    assert_eq!(answer.out, "── compute2\ncompute2\n── compute3\ncompute3\n");
    let script = "test $(hostname) != compute2 || exit 7";
    home.run(&["exec", "labmpi:all", "--", "sh", "-c", script])
        .is(7)
        .says(&["compute2: exit code 7"]);
    home.run(&["exec", "labmpi:compute", "--", "no-such-program"])
        .is(127);
    home.run(&["exec", "labmpi:compute1", "-t", "1s", "--", "sleep", "60"])
        .is(124);
    home.run(&["run", "labmpi", "--", "sh", "-c", "exit 9"])
        .is(9);
    assert_eq!(job(home, 3), "compute1\ncompute2\ncompute3\n");
    // The head's /home is everybody's.
    home.ok(&["run", "labmpi", "--", "sh", "-c", "echo shared > there"]);
    let answer = home.ok(&["exec", "labmpi:all", "--", "cat", "there"]);
    assert_eq!(answer.out, "── compute[1-3],head (4)\nshared\n");
}

/// The host names of a job on so many nodes.
fn job(home: &Home, nodes: u32) -> String {
    let nodes = nodes.to_string();
    let mut arguments = vec!["run", "labmpi", "--", "srun", "--mpi=pmix", "-N", &nodes];
    arguments.push("hostname");
    let answer = home.ok(&arguments);
    let mut lines: Vec<&str> = answer.out.lines().collect();
    lines.sort_unstable();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn files(home: &Home) {
    // Every byte there is, in a size that is no multiple of anything.
    let bytes: Vec<u8> = (0u32..777_777)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    let blob = home.path("blob");
    fs::write(&blob, &bytes).unwrap();
    home.ok(&["push", "labmpi:all", blob.to_str().unwrap(), "/tmp/blob"]);
    let back = home.path("back");
    home.ok(&["get", "labmpi:all", "/tmp/blob", back.to_str().unwrap()]);
    for node in NODES {
        let copy = fs::read(back.join(node).join("blob")).unwrap();
        assert!(copy == bytes, "what came back from {node} differs");
    }
}

fn console(home: &Home) {
    let mut command = home.command(&["console", "labmpi:compute1"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), &[0x1d]).unwrap();
    let end = until(LIMIT, "the console detaches", || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(end.success(), "{said}");
    assert!(
        said.contains("attached to compute1") && said.contains("detached; compute1 goes on"),
        "{said}"
    );
    assert!(!output.stdout.is_empty(), "the console has printed nothing");
    let log = home.ok(&["logs", "labmpi:compute1", "-w", "events"]).out;
    assert!(log.contains(" ready"), "{log}");
}

/// The user's own ssh: no question is asked, and the host's key is the one that is known.
fn plain_ssh(home: &Home) {
    let config = home.cluster("labmpi").join("ssh_config");
    let mut command = Command::new("ssh");
    command
        .arg("-F")
        .arg(config)
        .args(["-o", "BatchMode=yes", "compute3", "hostname"])
        .env("HOME", home.path(""))
        .stdin(Stdio::null());
    let answer = answer(command).is(0);
    assert_eq!(
        (answer.out.as_str(), answer.err.as_str()),
        ("compute3\n", "")
    );
    // Between nodes, too.
    let hop = [
        "run",
        "labmpi",
        "--",
        "ssh",
        "-o",
        "BatchMode=yes",
        "compute2",
        "hostname",
    ];
    assert_eq!(home.ok(&hop).out, "compute2\n");
}

/// The packages' own tests, and HPCC with the residuals that it reports.
fn tests(home: &Home) {
    let report = home.json(&["test", "labmpi", "--hpcc-size", "300"]);
    assert_eq!(report["passed"], true, "{report:#}");
    let rows = report["tests"].as_array().unwrap();
    let named = |name: &str| {
        rows.iter()
            .filter(|row| row["test"].as_str().unwrap().starts_with(name))
            .count()
    };
    for name in ["base", "munge", "slurm", "openmpi", "nfs-home", "hpcc HPL"] {
        assert!(named(name) > 0, "no test of {name}: {report:#}");
    }
    assert_eq!(report["hpcc"]["tasks"], 3, "{report:#}");
}

fn boots(home: &Home) -> BTreeMap<&'static str, String> {
    let boot = |node| (node, home.boot_id(&format!("labmpi:{node}")));
    NODES.into_iter().map(boot).collect()
}

fn one_node_more(home: &Home, file: &str) {
    let before = boots(home);
    home.file("labmpi", &cluster(4));
    let plan = home.json(&["up", file, "--dry-run"]);
    let summary = &plan["summary"];
    assert_eq!(
        (&summary["create"], &summary["restart"], &summary["replace"]),
        (&1.into(), &0.into(), &0.into()),
        "{plan}"
    );
    home.ok(&["up", file, "--time-limit", UP]);
    assert_eq!(home.status("labmpi")["health"], "ready");
    assert_eq!(boots(home), before, "a running node was started again");
    assert_eq!(job(home, 4), "compute1\ncompute2\ncompute3\ncompute4\n");
}

fn one_node_killed(home: &Home, file: &str) {
    let pid = home.pid("labmpi", "compute2");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let node = until(LIMIT, "compute2 is seen to have crashed", || {
        let node = home.node("labmpi", "compute2");
        (node["state"] == "crashed").then_some(node)
    });
    assert!(node["reason"].is_string(), "{node}");
    assert_eq!(home.status("labmpi")["health"], "degraded");
    home.ok(&["up", file, "--time-limit", UP])
        .says(&["start compute2"]);
    assert_eq!(home.status("labmpi")["health"], "ready");
    assert_eq!(job(home, 4), "compute1\ncompute2\ncompute3\ncompute4\n");
}

//! The real thing: ssh to an sshd of our own that speaks over a pipe, needs no port and no rights, and reads nothing
//! from anybody's home directory. Needs Debian's openssh-server for the program alone.

#![allow(clippy::unwrap_used)]

use api::Name;
use remote::{
    Cancel, Event, Options, Outcome, Ssh, Status, Stream, exec, fold, get, highest, push,
};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

struct Lab {
    dir: TempDir,
    ssh: Ssh,
    nodes: Vec<Name>,
}

/// Three "nodes", all of them this machine; each knows its name by `$NODE`.
fn lab() -> Lab {
    assert!(
        Path::new(SSHD).exists(),
        "this test needs {SSHD}: sudo apt-get install openssh-server"
    );
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for key in ["host", "user"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)])
            .status()
            .unwrap();
        assert!(made.success());
    }
    fs::copy(at("user.pub"), at("authorized")).unwrap();
    let sshd = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nAcceptEnv NODE\nPermitRootLogin yes\nLogLevel ERROR\n",
        at("host"),
        at("authorized")
    );
    fs::write(at("sshd_config"), sshd).unwrap();
    let nodes: Vec<Name> = ["head", "compute1", "compute2"]
        .map(|n| Name::new(n).unwrap())
        .to_vec();
    let mut config = String::new();
    for node in &nodes {
        config += &format!("Host {node}\n  SetEnv NODE={node}\n");
    }
    config += &format!(
        "Host head compute1 compute2\n  ProxyCommand {SSHD} -i -f {}\nHost *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  StrictHostKeyChecking no\n  LogLevel ERROR\nHost gone\n  ProxyCommand false\n",
        at("sshd_config"),
        at("user"),
        at("known_hosts")
    );
    fs::write(at("ssh_config"), config).unwrap();
    // sshd as root wants its directory, which its service makes otherwise.
    if fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0) {
        fs::create_dir_all("/run/sshd").unwrap();
        fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
    }
    Lab {
        ssh: Ssh::new(at("ssh_config")),
        dir,
        nodes,
    }
}

fn argv(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

async fn run(lab: &Lab, words: &[&str], options: &Options, cancel: &Cancel) -> Vec<Outcome> {
    exec(&lab.ssh, &lab.nodes, &argv(words), options, cancel, |_| {}).await
}

async fn simply(lab: &Lab, words: &[&str]) -> Vec<Outcome> {
    run(lab, words, &Options::default(), &Cancel::default()).await
}

#[tokio::test]
async fn arguments_arrive_as_they_were_given() {
    let lab = lab();
    let odd = [
        "a b", "it's", "", "$HOME", "*", "-n", "\\", "x\ny", "ä", "`id`",
    ];
    let mut words = vec!["printf", "<%s>"];
    words.extend(odd);
    let outcomes = simply(&lab, &words).await;
    let wanted: String = odd.iter().map(|w| format!("<{w}>")).collect();
    for outcome in &outcomes {
        assert_eq!(outcome.status, Status::Exited(0), "{outcome:?}");
        assert_eq!(String::from_utf8_lossy(&outcome.stdout), wanted);
    }
    assert_eq!(fold(&outcomes).len(), 1);
}

#[tokio::test]
async fn codes_and_outputs_are_each_nodes_own() {
    let lab = lab();
    let script =
        "echo $NODE; echo problem >&2; case $NODE in head) exit 7;; compute2) kill -9 $$;; esac";
    let outcomes = simply(&lab, &["sh", "-c", script]).await;
    let codes: Vec<_> = outcomes.iter().map(|o| o.status.code()).collect();
    assert_eq!(codes, [7, 0, 137]);
    assert_eq!(highest(&outcomes), 137);
    assert_eq!(outcomes[1].stdout, b"compute1\n");
    assert_eq!(outcomes[1].stderr, b"problem\n");
}

#[tokio::test]
async fn a_command_has_no_input_and_a_missing_one_is_127() {
    let lab = lab();
    let outcomes = simply(&lab, &["cat"]).await;
    assert!(outcomes.iter().all(Outcome::ok), "{outcomes:?}");
    let outcomes = simply(&lab, &["no-such-program"]).await;
    assert_eq!(highest(&outcomes), 127, "{outcomes:?}");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_255_and_others_answer() {
    let mut lab = lab();
    lab.nodes.push(Name::new("gone").unwrap());
    let outcomes = simply(&lab, &["true"]).await;
    let codes: Vec<_> = outcomes.iter().map(|o| o.status.code()).collect();
    assert_eq!(codes, [0, 0, 0, 255]);
}

/// Waits until no process of this id runs: `/proc` is the witness.
async fn gone(pid: &str) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Path::new("/proc").join(pid.trim()).exists() {
        if Instant::now() > end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

const LASTS: &str = "echo $$; trap '' HUP; exec sleep 1000";

#[tokio::test]
async fn the_time_limit_ends_the_command_on_the_node_too() {
    let lab = lab();
    // Long enough for the command to be there when it passes, however busy this machine is.
    let began = Instant::now();
    simply(&lab, &["true"]).await;
    let options = Options {
        limit: Some(began.elapsed() * 4 + Duration::from_secs(1)),
        ..Options::default()
    };
    let outcomes = run(&lab, &["sh", "-c", LASTS], &options, &Cancel::default()).await;
    for outcome in &outcomes {
        assert_eq!(outcome.status, Status::TimedOut);
        let pid = String::from_utf8_lossy(&outcome.stdout);
        assert!(!pid.is_empty() && gone(&pid).await, "{pid} still runs");
    }
}

#[tokio::test]
async fn a_cancel_ends_what_runs_and_what_waits() {
    let lab = lab();
    let (cancel, options) = (
        Cancel::default(),
        Options {
            fanout: 2,
            ..Options::default()
        },
    );
    let mut pids = Vec::new();
    let outcomes = exec(
        &lab.ssh,
        &lab.nodes,
        &argv(&["sh", "-c", LASTS]),
        &options,
        &cancel,
        |event| {
            if let Event::Output(_, Stream::Out, bytes) = event {
                pids.push(String::from_utf8_lossy(bytes).into_owned());
                if pids.len() == 2 {
                    cancel.cancel();
                }
            }
        },
    )
    .await;
    assert_eq!(pids.len(), 2);
    assert!(
        outcomes.iter().all(|o| o.status == Status::Interrupted),
        "{outcomes:?}"
    );
    for pid in pids {
        assert!(gone(&pid).await, "{pid} still runs");
    }
}

#[tokio::test]
async fn when_we_are_gone_the_command_ends() {
    let lab = lab();
    let mut pid = None;
    let (cancel, options, words) = (
        Cancel::default(),
        Options::default(),
        argv(&["sh", "-c", LASTS]),
    );
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    let running = exec(
        &lab.ssh,
        &lab.nodes[..1],
        &words,
        &options,
        &cancel,
        |event| {
            if let Event::Output(_, _, bytes) = event {
                pid = Some(String::from_utf8_lossy(bytes).into_owned());
                let _ = sender.take().map(|s| s.send(()));
            }
        },
    );
    // Dropped in the middle: its ssh dies at once, without a word to the other end.
    tokio::select! {
        _ = running => panic!("it should still run"),
        _ = receiver => {}
    }
    assert!(gone(&pid.unwrap()).await);
}

#[tokio::test]
async fn a_lot_of_output_is_kept_up_to_the_limit() {
    let lab = lab();
    let options = Options {
        keep: 1000,
        ..Options::default()
    };
    let outcomes = run(
        &lab,
        &["head", "-c", "1000000", "/dev/zero"],
        &options,
        &Cancel::default(),
    )
    .await;
    for outcome in outcomes {
        assert_eq!((outcome.stdout.len(), outcome.dropped), (1000, 999_000));
    }
}

#[tokio::test]
async fn files_go_there_and_come_back() {
    let lab = lab();
    let (options, cancel) = (Options::default(), Cancel::default());
    let here = lab.dir.path().join("-odd 'name'");
    fs::create_dir(&here).unwrap();
    fs::write(here.join("tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(here.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(here.join("large"), vec![7; 3_000_000]).unwrap();
    let there = lab.dir.path().join("there");
    let mut bytes = 0;
    // All three nodes are this machine: one is enough to push to, and a rename shows that it appears whole.
    let one = &lab.nodes[..1];
    let target = there.to_str().unwrap();
    let outcomes = push(
        &lab.ssh,
        one,
        std::slice::from_ref(&here),
        target,
        &options,
        &cancel,
        &mut |n| bytes += n,
    )
    .await
    .unwrap();
    assert!(outcomes.iter().all(Outcome::ok), "{outcomes:?}");
    assert!(bytes > 3_000_000);
    assert_eq!(fs::read(there.join("large")).unwrap().len(), 3_000_000);
    assert_eq!(
        fs::metadata(there.join("tool"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o755
    );
    assert!(!there.join("-odd 'name'").exists());
    // Again: the directory is there now, so it goes into it.
    let outcomes = push(
        &lab.ssh,
        one,
        std::slice::from_ref(&here),
        target,
        &options,
        &cancel,
        &mut |_| {},
    )
    .await
    .unwrap();
    assert!(outcomes.iter().all(Outcome::ok), "{outcomes:?}");
    assert!(there.join("-odd 'name'/tool").exists());

    let back = lab.dir.path().join("back");
    let outcomes = get(
        &lab.ssh,
        &lab.nodes,
        target,
        &back,
        &options,
        &cancel,
        &mut |_| {},
    )
    .await
    .unwrap();
    assert!(outcomes.iter().all(Outcome::ok), "{outcomes:?}");
    for node in &lab.nodes {
        assert_eq!(
            fs::read(back.join(node).join("there/large")).unwrap().len(),
            3_000_000
        );
    }
    let single = lab.dir.path().join("single");
    let file = there.join("tool");
    let outcomes = get(
        &lab.ssh,
        one,
        file.to_str().unwrap(),
        &single,
        &options,
        &cancel,
        &mut |_| {},
    )
    .await
    .unwrap();
    assert!(outcomes.iter().all(Outcome::ok), "{outcomes:?}");
    assert_eq!(fs::read_to_string(&single).unwrap(), "#!/bin/sh\n");
    let left: Vec<_> = fs::read_dir(lab.dir.path())
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(".oscarv"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn failed_copies_say_why() {
    let lab = lab();
    let (options, cancel) = (Options::default(), Cancel::default());
    let one = &lab.nodes[..1];
    let missing = lab.dir.path().join("missing");
    let error = push(
        &lab.ssh,
        one,
        std::slice::from_ref(&missing),
        "x",
        &options,
        &cancel,
        &mut |_| {},
    )
    .await;
    assert!(error.unwrap_err().to_string().contains("missing"));
    let file = lab.dir.path().join("ssh_config");
    let outcomes = push(
        &lab.ssh,
        one,
        std::slice::from_ref(&file),
        "/proc/no/such",
        &options,
        &cancel,
        &mut |_| {},
    )
    .await
    .unwrap();
    assert!(
        !outcomes[0].ok() && !outcomes[0].stderr.is_empty(),
        "{outcomes:?}"
    );
    let from = missing.to_str().unwrap();
    let outcomes = get(
        &lab.ssh,
        one,
        from,
        &lab.dir.path().join("new"),
        &options,
        &cancel,
        &mut |_| {},
    )
    .await
    .unwrap();
    let told = String::from_utf8_lossy(&outcomes[0].stderr);
    assert!(!outcomes[0].ok() && told.contains("missing"), "{told}");
    assert!(!lab.dir.path().join("new").exists());
}

#[test]
fn a_session_without_a_terminal_passes_our_input() {
    let lab = lab();
    let words = ["sh", "-c", "tr a-z A-Z; exit 5"];
    let mut child = lab
        .ssh
        .session(&lab.nodes[0], &words, remote::Tty::No)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"hello").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.stdout.as_slice(), output.status.code()),
        (&b"HELLO"[..], Some(5))
    );
}

#[tokio::test]
async fn a_session_whose_client_dies_ends_on_the_node() {
    let lab = lab();
    let mut child = lab
        .ssh
        .session(&lab.nodes[0], &["sh", "-c", LASTS], remote::Tty::No)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.take().unwrap()),
        &mut pid,
    )
    .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(gone(&pid).await);
}

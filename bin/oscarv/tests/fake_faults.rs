//! What goes wrong around a cluster without VMs: each a clear message with the next step, nothing lost, nothing left.

#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use api::Name;
use kit::{Home, answer, is_root, program, skip};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use v3m_fake::Failure;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// It reports that it boots, and no more; then, late, it is ready.
#[test]
fn a_node_that_never_becomes_ready() {
    let home = Home::new();
    let file = home.fake("late", 2);
    let hypervisor = home.hypervisor("late");
    let node = name("compute2");
    hypervisor.fail(&node, Some(Failure::NeverReady)).unwrap();
    home.run(&["up", &file, "--time-limit", "1s"]).is(6).says(&[
        "node compute2 is not ready: after 1 s it is still at \"kernel\"",
        "the last lines of its console:",
        "| started",
        "hint: look with `oscarv console late:compute2`",
    ]);
    let status = home.status("late");
    assert_eq!(status["health"], "starting", "{status}");
    assert_eq!(status["nodes"][2]["state"], "running");
    assert_eq!(status["busy"], serde_json::Value::Null);
    home.run(&["up", &file, "--time-limit", "1s"]).is(6);

    let events = home.state().join("clusters/late/disks/compute2/events.log");
    let mut text = fs::read_to_string(&events).unwrap();
    text += "9.00 ready\n";
    fs::write(&events, text).unwrap();
    home.ok(&["up", &file]);
    assert_eq!(home.status("late")["health"], "ready");
}

#[test]
fn a_node_that_says_that_it_failed() {
    let home = Home::new();
    let file = home.fake("sad", 1);
    let hypervisor = home.hypervisor("sad");
    let node = name("compute1");
    hypervisor.fail(&node, Some(Failure::NeverReady)).unwrap();
    home.ok(&["up", &file, "--no-wait"]);
    let events = home.state().join("clusters/sad/disks/compute1/events.log");
    fs::write(&events, "0.1 boot kernel\n2.0 failed munge: no key\n").unwrap();
    let status = home.status("sad");
    assert_eq!(status["health"], "degraded", "{status}");
    assert!(status.to_string().contains("munge: no key"), "{status}");
    // It was said to have failed for ever, whatever was mended: `up` has its packages write their configuration again.
    hypervisor.fail(&node, None).unwrap();
    home.ok(&["up", &file]).says(&["~ tell compute1"]);
    assert_eq!(home.status("sad")["health"], "ready");
}

/// The record was changed first and then the change refused: nodes were then looked for where they are not.
#[test]
fn a_type_that_nodes_cannot_follow() {
    let home = Home::new();
    let file = home.fake("stay", 1);
    home.ok(&["up", &file]);
    let before = home.status("stay");
    let real = kit::fake("stay", 1).replace("\"fake\"", "\"qemu\"");
    home.file("stay", &real);
    for arguments in [&["up", &file, "--dry-run"][..], &["up", &file, "--yes"]] {
        home.run(arguments).is(1).says(&[
            "the type of cluster stay cannot change from fake to qemu while it is up",
            "hint: put fake back into the file, or take the cluster down first: oscarv down stay",
        ]);
    }
    assert_eq!(home.status("stay"), before);
}

#[test]
fn a_node_that_does_not_start() {
    let home = Home::new();
    let file = home.fake("dud", 3);
    let hypervisor = home.hypervisor("dud");
    let node = name("compute1");
    let failure = Failure::Start("the moon is wrong".to_owned());
    hypervisor.fail(&node, Some(failure)).unwrap();
    home.run(&["up", &file])
        .is(1)
        .says(&["VM compute1 did not start: the moon is wrong"]);
    let bad = home.node("dud", "compute1");
    assert_eq!(
        (&bad["state"], &bad["reason"]),
        (&"crashed".into(), &"the moon is wrong".into())
    );
    hypervisor.fail(&node, None).unwrap();
    home.ok(&["up", &file]);
    assert_eq!(home.status("dud")["health"], "ready");
    home.ok(&["down", "dud", "--yes"]);
    home.is_clean("dud");
}

#[test]
fn a_node_that_crashes() {
    let home = Home::new();
    let file = home.fake("crash", 2);
    let hypervisor = home.hypervisor("crash");
    let node = name("compute1");
    let failure = Failure::Crash("kernel panic".to_owned());
    hypervisor.fail(&node, Some(failure)).unwrap();
    home.run(&["up", &file, "--time-limit", "1m"])
        .is(1)
        .says(&["its VM is crashed: kernel panic", "| kernel panic"]);
    hypervisor.fail(&node, None).unwrap();
    home.ok(&["up", &file]);

    // Later, while nobody looks.
    hypervisor.crash(&node, "out of luck").unwrap();
    let status = home.status("crash");
    assert_eq!(status["health"], "degraded");
    assert_eq!(status["nodes"][1]["reason"], "out of luck");
    let table = home.ok(&["status", "crash"]).out;
    assert!(table.contains("compute1: out of luck"), "{table}");
    home.ok(&["up", &file]).says(&["start compute1"]);
    assert_eq!(home.status("crash")["health"], "ready");
}

#[test]
fn a_bad_file_is_told_whole_and_nothing_is_made() {
    let home = Home::new();
    let text = "name = \"bad\"\ntype = \"fakee\"\nnmae = 1\n[[group]]\nname = \"head\"\n\
                [[group]]\nname = \"head\"\ncpus = 0\nmemory = \"lots\"\n";
    let file = home.file("bad", text);
    let answer = home.run(&["up", &file]).is(2).says(&[
        "bad.toml:2:8",
        "bad.toml:3:1",
        "bad.toml:9:10",
        "fakee",
        "nmae",
        "lots",
        "hint:",
    ]);
    let errors = answer.err.matches("error: ").count();
    assert!(errors >= 5, "{errors} errors in\n{}", answer.err);
    assert!(!home.state().join("clusters/bad").exists());
    home.run(&["status", "bad"]).is(4);
    fs::write(home.path("bytes.toml"), [0xff, 0xfe, 0]).unwrap();
    home.run(&["up", "bytes.toml"]).is(2);
}

/// Refused with figures, before anything is made.
#[test]
fn more_nodes_than_memory() {
    let home = Home::new();
    let text = "name = \"huge\"\ntype = \"qemu\"\n[[group]]\nname = \"head\"\n\
                [[group]]\nname = \"compute\"\ncount = 200\nmemory = \"64G\"\n";
    let file = home.file("huge", text);
    let refused = home.run(&["up", &file]);
    if refused.err.contains("no hypervisor") {
        return skip("QEMU is not installed here");
    }
    refused.is(3).says(&[
        "13107712M",
        "compute 200 × 64G",
        "hint: give the nodes less memory, or take fewer",
    ]);
    home.run(&["up", &file, "--dry-run"]).is(3);
    home.is_clean("huge");
    assert_eq!(home.json(&["list"]), serde_json::json!({"clusters": []}));
}

#[test]
fn a_damaged_store() {
    let home = Home::new();
    let file = home.fake("hurt", 1);
    home.ok(&["up", &file]);
    let store = home.state().join("store.sqlite");
    let good = fs::read(&store).unwrap();
    let remedy = format!("mv {0} {0}.damaged", store.display());
    let mut cut = good.clone();
    cut.truncate(good.len() / 2);
    for bad in [b"this is no database, whatever it was once".to_vec(), cut] {
        fs::write(&store, bad).unwrap();
        for arguments in [&["list"][..], &["up", &file], &["down", "hurt", "--yes"]] {
            let answer = home.run(arguments).is(1);
            assert!(
                answer.err.contains(&remedy) || answer.err.contains("move it aside"),
                "{}",
                answer.err
            );
        }
    }
    // As was advised: the cluster is found again by its file, with all it had.
    fs::rename(&store, home.path("damaged")).unwrap();
    home.ok(&["up", &file]);
    assert_eq!(home.status("hurt")["health"], "ready");
    home.ok(&["down", "hurt", "--yes"]);
    home.is_clean("hurt");
}

#[test]
fn a_damaged_note_of_what_a_node_was_made_from() {
    let home = Home::new();
    let file = home.fake("note", 1);
    home.ok(&["up", &file]);
    let made = home.state().join("clusters/note/disks/compute1/made.json");
    fs::write(&made, "{").unwrap();
    let advice = format!("hint: remove {}", made.display());
    home.run(&["up", &file])
        .is(1)
        .says(&["is damaged", &advice]);
    // Looking and taking down need no such note.
    assert_eq!(home.status("note")["health"], "ready");
    fs::remove_file(&made).unwrap();
    home.run(&["up", &file]).is(2).says(&["replace compute1"]);
    home.ok(&["up", &file, "--yes"]);
    fs::write(&made, "{").unwrap();
    home.ok(&["down", "note", "--yes"]);
    home.is_clean("note");
}

/// A cluster whose definitions cannot be read goes down all the same.
#[test]
fn a_damaged_definition() {
    let home = Home::new();
    let file = home.fake("torn", 1);
    home.ok(&["up", &file]);
    let vm = home.state().join("clusters/torn/nodes/compute1/vm.json");
    fs::write(&vm, "{").unwrap();
    home.ok(&["down", "torn", "--yes"]);
    home.is_clean("torn");
}

/// Wrong permissions, as an ordinary user: root is refused nothing.
#[test]
fn a_place_that_is_not_ours() {
    let home = Home::new();
    let file = home.fake("mine", 1);
    let place = home.path("place");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o555)).unwrap();
    let state = place.join("state");
    let mut command = home.command(&["up", &file, "--state", state.to_str().unwrap()]);
    if is_root() {
        let copy = home.path("oscarv");
        fs::copy(program(), &copy).unwrap();
        fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        command = as_nobody(&copy, &["up", &file, "--state", state.to_str().unwrap()]);
        command.current_dir(home.path(""));
    }
    let refused = answer(command).is(1);
    assert!(
        refused.err.contains(state.to_str().unwrap())
            && refused.err.contains("Permission denied")
            && refused.err.contains("--state"),
        "{}",
        refused.err
    );
    if !is_root() {
        return;
    }
    // And somebody else's state.
    home.ok(&["up", &file]);
    let state = home.state().to_str().unwrap();
    let copy = home.path("oscarv");
    for arguments in [&["list"][..], &["up", &file], &["down", "mine", "--yes"]] {
        let mut command = as_nobody(&copy, arguments);
        command.args(["--state", state]).current_dir(home.path(""));
        let refused = answer(command).is(1);
        assert!(
            refused.err.contains("ermission denied") && refused.err.contains("--state"),
            "{}",
            refused.err
        );
    }
    assert_eq!(home.status("mine")["health"], "ready");
}

fn as_nobody(program: &Path, arguments: &[&str]) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.args(arguments).uid(65534).gid(65534);
    command
}

/// The steps of a disk that fills up, in a mount namespace: $1 program, $2 file, $3 mount point. For each amount of
/// room: `up` on it, what it said, and what it and `down` did when there was room again.
const FULL: &str = r#"
mount -t tmpfs -o size=4m,mode=0755 none "$3" || exit 77
export OSCARV_STATE="$3/state"
"$1" up "$2" 2>/dev/null || exit 1
"$1" down full --yes 2>/dev/null || exit 1
for room in 0 4 8 12 16 24 32 48 64 96; do
  dd if=/dev/zero of="$3/room" bs=1024 count=$room 2>/dev/null
  dd if=/dev/zero of="$3/fill" bs=4096 2>/dev/null
  rm "$3/room"
  "$1" up "$2" 2>said; echo "room $room: up $?: $(tail -n 4 said | tr '\n' ' ')"
  rm "$3/fill"
  "$1" up "$2" 2>said; echo "again $?: $(tail -n 4 said | tr '\n' ' ')"
  "$1" down full --yes 2>said; echo "down $?: $(tail -n 4 said | tr '\n' ' ')"
  echo "left: $(ls "$3/state/clusters")"
done"#;

#[test]
fn a_disk_that_is_full() {
    let home = Home::new();
    let file = home.fake("full", 3);
    let mount = home.path("disk");
    fs::create_dir(&mount).unwrap();
    let mut command = Command::new("unshare");
    command.arg("-m");
    if !is_root() {
        command.args(["-U", "--map-current-user", "--keep-caps"]);
    }
    command
        .args(["sh", "-c", FULL, "sh"])
        .arg(program())
        .arg(&file)
        .arg(&mount)
        .current_dir(home.path(""));
    let answer = match command.output() {
        Ok(output) if output.status.code() == Some(77) => {
            return skip("no mount namespaces for us here");
        }
        Err(e) => return skip(&format!("unshare: {e}")),
        Ok(_) => answer(command),
    };
    assert_eq!(answer.code, 0, "{}\n{}", answer.out, answer.err);
    let mut refused = 0;
    for line in answer.out.lines() {
        if line.starts_with("room") && !line.contains(": up 0:") {
            refused += 1;
            assert!(line.contains(": up 1:"), "{line}\n{}", answer.out);
            assert!(line.contains("full"), "{line}\n{}", answer.out);
            assert!(
                line.contains("free space") || line.contains("free some space"),
                "{line}"
            );
        }
        if line.starts_with("again") || line.starts_with("down") {
            assert!(line.contains(" 0:"), "{line}\n{}", answer.out);
        }
        if let Some(left) = line.strip_prefix("left: ") {
            assert_eq!(left, "", "{}", answer.out);
        }
    }
    assert!(refused >= 4, "{}", answer.out);
}

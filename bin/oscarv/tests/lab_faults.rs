//! What goes wrong with real nodes: each a clear message with the next step, nothing lost, nothing left.

#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use kit::lab::tiny;
use kit::{Home, answer, is_root, program, skip};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// A directory first in the search path, with one program of ours.
fn first_in_path(home: &Home, program: &str, text: &str) {
    let bin = home.path("bin");
    fs::create_dir_all(&bin).unwrap();
    script(&bin.join(program), text);
    let rest = search_path();
    let all = std::iter::once(bin).chain(std::env::split_paths(&rest));
    home.set(
        "PATH",
        std::env::join_paths(all.collect::<Vec<_>>()).unwrap(),
    );
}

/// A command for which a program is not there: not in its search path, and where it is looked for besides a file that
/// cannot be run lies over it, in a mount namespace of its own.
fn without(home: &Home, missing: &str, arguments: &[&str]) -> Command {
    let path = search_path();
    let places = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|directory| directory.join(missing))
        .filter_map(|path| path.canonicalize().ok());
    let mut places: Vec<PathBuf> = places.collect();
    places.sort();
    places.dedup();
    let bin = home.path(&format!("without-{missing}"));
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        for entry in std::env::split_paths(&path)
            .flat_map(fs::read_dir)
            .flatten()
        {
            let entry = entry.unwrap();
            if entry.file_name() != missing {
                // The first of a name is the one that is found.
                let _ = symlink(entry.path(), bin.join(entry.file_name()));
            }
        }
    }
    let empty = home.path("empty");
    fs::write(&empty, "").unwrap();
    let cover = "empty=$1; shift; while [ \"$1\" != -- ]; do mount --bind \"$empty\" \"$1\" || exit 77; \
                 shift; done; shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.arg("-m");
    if !is_root() {
        command.args(["-U", "--map-current-user", "--keep-caps"]);
    }
    command.args(["sh", "-c", cover, "sh"]).arg(&empty);
    command.args(places).arg("--");
    let ours = home.command(arguments);
    command.arg(ours.get_program()).args(ours.get_args());
    command.env_clear().current_dir(home.path(""));
    for (name, value) in ours.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.env("PATH", &bin);
    command
}

/// Its readiness test fails for ever: the time limit ends the wait, the node's words and its console are shown.
#[test]
fn a_guest_that_never_becomes_ready() {
    let Some((home, _one)) = kit::lab::home() else {
        return;
    };
    let package = home.path("packages/moody");
    fs::create_dir_all(package.join("testing")).unwrap();
    let manifest = "name = \"moody\"\nversion = \"1.0\"\nsummary = \"Is never ready\"\n\
                    description = \"For a test.\"\nlicence = \"Apache-2.0\"\nauthors = [\"a test\"]\n\
                    class = \"core\"\ngroup = \"system\"\n";
    fs::write(package.join("opkg.toml"), manifest).unwrap();
    fs::create_dir_all(package.join("doc")).unwrap();
    fs::write(package.join("doc/README.md"), "For a test.\n").unwrap();
    let words = "#!/bin/sh\necho the moon is wrong\nexit 1\n";
    script(&package.join("testing/ready"), words);
    let text = tiny("moody", "").replace("[\"base\"]", "[\"base\", \"moody\"]");
    let file = home.file("moody", &text);
    let packages = home.path("packages");
    let packages = packages.to_str().unwrap();
    home.ok(&["image", "build", &file, "--packages", packages]);
    let up = ["up", &file, "--packages", packages, "--time-limit", "90s"];
    home.run(&up).is(6).says(&[
        "node head is not ready: after 90 s it is still at",
        "moody the moon is wrong",
        "hint: look with `oscarv console moody:head`",
    ]);
    let status = home.status("moody");
    assert_eq!(status["health"], "starting", "{status}");
    // It is there to be looked at.
    let answer = home.ok(&["exec", "moody:head", "--", "hostname"]);
    assert_eq!(answer.out, "head\n");
    let things = home.things("moody");
    home.ok(&["down", "moody", "--yes"]);
    things.are_gone();
    home.is_clean("moody");
    let images = home.json(&["image", "list"]);
    for image in images["images"].as_array().unwrap() {
        if image.to_string().contains("\"moody\"") {
            home.ok(&["image", "remove", image["id"].as_str().unwrap()]);
        }
    }
}

/// It says why in its last words, and they are passed on.
#[test]
fn a_qemu_that_dies_while_starting() {
    let Some((home, _one)) = kit::lab::home() else {
        return;
    };
    let file = home.file("dying", &tiny("dying", ""));
    home.ok(&["image", "build", &file]);
    let qemu = std::env::split_paths(&search_path())
        .map(|directory| directory.join("qemu-system-x86_64"))
        .find(|path| path.exists())
        .unwrap();
    // Only our node's: what asks QEMU for its version is answered.
    let text = format!(
        "#!/bin/sh\ncase \" $* \" in *\" -name head \"*)\n\
         echo 'qemu-system-x86_64: the moon is wrong' >&2; exit 1;; esac\nexec {} \"$@\"\n",
        qemu.display()
    );
    first_in_path(&home, "qemu-system-x86_64", &text);
    home.run(&["up", &file, "--yes"])
        .is(1)
        .says(&["VM head did not start", "the moon is wrong"]);
    let head = home.node("dying", "head");
    assert_ne!(head["state"], "running", "{head}");
    home.ok(&["down", "dying", "--yes"]);
    home.is_clean("dying");
}

#[test]
fn programs_that_are_missing() {
    let Some((home, _one)) = kit::lab::home() else {
        return;
    };
    let file = home.file("lacking", &tiny("lacking", ""));
    home.ok(&["image", "build", &file]);
    for (program, package) in [
        ("dnsmasq", "dnsmasq-base"),
        ("qemu-img", "qemu-utils"),
        ("qemu-system-x86_64", "qemu-system-x86"),
    ] {
        let refused = answer(without(
            &home,
            program,
            &["up", &file, "--yes", "--no-wait"],
        ));
        if refused.code == 77 {
            return skip("no mount namespaces for us here");
        }
        assert_eq!(refused.code, 3, "without {program}: {}", refused.err);
        refused.says(&[program, &format!("install {package}")]);
        let check = answer(without(&home, program, &["check"])).is(3);
        assert!(
            check.out.contains(program) && check.out.contains(package),
            "without {program}: {}",
            check.out
        );
        home.ok(&["down", "lacking", "--yes"]);
        home.is_clean("lacking");
    }
}

#[test]
fn packages_that_cannot_be_had() {
    let Some((home, _one)) = kit::lab::home() else {
        return;
    };
    let more = "packages = [\"no-such-package-at-all\"]\n";
    let file = home.file("without", &tiny("without", more));
    let images = home.json(&["image", "list"]);
    home.run(&["up", &file, "--yes"]).is(1).says(&[
        "there is no package no-such-package-at-all in debian bookworm",
        "hint: look for the right name",
    ]);
    home.ok(&["down", "without", "--yes"]);
    // Nobody listens there.
    let more = "mirror = \"http://127.0.0.1:9/debian\"\npackages = [\"hello\"]\n";
    let file = home.file("offline", &tiny("offline", more));
    home.run(&["up", &file, "--yes"])
        .is(1)
        .says(&["could not be downloaded", "mirror"]);
    home.ok(&["down", "offline", "--yes"]);
    home.is_clean("without");
    home.is_clean("offline");
    assert_eq!(home.json(&["image", "list"]), images);
    let left = kit::tree(&home.state().join("tmp"));
    assert_eq!(left, Vec::<PathBuf>::new(), "half an image is left");
}

/// A link of the host's has the name that ours would have: another one is taken.
#[test]
fn a_link_that_is_in_use() {
    let Some((home, _one)) = kit::lab::home() else {
        return;
    };
    if !is_root() {
        return skip("an ordinary user's clusters have no links on the host");
    }
    let file = home.file("linked", &tiny("linked", ""));
    home.ok(&["image", "build", &file]);
    let free = (0..).find(|n| !Path::new(&format!("/sys/class/net/ov{n}")).exists());
    let link = Link::new(&format!("ov{}", free.unwrap()));
    home.ok(&["up", &file, "--yes", "--no-wait"]);
    assert_eq!(home.status("linked")["network"]["up"], true);
    let things = home.things("linked");
    things.are_there(1);
    home.ok(&["down", "linked", "--yes"]);
    things.are_gone();
    assert!(link.path().exists(), "a link that is not ours was removed");
}

struct Link(String);

impl Link {
    fn new(name: &str) -> Self {
        let mut command = Command::new("ip");
        command.args(["link", "add", name, "type", "bridge"]);
        answer(command).is(0);
        Self(name.to_owned())
    }

    fn path(&self) -> PathBuf {
        Path::new("/sys/class/net").join(&self.0)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut command = Command::new("ip");
        command.args(["link", "delete", &self.0]);
        answer(command);
    }
}

/// In a mount namespace; $1 program, $2 file, $3 mount point, $4 the state with the image.
const FULL: &str = r#"
mount -t tmpfs -o size=8m,mode=0711 none "$3" || exit 77
mkdir -m 0711 "$3/state"
for kind in images keys tags layers cache tmp logs; do ln -s "$4/$kind" "$3/state/$kind"; done
export OSCARV_STATE="$3/state"
trap '"$1" down brimful --yes' EXIT
"$1" list
for room in 100 200 400 600; do
  dd if=/dev/zero of="$3/room" bs=1024 count=$room
  dd if=/dev/zero of="$3/fill" bs=4096
  rm "$3/room"
  "$1" up "$2" --yes --no-wait 2>said; echo "room $room: up $?: $(tail -n 4 said | tr '\n' ' ')"
  "$1" down brimful --yes 2>said; echo "down $?: $(tail -n 4 said | tr '\n' ' ')"
  echo "left: $(ls "$3/state/clusters")"
  rm "$3/fill"
done 2>/dev/null
"$1" up "$2" --yes --no-wait 2>said; echo "again $?: $(tail -n 4 said | tr '\n' ' ')"
"#;

#[test]
fn a_disk_that_is_full() {
    let Some((home, _one)) = kit::lab::home() else {
        return;
    };
    if !is_root() {
        return skip(
            "a user's own mount namespace has no subordinate ids; as root, and without VMs, it is tested",
        );
    }
    let file = home.file("brimful", &tiny("brimful", ""));
    home.ok(&["image", "build", &file]);
    let mount = home.path("disk");
    fs::create_dir(&mount).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", FULL, "sh"])
        .arg(program())
        .arg(&file)
        .arg(&mount)
        .arg(home.state())
        .current_dir(home.path(""));
    let answer = answer(command);
    if answer.code == 77 {
        return skip("no mount namespaces for us here");
    }
    let mut refused = 0;
    for line in answer.out.lines() {
        if line.starts_with("room") && !line.contains(": up 0:") {
            refused += 1;
            let said = line.contains(" is full") || line.contains("No space left on device");
            assert!(said && line.contains(": up 1:"), "{line}\n{}", answer.out);
            assert!(line.contains("hint: free "), "{line}\n{}", answer.out);
        }
        if line.starts_with("again") || line.starts_with("down") {
            assert!(line.contains(" 0:"), "{line}\n{}", answer.out);
        }
        if let Some(left) = line.strip_prefix("left: ") {
            assert_eq!(left, "", "{}", answer.out);
        }
    }
    assert!(refused >= 1, "{}\n{}", answer.out, answer.err);
    assert!(answer.out.contains("again 0:"), "{}", answer.out);
    let processes = kit::processes(&mount);
    assert_eq!(processes, Vec::<String>::new(), "processes are left");
}

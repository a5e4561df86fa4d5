//! What goes wrong around real VMs: each time it is told, nothing is lost, and the next command goes on.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::guests::{ECHO, boot_sector, echo};
use kit::{Home, tree, until};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The processes that have their working directory in a VM's directory: each is a QEMU of this home's.
fn processes(home: &Home) -> Vec<u32> {
    let run = home.path("").canonicalize().unwrap().join("state/run");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let ours = |pid: &u32| {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
        // One that is ending has none; its directory may be gone before it.
        cwd.is_ok_and(|cwd| cwd.starts_with(&run))
    };
    pids.filter(ours).collect()
}

/// A VM with this line more, on the guest that echoes.
fn with(home: &Home, name: &str, more: &str) -> String {
    let file = echo(home, name);
    let text = std::fs::read_to_string(home.path(&file)).unwrap();
    home.file(&file, text + more);
    file
}

#[test]
fn an_image_in_use_is_told_and_its_vm_goes_on() {
    let home = Home::new();
    home.file("shared.raw", boot_sector(ECHO));
    let disk = "[[disk]]\npath = \"shared.raw\"\nformat = \"raw\"\n";
    for name in ["one", "two"] {
        home.file(
            &format!("{name}.toml"),
            format!("name = \"{name}\"\ntype = \"qemu\"\nmemory = \"16M\"\n{disk}"),
        );
    }
    home.ok(&["start", "one.toml", "--wait-ready=>"]);
    let pid = home.json(&["status", "one"])["pid"].clone();
    for command in [
        &["start", "two.toml"][..],
        &["image", "resize", "shared.raw", "2M"],
        &["image", "check", "shared.raw"],
    ] {
        let answer = home.run(command);
        if command[1] != "check" {
            let said = answer.is(1).says("in use by another VM").err;
            assert_eq!(said.matches("shared.raw").count(), 1, "{said}");
        }
    }
    assert_eq!(home.json(&["status", "one"])["pid"], pid);
    assert_eq!(home.state_of("one"), "running");
    home.ok(&["stop", "one", "--grace", "0"]);
    home.ok(&["start", "two", "--wait-ready=>"]);
    home.run(&["start", "one"]).is(1).says("in use");
}

/// All that stands against a start is told at once, and nothing is started.
#[test]
fn files_that_are_not_what_the_profile_says() {
    let home = Home::new();
    home.file("no.iso", "this is no file system");
    home.file("no.qcow2", "and this no qcow2 image");
    std::fs::create_dir(home.path("directory")).unwrap();
    let file = with(
        &home,
        "web",
        "[[disk]]\npath = \"no.iso\"\ncdrom = true\n\
         [[disk]]\npath = \"missing.iso\"\ncdrom = true\n\
         [[disk]]\npath = \"no.qcow2\"\nformat = \"qcow2\"\n\
         [[disk]]\npath = \"directory\"\nformat = \"raw\"\n",
    );
    let said = home.run(&["start", &file]).is(1).err;
    for words in [
        "no.iso is no CD image",
        "there is no CD image",
        "no.qcow2 is told to be qcow2, and does not begin as one",
        "directory is a directory",
    ] {
        assert!(said.contains(words), "{words:?} is not said in\n{said}");
    }
    assert_eq!(home.state_of("web"), "defined");
    assert_eq!(processes(&home), Vec::<u32>::new());
    let no = std::fs::read_to_string(home.path("no.qcow2")).unwrap();
    assert_eq!(no, "and this no qcow2 image");
    home.ok(&["destroy", "web", "--yes"]);
}

#[test]
fn no_memory_is_told_before_and_when_qemu_gets_none() {
    let home = Home::new();
    let file = echo(&home, "web");
    let text = std::fs::read_to_string(home.path(&file)).unwrap();
    home.file(&file, text.replace("16M", "60T"));
    home.run(&["start", &file]).is(3).says("MiB of memory");
    home.ok(&["destroy", "web", "--yes"]);
    // The host had it when it was asked, and not when QEMU wanted it.
    home.file(&file, text.replace("16M", "512M"));
    let limited = home
        .command(&["start", &file])
        .get_args()
        .map(std::ffi::OsStr::to_owned)
        .collect::<Vec<_>>();
    let mut command = home.command(&[]);
    let mut outer = std::process::Command::new("prlimit");
    outer.arg(format!("--as={}", 480 << 20)).arg(kit::program());
    outer.args(limited).current_dir(home.path("")).env_clear();
    outer.envs(
        command
            .env("X", "")
            .get_envs()
            .filter_map(|(k, v)| Some((k, v?))),
    );
    let answer = kit::Answer::from(outer.output().unwrap());
    answer.is(1).says("Cannot allocate memory");
    assert_eq!(home.state_of("web"), "crashed");
    home.ok(&["start", &file, "--wait-ready=>"]);
}

/// What another program left, or has, under the names that a VM uses.
#[test]
fn sockets_and_pid_files_of_another_program() {
    let home = Home::new();
    let file = echo(&home, "web");
    home.ok(&["start", &file, "--wait-ready=>"]);
    home.ok(&["stop", "web", "--grace", "0"]);
    let run = home.path("state/run/web");
    let mut other = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    std::fs::write(run.join("qemu.lock"), other.id().to_string()).unwrap();
    for socket in ["qmp.sock", "console.sock"] {
        let _ = std::fs::remove_file(run.join(socket));
    }
    let theirs = UnixListener::bind(run.join("qmp.sock")).unwrap();
    std::fs::write(run.join("console.sock"), "no socket").unwrap();
    // The lock says who lives, not the number in it.
    assert_eq!(home.state_of("web"), "stopped");
    home.ok(&["start", "web", "--wait-ready=>"]);
    home.ok(&["pause", "web"]);
    home.ok(&["resume", "web"]);
    home.ok(&["destroy", "web", "--yes"]);
    assert!(
        other.try_wait().unwrap().is_none(),
        "the other program lives"
    );
    other.kill().unwrap();
    other.wait().unwrap();
    drop(theirs);
    assert_eq!(tree(&run), Vec::<PathBuf>::new());
}

/// The marker of a pause of ours is gone when the guest goes on: one that QEMU stops afterwards has crashed.
#[test]
fn a_guest_that_stops_after_a_pause_or_a_snapshot_has_crashed() {
    let home = Home::new();
    let file = with(
        &home,
        "web",
        "[[disk]]\npath = \"new.qcow2\"\nformat = \"qcow2\"\nsize = \"8M\"\n",
    );
    home.ok(&["start", &file, "--wait-ready=>"]);
    let marker = home.path("state/run/web/paused");
    home.ok(&["pause", "web"]);
    assert!(marker.exists());
    home.ok(&["resume", "web"]);
    assert!(!marker.exists());
    home.ok(&["image", "snapshot", "create", "web", "one"]);
    assert!(!marker.exists());
    home.ok(&["image", "snapshot", "apply", "web", "one", "--yes"]);
    assert!(!marker.exists());
    assert_eq!(home.state_of("web"), "running");
    // Of a paused one it stays.
    home.ok(&["pause", "web"]);
    home.ok(&["image", "snapshot", "create", "web", "two"]);
    assert_eq!(home.state_of("web"), "paused");
}

#[test]
fn a_replaced_vm_keeps_its_firmwares_variables_and_its_consoles_past() {
    if !Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").exists() {
        eprintln!("skipped: UEFI's firmware is not installed");
        return;
    }
    let home = Home::new();
    let file = echo(&home, "web");
    let text = std::fs::read_to_string(home.path(&file)).unwrap();
    let text = text.replace("memory = \"16M\"", "memory = \"128M\"\nfirmware = \"uefi\"");
    home.file(&file, &text);
    home.ok(&[
        "start",
        &file,
        "--wait-ready=BdsDxe",
        "--time-limit",
        "120s",
    ]);
    home.ok(&["stop", "web", "--grace", "0"]);
    let variables = home.path("state/run/web/uefi-vars.fd");
    let kept = std::fs::read(&variables).unwrap();
    assert!(kept != std::fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd").unwrap());
    let log = home.path("state/run/web/console.log");
    let past = std::fs::read(&log).unwrap();
    home.file(&file, text.replace("128M", "160M"));
    home.ok(&["create", "--replace", &file]).says("anew");
    assert!(kept == std::fs::read(&variables).unwrap());
    // What the guest had changed is there at its next start, and not made anew.
    home.ok(&["start", "web"]);
    home.ok(&["stop", "web", "--grace", "0"]);
    assert_eq!(home.json(&["status", "web"])["memory"], 160);
    let pages = |bytes: &[u8]| bytes.chunks(4096).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let now = pages(&std::fs::read(&variables).unwrap());
    let same = now
        .iter()
        .zip(pages(&kept))
        .filter(|(a, b)| **a == *b)
        .count();
    assert!(same + 4 > now.len(), "{same} of {} pages", now.len());
    assert!(std::fs::read(&log).unwrap().starts_with(&past));
    home.ok(&["destroy", "web", "--yes"]);
    assert_eq!(tree(&home.path("state/run")), Vec::<PathBuf>::new());
}

/// How many snapshots the VM has.
fn snapshots(home: &Home) -> usize {
    let list = home.json(&["image", "snapshot", "list", "web"]);
    list["snapshots"].as_array().map_or(0, Vec::len)
}

/// Kills v2m at 80 moments of its work on one VM. After each: at most one QEMU, which the next command finds; what was
/// killed can be done again.
#[test]
fn killed_at_any_moment_of_any_command() {
    let home = Home::new();
    let file = with(
        &home,
        "web",
        "[[disk]]\npath = \"own.qcow2\"\nformat = \"qcow2\"\nsize = \"8M\"\n",
    );
    let commands: [&[&str]; 10] = [
        &["create", &file],
        &["start", &file],
        &["reboot", "web", "--grace", "0"],
        &["image", "snapshot", "create", "web", "one"],
        &["pause", "web"],
        &["resume", "web"],
        &["image", "snapshot", "apply", "web", "one", "--yes"],
        &["image", "snapshot", "delete", "web", "one"],
        &["stop", "web", "--grace", "0"],
        &["destroy", "web", "--yes"],
    ];
    // A linear congruential generator (Numerical Recipes): the same moments each time.
    let mut random = 1u32;
    for round in 0..80 {
        let command = commands[round % commands.len()];
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let longest = if matches!(command[0], "start" | "image") {
            90_000
        } else {
            25_000
        };
        let mut child = home.spawn(command);
        // The one place where time itself is what the test is about.
        std::thread::sleep(Duration::from_micros(u64::from(random >> 8) % longest));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            processes(&home).len() <= 1,
            "{command:?}: {:?}",
            processes(&home)
        );
        let again = home.run(command);
        // What QEMU was told, it may have done by now, or do meanwhile.
        match command.get(2) {
            Some(&"create") if again.code == 1 => drop(again.says("already")),
            Some(&"delete") if again.code == 1 => drop(again.says("no snapshot")),
            _ => assert!(matches!(again.code, 0 | 4), "{command:?}: {again:?}"),
        }
        if command[0] == "image" {
            let wanted = usize::from(command[2] != "delete");
            assert_eq!(snapshots(&home), wanted, "{command:?}");
        }
        let running = processes(&home);
        let wanted = match command[0] {
            "create" => "defined",
            "start" | "reboot" | "resume" | "image" => "running",
            "pause" => "paused",
            "stop" => "stopped",
            _ => "",
        };
        if wanted.is_empty() {
            assert_eq!(running, Vec::<u32>::new());
            assert_eq!(tree(&home.path("state/vms")), Vec::<PathBuf>::new());
            assert_eq!(tree(&home.path("state/run")), Vec::<PathBuf>::new());
        } else {
            if command[0] == "image" {
                // What was killed has told QEMU to save or load: the guest stands still until that is done.
                until("the guest goes on", || {
                    (home.state_of("web") == wanted).then_some(())
                });
            }
            let status = home.json(&["status", "web"]);
            assert_eq!(status["state"], wanted, "{command:?}");
            let pid = status["pid"].as_u64().map(|pid| pid as u32);
            assert_eq!(running, pid.into_iter().collect::<Vec<_>>(), "{command:?}");
        }
    }
}

#[test]
fn a_vm_whose_qemu_hangs_delays_no_list_and_can_be_destroyed() {
    let home = Home::new();
    let (one, two) = (echo(&home, "one"), echo(&home, "two"));
    home.ok(&["start", &one, &two]);
    let lock = home.path("state/run/one/qemu.lock");
    assert!(daemon::signal(&lock, rustix::process::Signal::STOP).unwrap());
    let began = std::time::Instant::now();
    assert_eq!(home.json(&["list"])["vms"].as_array().unwrap().len(), 2);
    home.json(&["top", "--once"]);
    assert!(began.elapsed() < Duration::from_secs(5));
    home.ok(&["destroy", "one", "--yes"]);
    until("its process is gone", || {
        (processes(&home).len() == 1).then_some(())
    });
    assert_eq!(home.state_of("two"), "running");
}

//! The command line on real VMs: QEMU's own translation, guests of one boot sector.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::guests::{ECHO, boot_sector, echo};
use kit::{Answer, Home, tree, until};
use rustix::process::geteuid;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

fn owner_of(pid: u64) -> u32 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with("Uid:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_whole_life() {
    let home = Home::new();
    let file = echo(&home, "web");
    home.ok(&["start", &file, "--wait-ready=>", "--time-limit", "60s"]);
    let status = home.json(&["status", "web"]);
    assert_eq!(status["state"], "running");
    if geteuid().is_root() {
        assert!(owner_of(status["pid"].as_u64().unwrap()) >= 0x7000_1000);
    }
    home.ok(&["pause", "web"]).says("web is paused");
    home.ok(&["resume", "web"]).says("web is running");
    let top = home.json(&["top", "--once"]);
    assert_eq!(top["vms"][0]["name"], "web");
    assert!(top["vms"][0]["memory"].as_u64().unwrap() > 1 << 20);
    home.ok(&["top", "--once", "--prometheus", "v2m.prom"]);
    let metrics = std::fs::read_to_string(home.path("v2m.prom")).unwrap();
    assert!(metrics.contains("v2m_cpu_seconds_total{vm=\"web\"}"));
    home.ok(&["reboot", "web", "--grace", "0"]);
    home.ok(&["stop", "web", "--grace", "0"])
        .says("web is stopped");
    // The prompt of the boot before does not count.
    home.ok(&["start", "web", "--wait-ready=>"]);
    home.ok(&["destroy", "web", "--yes"]);
    assert_eq!(tree(&home.path("state/vms")), Vec::<PathBuf>::new());
    assert_eq!(tree(&home.path("state/run")), Vec::<PathBuf>::new());
    assert!(home.path("echo.raw").exists(), "its disk is not v2m's");
}

/// What is typed comes back, and Ctrl-] ends it while the VM goes on.
#[test]
fn the_console_goes_both_ways() {
    let home = Home::new();
    let file = echo(&home, "web");
    home.ok(&["start", &file, "--wait-ready=>"]);
    let mut child = home
        .command(&["console", "web"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let (sender, pieces) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut piece = [0; 256];
        while let Ok(count @ 1..) = screen.read(&mut piece) {
            let _ = sender.send(piece[..count].to_vec());
        }
    });
    keys.write_all(b"hello\n").unwrap();
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains("hello\n") {
        match pieces.recv_timeout(Duration::from_secs(30)) {
            Ok(piece) => shown.extend(piece),
            Err(e) => {
                let _ = child.kill();
                panic!("{e}: {:?}", String::from_utf8_lossy(&shown));
            }
        }
    }
    keys.write_all(&[0x1d]).unwrap();
    let answer = Answer::from(child.wait_with_output().unwrap());
    answer.is(0).says("detached; web goes on");
    assert_eq!(home.state_of("web"), "running");
    // What a VM printed before it was rebooted is not of its new start.
    home.ok(&["reboot", "web", "--grace", "0"]);
    home.ok(&["start", "web", "--wait-ready=>", "--time-limit", "60s"]);
    home.run(&["start", "web", "--wait-ready=hello", "--time-limit", "1s"])
        .is(6);
}

/// A disk that is missing is made, and removed only with `--disks`.
#[test]
fn disks_that_v2m_made() {
    let home = Home::new();
    let text = "name = \"web\"\ntype = \"qemu\"\nmemory = \"16M\"\n\
                [[disk]]\npath = \"new.qcow2\"\nformat = \"qcow2\"\nsize = \"8M\"\n";
    home.file("web.toml", text);
    home.ok(&["start", "web.toml"]);
    assert!(home.path("new.qcow2").exists());
    // Snapshots of the VM: running, with its memory; stopped, without.
    home.ok(&["image", "snapshot", "create", "web", "live"]);
    home.ok(&["image", "snapshot", "apply", "web", "live", "--yes"]);
    home.ok(&["stop", "web", "--grace", "0"]);
    home.ok(&["image", "snapshot", "create", "web", "cold"]);
    let list = home.json(&["image", "snapshot", "list", "web"]);
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 2, "{list}");
    home.ok(&["image", "snapshot", "delete", "web", "live"]);
    home.ok(&["destroy", "web", "--yes"]);
    assert!(home.path("new.qcow2").exists());
    // Now it is not v2m's any more.
    home.ok(&["start", "web.toml"]);
    home.ok(&["destroy", "web", "--yes", "--disks"]);
    assert!(home.path("new.qcow2").exists());
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(home.path("new.qcow2")).unwrap();
    assert_eq!(metadata.uid(), geteuid().as_raw(), "it is given back");
    std::fs::remove_file(home.path("new.qcow2")).unwrap();
    home.ok(&["start", "web.toml"]);
    let dry = home.json(&["destroy", "web", "--disks", "--dry-run"]);
    assert_eq!(dry["disks"][0].as_str(), home.path("new.qcow2").to_str());
    home.ok(&["destroy", "web", "--yes", "--disks"]);
    assert!(!home.path("new.qcow2").exists());
}

/// The memory of a snapshot fits one machine. A guest of another one is left alone; one whose disks went back without its
/// memory never runs on over them.
#[test]
fn a_snapshot_of_another_machine_harms_no_disk() {
    let home = Home::new();
    let text = "name = \"web\"\ntype = \"qemu\"\nmemory = \"16M\"\n\
                [[disk]]\npath = \"new.qcow2\"\nformat = \"qcow2\"\nsize = \"8M\"\n";
    home.file("web.toml", text);
    home.ok(&["start", "web.toml"]);
    home.ok(&["image", "snapshot", "create", "web", "one"]);
    home.ok(&["stop", "web", "--grace", "0"]);
    home.file("web.toml", text.replace("16M", "32M"));
    home.ok(&["create", "--replace", "web.toml"]);
    home.ok(&["start", "web"]);
    let apply = ["image", "snapshot", "apply", "web", "one", "--yes"];
    home.run(&apply).is(1).says("it is defined otherwise");
    assert_eq!(home.state_of("web"), "running");
    // Where nothing is known of the snapshot it is tried.
    std::fs::remove_file(home.path("state/run/web/snapshots.json")).unwrap();
    home.run(&apply)
        .is(1)
        .says("its disks are as in one, its memory could not be loaded");
    assert_eq!(home.state_of("web"), "stopped");
    home.ok(&["image", "check", "new.qcow2"]);
    // The disks alone fit, and so does the machine that it was.
    home.ok(&apply);
    home.file("web.toml", text);
    home.ok(&["create", "--replace", "web.toml"]);
    home.ok(&["start", "web"]);
    home.ok(&["image", "snapshot", "create", "web", "two"]);
    home.ok(&["stop", "web", "--grace", "0"]);
    home.ok(&["start", "web"]);
    home.ok(&["image", "snapshot", "apply", "web", "two", "--yes"]);
    assert_eq!(home.state_of("web"), "running");
}

#[test]
fn killed_at_any_moment_the_next_start_goes_on() {
    let home = Home::new();
    let file = echo(&home, "web");
    for round in 0..8u64 {
        let mut child = home.spawn(&["start", &file]);
        // The one place where time itself is what the test is about.
        std::thread::sleep(Duration::from_millis(round * 6));
        child.kill().unwrap();
        child.wait().unwrap();
        home.ok(&["start", &file]);
        assert_eq!(home.state_of("web"), "running");
        let mut child = home.spawn(&["destroy", "web", "--yes"]);
        std::thread::sleep(Duration::from_millis(round * 4));
        child.kill().unwrap();
        child.wait().unwrap();
        let again = home.run(&["destroy", "web", "--yes"]);
        assert!(matches!(again.code, 0 | 4), "{again:?}");
        assert_eq!(tree(&home.path("state/vms")), Vec::<PathBuf>::new());
        assert_eq!(tree(&home.path("state/run")), Vec::<PathBuf>::new());
    }
}

#[test]
fn fifty_commands_at_once_on_one_vm() {
    let home = Home::new();
    let file = echo(&home, "web");
    let verbs: [&[&str]; 5] = [
        &["start", &file],
        &["pause", &file],
        &["resume", &file],
        &["reboot", &file, "--grace", "0"],
        &["stop", &file, "--grace", "0"],
    ];
    let children: Vec<_> = (0..50).map(|n| home.spawn(verbs[n % 5])).collect();
    for child in children {
        let answer = Answer::from(child.wait_with_output().unwrap());
        assert!(matches!(answer.code, 0 | 1 | 4), "{answer:?}");
        assert!(!answer.err.contains("panicked"), "{answer:?}");
        assert!(!answer.err.contains("cannot be written"), "{answer:?}");
    }
    home.ok(&["stop", "web", "--grace", "0"]);
    home.ok(&["start", "web", "--wait-ready=>"]);
    let reboots: Vec<_> = (0..8)
        .map(|_| home.spawn(&["reboot", "web", "--grace", "0"]))
        .collect();
    for child in reboots {
        Answer::from(child.wait_with_output().unwrap()).is(0);
    }
}

/// What a paused VM has printed still counts as of its last start after a reboot that is refused.
#[test]
fn a_refused_reboot_forgets_no_boot() {
    let home = Home::new();
    let file = echo(&home, "web");
    home.ok(&["start", &file, "--wait-ready=>"]);
    let mark = std::fs::read(home.path("state/vms/web/boot")).unwrap();
    home.ok(&["pause", "web"]);
    home.run(&["reboot", "web", "--grace", "0"]).is(1);
    assert_eq!(
        std::fs::read(home.path("state/vms/web/boot")).unwrap(),
        mark
    );
    home.ok(&["resume", "web"]);
    home.ok(&["start", "web", "--wait-ready=>", "--time-limit", "10s"]);
}

/// A guest that dies is seen while it is waited for.
#[test]
fn a_vm_that_dies_is_not_waited_for() {
    let home = Home::new();
    let file = echo(&home, "web");
    let waiting = home.spawn(&["start", &file, "--wait-ready=never"]);
    let lock = home.path("state/run/web/qemu.lock");
    until("a process", || daemon::running(&lock).ok().flatten());
    until("running", || {
        (home.run(&["status", "web"]).code == 0).then_some(())
    });
    until("a prompt", || {
        let log = std::fs::read(home.path("state/run/web/console.log")).ok()?;
        log.contains(&b'>').then_some(())
    });
    daemon::kill(&lock, Duration::from_secs(10)).unwrap();
    let answer = Answer::from(waiting.wait_with_output().unwrap());
    answer.is(1).says("web is crashed before it printed");
}

#[test]
fn images_and_snapshots() {
    let home = Home::new();
    home.ok(&["image", "create", "a.qcow2", "8M"]);
    home.ok(&["image", "resize", "a.qcow2", "16M"]);
    home.run(&["image", "resize", "a.qcow2", "8M"])
        .is(1)
        .says("would be lost");
    assert_eq!(
        home.json(&["image", "info", "a.qcow2"])["virtual_size"],
        16 << 20
    );
    for (from, to) in [
        ("a.qcow2", "b.vmdk"),
        ("b.vmdk", "c.vdi"),
        ("c.vdi", "d.raw"),
    ] {
        home.ok(&["image", "convert", from, to]);
        home.ok(&["image", "check", to]);
    }
    home.run(&["image", "convert", "d.raw", "a.qcow2"])
        .is(1)
        .says("is there already");
    home.ok(&["image", "import", "b.vmdk", "e.qcow2"])
        .says("was read as vmdk");
    home.ok(&["image", "export", "e.qcow2", "f.raw"]);
    home.ok(&["image", "create", "over.qcow2", "--backing", "a.qcow2"]);
    home.run(&["image", "info", "a.qcow2", "--format", "vdi"])
        .is(1)
        .says("begins as qcow2");
    home.ok(&["image", "snapshot", "create", "a.qcow2", "first"]);
    home.run(&["image", "snapshot", "create", "a.qcow2", "first"])
        .is(1);
    let list = home.json(&["image", "snapshot", "list", "a.qcow2"]);
    assert_eq!(list["snapshots"][0]["name"], "first");
    home.ok(&["image", "snapshot", "apply", "a.qcow2", "first", "--yes"]);
    home.ok(&["image", "snapshot", "delete", "a.qcow2", "first"]);
    home.ok(&["image", "check", "a.qcow2"]);
}

/// As root a VM runs as a user who has to get to its files; that is said before anything is made.
#[test]
fn files_that_the_vms_user_cannot_reach() {
    if !geteuid().is_root() {
        eprintln!("skipped: QEMU runs as its caller");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    std::fs::create_dir(home.path("closed")).unwrap();
    home.file("closed/echo.raw", boot_sector(ECHO));
    std::fs::set_permissions(home.path("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    let file = echo(&home, "web");
    let text = std::fs::read_to_string(home.path(&file)).unwrap();
    home.file(&file, text.replace("echo.raw", "closed/echo.raw"));
    home.run(&["create", &file]).is(3).says("chmod o+x");
    assert_eq!(tree(&home.path("state/vms")), Vec::<PathBuf>::new());
    // A disk of an ordinary user's makes the VM that user's.
    home.file("theirs.raw", boot_sector(ECHO));
    std::os::unix::fs::chown(home.path("theirs.raw"), Some(54321), Some(54321)).unwrap();
    let text = text
        .replace("echo.raw", "theirs.raw")
        .replace("read-only = true\n", "");
    home.file(&file, text);
    home.ok(&["start", &file, "--wait-ready=>"]);
    let pid = home.json(&["status", "web"])["pid"].as_u64().unwrap();
    assert_eq!(owner_of(pid), 54321);
}

/// A CD that boots: ISO 9660 with a boot record by "El Torito" (Phoenix and IBM, 1995), no emulation.
fn iso(code: &[u8]) -> Vec<u8> {
    const SECTOR: usize = 2048;
    let mut iso = vec![0; 24 * SECTOR];
    let mut put = |sector: usize, at: usize, bytes: &[u8]| {
        iso[sector * SECTOR + at..][..bytes.len()].copy_from_slice(bytes);
    };
    put(16, 0, b"\x01CD001\x01");
    put(17, 0, b"\x00CD001\x01EL TORITO SPECIFICATION");
    put(17, 0x47, &19u32.to_le_bytes());
    put(18, 0, b"\xffCD001\x01");
    // The validation entry, whose words add up to 0, and the default entry: 4 sectors of 512 bytes from sector 20.
    put(19, 0, &[1]);
    put(19, 0x1c, &[0xaa, 0x55, 0x55, 0xaa]);
    put(19, 0x20, &[0x88]);
    put(19, 0x26, &4u16.to_le_bytes());
    put(19, 0x28, &20u32.to_le_bytes());
    put(20, 0, code);
    iso
}

/// The CD is booted as long as the disk is empty; the disk is v2m's, and a start afterwards is that of the same VM.
#[test]
fn an_installation_from_a_cd() {
    let home = Home::new();
    home.file("setup.iso", iso(ECHO));
    let text = "name = \"web\"\ntype = \"qemu\"\nmemory = \"16M\"\n\
                [[disk]]\npath = \"web.raw\"\nformat = \"raw\"\nsize = \"8M\"\n\
                [[disk]]\npath = \"setup.iso\"\ncdrom = true\n";
    home.file("web.toml", text);
    home.file("web.raw", "somebody's");
    home.run(&["create-image-from-cdrom", "web.toml"])
        .is(1)
        .says("v2m did not make it");
    std::fs::remove_file(home.path("web.raw")).unwrap();
    home.ok(&["create_image_from_cdrom", "web.toml", "--detach", "-v"])
        .says("note: ")
        .says("web boots from its CD");
    home.ok(&["start", "web.toml", "--wait-ready=>", "--time-limit", "60s"]);
    let log = std::fs::read_to_string(home.path("state/run/web/console.log")).unwrap();
    assert!(log.contains("Booting from DVD/CD"), "{log}");
    // Again, with the console: its input ends at once.
    home.ok(&["web.toml", "--create-vm-image-from-cdrom"])
        .says("web runs already")
        .says("attached to web");
    home.ok(&["stop", "web", "--grace", "0"]);
    home.ok(&["create-image-from-cdrom", "web.toml", "--detach"])
        .says("web boots from its disk, or from its CD");
    home.ok(&["stop", "web", "--grace", "0"]);
    // What the installer wrote is booted.
    let disk = home.path("web.raw");
    let mut file = std::fs::File::options().write(true).open(disk).unwrap();
    file.write_all(&boot_sector(ECHO)[..512]).unwrap();
    home.ok(&["start", "web.toml", "--wait-ready=>", "--time-limit", "60s"]);
    let log = std::fs::read_to_string(home.path("state/run/web/console.log")).unwrap();
    let last = log.rsplit("SeaBIOS").next().unwrap();
    assert!(!last.contains("Booting from DVD/CD"), "{last}");
    home.ok(&["destroy", "web", "--yes", "--disks"]);
    assert!(!home.path("web.raw").exists());
}

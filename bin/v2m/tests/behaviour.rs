//! What commands promise beside their work: who waits for whom, what is refused and with which words and codes. Each test
//! is named for what once went wrong.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::guests::{boot_sector, echo};
use kit::{Answer, Home, until};
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Waiting is no work: all are waited for at the same time.
#[test]
fn vms_that_are_waited_for_keep_no_others_from_starting() {
    let home = Home::new();
    let files: Vec<String> = (0..70).map(|n| home.fake(&format!("f{n}"))).collect();
    let mut words = vec!["start", "--wait-ready=never", "--time-limit", "2s"];
    words.extend(files.iter().map(String::as_str));
    let begin = Instant::now();
    home.run(&words).is(6);
    assert!(
        begin.elapsed() < Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
}

/// A guest that stands still from its first instruction on was never running.
#[test]
fn a_vm_that_crashes_at_its_start_is_a_failure() {
    let home = Home::new();
    let file = echo(&home, "web");
    let mut text = std::fs::read_to_string(home.path(&file)).unwrap();
    text.insert_str(0, "extra = [\"-S\"]\n");
    home.file(&file, text);
    home.run(&["start", &file])
        .is(1)
        .says("error: web was started and is crashed already: QEMU stopped the guest");
}

#[test]
fn one_failure_stops_no_others() {
    let home = Home::new();
    let (a, b, c) = (home.fake("a"), home.fake("b"), home.fake("c"));
    home.ok(&["create", &a, &b]);
    home.file(&a, kit::fake("a").replace("64M", "65M"));
    let answer = home.run(&["start", &a, &c, &b]).is(1);
    let answer = answer.says("VM a is already there");
    answer.says("b is running").says("c is running");
    let answer = home.run(&["create", &a, &home.fake("d")]).is(1);
    answer.says("VM a is already there").says("d is defined");
    // What is wrong with the command itself is found before anything is done.
    home.run(&["stop", "nosuch", "b", "neither"])
        .is(4)
        .says("there is no VM nosuch")
        .says("there is no VM neither");
    assert_eq!(home.state_of("b"), "running");
    // One that cannot be removed, since something of another's is in the way.
    home.ok(&["stop", "b"]);
    let record = home.path("state/vms/b/boot");
    let _ = std::fs::remove_file(&record);
    std::fs::create_dir(&record).unwrap();
    std::fs::write(record.join("x"), "").unwrap();
    let answer = home.run(&["destroy", "b", "c", "--yes", "--output", "json"]);
    let answer = answer.is(1).says("c is removed");
    let removed: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(removed["removed"], serde_json::json!(["c"]));
}

/// A second console would have shown nothing, and kept what was typed for the guest.
#[test]
fn a_console_that_is_in_use_is_told_and_can_be_taken() {
    let home = Home::new();
    let file = echo(&home, "web");
    home.ok(&["start", &file, "--wait-ready=>"]);
    let attached = |words: &[&str]| {
        let mut command = home.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut screen = child.stderr.take().unwrap();
        let mut said = [0; 11];
        screen.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"attached to");
        (child, screen)
    };
    let (mut first, mut screen) = attached(&["console", "web"]);
    home.run(&["console", "web"])
        .is(1)
        .says(&format!("in use by process {}", first.id()))
        .says("hint: take it over with: v2m console --take web");
    let (mut second, _screen) = attached(&["console", "--take", "web"]);
    assert_eq!(first.wait().unwrap().code(), Some(143));
    let mut said = String::new();
    screen.read_to_string(&mut said).unwrap();
    assert!(said.contains("another took the console"), "{said}");
    second.stdin.take().unwrap().write_all(&[0x1d]).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(0));
}

/// `v2m console web | head` must not leave the terminal without echo and without lines.
#[test]
fn a_terminal_is_put_right_when_nobody_reads_the_output() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};
    let home = Home::new();
    let file = echo(&home, "web");
    home.ok(&["start", &file, "--wait-ready=>"]);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true);
    let terminal = options.open(OsStr::from_bytes(name.as_bytes())).unwrap();
    let is_raw = || {
        let modes = tcgetattr(terminal.as_fd()).unwrap().local_modes;
        !modes.contains(LocalModes::ICANON)
    };
    assert!(!is_raw());
    let mut child = home
        .command(&["console", "web"])
        .stdin(Stdio::from(terminal.try_clone().unwrap()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("raw", || is_raw().then_some(()));
    drop(child.stdout.take());
    // It comes back, and there is nobody to show it to.
    rustix::io::write(&ours, b"x").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert!(!is_raw());
}

/// A node exporter is another user, and what stands beside the file is not ours.
#[test]
fn figures_for_prometheus_are_readable_and_touch_nothing_else() {
    let home = Home::new();
    home.file("keep.half", "mine");
    let figures = home.path("keep.prom");
    let top = |file: &str| home.run(&["top", "--once", "--prometheus", file]);
    top("keep.prom").is(0);
    let mode = std::fs::metadata(&figures).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(std::fs::read(home.path("keep.half")).unwrap(), b"mine");
    let printed = top("-").is(0).out;
    assert_eq!(printed, std::fs::read_to_string(&figures).unwrap());
    home.file("target", "mine");
    symlink(home.path("target"), home.path("link.prom")).unwrap();
    top("link.prom").is(2).says("no plain file");
    assert_eq!(std::fs::read(home.path("target")).unwrap(), b"mine");
    std::fs::set_permissions(&figures, Permissions::from_mode(0o600)).unwrap();
    top("keep.prom").is(0);
    let names = std::fs::read_dir(home.path("")).unwrap();
    let left = names
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(".v2m"));
    assert_eq!(left.count(), 0);
}

/// What the host lacks is code 3, with what mends it as a hint of its own.
#[test]
fn a_machine_that_is_not_fit_has_a_code_of_its_own() {
    let home = Home::new();
    let vm = |name: &str, more: &str| {
        let text = format!("name = \"{name}\"\ntype = \"qemu\"\nmemory = \"16M\"\n{more}\n");
        home.file(&format!("{name}.toml"), text);
        format!("{name}.toml")
    };
    home.file("echo.raw", boot_sector(kit::guests::ECHO));
    let disk = "[[disk]]\npath = \"echo.raw\"\nformat = \"raw\"\nread-only = true\n";
    let file = vm("a", disk);
    let without = |path: &str, words: &[&str]| {
        let answer = home.command(words).env("PATH", path).output().unwrap();
        Answer::from(answer)
    };
    without("/nonexistent", &["start", &file])
        .is(3)
        .says("hint: sudo apt-get install");
    let new = "[[disk]]\npath = \"new.qcow2\"\nformat = \"qcow2\"\nsize = \"4M\"\n";
    without("/nonexistent", &["start", &vm("b", new)])
        .is(3)
        .says("qemu-img");
    without("/nonexistent", &["image", "create", "x.qcow2", "4M"]).is(3);
    let bridge = format!("{disk}[[nic]]\nkind = \"bridged\"\nbridge = \"nobridge0\"\n");
    home.run(&["start", &vm("c", &bridge)])
        .is(3)
        .says("there is no bridge nobridge0 on this host\n")
        .says("hint: sudo ip link add nobridge0 type bridge");
    let file = vm("d", disk);
    let large = std::fs::read_to_string(home.path(&file)).unwrap();
    home.file(&file, large.replace("16M", "16384G"));
    home.run(&["start", &file]).is(3).says("of memory");
    // A disk that is not there is the profile's fault.
    let missing = disk.replace("echo.raw", "missing.raw");
    home.run(&["start", &vm("e", &missing)]).is(1);
    let found = home.run(&["check", "--output", "json"]).out;
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let areas = found["findings"].as_array().unwrap();
    for area in ["uefi", "bridges", "pass-through"] {
        assert!(areas.iter().any(|f| f["area"] == area), "{area}: {found}");
    }
}

/// Who pauses a VM and then stops it does not want it cut off.
#[test]
fn a_paused_guest_is_asked_before_it_is_switched_off() {
    let home = Home::new();
    let file = echo(&home, "web");
    home.ok(&["start", &file, "--wait-ready=>"]);
    home.ok(&["pause", "web"]);
    let begin = Instant::now();
    // This guest hears no power button.
    home.ok(&["stop", "web", "--grace", "3s"])
        .says("waiting for web to shut down; it is switched off after 3.0 s")
        .says("web is stopped: switched off after 3.0 s");
    assert!(begin.elapsed() >= Duration::from_secs(3));
    home.ok(&["start", "web"]);
    let answer = home.ok(&["stop", "web", "--grace", "0"]);
    assert_eq!(answer.err, "web is stopped\n");
}

const TWO: &str = r#"<profiles>
<profile><name>one</name><type>Qemu</type><image size="8">one.raw</image></profile>
<profile><name>two</name><type>Qemu</type><image size="8">two.raw</image></profile>
</profiles>"#;

/// What `create` takes, the other commands take.
#[test]
fn a_file_with_several_vms_is_taken_by_all_commands() {
    let home = Home::new();
    home.file("two.xml", TWO);
    let answer = home.ok(&["create", "two.xml"]);
    // What libv3m's words leave open is said without being asked for.
    let answer = answer.says("one is defined").says("two is defined");
    answer.says("note: one.");
    let status = home.ok(&["status", "two.xml", "--output", "json"]).out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["vms"][1]["name"], "two");
    home.ok(&["stop", "two.xml"]);
    home.run(&["console", "two.xml"])
        .is(2)
        .says("hint: say its name: one, two");
    home.run(&["convert", "two.xml", "--to", "toml"])
        .is(2)
        .says("--vm NAME, of one, two");
    let toml = home
        .ok(&["convert", "two.xml", "--to", "toml", "--vm", "two"])
        .out;
    assert!(toml.contains("name = \"two\""), "{toml}");
    home.ok(&["destroy", "two.xml", "--yes"])
        .says("one is removed")
        .says("two is removed");
}

/// A file's name is bytes, and none of them commands the terminal.
#[test]
fn names_of_files_that_are_no_text() {
    let home = Home::new();
    let odd = OsStr::from_bytes(b"z\xff.toml");
    std::fs::write(home.path("").join(odd), kit::fake("z")).unwrap();
    for command in ["start", "stop", "status"] {
        let mut command = home.command(&[command]);
        let answer = Answer::from(command.arg(odd).output().unwrap());
        answer.is(0);
    }
    home.file("e\x1b[31m.toml", kit::fake("e"));
    let answer = home.ok(&["validate", "e\x1b[31m.toml"]);
    assert!(!answer.out.contains('\x1b'), "{:?}", answer.out);
}

#[test]
fn a_profile_without_a_command_gets_a_hint() {
    let home = Home::new();
    let file = home.fake("web");
    home.run(&[&file])
        .is(2)
        .says("hint: to start what a profile says: v2m start web.toml");
    home.ok(&["-v", &file, "--boot-vm"]).says("web is running");
    home.ok(&[&file, "-v", "--pause-vm"]).says("web is paused");
}

#[test]
fn a_cluster_file_is_told_and_converted() {
    let home = Home::new();
    home.file("mpi.toml", include_str!("../../../examples/mpi.toml"));
    let xml = home.ok(&["convert", "mpi.toml", "--to", "xml"]).out;
    assert!(xml.contains("<cluster"), "{xml}");
    home.file("mpi.xml", &xml);
    let toml = home.ok(&["convert", "mpi.xml", "--to", "toml"]).out;
    home.file("again.toml", toml);
    assert_eq!(home.ok(&["convert", "again.toml", "--to", "xml"]).out, xml);
    for command in ["validate", "start"] {
        home.run(&[command, "mpi.toml"])
            .is(2)
            .says("mpi.toml is the file of a cluster")
            .says("hint: oscarv up mpi.toml");
    }
}

/// QEMU's own language can make it something else than a VM.
#[test]
fn words_for_the_hypervisor_are_told_and_those_that_end_it_are_refused() {
    let home = Home::new();
    let file = echo(&home, "web");
    let text = std::fs::read_to_string(home.path(&file)).unwrap();
    let with = |line: &str| home.file(&file, format!("{line}\n{text}"));
    with("extra = [\"-rtc\", \"base=utc\"]");
    home.ok(&["validate", &file])
        .says("note: extra = -rtc base=utc (unsafe");
    for word in ["-daemonize", "--daemonize", "-version"] {
        with(&format!("extra = [\"{word}\"]"));
        home.run(&["create", "--replace", &file]).is(0);
        home.run(&["start", "web"])
            .is(1)
            .says(&format!("the extra argument {word} is not possible"));
    }
    home.file(&file, format!("{text}[cpu]\nmodel = \"help\"\n"));
    home.run(&["create", "--replace", &file]).is(0);
    home.run(&["start", "web"]).is(1).says("CPU model \"help\"");
}

#[test]
fn a_display_is_where_status_says() {
    let home = Home::new();
    let file = echo(&home, "web");
    let text = std::fs::read_to_string(home.path(&file)).unwrap();
    home.file(&file, format!("display = \"vnc\"\n{text}"));
    home.ok(&["start", &file]);
    let status = home.json(&["status", "web"]);
    let socket = std::path::PathBuf::from(status["vnc"].as_str().unwrap());
    assert!(home.ok(&["status", "web"]).out.contains("vnc.sock"));
    let mut screen = v3m::connect(&socket).unwrap();
    let mut greeting = [0; 4];
    screen.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"RFB ");
}

/// Times are numbers, and what nobody counts is left out: user-mode NAT has no counters.
#[test]
fn figures_for_programs() {
    let home = Home::new();
    let file = echo(&home, "web");
    let text = std::fs::read_to_string(home.path(&file)).unwrap();
    home.file(&file, format!("{text}[[nic]]\nkind = \"nat\"\n"));
    home.ok(&["start", &file, "--wait-ready=>"]);
    let top = home.json(&["top", "--once"]);
    let vm = top["vms"][0].as_object().unwrap();
    assert!(vm["cpu_seconds"].as_f64().unwrap() > 0.0);
    assert!(vm["uptime_seconds"].as_f64().unwrap() > 0.0);
    assert!(vm["memory"].as_u64().unwrap() > 1 << 20);
    // A boot sector has no driver for a balloon.
    for unknown in ["memory_used", "net_received", "net_received_rate"] {
        assert!(!vm.contains_key(unknown), "{unknown}");
    }
}

/// A QEMU that hangs, or whose QMP another has, delays a look by a moment.
#[test]
fn a_vm_that_hangs_does_not_hold_up_figures() {
    let home = Home::new();
    let file = echo(&home, "web");
    home.ok(&["start", &file, "--wait-ready=>"]);
    let pid = home.json(&["status", "web"])["pid"].as_i64().unwrap();
    let signal = |signal: &str| {
        let status = Command::new("kill")
            .args([signal, &pid.to_string()])
            .status();
        assert!(status.unwrap().success());
    };
    signal("-STOP");
    let begin = Instant::now();
    let top = home.json(&["top", "--once"]);
    let took = begin.elapsed();
    signal("-CONT");
    assert_eq!(top["vms"][0]["name"], "web");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

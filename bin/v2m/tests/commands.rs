//! Commands that no VM is needed for, and what is refused.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::{Home, fake, tree};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[test]
fn what_this_machine_lacks_and_what_mends_it() {
    let home = Home::new();
    let found = home.json(&["check"]);
    assert_eq!(found["fit"], true, "{found}");
    home.ok(&["check"]).says("this machine is fit");
    // The same with nothing installed.
    std::fs::create_dir(home.path("empty")).unwrap();
    let mut command = home.command(&["check", "--output", "json"]);
    let answer = kit::Answer::from(command.env("PATH", home.path("empty")).output().unwrap());
    let answer = answer.is(3);
    let found: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(found["fit"], false);
    for (area, package) in [("hypervisor", "qemu-system-x86"), ("disks", "qemu-utils")] {
        let findings = found["findings"].as_array().unwrap();
        let mends = |f: &&serde_json::Value| {
            let remedy = f["remedy"].as_str().unwrap_or_default();
            f["area"] == area && f["state"] == "missing" && remedy.contains(package)
        };
        assert!(findings.iter().any(|f| mends(&f)), "{area}: {found}");
    }
}

#[test]
fn capabilities_are_what_the_commands_do() {
    let home = Home::new();
    let all = home.json(&["capabilities"]);
    let of = |backend: &str| {
        let all = all["backends"].as_array().unwrap();
        all.iter()
            .find(|b| b["backend"] == backend)
            .unwrap()
            .clone()
    };
    assert_eq!(of("qemu")["usable"], true);
    for ability in [
        "direct_kernel_boot",
        "disk_boot",
        "pause",
        "console",
        "stats",
    ] {
        assert_eq!(of("qemu")[ability], true, "{ability}");
    }
    assert_eq!(of("qemu")["migrate"], false);
    // What is not there is refused by its command.
    let fake = of("fake");
    let file = home.fake("web");
    home.ok(&["start", &file]);
    assert_eq!(
        (&fake["snapshot"], &fake["console"]),
        (&false.into(), &false.into())
    );
    home.run(&["image", "snapshot", "create", "web", "one"])
        .is(1)
        .says("have no snapshots");
    home.run(&["console", "web"]).is(1).says("have no console");
    // A fake VM uses nothing of the host, so it has no figures.
    assert_eq!(fake["stats"], false);
    assert_eq!(home.json(&["top", "--once"])["vms"], serde_json::json!([]));
    home.ok(&["top", "--once", "--prometheus", "v2m.prom"]);
    let metrics = std::fs::read_to_string(home.path("v2m.prom")).unwrap();
    assert!(metrics.contains("# TYPE v2m_cpu_seconds_total counter"));
    assert!(!metrics.contains("web"));
    let table = home.ok(&["capabilities"]).out;
    assert_eq!(table.lines().count(), 4, "{table}");
}

/// There and back it is the same VM, from every kind of profile that ships.
#[test]
fn a_profile_in_another_form_means_the_same() {
    let home = Home::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut converted = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let text = path.to_str().unwrap();
        let answer = home.run(&["validate", text, "--output", "json"]);
        if answer.code != 0 {
            // A cluster's.
            let toml = home.ok(&["convert", text, "--to", "toml"]).out;
            assert!(toml.contains("[[group]]"), "{text}: {toml}");
            continue;
        }
        let wanted: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
        let mut from = text.to_owned();
        for (form, name) in [("toml", "1.toml"), ("xml", "2.xml"), ("toml", "3.toml")] {
            home.file(name, home.ok(&["convert", &from, "--to", form]).out);
            let found = home.json(&["validate", name]);
            assert_eq!(found["vms"], wanted["vms"], "{text} as {name}");
            from = name.to_owned();
        }
        let [first, third] = ["1.toml", "3.toml"].map(|n| std::fs::read(home.path(n)).unwrap());
        assert_eq!(first, third, "{text}");
        converted += 1;
    }
    assert!(converted >= 3, "only {converted} profiles");
    home.file("bad.toml", "nmae = 1\n");
    home.run(&["convert", "bad.toml", "--to", "xml"]).is(2);
}

/// All that is there, with what is in it.
fn everything(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).unwrap_or_default());
    tree(directory).into_iter().map(read).collect()
}

#[test]
fn what_is_refused_changes_nothing() {
    let home = Home::new();
    home.ok(&["start", &home.fake("on")]);
    home.ok(&["create", &home.fake("off")]);
    home.file("other.toml", fake("on").replace("64M", "128M"));
    home.file("bad.toml", "name = \"a b\"\n");
    home.file("disk.qcow2", "no image");
    home.file("disk.raw", vec![0; 4096]);
    home.file("nocd.toml", fake("nocd"));
    let before = everything(&home.path(""));
    let cases: &[(&[&str], i32)] = &[
        (&["start", "other.toml"], 1),
        (&["create", "other.toml"], 1),
        (&["create", "--replace", "other.toml"], 1),
        (&["start", "bad.toml"], 2),
        (&["create", "bad.toml", "nocd.toml"], 2),
        (&["create", "nocd.toml", "bad.toml"], 2),
        (&["start", "nowhere"], 4),
        (&["pause", "off"], 1),
        (&["resume", "off"], 1),
        (&["reboot", "off"], 1),
        (&["stop", "nowhere"], 4),
        (&["stop", "on", "--grace", "never"], 2),
        (&["destroy", "on"], 2),
        (&["destroy", "on", "nowhere", "--yes"], 4),
        (&["destroy", "on", "--dry-run"], 0),
        (&["console", "off"], 1),
        (&["create-image-from-cdrom", "nocd.toml"], 2),
        (&["migrate", "on", "host"], 7),
        (&["install-with-oscar", "on"], 7),
        (&["image", "info", "disk.qcow2"], 1),
        (&["image", "check", "disk.qcow2"], 1),
        (&["image", "resize", "disk.qcow2", "1M"], 1),
        (&["image", "resize", "disk.raw", "0"], 2),
        (&["image", "create", "disk.raw", "1M"], 1),
        (&["image", "create", "new.raw", "-1M"], 2),
        (&["image", "create", "new.raw", "1"], 2),
        (&["image", "create", "new.qcow2", "9999999T"], 2),
        (&["image", "create", "new.raw", "--backing", "disk.raw"], 2),
        (&["image", "create", "no/where.raw", "1M"], 1),
        (&["image", "convert", "disk.qcow2", "new.raw"], 1),
        (&["image", "import", ".", "new.raw"], 1),
        (
            &[
                "image",
                "convert",
                "/dev/null",
                "new.raw",
                "--from-format",
                "qcow2",
            ],
            1,
        ),
        (&["image", "snapshot", "create", "disk.raw", "one"], 1),
        (&["image", "snapshot", "apply", "on", "one", "--yes"], 1),
        (&["image", "snapshot", "create", "on", "a/b"], 2),
    ];
    for (case, code) in cases {
        let answer = home.run(case);
        assert_eq!(answer.code, *code, "{case:?}: {answer:?}");
        assert!(
            *code == 0 || !answer.err.is_empty(),
            "{case:?} says nothing"
        );
        let after = everything(&home.path(""));
        assert!(after == before, "{case:?} changed something");
    }
}

#[test]
fn a_profile_that_is_not_in_the_file_is_told_with_those_that_are() {
    let home = Home::new();
    let one = |name: &str| {
        format!(
            "<profile><name>{name}</name><type>Qemu</type><image size=\"500\">/a/{name}.img</image></profile>"
        )
    };
    home.file(
        "all.xml",
        format!("<profiles>{}{}</profiles>", one("p1"), one("p2")),
    );
    let answer = home
        .run(&["convert", "--to", "toml", "all.xml", "--vm", "p3"])
        .is(2);
    answer.says("all.xml holds no profile p3").says("p1, p2");
    home.ok(&["convert", "--to", "toml", "all.xml", "--vm", "p2"]);
}

#[test]
fn a_profile_of_standard_input_is_recorded_as_that() {
    let home = Home::new();
    let mut command = home.command(&["create", "-"]);
    command.stdin(std::fs::File::open(home.path(&home.fake("web"))).unwrap());
    kit::Answer::from(command.output().unwrap()).is(0);
    assert_eq!(home.json(&["status", "web"])["profile"], "<stdin>");
}

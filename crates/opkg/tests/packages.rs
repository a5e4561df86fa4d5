//! Packages good and bad, as a person would write them.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use api::Name;
use opkg::{Error, Opkg, Phase, Repository};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn put(root: &Path, path: &str, mode: u32, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn package(root: &Path, name: &str, more: &str) -> PathBuf {
    let text = format!("name = \"{name}\"\nversion = \"1.0\"\nsummary = \"x\"\n{more}");
    put(root, &format!("{name}/opkg.toml"), 0o644, &text);
    root.join(name)
}

fn names(list: &[&str]) -> Vec<Name> {
    list.iter().map(|n| Name::new(n).unwrap()).collect()
}

fn problems(result: Result<Opkg, Error>) -> Vec<String> {
    match result {
        Err(Error::Bad(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_package() {
    let root = tempfile::tempdir().unwrap();
    let more = r#"class = "core"
requires = ["munge"]
[[packages]]
common = ["munge"]
[[packages]]
distribution = "debian"
release = "bookworm"
common = ["munge", "g++"]
head = ["slurmctld"]
compute = ["slurmd=22.05"]
[[packages]]
distribution = "fedora"
common = ["slurm"]
[[secrets]]
name = "munge.key"
bytes = 128
path = "/etc/munge/munge.key"
owner = "munge"
mode = "0400"
[services]
head = ["slurmctld.service"]
"#;
    let directory = package(root.path(), "slurm", more);
    put(
        &directory,
        "scripts/server-post-install",
        0o755,
        "#!/bin/sh\n",
    );
    put(&directory, "testing/ready", 0o755, "#!/bin/sh\n");
    put(&directory, "doc/README.md", 0o644, "text\n");
    put(&directory, "files/etc/slurm/x", 0o644, "x\n");
    symlink("/usr/lib/x", directory.join("files/etc/slurm/link")).unwrap();
    let slurm = Opkg::load(&directory).unwrap();
    let set = slurm.packages_for("debian", "bookworm", "amd64");
    assert_eq!(set.common, ["munge", "g++"]);
    assert_eq!(
        (set.head, set.compute),
        (
            vec!["slurmctld".to_owned()],
            vec!["slurmd=22.05".to_owned()]
        )
    );
    assert_eq!(
        slurm.packages_for("debian", "trixie", "amd64").common,
        ["munge"]
    );
    assert_eq!(slurm.secrets[0].mode, 0o400);
    assert_eq!(
        slurm.scripts.keys().collect::<Vec<_>>(),
        [&Phase::ServerPostInstall]
    );
    assert!(slurm.ready.is_some() && slurm.test.is_none() && slurm.files.is_some());
    assert_eq!(slurm.validate(), []);

    // The digest follows content, names and executability, and nothing else.
    let digest = slurm.digest().to_owned();
    let again = || Opkg::load(&directory).unwrap().digest().to_owned();
    put(&directory, "files/etc/slurm/x", 0o600, "x\n");
    assert_eq!(again(), digest);
    put(&directory, "files/etc/slurm/x", 0o755, "x\n");
    assert_ne!(again(), digest);
    put(&directory, "files/etc/slurm/x", 0o644, "y\n");
    assert_ne!(again(), digest);
}

#[test]
fn all_mistakes_at_once_with_their_places() {
    let root = tempfile::tempdir().unwrap();
    let text = "name = \"Bad\"\nversion = \"1 0\"\nsumary = \"x\"\nclass = \"cor\"\n\
        [[packages]]\ncommon = [\"ok\", \"--force\", \"munge-\"]\nheads = []\n\
        [[secrets]]\nname = \"k\"\npath = \"/etc/../x\"\nmode = \"0644\"\nbytes = 1\n\
        [services]\ncommon = [\"-x.service\", \"y\"]\n";
    put(root.path(), "bad/opkg.toml", 0o644, text);
    let found = problems(Opkg::load(&root.path().join("bad"))).join("\n");
    for part in [
        "opkg.toml:1:8: \"Bad\": a name starts with a letter a-z",
        "opkg.toml:2:11: \"1 0\" is not a version",
        "opkg.toml:3:1: unknown key \"sumary\"\n  hint: did you mean \"summary\"?",
        "\"summary\" is missing",
        "opkg.toml:4:9: \"cor\" is not a class\n  hint: did you mean \"core\"?",
        "opkg.toml:6:17: \"--force\" is not a distribution package",
        "opkg.toml:6:28: \"munge-\" is not a distribution package",
        "opkg.toml:7:1: unknown key \"heads\"\n  hint: did you mean \"head\"?",
        "opkg.toml:10:8: \"/etc/../x\" is not an absolute path",
        "opkg.toml:11:8: \"0644\" gives a secret away",
        "opkg.toml:12:9: a secret has 16 to 65536 bytes, not 1",
        "opkg.toml:14:11: \"-x.service\" is not a systemd unit",
        "opkg.toml:14:25: \"y\" is not a systemd unit",
    ] {
        assert!(found.contains(part), "{part}\n---\n{found}");
    }
    put(
        root.path(),
        "bad/opkg.toml",
        0o644,
        "name = \"a\"\nversion = 1\nsummary = [\n",
    );
    let found = problems(Opkg::load(&root.path().join("bad"))).join("\n");
    assert!(found.contains("opkg.toml:3"), "{found}");
}

#[test]
fn nothing_leads_outside() {
    let root = tempfile::tempdir().unwrap();
    let directory = package(root.path(), "evil", "");
    put(&directory, "scripts/api-post-imag", 0o755, "");
    put(&directory, "testing/ready", 0o644, "");
    put(&directory, "script/x", 0o644, "");
    fs::create_dir_all(directory.join("files/etc")).unwrap();
    fs::create_dir_all(directory.join("doc")).unwrap();
    symlink("../../etc/passwd", directory.join("files/etc/out")).unwrap();
    symlink("/etc/../../x", directory.join("files/etc/out2")).unwrap();
    symlink("../ok", directory.join("files/etc/in")).unwrap();
    symlink("/etc/passwd", directory.join("doc/README.md")).unwrap();
    symlink("/etc/passwd", directory.join("scripts/api-post-image")).unwrap();
    let found = problems(Opkg::load(&directory)).join("\n");
    for part in [
        "files/etc/out: is a link out of the image",
        "files/etc/out2: is a link out of the image",
        "doc/README.md: is neither a file nor a directory",
        "scripts/api-post-image: is neither a file nor a directory",
        "\"api-post-imag\" is not a phase\n  hint: did you mean \"api-post-image\"?",
        "testing/ready: must be an executable file\n  hint: chmod +x",
        "script: has no place in a package\n  hint: did you mean \"scripts\"?",
    ] {
        assert!(found.contains(part), "{part}\n---\n{found}");
    }
    assert!(!found.contains("etc/in:"), "{found}");
}

#[test]
fn order_and_what_does_not_go_together() {
    let root = tempfile::tempdir().unwrap();
    package(
        root.path(),
        "slurm",
        "requires = [\"munge\", \"scheduler-data\"]\n",
    );
    package(root.path(), "munge", "requires = [\"base\"]\n");
    package(root.path(), "base", "");
    package(root.path(), "store", "provides = [\"scheduler-data\"]\n");
    package(root.path(), "torque", "conflicts = [\"slurm\"]\n");
    package(root.path(), "ring-a", "requires = [\"ring-b\"]\n");
    package(root.path(), "ring-b", "requires = [\"ring-a\"]\n");
    let repository = Repository::open(&[root.path().to_owned()]).unwrap();
    let resolved = |list: &[&str]| -> Vec<String> {
        let all = repository.resolve(&names(list)).unwrap();
        all.into_iter().map(|p| p.name.to_string()).collect()
    };
    assert_eq!(resolved(&["slurm"]), ["base", "munge", "store", "slurm"]);
    assert_eq!(
        resolved(&["store", "munge", "base"]),
        ["store", "base", "munge"]
    );
    let error = repository
        .resolve(&names(&["slrum", "torque", "slurm", "ring-a"]))
        .unwrap_err()
        .to_string();
    for part in [
        "there is no package slrum\n  hint: did you mean \"slurm\"?",
        "packages slurm and torque conflict",
        "packages require each other in a circle: ring-a → ring-b → ring-a",
    ] {
        assert!(error.contains(part), "{part}\n---\n{error}");
    }
}

#[test]
fn the_users_own_wins_and_the_shipped_ones_are_good() {
    let root = tempfile::tempdir().unwrap();
    let shipped = opkg::unpack_shipped(&root.path().join("shipped")).unwrap();
    let repository = Repository::open(std::slice::from_ref(&shipped)).unwrap();
    for package in repository.packages() {
        assert_eq!(package.validate(), [], "{}", package.name);
    }
    let all: Vec<Name> = repository.packages().map(|p| p.name.clone()).collect();
    repository.resolve(&all).unwrap();
    let mine = root.path().join("mine");
    fs::create_dir(&mine).unwrap();
    if let Some(name) = all.first() {
        package(&mine, name.as_str(), "");
        let repository = Repository::open(&[mine.clone(), shipped]).unwrap();
        assert!(repository.get(name).unwrap().directory.starts_with(&mine));
        assert!(repository.notes()[0].contains("is taken from"));
    }
}

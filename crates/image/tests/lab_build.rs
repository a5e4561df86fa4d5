//! Real builds, as whoever runs the tests: root, or a user with subordinate ids. Minutes, and a mirror is needed.
//!
//! All share one state directory, so that the base is built once; it is kept in cargo's directory for tests. Copied to
//! where another user can run it, the program works there too (state: `OSCARV_TEST_STATE`).

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use api::{Event, Name, Progress};
use image::{BuildOptions, Error, Image, Images};
use opkg::{Opkg, Repository};
use profile::Recipe;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner())
}

fn state() -> PathBuf {
    let uid = rustix::process::getuid().as_raw();
    match std::env::var_os("OSCARV_TEST_STATE") {
        Some(given) => given.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-lab-{uid}")),
    }
}

fn recipe(packages: &[&str]) -> Recipe {
    Recipe {
        distribution: "debian".to_owned(),
        release: "bookworm".to_owned(),
        packages: packages.iter().map(|p| (*p).to_owned()).collect(),
        opkgs: Vec::new(),
        kernel: None,
        mirror: None,
    }
}

/// A package with everything a package can have; `mark` makes it another one.
fn tiny(directory: &Path, mark: &str) -> Vec<Opkg> {
    let package = directory.join("tiny");
    for sub in [
        "scripts",
        "testing",
        "doc",
        "files/etc/tiny",
        "files/lib/tiny",
    ] {
        fs::create_dir_all(package.join(sub)).unwrap();
    }
    let manifest = "name = \"tiny\"\nversion = \"1.0\"\nsummary = \"for tests\"\n\
        [[packages]]\ncommon = [\"hello\"]\n\
        [[secrets]]\nname = \"key\"\npath = \"/etc/tiny/secret\"\n\
        [services]\ncommon = [\"tiny.service\"]\nhead = [\"tiny-head.service\"]\n";
    let unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    let script = "#!/bin/sh\nset -e\necho \"$PWD $OSCARV_PACKAGE\" >/etc/tiny/from-script\n\
        echo leaked >/etc/tiny/secret\nsystemctl enable tiny-head.service\n";
    // What the package base brings and services need.
    let target = "[Unit]\nDescription=role\n";
    for (path, mode, text) in [
        (
            "files/usr/lib/systemd/system/oscarv-head.target",
            0o644,
            target,
        ),
        (
            "files/usr/lib/systemd/system/oscarv-compute.target",
            0o644,
            target,
        ),
        ("opkg.toml", 0o644, manifest),
        ("scripts/api-post-image", 0o755, script),
        ("testing/ready", 0o755, "#!/bin/sh\n"),
        ("doc/README.md", 0o644, "tiny\n"),
        ("files/etc/tiny/mark", 0o600, mark),
        // Through Debian's link /lib → usr/lib, which must stay a link.
        ("files/lib/tiny/data", 0o644, "data\n"),
        ("files/etc/systemd/system/tiny.service", 0o644, unit),
        ("files/etc/systemd/system/tiny-head.service", 0o644, unit),
    ] {
        let path = package.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let repository = Repository::open(&[directory.to_owned()]).unwrap();
    repository.resolve(&[Name::new("tiny").unwrap()]).unwrap()
}

fn build(packages: &[&str], opkgs: &[Opkg], force: bool) -> Result<Image, Error> {
    let options = BuildOptions { tag: None, force };
    Images::open(&state())
        .unwrap()
        .build(&recipe(packages), opkgs, options, &Progress::default())
}

/// What debugfs says about the disk; it needs no rights but to read it.
fn debugfs(image: &Image, request: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new("debugfs");
    command
        .env("PATH", path)
        .args(["-R", request])
        .arg(&image.disk);
    let output = command.output().unwrap();
    let found = !String::from_utf8_lossy(&output.stderr).contains("File not found");
    if found {
        String::from_utf8_lossy(&output.stdout).into_owned()
    } else {
        "File not found".to_owned()
    }
}

fn is_there(image: &Image, path: &str) -> bool {
    !debugfs(image, &format!("stat {path}")).contains("File not found")
}

fn nothing_left(state: &Path) {
    let left: Vec<_> = fs::read_dir(state.join("tmp"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn an_image_with_all_it_should_have_and_no_identity() {
    let _alone = alone();
    let packages = tempfile::tempdir().unwrap();
    let opkgs = tiny(packages.path(), "a");
    let image = build(&[], &opkgs, false).unwrap();
    nothing_left(&state());

    // Found again at once.
    let images = Images::open(&state()).unwrap();
    let start = Instant::now();
    let key = images.key(&recipe(&[]), &opkgs);
    let found = images.find(&key).unwrap().unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(100),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(found, image);
    assert_eq!(images.show(&image.id[..10]).unwrap().id, image.id);

    // The OPKG is in, its lists are for the node to read, its services as they should be.
    assert!(image.manifest.packages.iter().any(|p| p.name == "hello"));
    assert_eq!(image.manifest.opkgs[0].name, "tiny");
    assert_eq!(
        debugfs(&image, "cat /etc/tiny/mark").lines().next(),
        Some("a")
    );
    let from = debugfs(&image, "cat /etc/tiny/from-script");
    assert!(
        from.starts_with("/usr/lib/oscarv/packages/tiny /usr/lib/oscarv/packages/tiny\n"),
        "{from}"
    );
    assert!(debugfs(&image, "cat /usr/lib/oscarv/packages/order").starts_with("tiny\n"));
    assert!(
        debugfs(&image, "cat /usr/lib/oscarv/packages/tiny/services/head")
            .starts_with("tiny-head.service\n")
    );
    assert!(
        debugfs(&image, "stat /usr/lib/oscarv/packages/tiny/testing/ready").contains("Mode:  0755")
    );
    assert!(debugfs(&image, "stat /etc/tiny/mark").contains("Mode:  0644"));
    assert!(debugfs(&image, "stat /lib").contains("Type: symlink"));
    assert!(is_there(&image, "/usr/lib/tiny/data"));
    let wants = |target: &str, unit: &str| {
        is_there(
            &image,
            &format!("/etc/systemd/system/{target}.wants/{unit}"),
        )
    };
    assert!(
        wants("oscarv-head.target", "tiny.service")
            && wants("oscarv-head.target", "tiny-head.service")
    );
    assert!(wants("oscarv-compute.target", "tiny.service"));
    assert!(!wants("oscarv-compute.target", "tiny-head.service"));
    assert!(
        !wants("multi-user.target", "tiny.service")
            && !wants("multi-user.target", "tiny-head.service")
    );

    // Nothing that two nodes must not share, and nothing of the builder's.
    for path in [
        "/etc/tiny/secret",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/etc/ssh/ssh_host_ed25519_key",
        "/var/lib/dbus/machine-id",
        "/var/lib/systemd/random-seed",
        "/usr/sbin/policy-rc.d",
        "/var/log/dpkg.log",
        "/var/log/apt/history.log",
        "/var/cache/ldconfig/aux-cache",
        "/etc/apt/apt.conf.d/99mmdebstrap",
        "/dev/null",
        "/.oscarv-deleted",
        "/.oscarv-files.tar",
    ] {
        assert!(!is_there(&image, path), "{path} is in the image");
    }
    assert!(debugfs(&image, "stat /etc/machine-id").contains("Size: 0"));
    assert_eq!(
        debugfs(&image, "ls -p /var/lib/apt/lists/partial")
            .matches("100644")
            .count(),
        0
    );
    assert!(is_there(&image, "/usr/share/doc/hello/copyright"));
    assert!(!is_there(&image, "/usr/share/man/man1"));

    // The file system is sound.
    let mut check = Command::new("/sbin/e2fsck");
    let checked = check.args(["-f", "-n"]).arg(&image.disk).output().unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
    assert!(
        image
            .manifest
            .modules
            .iter()
            .any(|m| m.ends_with("-virtio_blk.ko"))
    );
}

#[test]
fn the_same_recipe_gives_the_same_bytes_and_a_change_is_told() {
    let _alone = alone();
    let packages = tempfile::tempdir().unwrap();
    let opkgs = tiny(packages.path(), "a");
    let first = build(&[], &opkgs, false).unwrap();
    let second = build(&[], &opkgs, true).unwrap();
    if first.digest != second.digest {
        let difference = second.manifest.differs.unwrap();
        assert!(
            !difference.packages.is_empty(),
            "only the mirror may have changed: {difference:?}"
        );
    }

    // A package whose script does not give the same twice.
    let script = packages.path().join("tiny/scripts/api-post-image");
    fs::write(
        &script,
        "#!/bin/sh\ncat /proc/sys/kernel/random/uuid >/etc/tiny/random\n",
    )
    .unwrap();
    let opkgs = tiny_again(packages.path());
    let first = build(&[], &opkgs, false).unwrap();
    let layer = first.manifest.layers.last().unwrap();
    fs::remove_file(state().join("layers").join(format!("{layer}.tar"))).unwrap();
    fs::remove_file(state().join("keys").join(first.key.as_str())).unwrap();
    let images = Images::open(&state()).unwrap();
    assert_eq!(images.find(&first.key).unwrap(), None);
    std::os::unix::fs::symlink(
        Path::new("../images").join(&first.id),
        state().join("keys").join(first.key.as_str()),
    )
    .unwrap();
    let second = build(&[], &opkgs, true).unwrap();
    assert_ne!(first.digest, second.digest);
    let difference = second.manifest.differs.unwrap();
    assert!(
        difference
            .files
            .iter()
            .any(|f| f.contains("etc/tiny/random")),
        "{difference:?}"
    );
    assert!(difference.files.len() <= 4, "{difference:?}");
    // The image of before is still there: clusters may use it.
    assert!(first.disk.exists());
}

fn tiny_again(directory: &Path) -> Vec<Opkg> {
    let repository = Repository::open(&[directory.to_owned()]).unwrap();
    repository.resolve(&[Name::new("tiny").unwrap()]).unwrap()
}

#[test]
fn packages_that_do_not_exist() {
    let _alone = alone();
    let error = build(
        &["hello", "no-such-package-1", "no-such-package-2"],
        &[],
        false,
    )
    .unwrap_err();
    let Error::NoPackage { names, place, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(names, &["no-such-package-1", "no-such-package-2"]);
    assert_eq!(place, "the recipe's packages");
    assert!(error.to_string().contains("hint:"), "{error}");
    nothing_left(&state());
}

#[test]
fn a_mirror_that_does_not_answer() {
    let _alone = alone();
    let mut recipe = recipe(&[]);
    recipe.mirror = Some("http://127.0.0.1:9/debian".to_owned());
    let images = Images::open(&state()).unwrap();
    let error = images
        .build(&recipe, &[], BuildOptions::default(), &Progress::default())
        .unwrap_err();
    assert!(matches!(error, Error::Download { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    nothing_left(&state());
}

#[test]
fn two_builds_of_the_same_at_once() {
    let _alone = alone();
    let packages = tempfile::tempdir().unwrap();
    let opkgs = tiny(packages.path(), "two at once");
    let notes = Arc::new(Mutex::new(Vec::new()));
    let heard = notes.clone();
    let progress = Progress::new(move |event| match event {
        Event::Note(note) => heard.lock().unwrap().push(note),
        Event::Done { stage, .. } => heard.lock().unwrap().push(stage),
        _ => {}
    });
    let one = || {
        let images = Images::open(&state()).unwrap();
        images
            .build(&recipe(&[]), &opkgs, BuildOptions::default(), &progress)
            .unwrap()
    };
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(one);
        (one(), other.join().unwrap())
    });
    assert_eq!(a, b);
    let notes = notes.lock().unwrap();
    assert_eq!(
        notes.iter().filter(|n| *n == "disk").count(),
        1,
        "{notes:?}"
    );
    assert_eq!(
        notes.iter().filter(|n| n.contains("waiting")).count(),
        1,
        "{notes:?}"
    );
}

/// Not a test: a build in a process of its own, for those that kill it or put it on a small disk.
#[test]
#[ignore = "run by other tests"]
fn child() {
    let packages = PathBuf::from(std::env::var_os("OSCARV_TEST_PACKAGES").unwrap());
    let opkgs = tiny_again(&packages);
    let progress = Progress::new(|event| {
        // Not println: that is captured.
        use std::io::Write;
        let _ = writeln!(std::io::stdout().lock(), "EVENT {event:?}");
    });
    let images = Images::open(&state()).unwrap();
    let result = images.build(&recipe(&[]), &opkgs, BuildOptions::default(), &progress);
    println!("RESULT {}", result.map_or_else(|e| e.to_string(), |i| i.id));
}

fn child_command(packages: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("OSCARV_TEST_PACKAGES", packages);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[test]
fn a_killed_build_leaves_nothing_and_is_resumed() {
    let _alone = alone();
    let packages = tempfile::tempdir().unwrap();
    // The base is there afterwards; this package is not: the clock makes it new.
    let opkgs = tiny(
        packages.path(),
        &format!("{:?}", std::time::SystemTime::now()),
    );
    build(&[], &[], false).unwrap();
    let mut child = child_command(packages.path())
        .env("OSCARV_TEST_STATE", state())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|l| l.unwrap());
    assert!(
        lines.any(|line| line.contains("Advanced") && line.contains("package tiny")),
        "it never got so far"
    );
    child.kill().unwrap();
    child.wait().unwrap();

    let stages = Arc::new(Mutex::new(Vec::new()));
    let heard = stages.clone();
    let progress = Progress::new(move |event| match event {
        Event::Done { stage, message } => heard.lock().unwrap().push(format!("{stage}: {message}")),
        Event::Note(note) => heard.lock().unwrap().push(note),
        _ => {}
    });
    let images = Images::open(&state()).unwrap();
    assert_eq!(
        images.find(&images.key(&recipe(&[]), &opkgs)).unwrap(),
        None
    );
    // The lock is free only when all of the killed build's processes are gone, so this waits for them.
    images
        .build(&recipe(&[]), &opkgs, BuildOptions::default(), &progress)
        .unwrap();
    let stages = stages.lock().unwrap();
    assert!(
        stages.iter().any(|s| s == "base: from the cache"),
        "{stages:?}"
    );
    assert!(
        stages.iter().any(|s| s.contains("interrupted build")),
        "{stages:?}"
    );
    nothing_left(&state());
}

#[test]
fn a_full_disk() {
    let _alone = alone();
    let packages = tempfile::tempdir().unwrap();
    tiny(packages.path(), "full");
    let disk = tempfile::tempdir().unwrap();
    let small = child_command(packages.path());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !rustix::process::getuid().is_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    let script = "mount -t tmpfs -o size=96m,mode=0755 tmpfs \"$1\" && shift && \"$@\"; cd \"$OSCARV_TEST_STATE\" && \
                  echo LEFT; ls -A tmp images layers";
    command
        .args(["--", "/bin/sh", "-c", script, "sh"])
        .arg(disk.path());
    command.arg(small.get_program()).args(small.get_args());
    command
        .env("OSCARV_TEST_PACKAGES", packages.path())
        .env("OSCARV_TEST_STATE", disk.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (before, left) = text.split_once("LEFT\n").unwrap();
    let result = before.split_once("RESULT ").unwrap().1;
    assert!(
        result.contains("is full") && result.contains("are needed"),
        "{text}"
    );
    let left: Vec<&str> = left.lines().filter(|l| !l.is_empty()).collect();
    assert_eq!(left, ["images:", "layers:", "tmp:"], "{text}");
}

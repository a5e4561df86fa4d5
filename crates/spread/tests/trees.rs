//! Trees of files on receivers in the same process, over loopback.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::{Place, noise, options};
use spread::send::{self, Host, State};
use spread::source::{From, Source};
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

impl Place {
    /// A tree with some of everything, and many MiB.
    fn tree(&self, name: &str, mib: usize) -> PathBuf {
        let top = self.path(name);
        for directory in ["bin", "etc/deep/er", "usr/share/doc", "empty"] {
            std::fs::create_dir_all(top.join(directory)).unwrap();
        }
        let write = |path: &str, bytes: &[u8], mode: u32| {
            let path = top.join(path);
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        write("bin/su", &noise(1, 70_000), 0o4755);
        write("etc/passwd", b"root:x:0:0::/:/bin/sh\n", 0o644);
        write("etc/shadow", b"root:*:1::::::\n", 0o600);
        write("etc/empty", b"", 0o444);
        for number in 0..300 {
            let len = (number * 37) % 3000;
            let path = format!("usr/share/doc/{number}");
            write(&path, &noise(number as u64, len), 0o644);
        }
        for number in 0..mib as u64 {
            let path = format!("usr/library.{number}");
            write(&path, &noise(1000 + number, 1 << 20), 0o755);
        }
        let long = format!("usr/share/doc/{}", "long".repeat(60));
        write(&long, b"long", 0o640);
        symlink("../bin/su", top.join("etc/link")).unwrap();
        symlink("x".repeat(200), top.join("etc/deep/far")).unwrap();
        std::fs::hard_link(top.join("bin/su"), top.join("bin/sudo")).unwrap();
        let sparse = File::create(top.join("usr/sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        sparse.write_all_at(b"here", 40 << 20).unwrap();
        let _ = rustix::fs::fsetxattr(
            &sparse,
            "user.note",
            b"a\nb",
            rustix::fs::XattrFlags::empty(),
        );
        let mode = rustix::fs::Mode::from_raw_mode(0o620);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, top.join("etc/fifo"), fifo, mode, 0).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(top.join("etc/shadow"), Some(12), Some(42)).unwrap();
            std::os::unix::fs::lchown(top.join("etc/link"), Some(7), Some(8)).unwrap();
        }
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        File::open(top.join("etc/passwd"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        std::fs::set_permissions(top.join("etc/deep"), Permissions::from_mode(0o555)).unwrap();
        File::open(top.join("etc/deep"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        File::open(&top).unwrap().set_modified(time).unwrap();
        top
    }

    fn tree_source(&self, tree: &Path, from: From) -> Option<Source> {
        self.open(tree, "tree", from)
    }

    /// What is new to those who have the version before, all of it to the others: what the command does.
    async fn send_tree(&self, tree: &Path, hosts: &[(String, SocketAddr)]) -> Vec<Host> {
        let mut done = Vec::new();
        let mut open = hosts.to_vec();
        for from in [From::Version, From::Nothing] {
            let Some(source) = self.tree_source(tree, from).filter(|_| !open.is_empty()) else {
                continue;
            };
            let sent = send::send(source.transfer.clone(), options(&open, None), |_| {});
            let report = sent.await.unwrap();
            let (none, some): (Vec<Host>, Vec<Host>) = report
                .into_iter()
                .partition(|host| host.state == State::NoBase);
            done.extend(some);
            open.retain(|(name, _)| none.iter().any(|host| host.name == *name));
        }
        done
    }

    fn there(&self, host: &str) -> PathBuf {
        self.path(host).join("tree")
    }

    /// Nothing is left of what was on its way or was replaced.
    async fn tidy(&self, host: &str) {
        let beside = self.path(host).join(".spread");
        let names = || {
            let entries = std::fs::read_dir(&beside).unwrap().flatten();
            let mut names: Vec<String> = entries
                .map(|e| e.file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let wanted = ["lock", "manifest", "manifest.minisig", "names", "seen"];
        let wanted = wanted.map(|name| format!("tree.{name}"));
        // What was replaced is removed by a thread that nobody waits for.
        for _ in 0..1000 {
            if names() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(names(), wanted);
    }
}

/// All that there is to know of a tree, by the standard library and not by what is tested.
fn all_of(top: &Path) -> BTreeMap<PathBuf, String> {
    fn look(
        at: &Path,
        top: &Path,
        all: &mut BTreeMap<PathBuf, String>,
        inodes: &mut Vec<(u64, PathBuf)>,
    ) {
        let data = at.symlink_metadata().unwrap();
        let path = at.strip_prefix(top).unwrap().to_owned();
        let kind = data.file_type();
        let mut what = format!(
            "{kind:?} {:o} {}:{} {}.{} links {} device {}",
            data.mode(),
            data.uid(),
            data.gid(),
            data.mtime(),
            data.mtime_nsec(),
            if data.is_dir() { 0 } else { data.nlink() },
            data.rdev(),
        );
        if kind.is_symlink() {
            what += &format!(" to {}", std::fs::read_link(at).unwrap().display());
        } else if data.is_file() {
            let first = inodes.iter().find(|(inode, _)| *inode == data.ino());
            match first {
                Some((_, first)) => what += &format!(" is {}", first.display()),
                None => inodes.push((data.ino(), path.clone())),
            }
            what += &format!(" {}", blake3::hash(&std::fs::read(at).unwrap()));
            let mut value = [0; 64];
            if let Ok(len) = rustix::fs::lgetxattr(at, "user.note", &mut value) {
                what += &format!(" note {:?}", &value[..len]);
            }
        }
        all.insert(path, what);
        if data.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(at).unwrap().flatten().collect();
            names.sort_by_key(std::fs::DirEntry::file_name);
            for entry in names {
                look(&entry.path(), top, all, inodes);
            }
        }
    }
    let mut all = BTreeMap::new();
    look(top, top, &mut all, &mut Vec::new());
    all
}

fn assert_same(one: &Path, two: &Path) {
    let (one, two) = (all_of(one), all_of(two));
    for (path, what) in &one {
        assert_eq!(two.get(path), Some(what), "{}", path.display());
    }
    assert_eq!(one.len(), two.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hosts_have_the_tree() {
    let place = Place::new();
    let tree = place.tree("source", 12);
    let hosts = place.receivers(["a", "b", "c"]).await;
    let report = place.send_tree(&tree, &hosts).await;
    for host in report {
        assert_eq!(host.state, State::Done, "{host:?}");
        assert_same(&tree, &place.there(&host.name));
        let sparse = place.there(&host.name).join("usr/sparse");
        assert!(sparse.metadata().unwrap().blocks() < 1000);
        // Names are secret where their directory is.
        let names = place.path(&host.name).join(".spread/tree.names");
        assert_eq!(names.metadata().unwrap().mode() & 0o777, 0o600);
        place.tidy(&host.name).await;
    }
    // Known again, without a byte.
    let again = place.send_tree(&tree, &hosts).await;
    assert!(
        again
            .iter()
            .all(|host| host.state == State::Done && host.received == 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_version_is_the_difference_and_comes_at_once() {
    let place = Place::new();
    let tree = place.tree("source", 12);
    let hosts = place.receivers(["a"]).await;
    assert_eq!(place.send_tree(&tree, &hosts).await[0].state, State::Done);
    let there = place.there("a");
    let mut reader = File::open(there.join("usr/library.3")).unwrap();
    // All the time somebody looks whether there is a whole tree.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let watched = there.clone();
    let watcher = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let passwd = std::fs::read(watched.join("etc/passwd")).unwrap();
            assert!(!passwd.is_empty());
        }
    });

    // Something comes before all else, something grows in the middle, something goes, something changes.
    std::fs::write(tree.join("aaa"), noise(77, 5000)).unwrap();
    let library = tree.join("usr/library.3");
    let mut bytes = std::fs::read(&library).unwrap();
    bytes.splice(500_000..500_000, noise(78, 100));
    std::fs::write(&library, bytes).unwrap();
    std::fs::remove_file(tree.join("usr/share/doc/17")).unwrap();
    std::fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/bash\n").unwrap();
    let report = place.send_tree(&tree, &hosts).await;
    assert_eq!(report[0].state, State::Done, "{report:?}");
    assert!(report[0].received < 100 << 10, "{report:?}");
    assert!(report[0].received > 5000, "{report:?}");
    stop.send(()).unwrap();
    watcher.join().unwrap();
    assert_same(&tree, &there);
    // Who has a file of the old one still has it.
    let mut old = Vec::new();
    reader.read_to_end(&mut old).unwrap();
    assert!(old == noise(1003, 1 << 20));
    place.tidy("a").await;
}

/// What stays is not touched, whoever works in it goes on, and what is left is as after any other transfer.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_changed_where_it_is() {
    let place = Place::new();
    let tree = place.tree("source", 12);
    let mut hosts = place.receivers(["b"]).await.to_vec();
    hosts.push((
        "a".to_owned(),
        place.receiver_that_changes_in_place("a").await,
    ));
    for host in place.send_tree(&tree, &hosts).await {
        assert_eq!(host.state, State::Done, "{host:?}");
    }
    let there = place.there("a");
    let inode = |path: &str| there.join(path).symlink_metadata().unwrap().ino();
    let stay = [
        "",
        "usr/share/doc",
        "usr/library.5",
        "bin/su",
        "etc/fifo",
        "etc/deep",
        "usr/sparse",
    ];
    let before = stay.map(inode);
    let mut reader = File::open(there.join("usr/library.3")).unwrap();
    for version in 0..3_u64 {
        std::fs::write(tree.join("aaa"), noise(77 + version, 5000)).unwrap();
        let library = tree.join("usr/library.3");
        let mut bytes = std::fs::read(&library).unwrap();
        bytes.splice(500_000..500_000, noise(78, 100));
        std::fs::write(&library, bytes).unwrap();
        std::fs::remove_file(tree.join(format!("usr/share/doc/{}", 17 + version))).unwrap();
        std::fs::write(
            tree.join("etc/passwd"),
            format!("root:x:0:{version}::/:/bin/bash\n"),
        )
        .unwrap();
        std::fs::create_dir_all(tree.join(format!("opt/{version}/lib"))).unwrap();
        std::fs::write(tree.join(format!("opt/{version}/lib/new")), "new").unwrap();
        let again = tree.join(format!("opt/{version}/lib/su"));
        std::fs::hard_link(tree.join("bin/su"), again).unwrap();
        if version == 1 {
            // A link becomes a directory, a directory a file, a directory goes with what is in it.
            std::fs::remove_file(tree.join("etc/link")).unwrap();
            std::fs::create_dir(tree.join("etc/link")).unwrap();
            std::fs::write(tree.join("etc/link/in"), "in").unwrap();
            std::fs::remove_dir(tree.join("empty")).unwrap();
            std::fs::write(tree.join("empty"), "no longer").unwrap();
            std::fs::remove_dir_all(tree.join("opt/0")).unwrap();
            std::fs::set_permissions(tree.join("etc"), Permissions::from_mode(0o711)).unwrap();
        }
        let report = place.send_tree(&tree, &hosts).await;
        for host in report {
            assert_eq!(host.state, State::Done, "{host:?}");
            assert!(host.received < 100 << 10, "{host:?}");
            assert_same(&tree, &place.there(&host.name));
        }
        assert_eq!(stay.map(inode), before, "{version}");
        place.tidy("a").await;
    }
    let mut old = Vec::new();
    reader.read_to_end(&mut old).unwrap();
    assert!(old == noise(1003, 1 << 20));
    // Nobody touches it: nothing comes.
    let again = place.send_tree(&tree, &hosts).await;
    assert!(again.iter().all(|host| host.received == 0), "{again:?}");
}

/// The time of the content was put back; that of the change shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_was_tampered_with_is_no_base() {
    let place = Place::new();
    let tree = place.tree("source", 4);
    let mut hosts = place.receivers(["a", "b"]).await;
    // What was changed is only replaced by who may replace it.
    hosts[0].1 = place.receiver_that_replaces("a").await;
    place.send_tree(&tree, &hosts).await;
    let tampered = place.there("a").join("usr/library.1");
    let before = tampered.metadata().unwrap().modified().unwrap();
    let file = File::options().write(true).open(&tampered).unwrap();
    file.write_all_at(b"spoilt", 1000).unwrap();
    file.set_modified(before).unwrap();

    std::fs::write(tree.join("new"), "new").unwrap();
    let report = place.send_tree(&tree, &hosts).await;
    assert_eq!(report.len(), 2, "{report:?}");
    for host in &report {
        assert_eq!(host.state, State::Done, "{report:?}");
        assert_same(&tree, &place.there(&host.name));
        let whole = host.received > 3 << 20;
        assert_eq!(whole, host.name == "a", "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_somebody_works_in_is_not_replaced() {
    let place = Place::new();
    let tree = place.tree("source", 1);
    let hosts = place.receivers(["a"]).await;
    place.send_tree(&tree, &hosts).await;
    std::fs::write(place.there("a").join("etc/mine"), "mine").unwrap();
    std::fs::write(tree.join("new"), "new").unwrap();
    let report = place.send_tree(&tree, &hosts).await;
    assert_eq!(report[0].state, State::Refused);
    assert!(report[0].notes[0].contains("--replace"), "{report:?}");
    let mine = place.there("a").join("etc/mine");
    assert_eq!(std::fs::read_to_string(mine).unwrap(), "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_for_a_file_and_a_file_for_a_tree() {
    let place = Place::new();
    let tree = place.tree("source", 1);
    let file = place.path("file");
    std::fs::write(&file, noise(5, 3 << 20)).unwrap();
    let hosts = place.receivers(["a"]).await;
    for _ in 0..2 {
        assert_eq!(place.send_tree(&file, &hosts).await[0].state, State::Done);
        assert!(std::fs::read(place.there("a")).unwrap() == noise(5, 3 << 20));
        // Another time: what was sent before is older.
        let now = SystemTime::now();
        File::open(&file).unwrap().set_modified(now).unwrap();
        assert_eq!(place.send_tree(&tree, &hosts).await[0].state, State::Done);
        assert_same(&tree, &place.there("a"));
        File::open(&tree).unwrap().set_modified(now).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_comes_back_goes_on_where_it_was() {
    let place = Place::new();
    let tree = place.tree("source", 40);
    let source = place.tree_source(&tree, From::Nothing).unwrap();
    let hidden = || assert!(!place.there("a").exists(), "half a tree is visible");
    let (report, had) = place.send_and_kill(&source, hidden).await;
    assert!(had > 8, "{report:?}");
    assert_same(&tree, &place.there("a"));
    place.tidy("a").await;
}

/// Killed after the trees have changed places, before it was noted: the next one knows it nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_noted_any_more_is_known() {
    let place = Place::new();
    let tree = place.tree("source", 2);
    let hosts = place.receivers(["a"]).await;
    place.send_tree(&tree, &hosts).await;
    for what in ["manifest", "manifest.minisig", "names", "seen"] {
        let file = place.path("a/.spread").join(format!("tree.{what}"));
        std::fs::rename(&file, format!("{}.new", file.display())).unwrap();
    }
    let old = place.path("a/.spread/tree.old.00112233445566778899aabbccddeeff");
    std::fs::create_dir_all(old.join("left")).unwrap();
    let again = place.send_tree(&tree, &hosts).await;
    assert_eq!((again[0].state, again[0].received), (State::Done, 0));
    std::fs::write(tree.join("new"), "new").unwrap();
    let report = place.send_tree(&tree, &hosts).await;
    assert_eq!(report[0].state, State::Done, "{report:?}");
    assert!(report[0].received < 100 << 10, "{report:?}");
    assert_same(&tree, &place.there("a"));
    place.tidy("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_meanwhile_is_named() {
    let place = Place::new();
    let tree = place.tree("source", 40);
    let hosts = place.receivers(["a"]).await;
    let source = place.tree_source(&tree, From::Nothing).unwrap();
    let sent = send::send(source.transfer.clone(), options(&hosts, None), {
        let mut done = false;
        let tree = tree.clone();
        move |_| {
            if !std::mem::replace(&mut done, true) {
                std::fs::write(tree.join("usr/library.33"), "other").unwrap();
            }
        }
    });
    let report = sent.await.unwrap();
    assert_eq!(report[0].state, State::Failed, "{report:?}");
    let notes = report[0].notes.join("; ");
    assert!(
        notes.contains("usr/library.33 was changed while it was sent"),
        "{notes}"
    );
    assert!(!place.there("a").exists());
}

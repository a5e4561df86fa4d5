//! The next version of a tree: receivers that are killed, that are not root, and file systems of several kinds.

use super::lab::{may_not, xfs};
use crate::kit::{LONG, Place, noise, options, says};
use spread::send::{self, Host, State};
use spread::source::From;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An ordinary user, who owns nothing.
const NOBODY: u32 = 65534;

/// What is new in a version that changes little.
const LITTLE: u64 = 200 << 10;

/// A tree of many files, some of them large, one of them with a hole.
fn tree(place: &Place) -> PathBuf {
    let top = place.path("tree");
    for directory in 0..20 {
        let at = top.join(format!("d{directory}/deep"));
        std::fs::create_dir_all(&at).unwrap();
        for file in 0..30 {
            let seed = directory * 100 + file;
            let len = (seed as usize * 379) % 9000;
            std::fs::write(at.join(format!("{file}")), noise(seed, len)).unwrap();
        }
        symlink("deep/1", top.join(format!("d{directory}/link"))).unwrap();
    }
    for large in 0..8 {
        let file = top.join(format!("large.{large}"));
        std::fs::write(file, noise(10_000 + large, 2 << 20)).unwrap();
    }
    std::fs::hard_link(top.join("d3/deep/7"), top.join("d4/again")).unwrap();
    let sparse = std::fs::File::create(top.join("sparse")).unwrap();
    sparse.set_len(9 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"here", 5 << 20).unwrap();
    let suid = std::fs::Permissions::from_mode(0o4755);
    std::fs::set_permissions(top.join("d1/deep/5"), suid).unwrap();
    top
}

/// Something comes before all else, something in the middle of a file, something goes.
fn change(top: &Path, seed: u64) {
    std::fs::write(top.join("aaa"), noise(seed, 5000)).unwrap();
    let mut bytes = std::fs::read(top.join("large.3")).unwrap();
    bytes.splice(500_000..500_000, noise(seed + 1, 100));
    std::fs::write(top.join("large.3"), bytes).unwrap();
    let _ = std::fs::remove_file(top.join("d9/deep/17"));
}

/// Of each name its kind, rights, time and content; the owner is another one where it is not root.
fn all_of(top: &Path) -> BTreeMap<PathBuf, String> {
    fn look(at: &Path, top: &Path, all: &mut BTreeMap<PathBuf, String>) {
        let data = at.symlink_metadata().unwrap();
        let (mode, time) = (data.mode() & !0o6000, (data.mtime(), data.mtime_nsec()));
        let content = match () {
            () if data.is_dir() => {
                for entry in std::fs::read_dir(at).unwrap() {
                    look(&entry.unwrap().path(), top, all);
                }
                String::new()
            }
            () if data.is_file() => blake3::hash(&std::fs::read(at).unwrap()).to_string(),
            () => format!("{:?}", std::fs::read_link(at)),
        };
        let path = at.strip_prefix(top).unwrap().to_owned();
        all.insert(path, format!("{mode:o} {time:?} {content}"));
    }
    let mut all = BTreeMap::new();
    look(top, top, &mut all);
    all
}

/// What is new to those who have the version before, all of it to others: what the command does.
async fn send(place: &Place, tree: &Path, host: SocketAddr) -> Host {
    send_for(place, tree, host, LONG).await
}

/// `patience`: with a host that is not there.
async fn send_for(place: &Place, tree: &Path, host: SocketAddr, patience: Duration) -> Host {
    let mut last = None;
    for from in [From::Version, From::Nothing] {
        let Some(source) = place.open(tree, "tree", from) else {
            continue;
        };
        let mut options = options(&[("a", host)], None);
        options.patience = patience;
        let report = send::send(source.transfer.clone(), options, |_| {}).await;
        let host = report.unwrap().remove(0);
        if host.state != State::NoBase {
            return host;
        }
        last = Some(host);
    }
    last.unwrap()
}

/// What one tree has and the other one has not.
fn difference(one: &Path, two: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let one = all_of(one);
    let names = one.keys().chain(two.keys());
    let other = names.filter(|name| one.get(*name) != two.get(*name));
    other
        .map(|name| format!("{name:?}: {:?} {:?}", one.get(name), two.get(name)))
        .collect()
}

fn is_done(host: &Host) {
    assert_eq!(host.state, State::Done, "{host:?}");
}

/// Where a moment is seen, below `.spread`, by the beginning of a name.
const MOMENTS: [&str; 7] = [
    "tree.head",
    "tree.tree",
    "tree.pages",
    "tree.names.new",
    "tree.manifest.minisig.new",
    "tree.old.",
    "tree.steps",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_of_a_trees_next_version() {
    kills(&[]).await;
}

/// While it is changed where it is, it may be of both versions; it is not any more when the receiver is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_while_a_tree_is_changed_in_its_place() {
    kills(&[("SPREAD_IN_PLACE", String::new())]).await;
}

async fn kills(how: &[(&str, String)]) {
    let place = Place::new();
    let top = tree(&place);
    let mut receiver = place.start_receiver("a", "127.0.0.1:0", how);
    let address = receiver.address;
    is_done(&send(&place, &top, address).await);
    let there = place.path("a/tree");
    for (round, moment) in MOMENTS.into_iter().cycle().take(14).enumerate() {
        let before = all_of(&top);
        assert_eq!(difference(&there, &before), [""; 0]);
        change(&top, 20_000 + round as u64);
        let after = all_of(&top);
        let pause = Duration::from_millis(round as u64 / 7 * 7);
        let beside = place.path("a/.spread");
        let killer = std::thread::spawn(move || {
            let begin = Instant::now();
            let seen = || {
                let entries = std::fs::read_dir(&beside).unwrap().flatten();
                let mut names = entries.map(|entry| entry.file_name());
                names.any(|name| name.to_str().unwrap().starts_with(moment))
            };
            // A moment that passes unseen is another one.
            while !seen() && begin.elapsed() < Duration::from_secs(3) {
                std::hint::spin_loop();
            }
            std::thread::sleep(pause);
            receiver.kill();
        });
        let patience = Duration::from_millis(700);
        let interrupted = send_for(&place, &top, address, patience).await;
        killer.join().unwrap();
        let what = format!("{moment} and {pause:?}");
        let now = all_of(&there);
        let between = place.path("a/.spread/tree.steps").exists();
        assert!(
            between || now == before || now == after,
            "neither one: {what}"
        );
        if interrupted.state == State::Done {
            assert!(now == after, "{what}");
        }
        receiver = place.start_receiver("a", &address.to_string(), how);
        let host = send(&place, &top, address).await;
        is_done(&host);
        assert!(host.received < LITTLE, "{what}: {host:?}");
        assert!(all_of(&there) == after, "{what}");
    }
    drop(receiver);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_not_root_receives_a_tree() {
    not_root(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_not_root_has_a_tree_changed_in_its_place() {
    not_root(&[("SPREAD_IN_PLACE", String::new())]).await;
}

async fn not_root(how: &[(&str, String)]) {
    if may_not("a receiver that is another user") {
        return;
    }
    let place = Place::new();
    let top = tree(&place);
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path(""), open).unwrap();
    std::fs::create_dir(place.path("a")).unwrap();
    chown(place.path("a"), Some(NOBODY), Some(NOBODY)).unwrap();
    let user = [how, &[("SPREAD_USER", NOBODY.to_string())]].concat();
    let receiver = place.start_receiver("a", "127.0.0.1:0", &user);
    let there = place.path("a/tree");
    for version in 0..3 {
        if version > 0 {
            change(&top, 30_000 + version);
        }
        let host = send(&place, &top, receiver.address).await;
        is_done(&host);
        assert!(version == 0 || host.received < LITTLE, "{host:?}");
        assert_eq!(difference(&there, &all_of(&top)), [""; 0]);
        let data = there.join("d1/deep/5").metadata().unwrap();
        assert_eq!((data.uid(), data.mode() & 0o7777), (NOBODY, 0o755));
    }
    // A device is nothing that such a user may have.
    let kind = rustix::fs::FileType::CharacterDevice;
    let (mode, null) = (rustix::fs::Mode::RUSR, rustix::fs::makedev(1, 3));
    rustix::fs::mknodat(rustix::fs::CWD, top.join("null"), kind, mode, null).unwrap();
    let before = all_of(&there);
    let host = send(&place, &top, receiver.address).await;
    assert_eq!(host.state, State::Failed, "{host:?}");
    assert!(says(&host, "null: "), "{host:?}");
    assert!(all_of(&there) == before);
}

fn used(at: &Path) -> u64 {
    let all = rustix::fs::statvfs(at).unwrap();
    (all.f_blocks - all.f_bfree) * all.f_frsize
}

/// A receiver on a file system of its own. Three versions; returns how many bytes the last one took there.
async fn on(place: &Place, mount: &str) -> u64 {
    let top = tree(place);
    let mounted = [("SPREAD_MOUNT", mount.to_owned())];
    let receiver = place.start_receiver("a", "127.0.0.1:0", &mounted);
    // As its process sees it.
    let root = PathBuf::from(format!("/proc/{}/root", receiver.child.id()));
    let at = root.join(place.path("a").strip_prefix("/").unwrap());
    let there = at.join("tree");
    let mut took = 0;
    for version in 0..3 {
        if version > 0 {
            change(&top, 40_000 + version);
        }
        settled(&at);
        let before = used(&at);
        let host = send(place, &top, receiver.address).await;
        is_done(&host);
        assert!(version == 0 || host.received < LITTLE, "{host:?}");
        assert_eq!(difference(&there, &all_of(&top)), [""; 0], "{mount}");
        let sparse = there.join("sparse").metadata().unwrap();
        assert!(sparse.blocks() < 1000, "{sparse:?}");
        settled(&at);
        took = used(&at).saturating_sub(before);
    }
    took
}

/// Returns when the version before is removed, which nobody waits for.
fn settled(at: &Path) {
    let begin = Instant::now();
    let left = || {
        let entries = std::fs::read_dir(at.join(".spread")).into_iter().flatten();
        let mut names = entries.flatten().map(|entry| entry.file_name());
        names.any(|name| name.to_str().unwrap().starts_with("tree.old."))
    };
    while left() {
        assert!(begin.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_on_a_file_system_that_shares_nothing() {
    if may_not("a receiver on tmpfs") {
        return;
    }
    on(&Place::new(), "size=200m,mode=755").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_on_a_file_system_that_shares_blocks() {
    if may_not("a receiver on XFS") {
        return;
    }
    let place = Place::new();
    let Some(image) = xfs(&place) else {
        return;
    };
    let took = on(&place, &image).await;
    // Of more than 16 MiB.
    assert!(took < 8 << 20, "{took}");
}

//! Trees at random, there and back.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use rustix::fs::FileType;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

/// Something in a directory, for trees at random.
#[derive(Clone, Debug)]
pub enum Thing {
    /// So many bytes, which follow from the number; then so many that are a hole.
    File(u8, usize, usize),
    Link(String),
    /// Another name of the last file, if there is one.
    Again,
    Fifo,
    Directory(Vec<(String, Thing, u16)>),
}

pub fn things() -> impl Strategy<Value = Vec<(String, Thing, u16)>> {
    let leaf = prop_oneof![
        4 => (any::<u8>(), 0_usize..200_000, prop_oneof![Just(0_usize), 0_usize..300_000])
            .prop_map(|(seed, len, hole)| Thing::File(seed, len, hole)),
        1 => (any::<u8>(), 0_usize..3_000_000).prop_map(|(seed, len)| Thing::File(seed, len, 0)),
        1 => "[a-z/.]{1,120}".prop_map(Thing::Link),
        1 => Just(Thing::Again),
        1 => Just(Thing::Fifo),
    ];
    let name = || prop_oneof![4 => "[a-zA-Z0-9 .é\n-]{1,12}", 1 => "x{101,140}"];
    let inside = move |thing| prop::collection::vec((name(), thing, any::<u16>()), 0..6);
    let thing = leaf.prop_recursive(3, 24, 6, move |thing| {
        inside(thing).prop_map(Thing::Directory)
    });
    prop::collection::vec(("[a-zA-Z0-9]{1,12}", thing, any::<u16>()), 1..6)
}

/// Bytes that do not compress and follow from a number.
pub fn bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut out);
    out
}

pub fn make(top: &Path, things: &[(String, Thing, u16)]) {
    let mut last = None;
    let _ = std::fs::create_dir(top);
    fill(top, things, &mut last);
    std::fs::set_permissions(top, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn fill(at: &Path, things: &[(String, Thing, u16)], last: &mut Option<std::path::PathBuf>) {
    for (name, thing, salt) in things {
        let path = at.join(name);
        if [".", ".."].contains(&name.as_str()) || path.symlink_metadata().is_ok() {
            continue;
        }
        let time =
            SystemTime::UNIX_EPOCH + Duration::new(u64::from(*salt) << 16, u32::from(*salt % 3));
        match thing {
            Thing::File(seed, len, hole) => {
                std::fs::write(&path, bytes(*seed, *len)).unwrap();
                let file = File::options().write(true).open(&path).unwrap();
                file.set_len((len + hole) as u64).unwrap();
                let mode = 0o600 | u32::from(salt % 0o200);
                file.set_permissions(std::fs::Permissions::from_mode(mode))
                    .unwrap();
                if salt % 5 == 0 {
                    let flags = rustix::fs::XattrFlags::empty();
                    let value = salt.to_le_bytes();
                    let _ = rustix::fs::fsetxattr(&file, "user.salt", &value, flags);
                }
                file.set_modified(time).unwrap();
                *last = Some(path);
            }
            Thing::Link(to) => std::os::unix::fs::symlink(to, &path).unwrap(),
            Thing::Again => {
                if let Some(last) = last {
                    std::fs::hard_link(last, &path).unwrap();
                }
            }
            Thing::Fifo => {
                let mode = Mode::from_raw_mode(0o640);
                rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
            }
            Thing::Directory(things) => {
                std::fs::create_dir(&path).unwrap();
                fill(&path, things, last);
                let mode = 0o700 | u32::from(salt % 0o100);
                let rights = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(&path, rights).unwrap();
                File::open(&path).unwrap().set_modified(time).unwrap();
            }
        }
    }
}

impl Tree {
    /// As if it were looked at so many seconds later.
    pub fn later(mut self, seconds: i64) -> Self {
        self.looked += seconds;
        self
    }
}

/// All of the stream.
pub fn stream(tree: &Tree) -> Vec<u8> {
    let mut all = vec![0; tree.size() as usize];
    tree.read_exact_at(&mut all, 0).unwrap();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_tree_there_and_back(things in things(), at in any::<prop::sample::Index>(), len in 0_usize..100_000) {
        let dir = tempfile::tempdir().unwrap();
        let (top, back) = (dir.path().join("top"), dir.path().join("back"));
        make(&top, &things);
        let tree = Tree::open(&top).unwrap();
        let all = stream(&tree);
        let at = at.index(all.len());
        let mut part = vec![7; len.min(all.len() - at)];
        tree.read_exact_at(&mut part, at as u64).unwrap();
        prop_assert!(part == all[at..at + part.len()]);

        let names = crate::unpack::unpack(&mut all.as_slice(), &back).unwrap();
        // The stream has all that there is to know.
        prop_assert!(stream(&Tree::open(&back).unwrap()) == all);
        let known = Tree::remembered(&back, &names).unwrap();
        prop_assert!(stream(&known) == all && known.is_untouched().unwrap());
        tree.same().unwrap();
    }
}

/// Others can read the stream: what GNU tar makes of it is the same tree.
#[test]
fn the_stream_is_a_tar() {
    let dir = tempfile::tempdir().unwrap();
    let (top, out) = (dir.path().join("top"), dir.path().join("out"));
    let long = "long".repeat(40);
    make(
        &top,
        &[
            ("file".to_owned(), Thing::File(3, 5000, 0), 5),
            ("again".to_owned(), Thing::Again, 0),
            (long.clone(), Thing::File(4, 1, 0), 1),
            ("link".to_owned(), Thing::Link("y".repeat(150)), 0),
            ("fifo".to_owned(), Thing::Fifo, 0),
            (
                "in".to_owned(),
                Thing::Directory(vec![(long, Thing::Directory(vec![]), 2)]),
                7,
            ),
        ],
    );
    let tree = Tree::open(&top).unwrap();
    let tar = dir.path().join("tar");
    std::fs::write(&tar, stream(&tree)).unwrap();
    std::fs::create_dir(&out).unwrap();
    let made = std::process::Command::new("tar")
        .args(["--extract", "--preserve-permissions", "--xattrs", "--file"])
        .arg(&tar)
        .arg("--directory")
        .arg(&out)
        .output()
        .unwrap();
    assert!(made.status.success() && made.stderr.is_empty(), "{made:?}");
    let modified = |entry: &Entry| match entry.kind {
        // The times of links and FIFOs were those of the moment when they were made.
        Kind::Symlink(_) | Kind::Fifo => None,
        _ => Some(entry.modified),
    };
    let of = |tree: &Tree| -> Vec<_> {
        let entries = tree.nodes.iter().map(|node| &node.entry);
        entries
            .map(|entry| {
                (
                    modified(entry),
                    Entry {
                        modified: (0, 0),
                        ..entry.clone()
                    },
                )
            })
            .collect()
    };
    let made = Tree::open(&out).unwrap();
    assert_eq!(of(&made), of(&tree));
    assert!(std::fs::read(out.join("file")).unwrap() == bytes(3, 5000));
}

#[test]
fn what_is_changed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("etc/inner");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(inner.join("a"), "one").unwrap();
    std::fs::write(inner.join("b"), "two").unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let digest = tree.digest();
    tree.same().unwrap();
    // Of the same size, at the same time.
    let before = std::fs::metadata(inner.join("b")).unwrap();
    loop {
        std::fs::write(inner.join("b"), "owt").unwrap();
        if std::fs::metadata(inner.join("b"))
            .unwrap()
            .modified()
            .unwrap()
            != before.modified().unwrap()
        {
            break;
        }
    }
    let file = File::options().write(true).open(inner.join("b")).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let why = tree.same().unwrap_err().to_string();
    assert_eq!(why, "etc/inner/b was changed while it was sent");
    assert_ne!(Tree::open(dir.path()).unwrap().digest(), digest);
    let mut all = vec![0; tree.size() as usize];
    let why = tree.read_exact_at(&mut all, 0).unwrap_err().to_string();
    assert_eq!(why, "etc/inner/b was changed while it was sent");
    let tree = Tree::open(dir.path()).unwrap();
    std::fs::remove_file(inner.join("a")).unwrap();
    let why = tree.same().unwrap_err().to_string();
    assert!(why.starts_with("etc/inner"), "{why}");
}

/// Whoever may write to the tree could otherwise have the source send what only it may read.
#[test]
fn a_link_in_the_place_of_a_directory_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (top, secret) = (dir.path().join("top"), dir.path().join("secret"));
    std::fs::create_dir_all(top.join("in")).unwrap();
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(top.join("in/file"), "public").unwrap();
    std::fs::write(secret.join("file"), "secret").unwrap();
    let tree = Tree::open(&top).unwrap();
    std::fs::rename(top.join("in"), dir.path().join("was")).unwrap();
    std::os::unix::fs::symlink(&secret, top.join("in")).unwrap();
    let mut all = vec![0; tree.size() as usize];
    assert!(tree.read_exact_at(&mut all, 0).is_err());
    assert!(!all.windows(6).any(|bytes| bytes == b"secret"));
}

#[test]
fn a_socket_is_named_and_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("sock")).unwrap();
    let why = Tree::open(dir.path()).err().unwrap().to_string();
    assert_eq!(why, "sock is a socket, and cannot be sent");
}

/// Does this in a thread that is not root, with a directory of its own. `false`: this process is not root, and cannot.
pub(crate) fn as_ordinary_user(act: impl FnOnce(&Path) + Send) -> bool {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let all = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(dir.path(), all).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: no memory is passed. The system call itself, unlike the C library's function, is for this thread and
            // those that it starts; it ends here.
            let set = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(set, 0);
            act(&own);
        });
        thread.join().unwrap();
    });
    true
}

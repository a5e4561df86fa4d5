//! Streams that nobody should send, and places that are taken.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::tree::tests::as_ordinary_user;

fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        kind,
        mode: 0o755,
        user: rustix::process::geteuid().as_raw(),
        group: rustix::process::getegid().as_raw(),
        ..Entry::hardlink(path.as_bytes().to_vec(), Vec::new())
    }
}

fn top() -> Entry {
    entry("", Kind::Directory)
}

/// Unpacks these, each with nothing in it; returns why not, and what is around the tree afterwards.
fn hostile(entries: &[Entry]) -> (String, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("around")).unwrap();
    std::fs::write(dir.path().join("around/file"), "mine").unwrap();
    let mut stream: Vec<u8> = entries.iter().flat_map(Entry::header).collect();
    stream.extend([0; 1024]);
    let made = unpack(&mut stream.as_slice(), &dir.path().join("tree"));
    let around = std::fs::read_dir(dir.path().join("around")).unwrap();
    let around = around
        .flatten()
        .map(|e| e.file_name().into_string().unwrap());
    let around = around.collect();
    assert_eq!(
        std::fs::read(dir.path().join("around/file")).unwrap(),
        b"mine"
    );
    let top: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert_eq!(top.len(), 2, "beside the tree: {top:?}");
    (made.unwrap_err().to_string(), around)
}

#[test]
fn hostile_streams_make_nothing_outside() {
    let outside = || Kind::Symlink(b"../around".to_vec());
    let cases = [
        // Through a link.
        vec![
            top(),
            entry("link", outside()),
            entry("link/new", Kind::File),
        ],
        vec![
            top(),
            entry("link", outside()),
            entry("link/new", Kind::Directory),
        ],
        vec![
            top(),
            entry("link", outside()),
            entry("link/new", Kind::Fifo),
        ],
        // In the place of a link.
        vec![
            top(),
            entry("link", Kind::Symlink(b"../around/file".to_vec())),
            entry("link", Kind::File),
        ],
        vec![
            top(),
            entry("link", outside()),
            entry("link", Kind::Directory),
        ],
        // A second name of what is outside.
        vec![
            top(),
            entry("link", outside()),
            Entry::hardlink(b"mine".to_vec(), b"link/file".to_vec()),
        ],
        vec![
            top(),
            Entry::hardlink(b"mine".to_vec(), b"../around/file".to_vec()),
        ],
        vec![top(), entry("../around/new", Kind::File)],
        vec![top(), entry("/tmp/new", Kind::File)],
        // Twice the same.
        vec![top(), entry("a", Kind::File), entry("a", Kind::File)],
        vec![top(), top()],
        // Before its directory, or before the tree.
        vec![top(), entry("a/b", Kind::File)],
        vec![entry("a", Kind::File)],
        vec![],
    ];
    for entries in cases {
        let (why, around) = hostile(&entries);
        assert_eq!(around, ["file"], "{entries:?}: {why}");
    }
}

#[test]
fn a_file_longer_than_its_stream_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = entry("a", Kind::File);
    file.size = 1 << 40;
    let stream = [top().header(), file.header(), vec![1; 5000]].concat();
    let made = unpack(&mut stream.as_slice(), &dir.path().join("tree"));
    assert_eq!(made.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_tree_changes_places_with_whatever_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (made, target) = (dir.path().join("made"), dir.path().join("target"));
    std::fs::create_dir(&made).unwrap();
    assert!(!exchange(&made, &target, true).unwrap());
    std::fs::create_dir(&made).unwrap();
    let taken = exchange(&made, &target, true).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    std::fs::write(made.join("new"), "").unwrap();
    assert!(exchange(&made, &target, false).unwrap());
    assert!(target.join("new").exists() && !made.join("new").exists());
    remove(&made).unwrap();
    // A file for a tree, and the other way around.
    std::fs::write(&made, "file").unwrap();
    assert!(exchange(&made, &target, false).unwrap());
    assert!(target.is_file() && made.is_dir());
    assert!(exchange(&made, &target, false).unwrap());
    assert!(target.is_dir() && made.is_file());
    remove(&made).unwrap();
    remove(&made).unwrap();
}

#[test]
fn what_its_owner_may_not_enter_is_removed_too() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    std::fs::create_dir_all(top.join("closed/below")).unwrap();
    std::fs::write(top.join("closed/below/file"), "").unwrap();
    std::os::unix::fs::symlink("/", top.join("closed/link")).unwrap();
    for closed in ["closed/below", "closed", ""] {
        let none = std::fs::Permissions::from_mode(0o0);
        std::fs::set_permissions(top.join(closed), none).unwrap();
    }
    remove(&top).unwrap();
    assert!(top.symlink_metadata().is_err());
}

/// Of a tree with such a directory nothing came: it could not be looked at when it was made.
#[test]
fn whoever_is_not_root_may_look_into_all_directories() {
    as_ordinary_user(|dir| {
        let with = |path: &str, kind: Kind, mode| Entry {
            mode,
            ..entry(path, kind)
        };
        let entries = [
            top(),
            with("closed", Kind::Directory, 0),
            Entry {
                attributes: vec![(b"user.note".to_vec(), b"kept".to_vec())],
                ..with("closed/file", Kind::File, 0)
            },
            with("closed/in", Kind::Directory, 0o300),
            with("closed/in/file", Kind::File, 0o4755),
        ];
        let mut stream: Vec<u8> = entries.iter().flat_map(Entry::header).collect();
        stream.extend([0; 1024]);
        let made = dir.join("tree");
        let names = unpack(&mut stream.as_slice(), &made).unwrap();
        // It is known again.
        let known = Tree::remembered(&made, &names).unwrap();
        assert!(known.is_untouched().unwrap());
        let now = Tree::open(&made).unwrap();
        let modes: Vec<u32> = now.nodes().iter().map(|node| node.entry.mode).collect();
        assert_eq!(modes, [0o755, 0o500, 0, 0o700, 0o755]);
        let file = made.join("closed/file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).unwrap();
        let mut value = [0; 9];
        let len = rustix::fs::lgetxattr(&file, "user.note", value.as_mut_slice()).unwrap();
        assert_eq!(&value[..len], b"kept");
        assert!(!known.is_untouched().unwrap());
        remove(&made).unwrap();
        assert!(!made.exists());
    });
}

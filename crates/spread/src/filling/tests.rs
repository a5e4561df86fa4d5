//! Files that are made of parts of others.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::tree::tests::{as_ordinary_user, bytes, stream};
use proptest::prelude::*;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

/// Two large files, a small one, and one with a hole.
fn tree(at: &Path) -> Arc<Tree> {
    std::fs::write(at.join("a"), bytes(1, 700_001)).unwrap();
    std::fs::write(at.join("b"), bytes(2, 90)).unwrap();
    let sparse = File::create(at.join("c")).unwrap();
    sparse.write_all_at(&bytes(3, 5000), 3 << 20).unwrap();
    sparse.set_len(4 << 20).unwrap();
    std::fs::write(at.join("d"), bytes(4, 400_000)).unwrap();
    Arc::new(Tree::open(at).unwrap())
}

fn filling(base: &Arc<Tree>) -> Filling {
    Filling::start(base, Rights::of_this_process()).unwrap()
}

/// A file of so many bytes, to be filled.
fn job(base: &Tree, path: &Path, size: u64, parts: Vec<Part>) -> Job {
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(path);
    let entry = Entry {
        size,
        ..base.nodes()[1].entry.clone()
    };
    let file = file.unwrap();
    Job { file, entry, parts }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Wherever a part begins and ends, also over several files and their headers.
    #[test]
    fn parts_of_all_kinds(
        ranges in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..1_000_000, any::<bool>()), 1..6),
        rest in 0_u64..9000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("base")).unwrap();
        let base = tree(&dir.path().join("base"));
        let all = stream(&base);
        let (mut wanted, mut parts) = (Vec::new(), Vec::new());
        for (from, len, whole_blocks) in ranges {
            let from = from.index(all.len());
            if whole_blocks {
                // As far into a block as in the other file.
                let into = base.at(from as u64).1 as usize;
                wanted.resize(wanted.len().next_multiple_of(4096) + from.saturating_sub(into) % 4096, 0);
            }
            let piece = &all[from..all.len().min(from + len)];
            parts.push(Part { at: wanted.len() as u64, from: from as u64, len: piece.len() as u64 });
            wanted.extend(piece);
        }
        wanted.resize(wanted.len() + rest as usize, 0);
        let path = dir.path().join("made");
        let mut filling = filling(&base);
        filling.add(job(&base, &path, wanted.len() as u64, parts)).unwrap();
        filling.end().unwrap();
        prop_assert!(std::fs::read(path).unwrap() == wanted);
    }
}

#[test]
fn a_file_that_is_as_it_was_keeps_its_hole() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("base")).unwrap();
    let base = tree(&dir.path().join("base"));
    let node = base.nodes().iter().find(|node| node.entry.path == b"c");
    let node = node.unwrap();
    let part = Part {
        at: 0,
        from: node.start + node.header,
        len: node.entry.size,
    };
    let path = dir.path().join("made");
    let mut filling = filling(&base);
    filling.add(job(&base, &path, 4 << 20, vec![part])).unwrap();
    filling.end().unwrap();
    assert!(std::fs::read(&path).unwrap() == std::fs::read(dir.path().join("base/c")).unwrap());
    assert!(path.metadata().unwrap().blocks() < 100);
}

/// Between the look at the base and now. Only the time of change shows it.
#[test]
fn a_base_that_changes_meanwhile_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("base")).unwrap();
    let base = tree(&dir.path().join("base"));
    // A clock of the file system that has gone on shows the change.
    std::thread::sleep(std::time::Duration::from_millis(30));
    for (name, change) in [("a", 0), ("b", 1), ("d", 2)] {
        let path = dir.path().join("base").join(name);
        let time: SystemTime = path.metadata().unwrap().modified().unwrap();
        match change {
            0 => {
                let file = File::options().write(true).open(&path).unwrap();
                file.write_all_at(b"x", 100).unwrap();
                file.set_modified(time).unwrap();
            }
            1 => std::fs::remove_file(&path).unwrap(),
            _ => {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_len(10).unwrap();
            }
        }
        let node = base
            .nodes()
            .iter()
            .find(|node| node.entry.path == name.as_bytes());
        let node = node.unwrap();
        let (from, len) = (node.start + node.header, node.entry.size);
        let mut filling = filling(&base);
        let part = Part { at: 0, from, len };
        let job = job(
            &base,
            &dir.path().join(format!("made.{name}")),
            len,
            vec![part],
        );
        filling.add(job).unwrap();
        let why = filling.end().unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{name}: {why}");
        assert!(why.to_string().contains("was changed"), "{why}");
    }
}

/// Fedora's `/etc/shadow`: the first version came, and no other one after it.
#[test]
fn a_file_that_its_owner_may_not_read_is_no_base() {
    as_ordinary_user(|dir| {
        std::fs::create_dir(dir.join("base")).unwrap();
        std::fs::write(dir.join("base/shadow"), bytes(1, 5000)).unwrap();
        std::fs::set_permissions(dir.join("base/shadow"), Permissions::from_mode(0o0)).unwrap();
        let base = Arc::new(Tree::open(&dir.join("base")).unwrap());
        let node = &base.nodes()[1];
        let (from, len) = (node.start + node.header, node.entry.size);
        let mut filling = filling(&base);
        let part = Part { at: 0, from, len };
        let job = job(&base, &dir.join("made"), len, vec![part]);
        filling.add(job).unwrap();
        let why = filling.end().unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{why}");
        assert!(
            why.to_string().contains("shadow: Permission denied"),
            "{why}"
        );
    });
}

//! Versions of trees, and what they have in common.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::manifest::FRAME;
use crate::tree::tests::{bytes, make, stream, things};
use proptest::prelude::*;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

fn files(top: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(top).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        match () {
            () if kind.is_dir() => all.extend(files(&entry.path())),
            () if kind.is_file() => all.push(entry.path()),
            () => {}
        }
    }
    all.sort();
    all
}

fn remembered(tree: &Tree) -> Base {
    let written = write(tree, chunks(tree, None).unwrap());
    Base::new("old".to_owned(), &written).unwrap()
}

/// Makes all frames of the new version; returns the bytes that the patches have.
fn remake(old: &Tree, new: &Tree) -> usize {
    let base = remembered(old);
    let ranges = Ranges::new(&base, chunks(new, Some(&base)).unwrap());
    let mut bytes = 0;
    for (index, frame) in (0..).zip(stream(new).chunks(FRAME as usize)) {
        let read = |bytes: &mut [u8], at| new.read_exact_at(bytes, at);
        match ranges.patch(index, frame.len() as u32, read).unwrap() {
            Some(patch) => {
                assert!(patch.len() <= longest(frame.len()));
                let mut made = Vec::new();
                for piece in pieces(&patch, old.size(), frame.len()).unwrap() {
                    match piece {
                        Piece::New { at, len } => made.extend(&patch[at..at + len as usize]),
                        Piece::Old { from, len } => {
                            let begin = made.len();
                            made.resize(begin + len as usize, 7);
                            old.read_exact_at(&mut made[begin..], from).unwrap();
                        }
                    }
                }
                assert!(made == frame, "frame {index}");
                bytes += patch.len();
            }
            None => bytes += frame.len(),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn patches_make_the_new_version(
        things in things(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u16>(), 0_u8..4), 0..5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        make(&one, &things);
        make(&two, &things);
        for (at, salt, how) in edits {
            let files = files(&two);
            if files.is_empty() {
                break;
            }
            let file = &files[at.index(files.len())];
            let place = u64::from(salt);
            match how {
                0 => std::fs::remove_file(file).unwrap(),
                1 => {
                    let open = OpenOptions::new().write(true).open(file).unwrap();
                    open.write_all_at(&bytes(9, 77), place).unwrap();
                }
                2 => {
                    let mut all = std::fs::read(file).unwrap();
                    let at = place as usize % (all.len() + 1);
                    all.splice(at..at, bytes(8, 5));
                    std::fs::write(file, all).unwrap();
                }
                _ => {
                    let new = file.with_file_name(format!("new{salt}"));
                    std::fs::write(new, bytes(7, salt.into())).unwrap();
                }
            }
        }
        remake(&Tree::open(&one).unwrap(), &Tree::open(&two).unwrap());
    }

    #[test]
    fn whatever_comes_as_a_patch_is_refused_or_makes_a_frame(
        count in 0_u32..5, patch in prop::collection::vec(any::<u8>(), 0..90),
    ) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), bytes(1, 9000)).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let patch = [count.to_le_bytes().as_slice(), &patch].concat();
        let Some(pieces) = pieces(&patch, tree.size(), 64) else {
            return Ok(());
        };
        let mut all = 0;
        for piece in pieces {
            all += match piece {
                Piece::Old { from, len } => {
                    prop_assert!(from + len <= tree.size());
                    len
                }
                Piece::New { at, len } => {
                    prop_assert!(at + len as usize <= patch.len());
                    len
                }
            };
        }
        prop_assert_eq!(all, 64);
    }
}

/// A byte that comes into a large file costs a chunk, not what is after it.
#[test]
fn what_is_moved_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::create_dir(dir.path().join("later")).unwrap();
    std::fs::write(dir.path().join("later/large"), bytes(2, 5 << 20)).unwrap();
    std::fs::write(&file, bytes(1, 3 << 20)).unwrap();
    let old = Tree::open(dir.path()).unwrap();
    // What the tree has now is read again below: a copy of it is what changes.
    let copy = tempfile::tempdir().unwrap();
    let back = copy.path().join("back");
    crate::unpack::unpack(&mut stream(&old).as_slice(), &back).unwrap();
    let mut all = std::fs::read(back.join("file")).unwrap();
    all.insert(1 << 20, 1);
    std::fs::write(back.join("file"), all).unwrap();
    let new = Tree::open(&back).unwrap();
    let bytes = remake(&old, &new);
    assert!(bytes < 80 << 10, "{bytes}");
}

/// What may have changed in the same moment in which it was looked at is read again.
#[test]
fn a_file_that_is_as_it_was_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(dir.path().join(name), bytes(name.as_bytes()[0], 300_000)).unwrap();
    }
    let tree = Tree::open(dir.path()).unwrap();
    assert!(remembered(&tree).files.is_empty());
    let tree = tree.later(60);
    let before = remembered(&tree);
    assert_eq!(before.files.len(), 3);
    for node in &tree.nodes()[1..] {
        let known = before.of(&tree.key(node), node.entry.padded()).unwrap();
        assert!(known.len() > 3);
        assert_eq!(before.of(&tree.key(node), node.entry.padded() + 512), None);
    }
    // A clock of the file system that has gone on shows the change.
    std::thread::sleep(std::time::Duration::from_millis(30));
    std::fs::write(dir.path().join("b"), bytes(1, 300_000)).unwrap();
    let again = || Tree::open(dir.path()).unwrap().later(60);
    let (one, two) = (again(), again());
    let known = |node: &Node| before.of(&one.key(node), node.entry.padded()).is_some();
    let known: Vec<bool> = one.nodes()[1..].iter().map(known).collect();
    assert_eq!(known, [true, false, true]);
    assert_eq!(
        chunks(&one, Some(&before)).unwrap(),
        chunks(&two, None).unwrap()
    );
}

#[test]
fn what_is_remembered_wrongly_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), bytes(1, 100_000)).unwrap();
    let tree = Tree::open(dir.path()).unwrap().later(60);
    let written = write(&tree, chunks(&tree, None).unwrap());
    assert!(Base::new(String::new(), &written).is_some());
    for at in [0, 33, 45, written.len() - 1] {
        let mut spoilt = written.clone();
        spoilt[at] ^= 1;
        assert!(Base::new(String::new(), &spoilt).is_none());
        assert!(Base::new(String::new(), &written[..at]).is_none());
    }
}

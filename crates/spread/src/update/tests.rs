//! Trees at random become others, also in several goes, and what is undone is undone.

#![allow(clippy::unwrap_used)]
use super::steps::Site;
use super::*;
use crate::tree::tests::{Thing, as_ordinary_user, make, stream, things};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

/// A tree's stream, of which all that is also in the base is shared with it: headers, contents, and halves of contents.
pub struct Known {
    base: Arc<Tree>,
    pieces: VecDeque<(Option<u64>, Vec<u8>)>,
}

impl Known {
    pub fn new(base: Arc<Tree>, new: &Tree) -> Self {
        let (old, all) = (stream(&base), stream(new));
        let mut places = HashMap::new();
        let parts = |tree: &Tree| {
            let nodes = tree.nodes().iter();
            let parts = nodes.flat_map(|node| {
                let (content, padded) = (node.start + node.header, node.entry.padded());
                let half = content + padded / 2 / 512 * 512;
                let end = content + padded;
                [(node.start, content), (content, half), (half, end)]
            });
            parts.collect::<Vec<_>>()
        };
        for (start, end) in parts(&base) {
            places
                .entry(&old[start as usize..end as usize])
                .or_insert(start);
        }
        let mut pieces: VecDeque<_> = VecDeque::new();
        for (start, end) in parts(new) {
            let bytes = &all[start as usize..end as usize];
            // Where it follows what is before, rather than elsewhere.
            let same = old.get(start as usize..end as usize) == Some(bytes);
            let from = same.then_some(start).or(places.get(bytes).copied());
            pieces.push_back((from, bytes.to_vec()));
        }
        pieces.push_back((None, vec![0; 1024]));
        pieces.retain(|(_, bytes)| !bytes.is_empty());
        Self { base, pieces }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (from, bytes) = self.pieces.front_mut().unwrap();
        *from = from.map(|from| from + count as u64);
        let taken = bytes.drain(..count).collect();
        if bytes.is_empty() {
            self.pieces.pop_front();
        }
        taken
    }
}

impl Read for Known {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some((_, bytes)) = self.pieces.front() else {
            return Ok(0);
        };
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&self.take(count));
        Ok(count)
    }
}

impl Flow for Known {
    fn base(&self) -> Option<&Arc<Tree>> {
        Some(&self.base)
    }

    fn shared(&mut self) -> io::Result<Option<(u64, u64)>> {
        let first = self.pieces.front();
        Ok(first.and_then(|(from, bytes)| from.map(|from| (from, bytes.len() as u64))))
    }

    fn skip(&mut self, count: u64) {
        self.take(count as usize);
    }
}

type Things = Vec<(String, Thing, u16)>;

/// The same things, of which some have gone or changed, and others have come.
fn changed(things: &Things, others: &Things, dice: &mut impl FnMut() -> u8) -> Things {
    let mut all = Things::new();
    for (name, thing, salt) in things {
        let thing = match (dice() % 10, thing) {
            (0, _) => continue,
            (1, _) => others[usize::from(dice()) % others.len()].1.clone(),
            (2, Thing::File(seed, len, hole)) => Thing::File(seed + 1, len / 2, *hole),
            (3, thing) => {
                all.push((name.clone(), thing.clone(), salt + 1));
                continue;
            }
            (_, Thing::Directory(things)) => Thing::Directory(changed(things, others, dice)),
            (_, thing) => thing.clone(),
        };
        all.push((name.clone(), thing, *salt));
        if dice().is_multiple_of(8) {
            all.push(others[usize::from(dice()) % others.len()].clone());
        }
    }
    all
}

fn inodes(tree: &Path) -> HashMap<Vec<u8>, u64> {
    use std::os::unix::fs::MetadataExt;
    let nodes = Tree::open(tree).unwrap();
    let nodes = nodes.nodes().iter();
    let inode = |path: &[u8]| {
        let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(path);
        tree.join(path).symlink_metadata().unwrap().ino()
    };
    nodes
        .map(|node| (node.entry.path.clone(), inode(&node.entry.path)))
        .collect()
}

/// A tree beside another one, which it is to become.
struct Case {
    tree: std::path::PathBuf,
    beside: std::path::PathBuf,
    before: Vec<u8>,
    after: Vec<u8>,
    steps: Steps,
    names: Vec<u8>,
}

impl Case {
    fn new(dir: &Path, old: &Things, new: &Things) -> Self {
        let [tree, next, beside] = ["tree", "next", "beside"].map(|name| dir.join(name));
        make(&tree, old);
        make(&next, new);
        let base = Arc::new(Tree::open(&tree).unwrap());
        let (before, next) = (stream(&base), Tree::open(&next).unwrap());
        let mut flow = Known::new(base.clone(), &next);
        let (steps, names) = prepare(&mut flow, &base, &beside).unwrap();
        assert!(base.is_untouched().unwrap(), "nothing is touched before");
        let after = stream(&next);
        let steps = serde_json::from_slice(&serde_json::to_vec(&steps).unwrap()).unwrap();
        Self {
            tree,
            beside,
            before,
            after,
            steps,
            names,
        }
    }

    fn now(&self) -> Vec<u8> {
        stream(&Tree::open(&self.tree).unwrap())
    }

    fn forward(&self, most: usize) -> usize {
        let mut done = 0;
        let site = Site::open(&self.tree, &self.beside).unwrap();
        self.steps.forward(&site, &mut done, most).unwrap();
        done
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_tree_becomes_another_one(
        old in things(), others in things(), dice in prop::collection::vec(any::<u8>(), 64),
        stop in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut at = 0;
        let mut dice = || { at += 1; dice[at % dice.len()] };
        let new = changed(&old, &others, &mut dice);
        let case = Case::new(dir.path(), &old, &new);
        let before = inodes(&case.tree);
        // There, back, there in two goes, and once more.
        let half = stop.index(case.steps.moves.len() + 1);
        let done = case.forward(half);
        let site = Site::open(&case.tree, &case.beside).unwrap();
        case.steps.back(&site, done).unwrap();
        prop_assert!(case.now() == case.before);
        case.forward(half);
        for _ in 0..2 {
            case.steps.carry_out(&case.tree, &case.beside).unwrap();
            prop_assert!(case.now() == case.after);
        }
        // What is left of the old one may have second names in it.
        crate::unpack::remove(&case.beside).unwrap();
        let names = tree::marked_again(&case.tree, &case.names).unwrap();
        let known = Tree::remembered(&case.tree, &names).unwrap();
        prop_assert!(known.is_untouched().unwrap());
        prop_assert!(stream(&known) == case.after);
        // What is moved is what was made; all else is what it was.
        let moved = |path: &[u8]| case.steps.moves.iter().any(|step| {
            path.strip_prefix(step.path()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        });
        for (path, inode) in inodes(&case.tree) {
            prop_assert!(moved(&path) || before.get(&path) == Some(&inode), "{}", shown(&path));
        }
        // Of what is the same nothing is moved.
        let (one, two) = (dir.path().join("tree"), dir.path().join("again"));
        let base = Arc::new(Tree::open(&one).unwrap());
        let (steps, _) = prepare(&mut Known::new(base.clone(), &base), &base, &two).unwrap();
        prop_assert!(steps.moves.is_empty() && steps.directories.is_empty() && steps.links.is_empty());
    }
}

fn file(name: &str, seed: u8) -> (String, Thing, u16) {
    (name.to_owned(), Thing::File(seed, 5000, 0), 1)
}

fn directory(name: &str, things: Things) -> (String, Thing, u16) {
    (name.to_owned(), Thing::Directory(things), 2)
}

/// Whatever stops it in the middle, the tree is what it was.
#[test]
fn what_cannot_be_done_is_undone() {
    let dir = tempfile::tempdir().unwrap();
    let old = vec![
        directory("a", vec![file("one", 1), file("two", 2)]),
        file("b", 3),
        directory("c", vec![file("three", 4)]),
    ];
    let new = vec![
        directory(
            "a",
            vec![file("one", 5), ("again".to_owned(), Thing::Again, 0)],
        ),
        file("d", 6),
        file("z", 7),
    ];
    let case = Case::new(dir.path(), &old, &new);
    std::fs::write(case.tree.join("z"), "mine").unwrap();
    let why = case.steps.carry_out(&case.tree, &case.beside);
    let Err(Stopped::Undone(why)) = why else {
        panic!("{why:?}");
    };
    assert_eq!(why.kind(), io::ErrorKind::AlreadyExists);
    assert!(why.to_string().starts_with("z: "), "{why}");
    assert_eq!(std::fs::read(case.tree.join("z")).unwrap(), b"mine");
    std::fs::remove_file(case.tree.join("z")).unwrap();
    case.steps.carry_out(&case.tree, &case.beside).unwrap();
    assert!(case.now() == case.after);
}

#[test]
fn hostile_streams_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    make(&tree, &[file("a", 1), directory("d", vec![file("b", 2)])]);
    std::os::unix::fs::symlink("/tmp", tree.join("link")).unwrap();
    let base = Arc::new(Tree::open(&tree).unwrap());
    let of = |path: &str| {
        let nodes = base.nodes().iter();
        let mut found = nodes.filter(|node| node.entry.path == path.as_bytes());
        found.next().unwrap().entry.clone()
    };
    let at = |path: &str, entry: Entry| Entry {
        path: path.as_bytes().to_vec(),
        size: 0,
        ..entry
    };
    let again = |path: &str, first: &str| Entry::hardlink(path.into(), first.into());
    let cases = [
        vec![],
        vec![of("a")],
        vec![of(""), of("")],
        vec![of(""), of("d"), of("d")],
        vec![of(""), at("x", of("a")), at("x", of("a"))],
        // In what is no directory, or has not come.
        vec![of(""), of("link"), at("link/x", of("a"))],
        vec![of(""), at("d/x", of("a"))],
        vec![
            of(""),
            at("new", of("d")),
            at("y", of("a")),
            at("new/x", of("a")),
        ],
        // Names of what is not there, or goes.
        vec![of(""), again("x", "nothing")],
        vec![of(""), again("x", "a")],
        vec![of(""), of("d"), again("x", "d")],
        vec![of(""), at("new", of("d")), again("x", "new")],
    ];
    for (number, entries) in cases.into_iter().enumerate() {
        let mut bytes: Vec<u8> = entries.iter().flat_map(Entry::header).collect();
        bytes.extend([0; 1024]);
        let beside = dir.path().join(number.to_string());
        let made = prepare(&mut bytes.as_slice(), &base, &beside);
        assert!(made.is_err(), "{entries:?}");
        assert!(base.is_untouched().unwrap());
    }
}

/// Directories that their owner may not write to. A second name of a file that stays comes into one of them.
#[test]
fn whoever_is_not_root_changes_what_is_his() {
    as_ordinary_user(|dir| {
        let again = ("again".to_owned(), Thing::Again, 0);
        let old = vec![directory(
            "closed",
            vec![
                file("a", 9),
                file("one", 1),
                directory("in", vec![file("x", 2)]),
            ],
        )];
        let new = vec![directory(
            "closed",
            vec![
                file("a", 9),
                directory("new", vec![directory("deep", vec![again])]),
                file("one", 3),
            ],
        )];
        let [tree, next, beside] = ["tree", "next", "beside"].map(|name| dir.join(name));
        for (top, things) in [(&tree, &old), (&next, &new)] {
            make(top, things);
            for closed in ["closed/in", "closed/new/deep", "closed/new", "closed"] {
                if top.join(closed).exists() {
                    let mode = std::fs::Permissions::from_mode(0o555);
                    std::fs::set_permissions(top.join(closed), mode).unwrap();
                }
            }
        }
        let base = Arc::new(Tree::open(&tree).unwrap());
        let (before, next) = (stream(&base), Tree::open(&next).unwrap());
        let mut flow = Known::new(base.clone(), &next);
        let (steps, _) = prepare(&mut flow, &base, &beside).unwrap();
        let now = || stream(&Tree::open(&tree).unwrap());
        let site = Site::open(&tree, &beside).unwrap();
        for most in 0..=steps.moves.len() {
            let mut done = 0;
            steps.forward(&site, &mut done, most).unwrap();
            steps.back(&site, done).unwrap();
            assert!(now() == before, "{most}");
        }
        assert_eq!(steps.links.len(), 1);
        steps.carry_out(&tree, &beside).unwrap();
        assert!(now() == stream(&next));
        crate::unpack::remove(&beside).unwrap();
    });
}

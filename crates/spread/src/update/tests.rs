//! Trees at random become others, also in several goes, and what is undone is undone.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::tar::shown;
use crate::tree::tests::{Thing, as_ordinary_user, make, stream, things};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

/// A tree's stream, of which all that is also in the base is shared with it: headers, contents, and halves of contents.
pub struct Shared {
    base: Arc<Tree>,
    pieces: VecDeque<(Option<u64>, Vec<u8>)>,
}

impl Shared {
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

impl Read for Shared {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some((_, bytes)) = self.pieces.front() else {
            return Ok(0);
        };
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&self.take(count));
        Ok(count)
    }
}

impl Flow for Shared {
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
            (2, Thing::File(seed, len, hole)) => Thing::File(seed.wrapping_add(1), len / 2, *hole),
            (3, thing) => {
                all.push((name.clone(), thing.clone(), salt.wrapping_add(1)));
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
    /// What the tree is known by before and after.
    old: Names,
    new: Names,
}

impl Case {
    fn new(dir: &Path, old: &Things, new: &Things) -> Self {
        let [tree, next, beside] = ["tree", "next", "beside"].map(|name| dir.join(name));
        make(&tree, old);
        make(&next, new);
        let base = Arc::new(Tree::open(&tree).unwrap());
        let (before, next) = (stream(&base), Tree::open(&next).unwrap());
        let mut flow = Shared::new(base.clone(), &next);
        let old = known(&base);
        let base = Tree::remembered(&tree, &tree::written(&old).unwrap()).unwrap();
        assert!(base.is_untouched().unwrap());
        let (steps, names) = prepare(&mut flow, &Arc::new(base), &beside).unwrap();
        let base = Tree::remembered(&tree, &tree::written(&old).unwrap()).unwrap();
        assert!(base.is_untouched().unwrap(), "nothing is touched before");
        let after = stream(&next);
        let steps = postcard::from_bytes(&postcard::to_stdvec(&steps).unwrap()).unwrap();
        Self {
            tree,
            beside,
            before,
            after,
            steps,
            old,
            new: tree::read(&names).unwrap(),
        }
    }

    fn now(&self) -> Vec<u8> {
        stream(&Tree::open(&self.tree).unwrap())
    }

    fn forward(&self, most: usize) {
        let site = self.steps.site(&self.tree, &self.beside).unwrap();
        self.steps.forward(&site, most).unwrap();
    }

    /// As somebody does it who finds it begun.
    fn go_on(&self) -> Result<(), Stopped> {
        let again = (self.old.clone(), self.new.clone());
        self.steps.carry_out(&self.tree, &self.beside, Some(again))
    }
}

/// What a tree on disk is known by.
pub fn known(tree: &Tree) -> Names {
    let nodes = tree.nodes().iter();
    let known = nodes.map(
        |node| match node.mark.filter(|_| !node.entry.path.is_empty()) {
            Some(mark) => (node.entry.clone(), Known::Mark(mark)),
            None => (node.entry.clone(), Known::Nothing),
        },
    );
    known.collect()
}

/// Changes something in a file or a directory, so that its time of change shows it. Returns where, and what is there then.
fn work_in(path: &Path) -> (std::path::PathBuf, Vec<u8>) {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;
    let changed = || {
        let data = path.symlink_metadata().unwrap();
        (data.ctime(), data.ctime_nsec())
    };
    let before = changed();
    for number in 0.. {
        let mine = match path.is_dir() {
            true => path.join(format!("mine{number}")),
            false => path.to_owned(),
        };
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.append(true).create(true).open(&mine).unwrap();
        file.write_all(b"mine").unwrap();
        if changed() != before {
            return (mine.clone(), std::fs::read(mine).unwrap());
        }
    }
    unreachable!()
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
        case.forward(half);
        let site = case.steps.site(&case.tree, &case.beside).unwrap();
        case.steps.back(&site).unwrap();
        prop_assert!(case.now() == case.before);
        let mut undone = case.steps.names_before(case.old.clone(), case.new.clone());
        tree::mark(&case.tree, &mut undone, tree::When::Undone).unwrap();
        let undone = Tree::remembered(&case.tree, &tree::written(&undone).unwrap()).unwrap();
        prop_assert!(undone.is_untouched().unwrap() && stream(&undone) == case.before);
        case.forward(half);
        for _ in 0..2 {
            case.go_on().unwrap();
            prop_assert!(case.now() == case.after);
        }
        // What is left of the old one may have second names in it.
        crate::unpack::remove(&case.beside).unwrap();
        let mut names = case.new.clone();
        tree::mark(&case.tree, &mut names, tree::When::Done).unwrap();
        let known = Tree::remembered(&case.tree, &tree::written(&names).unwrap()).unwrap();
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
        let (steps, _) = prepare(&mut Shared::new(base.clone(), &base), &base, &two).unwrap();
        prop_assert!(steps.moves.is_empty() && steps.directories.is_empty() && steps.links.is_empty());
    }

    /// Between a kill and the next start somebody changes a file, or puts one into a directory. It went.
    #[test]
    fn nobodys_work_goes(
        old in things(), others in things(), dice in prop::collection::vec(any::<u8>(), 64),
        stop in any::<prop::sample::Index>(), there in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut at = 0;
        let mut dice = || { at += 1; dice[at % dice.len()] };
        let new = changed(&old, &others, &mut dice);
        let case = Case::new(dir.path(), &old, &new);
        prop_assume!(!case.steps.moves.is_empty());
        case.forward(stop.index(case.steps.moves.len() + 1));
        let now = Tree::open(&case.tree).unwrap();
        let nodes = now.nodes().iter().map(|node| &node.entry);
        let places: Vec<_> = nodes.filter(|entry| matches!(entry.kind, Kind::File | Kind::Directory)).collect();
        let path = &places[there.index(places.len())].path;
        let (mine, content) = work_in(&case.tree.join(shown(path)));
        match case.go_on() {
            Err(Stopped::Undone(_)) => {
                let mut names = case.steps.names_before(case.old.clone(), case.new.clone());
                prop_assert!(tree::mark(&case.tree, &mut names, tree::When::Undone).is_err());
            }
            Err(Stopped::Left(..)) => {}
            other => panic!("{other:?}: {mine:?}"),
        }
        prop_assert!(std::fs::read(mine).unwrap() == content);
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
    let why = case.steps.carry_out(&case.tree, &case.beside, None);
    let Err(Stopped::Undone(why)) = why else {
        panic!("{why:?}");
    };
    assert_eq!(why.kind(), io::ErrorKind::AlreadyExists);
    assert!(why.to_string().starts_with("z: "), "{why}");
    assert_eq!(std::fs::read(case.tree.join("z")).unwrap(), b"mine");
    std::fs::remove_file(case.tree.join("z")).unwrap();
    case.steps
        .carry_out(&case.tree, &case.beside, None)
        .unwrap();
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
        // Twice below what is new; a name of a name, or with more than that; what comes before.
        vec![
            of(""),
            at("new", of("d")),
            at("new/x", of("a")),
            at("new/x", of("a")),
        ],
        vec![of(""), of("a"), again("x", "a"), again("y", "x")],
        vec![
            of(""),
            of("a"),
            Entry {
                mode: 0o644,
                ..again("x", "a")
            },
        ],
        vec![of(""), at("b", of("a")), at("a0", of("a"))],
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
                    let value = top.to_str().unwrap().as_bytes();
                    let flags = rustix::fs::XattrFlags::empty();
                    rustix::fs::setxattr(top.join(closed), "user.top", value, flags).unwrap();
                    let mode = std::fs::Permissions::from_mode(0o555);
                    std::fs::set_permissions(top.join(closed), mode).unwrap();
                }
            }
        }
        let base = Arc::new(Tree::open(&tree).unwrap());
        let (before, next) = (stream(&base), Tree::open(&next).unwrap());
        let mut flow = Shared::new(base.clone(), &next);
        let (steps, _) = prepare(&mut flow, &base, &beside).unwrap();
        let now = || stream(&Tree::open(&tree).unwrap());
        let site = steps.site(&tree, &beside).unwrap();
        for most in 0..=steps.moves.len() {
            steps.forward(&site, most).unwrap();
            steps.back(&site).unwrap();
            assert!(now() == before, "{most}");
        }
        assert_eq!(steps.links.len(), 1);
        steps.carry_out(&tree, &beside, None).unwrap();
        assert!(now() == stream(&next));
        crate::unpack::remove(&beside).unwrap();
    });
}

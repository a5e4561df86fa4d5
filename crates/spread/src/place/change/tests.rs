//! What was begun in a tree, and who was killed, or somebody else at work there.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::tree::Tree;
use crate::tree::tests::{Thing, make, stream};
use crate::update;
use crate::update::tests::{Shared, known};

/// A tree that came, and what would make it another one with one file more and another one less.
fn planned(dir: &Path) -> (Vec<u8>, Vec<u8>) {
    let file = |name: &str, seed| (name.to_owned(), Thing::File(seed, 5000, 0), 1);
    let (tree, next) = (dir.join("tree"), dir.join("next"));
    std::fs::create_dir(dir.join(".spread")).unwrap();
    let inside = |seed| ("in".to_owned(), Thing::Directory(vec![file("x", seed)]), 1);
    make(
        &tree,
        &[file("a", 1), file("b", 2), file("c", 3), inside(6)],
    );
    make(
        &next,
        &[file("a", 4), file("b", 2), file("d", 5), inside(7)],
    );
    let base = Arc::new(Tree::open(&tree).unwrap());
    let of = |what: &str| beside(dir, "tree", what);
    let names = tree::written(&known(&base)).unwrap();
    let base = Arc::new(Tree::remembered(&tree, &names).unwrap());
    let seen = Seen::of(&tree, "old", Some(&names)).unwrap();
    std::fs::write(of("names"), names).unwrap();
    std::fs::write(of("seen"), serde_json::to_vec(&seen).unwrap()).unwrap();
    let next = Tree::open(&next).unwrap();
    let mut flow = Shared::new(base.clone(), &next);
    let (steps, names) = update::prepare(&mut flow, &base, &of("tree")).unwrap();
    std::fs::write(of("names.new"), names).unwrap();
    let plan = Plan {
        id: [1; 16],
        content: "new".to_owned(),
        undone: false,
        steps,
    };
    write_plan(dir, "tree", &plan).unwrap();
    (stream(&base), stream(&next))
}

#[test]
fn a_receiver_that_starts_does_what_was_begun() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (_, after) = planned(dir);
    std::fs::write(beside(dir, "tree", "lock"), "").unwrap();
    std::fs::write(beside(dir, "tree", "manifest.new"), "proof").unwrap();
    super::super::recover_trees(dir);
    assert!(now(dir) == after);
    assert_eq!(Seen::read(dir, "tree", |_| true).unwrap().content, "new");
    let names = ["lock", "manifest", "names", "seen"].map(|name| format!("tree.{name}"));
    assert_eq!(beside_it(dir), names);
}

fn beside_it(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join(".spread")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn now(dir: &Path) -> Vec<u8> {
    stream(&Tree::open(&dir.join("tree")).unwrap())
}

#[test]
fn what_was_begun_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (_, after) = planned(dir);
    // As somebody who was killed before what proves it was written would have left it, too.
    let plan = std::fs::read(beside(dir, "tree", "steps")).unwrap();
    for _ in 0..2 {
        go_on(dir, "tree", true).unwrap();
        assert!(now(dir) == after);
        assert_eq!(
            beside_it(dir),
            ["names", "names.new", "seen", "seen.new"].map(|name| format!("tree.{name}"))
        );
        let seen = std::fs::read(beside(dir, "tree", "seen.new")).unwrap();
        let seen: Seen = serde_json::from_slice(&seen).unwrap();
        assert!(seen.still(dir, "tree", "names.new").is_some());
        std::fs::write(beside(dir, "tree", "steps"), &plan).unwrap();
    }
}

/// What proves the new version was removed when it could not be written at once: the tree was of no version from then
/// on, and what had been done in it would have been done once more in a later one.
#[test]
fn an_end_that_cannot_be_written_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (_, after) = planned(dir);
    std::fs::write(beside(dir, "tree", "manifest.new"), "proof").unwrap();
    let in_the_way = beside(dir, "tree", "names.new.tmp");
    std::fs::create_dir(&in_the_way).unwrap();
    for _ in 0..2 {
        super::super::finish::settle(dir, "tree").unwrap_err();
        assert!(now(dir) == after);
        assert!(beside(dir, "tree", "steps").exists());
    }
    std::fs::remove_dir(&in_the_way).unwrap();
    super::super::finish::settle(dir, "tree").unwrap();
    assert_eq!(Seen::read(dir, "tree", |_| true).unwrap().content, "new");
    let names = ["manifest", "names", "seen"].map(|name| format!("tree.{name}"));
    assert_eq!(beside_it(dir), names);
}

/// Somebody removes what is new as soon as it is there, or puts something beside it. What was put there was taken for what
/// had come.
#[test]
fn what_is_done_at_the_end_is_seen() {
    let remove = |tree: &Path| std::fs::remove_file(tree.join("d"));
    let add = |tree: &Path| std::fs::write(tree.join("in/mine"), "");
    let add_in_top = |tree: &Path| std::fs::write(tree.join("mine"), "");
    let write = |tree: &Path| std::fs::write(tree.join("a"), [0; 5000]);
    type Act = dyn Fn(&Path) -> io::Result<()>;
    let acts: [&Act; 4] = [&remove, &add, &add_in_top, &write];
    for act in acts {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        planned(dir);
        let of = |what: &str| beside(dir, "tree", what);
        let before =
            [of("steps"), of("names.new")].map(|file| (std::fs::read(&file).unwrap(), file));
        go_on(dir, "tree", true).unwrap();
        std::fs::remove_file(of("seen.new")).unwrap();
        for (bytes, file) in before {
            std::fs::write(file, bytes).unwrap();
        }
        act(&dir.join("tree")).unwrap();
        let why = go_on(dir, "tree", true).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{why}");
        super::super::finish::settle(dir, "tree").unwrap();
        assert!(Seen::read(dir, "tree", |_| true).is_none());
        assert_eq!(beside_it(dir), ["tree.names", "tree.seen"]);
    }
}

/// Somebody's file stands where something new is to come.
#[test]
fn what_somebody_does_meanwhile_stays_and_is_seen() {
    for again in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (before, _) = planned(dir);
        std::fs::write(dir.join("tree/d"), "mine").unwrap();
        let why = go_on(dir, "tree", again).unwrap_err().to_string();
        assert!(why.starts_with("d"), "{why}");
        assert_eq!(std::fs::read(dir.join("tree/d")).unwrap(), b"mine");
        assert!(Seen::read(dir, "tree", |_| true).is_none());
        std::fs::remove_file(dir.join("tree/d")).unwrap();
        let top = Seen::of(&dir.join("next"), "", Some(b"")).unwrap();
        top.put_time_back(&dir.join("tree")).unwrap();
        assert!(now(dir) == before);
        assert_eq!(
            beside_it(dir),
            ["tree.names", "tree.names.new", "tree.seen"]
        );
    }
}

/// Somebody has put another tree there, or one that came earlier.
#[test]
fn another_tree_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (_, after) = planned(dir);
    std::fs::rename(dir.join("tree"), dir.join("away")).unwrap();
    std::fs::rename(dir.join("next"), dir.join("tree")).unwrap();
    let why = go_on(dir, "tree", true).unwrap_err();
    assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{why}");
    assert!(now(dir) == after);
    assert_eq!(
        beside_it(dir),
        ["tree.names", "tree.names.new", "tree.seen"]
    );
}

/// The steps of another version of this program, or what a disk has made of them.
#[test]
fn a_plan_that_is_none_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (before, _) = planned(dir);
    std::fs::write(beside(dir, "tree", "steps"), "{}").unwrap();
    super::super::finish::settle(dir, "tree").unwrap();
    assert!(now(dir) == before);
    assert_eq!(Seen::read(dir, "tree", |_| true).unwrap().content, "old");
    assert_eq!(beside_it(dir), ["tree.names", "tree.seen"]);
}

/// Plans what cannot be done to its end.
fn planned_in_vain(dir: &Path) -> Vec<u8> {
    let (before, _) = planned(dir);
    let mut plan: Plan<Steps> =
        postcard::from_bytes(&std::fs::read(beside(dir, "tree", "steps")).unwrap()).unwrap();
    plan.steps.out_of("nothing");
    write_plan(dir, "tree", &plan).unwrap();
    before
}

/// A tree that was changed to and fro has other times of change: it was not known any more.
#[test]
fn what_was_undone_is_known_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let before = planned_in_vain(dir);
    let of = |what: &str| beside(dir, "tree", what);
    let kept = ["names", "seen", "names.new", "steps"].map(of);
    let kept = kept.map(|file| (std::fs::read(&file).unwrap(), file));
    let is_known = || {
        assert!(now(dir) == before);
        assert_eq!(Seen::read(dir, "tree", |_| true).unwrap().content, "old");
        assert_eq!(
            beside_it(dir),
            ["tree.names", "tree.names.new", "tree.seen"]
        );
    };
    let why = go_on(dir, "tree", true).unwrap_err().to_string();
    assert!(why.starts_with("nothing: "), "{why}");
    is_known();
    // Whoever is killed after all was undone leaves what says so, and more or less of what the tree was known by.
    for files in 0..3 {
        for (bytes, file) in kept.iter().skip(files) {
            std::fs::write(file, bytes).unwrap();
        }
        let plan = std::fs::read(of("steps")).unwrap();
        let mut plan: Plan<Steps> = postcard::from_bytes(&plan).unwrap();
        plan.undone = true;
        write_plan(dir, "tree", &plan).unwrap();
        go_on(dir, "tree", true).unwrap();
        is_known();
    }
}

/// What somebody changed in a file that nothing was done to was taken for what had come.
#[test]
fn what_was_changed_before_all_was_undone_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    planned_in_vain(dir);
    std::fs::write(dir.join("tree/b"), [1; 5000]).unwrap();
    let why = go_on(dir, "tree", false).unwrap_err().to_string();
    assert!(why.starts_with("nothing: "), "{why}");
    assert!(Seen::read(dir, "tree", |_| true).is_none());
    assert_eq!(std::fs::read(dir.join("tree/b")).unwrap(), [1; 5000]);
}

//! A tree that is there becomes the new version where it is.

use super::finish::remove;
use super::{Files, Old, beside, taking, write_whole};
use crate::manifest::Id;
use crate::seen::Seen;
use crate::tree;
use crate::unpack;
use crate::update::{Steps, Stopped};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What is to be done in the tree of a name. While it is on the disk, it is done or undone before anything else.
#[derive(Serialize, Deserialize)]
struct Plan<S> {
    id: String,
    /// What the tree will be.
    content: String,
    steps: S,
}

impl Files {
    /// If it is made from the tree that has its name, that becomes the new one in its place. To be called before anything
    /// comes.
    pub fn change_in_place(&mut self) {
        let base = self.base.as_ref();
        if base.is_some_and(|base| base.name == self.name && matches!(base.old, Old::Tree(_))) {
            self.steps = Some(Arc::default());
        }
    }

    /// What is to be done in the tree.
    pub(super) fn steps(&self) -> Option<&Steps> {
        self.steps.as_ref().and_then(|steps| steps.get())
    }

    /// Makes the tree that is there the new one.
    ///
    /// Errors: it cannot be done, and the tree is what it was; `InvalidData`: somebody has changed it meanwhile.
    pub(super) fn change(&self, steps: &Steps, content: String) -> io::Result<()> {
        // By its name: what was looked at before may have another one by now.
        let untouched = self.base.as_ref().is_some_and(|base| {
            let same = |seen: &Seen| seen.content == base.seen.content;
            Seen::read(&self.directory, &self.name, same).is_some()
        });
        if !untouched {
            let why = "the version that is here was changed meanwhile";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        taking::mounted(&self.directory.join(&self.name))?;
        let plan = Plan {
            id: self.id.to_string(),
            content,
            steps,
        };
        let plan = serde_json::to_vec(&plan)?;
        write_whole(&beside(&self.directory, &self.name, "steps"), &plan)?;
        sync(&self.directory)?;
        go_on(&self.directory, &self.name)
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory.join(".spread"))?.sync_all()
}

/// Does what is to be done in the tree of this name, also after somebody who was killed while he did it. What proves the
/// new version is there then, under other names. To be called with the lock.
///
/// Errors: as [`Files::change`]; if what is to be done is still there, it was done in part, and nothing else may be begun.
pub(super) fn go_on(directory: &Path, name: &str) -> io::Result<()> {
    let plan = match std::fs::read(beside(directory, name, "steps")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let plan: Plan<Steps> = serde_json::from_slice(&plan).map_err(|e| {
        let plan = beside(directory, name, "steps");
        io::Error::other(format!("{}: {e}", plan.display()))
    })?;
    let id: Id = plan.id.parse().map_err(io::Error::other)?;
    let (target, made) = (directory.join(name), beside(directory, name, "tree"));
    let old = unpack::aside(&beside(directory, name, "old"), id);
    // When it is moved, all is done.
    if made.exists() {
        if let Err(why) = plan.steps.carry_out(&target, &made) {
            remove(directory, name, &["steps"]);
            sync(directory)?;
            unpack::remove(&made)?;
            return Err(match why {
                Stopped::Undone(why) => {
                    know_again(directory, name)?;
                    // Not to be taken for a version that is not what it should be.
                    io::Error::other(why.to_string())
                }
                Stopped::Between(why, not_back) => io::Error::other(format!(
                    "{why}; {} is of two versions now, since that could not be undone ({not_back}): send all of it \
                     again to a receiver with --replace",
                    target.display()
                )),
            });
        }
        std::fs::rename(&made, &old)?;
        sync(directory)?;
    }
    // Before the tree is looked at: a file that loses one of its names is changed by that.
    unpack::remove(&old)?;
    let names = beside(directory, name, "names.new");
    let marked = match tree::marked_again(&target, &std::fs::read(&names)?) {
        Err(e) if is_changed(&e) => {
            // It will never be what it was to be, and is not taken for what it was.
            remove(directory, name, &["steps"]);
            sync(directory)?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, e));
        }
        other => other?,
    };
    write_whole(&names, &marked)?;
    let seen = Seen::of(&target, &plan.content, Some(&marked))?;
    write_whole(
        &beside(directory, name, "seen.new"),
        &serde_json::to_vec(&seen)?,
    )?;
    remove(directory, name, &["steps"]);
    sync(directory)
}

/// Is this why a tree cannot be looked at: somebody has removed something from it, or put something else in its place?
fn is_changed(e: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotADirectory, NotFound};
    [InvalidData, NotADirectory, NotFound].contains(&e.kind())
}

/// What was moved to and fro has other times than before. If somebody was at work in the tree, that is still seen.
fn know_again(directory: &Path, name: &str) -> io::Result<()> {
    let (target, of) = (directory.join(name), |what| beside(directory, name, what));
    let before: Seen = serde_json::from_slice(&std::fs::read(of("seen"))?)?;
    let names = tree::of_what_is_there(&target, &std::fs::read(of("names"))?)?;
    if let Some(names) = names {
        let seen = Seen::of(&target, &before.content, Some(&names))?;
        write_whole(&of("names"), &names)?;
        write_whole(&of("seen"), &serde_json::to_vec(&seen)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tree::Tree;
    use crate::tree::tests::{Thing, make, stream};
    use crate::update;
    use crate::update::tests::Known;

    /// A tree that came, and what would make it another one with one file more and another one less.
    fn planned(dir: &Path) -> (Vec<u8>, Vec<u8>) {
        let file = |name: &str, seed| (name.to_owned(), Thing::File(seed, 5000, 0), 1);
        let (tree, next) = (dir.join("tree"), dir.join("next"));
        std::fs::create_dir(dir.join(".spread")).unwrap();
        make(&tree, &[file("a", 1), file("b", 2), file("c", 3)]);
        make(&next, &[file("a", 4), file("b", 2), file("d", 5)]);
        let base = Arc::new(Tree::open(&tree).unwrap());
        let of = |what: &str| beside(dir, "tree", what);
        let nodes = base.nodes().iter();
        let mut names: Vec<_> = nodes.map(|node| (node.entry.clone(), node.mark)).collect();
        names[0].1 = None;
        let names = tree::written(&names).unwrap();
        let seen = Seen::of(&tree, "old", Some(&names)).unwrap();
        std::fs::write(of("names"), names).unwrap();
        std::fs::write(of("seen"), serde_json::to_vec(&seen).unwrap()).unwrap();
        let next = Tree::open(&next).unwrap();
        let mut flow = Known::new(base.clone(), &next);
        let (steps, names) = update::prepare(&mut flow, &base, &of("tree")).unwrap();
        std::fs::write(of("names.new"), names).unwrap();
        let plan = Plan {
            id: Id([1; 16]).to_string(),
            content: "new".to_owned(),
            steps,
        };
        std::fs::write(of("steps"), serde_json::to_vec(&plan).unwrap()).unwrap();
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
            go_on(dir, "tree").unwrap();
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

    /// Somebody removes what is new as soon as it is there.
    #[test]
    fn what_goes_at_the_end_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        planned(dir);
        let of = |what: &str| beside(dir, "tree", what);
        let before =
            [of("steps"), of("names.new")].map(|file| (std::fs::read(&file).unwrap(), file));
        go_on(dir, "tree").unwrap();
        std::fs::remove_file(of("seen.new")).unwrap();
        for (bytes, file) in before {
            std::fs::write(file, bytes).unwrap();
        }
        std::fs::remove_file(dir.join("tree/d")).unwrap();
        let why = go_on(dir, "tree").unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{why}");
        super::super::finish::settle(dir, "tree").unwrap();
        assert!(Seen::read(dir, "tree", |_| true).is_none());
        assert_eq!(beside_it(dir), ["tree.names", "tree.seen"]);
    }

    /// Somebody's file stands where something new is to come.
    #[test]
    fn what_somebody_does_meanwhile_stays_and_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (before, _) = planned(dir);
        std::fs::write(dir.join("tree/d"), "mine").unwrap();
        let why = go_on(dir, "tree").unwrap_err().to_string();
        assert!(why.starts_with("d: "), "{why}");
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

    /// A tree that was changed to and fro has other times of change: it was not known any more.
    #[test]
    fn what_was_undone_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (before, _) = planned(dir);
        let steps = beside(dir, "tree", "steps");
        let mut plan: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&steps).unwrap()).unwrap();
        // The last one cannot be done.
        let last = serde_json::json!({"Out": {"path": b"nothing", "place": b"out"}});
        plan["steps"]["moves"].as_array_mut().unwrap().push(last);
        std::fs::write(&steps, plan.to_string()).unwrap();
        let why = go_on(dir, "tree").unwrap_err().to_string();
        assert!(why.starts_with("nothing: "), "{why}");
        assert!(now(dir) == before);
        assert_eq!(Seen::read(dir, "tree", |_| true).unwrap().content, "old");
        assert_eq!(
            beside_it(dir),
            ["tree.names", "tree.names.new", "tree.seen"]
        );
    }
}

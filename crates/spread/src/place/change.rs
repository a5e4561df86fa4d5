//! A tree that is there becomes the new version where it is.

use super::{Files, Old, beside, taking, write_whole};
use crate::manifest::Id;
use crate::seen::Seen;
use crate::tree::{self, When};
use crate::unpack;
use crate::update::{Steps, Stopped, is_changed};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What is to be done in the tree of a name. While it is on the disk, it is done or undone before anything else.
#[derive(Serialize, Deserialize)]
struct Plan<S> {
    id: [u8; 16],
    /// What the tree will be.
    content: String,
    /// It could not be done, and was undone.
    undone: bool,
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
    /// Errors: it cannot be done, and the tree is what it was, or all of it is tried again before anything else is done with
    /// this name; `InvalidData`: somebody has changed it meanwhile.
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
            id: self.id.0,
            content,
            undone: false,
            steps,
        };
        write_plan(&self.directory, &self.name, &plan)?;
        go_on(&self.directory, &self.name, false)
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory.join(".spread"))?.sync_all()
}

/// Does what is to be done in the tree of this name, also after somebody who was killed while he did it (`again`). What proves
/// the new version is there then, under other names. To be called with the lock.
///
/// Errors: as [`Files::change`]; if what is to be done is still there, it was done in part, and nothing else may be begun.
pub(super) fn go_on(directory: &Path, name: &str, again: bool) -> io::Result<()> {
    let of = |what: &str| beside(directory, name, what);
    let steps = match std::fs::read(of("steps")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let plan: Plan<Steps> = match postcard::from_bytes(&steps) {
        Ok(plan) => plan,
        // The tree is known by other things: if any of it was done, that shows.
        Err(e) => {
            drop_plan(directory, name)?;
            let why = format!("{}: {e}", of("steps").display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    };
    if plan.undone {
        return undone(directory, name, &plan.steps);
    }
    let (target, made) = (directory.join(name), of("tree"));
    let old = unpack::aside(&of("old"), Id(plan.id));
    // When it is moved, all is done.
    if is_there(&made)? {
        if let Err(why) = carry_out(directory, name, &plan.steps, again) {
            let of_two =
                "; it is of two versions now: send all of it again to a receiver with --replace";
            return Err(match why {
                Stopped::Later(why) => why,
                Stopped::Left(why, begun) => {
                    drop_plan(directory, name)?;
                    let why = format!("{why}{}", if begun { of_two } else { "" });
                    io::Error::new(io::ErrorKind::InvalidData, why)
                }
                Stopped::Undone(why) => {
                    let plan = Plan {
                        undone: true,
                        ..plan
                    };
                    write_plan(directory, name, &plan)?;
                    undone(directory, name, &plan.steps)?;
                    // Not to be taken for a version that is not what it should be.
                    io::Error::other(why.to_string())
                }
            });
        }
        std::fs::rename(&made, &old)?;
        sync(directory)?;
    }
    // Before the tree is looked at: a file that loses one of its names is changed by that. It has to be on the disk before
    // what is known of it.
    unpack::remove(&old)?;
    rustix::fs::syncfs(File::open(directory)?)?;
    let names = tree::read(&std::fs::read(of("names.new"))?);
    let marked = names.and_then(|mut names| {
        tree::mark(&target, &mut names, When::Done)?;
        tree::written(&names)
    });
    let marked = match marked {
        Err(e) if is_changed(&e) => {
            // It will never be what it was to be, and is not taken for what it was.
            drop_plan(directory, name)?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, e));
        }
        other => other?,
    };
    write_whole(&of("names.new"), &marked)?;
    let seen = Seen::of(&target, &plan.content, Some(&marked))?;
    write_whole(&of("seen.new"), &serde_json::to_vec(&seen)?)?;
    forget_plan(directory, name)
}

fn carry_out(directory: &Path, name: &str, steps: &Steps, again: bool) -> Result<(), Stopped> {
    let target = directory.join(name);
    let again = match again {
        false => None,
        true => {
            taking::mounted(&target).map_err(Stopped::Later)?;
            let names = |what: &str| tree::read(&std::fs::read(beside(directory, name, what))?);
            let both = names("names").and_then(|old| Ok((old, names("names.new")?)));
            Some(both.map_err(|e| match is_changed(&e) {
                true => Stopped::Left(e, true),
                false => Stopped::Later(e),
            })?)
        }
    };
    steps.carry_out(&target, &beside(directory, name, "tree"), again)
}

fn is_there(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|_| true),
    }
}

fn write_plan<S: Serialize>(directory: &Path, name: &str, plan: &Plan<S>) -> io::Result<()> {
    let plan = postcard::to_stdvec(plan).map_err(io::Error::other)?;
    write_whole(&beside(directory, name, "steps"), &plan)?;
    sync(directory)
}

fn forget_plan(directory: &Path, name: &str) -> io::Result<()> {
    std::fs::remove_file(beside(directory, name, "steps"))?;
    sync(directory)
}

/// What is to be done is neither done nor undone.
fn drop_plan(directory: &Path, name: &str) -> io::Result<()> {
    forget_plan(directory, name)?;
    unpack::remove(&beside(directory, name, "tree"))
}

/// After all was undone. What was moved to and fro has other times than before; if somebody was at work in the tree, that is
/// still seen.
fn undone(directory: &Path, name: &str, steps: &Steps) -> io::Result<()> {
    let (target, of) = (directory.join(name), |what| beside(directory, name, what));
    // It may have second names of what is in the tree.
    unpack::remove(&of("tree"))?;
    rustix::fs::syncfs(File::open(directory)?)?;
    let again = || {
        let before: Seen = serde_json::from_slice(&std::fs::read(of("seen"))?)?;
        let names = |what| tree::read(&std::fs::read(of(what))?);
        let mut names = steps.names_before(names("names")?, names("names.new")?);
        tree::mark(&target, &mut names, When::Undone)?;
        let names = tree::written(&names)?;
        let seen = Seen::of(&target, &before.content, Some(&names))?;
        write_whole(&of("names"), &names)?;
        write_whole(&of("seen"), &serde_json::to_vec(&seen)?)
    };
    match again() {
        Err(e) if !is_changed(&e) => Err(e),
        _ => forget_plan(directory, name),
    }
}

#[cfg(test)]
mod tests;

//! The end of a transfer: the file gets its name; and what is put right after somebody who was killed on the way there.

use super::{Base, Files, Head, beside, change, has, write_whole};
use crate::manifest::{Header, Id};
use crate::pull;
use crate::seen::Seen;
use crate::transfer::Transfer;
use crate::unpack;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl Files {
    /// Gives the file its name, after it is on the disk for good.
    pub fn finish(&self, transfer: &Transfer) -> io::Result<()> {
        self.finish_up_to(transfer, usize::MAX)
    }

    /// The steps of it, so many of them. Whoever is killed after one leaves what [`settle`] makes good: what proves the
    /// file is there before it has its name, under other names.
    fn finish_up_to(&self, transfer: &Transfer, steps: usize) -> io::Result<()> {
        let Some(seal) = transfer.sealed().filter(|_| transfer.complete()) else {
            return Err(io::Error::other("it is not whole"));
        };
        let of = |what: &str| beside(&self.directory, &self.name, what);
        let target = self.directory.join(&self.name);
        let made = of(if self.tree { "tree" } else { "part" });
        let sync = |directory: &Path| File::open(directory)?.sync_all();
        let prove = || {
            let base = self.base.as_ref();
            if !base.map_or(Ok(true), Base::is_as_it_was)? {
                let why = "the version that is here was changed meanwhile";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            // A tree is on the disk when it is unpacked.
            if !self.tree {
                self.give(&target)?;
                self.part.sync_all()?;
            }
            let manifest = pull::manifest(transfer).map_err(io::Error::other)?;
            write_whole(&of("manifest.minisig.new"), seal.as_bytes())?;
            write_whole(&of("manifest.new"), &manifest)?;
            if self.steps().is_none() {
                let names = self.tree.then(|| std::fs::read(of("names.new")));
                let names = names.transpose()?;
                let seen = Seen::of(&made, &transfer.content(), names.as_deref())?;
                write_whole(&of("seen.new"), &serde_json::to_vec(&seen)?)?;
            }
            sync(&self.directory.join(".spread"))
        };
        let name = || {
            if let Some(steps) = self.steps() {
                return self.change(steps, transfer.content());
            }
            let free = self.may_take(&target)?;
            // Some file systems change the time of a tree that they move.
            let before = made.symlink_metadata()?;
            let exchanged = unpack::exchange(&made, &target, free)?;
            if self.tree {
                unpack::set_time(&target, (before.mtime(), before.mtime_nsec()))?;
            }
            if exchanged {
                let old = unpack::aside(&of("old"), self.id);
                std::fs::rename(&made, &old)?;
                // Nobody has to wait for it; what is left is removed the next time.
                std::thread::spawn(move || unpack::remove(&old));
            }
            sync(&self.directory)
        };
        let rename = |what: &str| std::fs::rename(of(&format!("{what}.new")), of(what));
        let all: [&dyn Fn() -> io::Result<()>; 7] = [
            &prove,
            &name,
            &|| match self.tree {
                true => rename("names"),
                false => {
                    remove(&self.directory, &self.name, &["names"]);
                    Ok(())
                }
            },
            &|| rename("manifest.minisig"),
            &|| rename("manifest"),
            &|| rename("seen"),
            &|| {
                if !self.tree
                    && let Some(seen) = Seen::read(&self.directory, &self.name, |_| true)
                {
                    let seen = serde_json::to_vec(&seen.with_time_of(&target)?)?;
                    write_whole(&of("seen"), &seen)?;
                }
                remove(&self.directory, &self.name, &["pages", "spool", "head"]);
                if self.tree {
                    self.free(transfer)?;
                }
                sync(&self.directory.join(".spread"))?;
                Ok(flock(&self.lock, FlockOperation::Unlock)?)
            },
        ];
        all.iter().take(steps).try_for_each(|step| step())
    }

    /// Owner and mode are those of the file that it takes the place of; of a new one, what this process gives new files.
    fn give(&self, target: &Path) -> io::Result<()> {
        use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};
        let before = std::fs::symlink_metadata(target).ok();
        let mode = match before.filter(std::fs::Metadata::is_file) {
            Some(before) => {
                let now = self.part.metadata()?;
                if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
                    // Who may not give it away keeps it, and nobody else may do with it what its owner could before.
                    let (user, group) = (Uid::from_raw(before.uid()), Gid::from_raw(before.gid()));
                    match fchown(&*self.part, Some(user), Some(group)) {
                        Ok(()) => before.mode() & 0o777,
                        Err(_) => before.mode() & 0o700,
                    }
                } else {
                    before.mode() & 0o777
                }
            }
            None if self.private => 0o600,
            None => 0o666 & !umask(),
        };
        Ok(fchmod(&*self.part, Mode::from_raw_mode(mode))?)
    }

    /// Of a tree's stream only those frames are kept that children get from there.
    fn free(&self, transfer: &Transfer) -> io::Result<()> {
        remove(&self.directory, &self.name, &["part"]);
        let packed = |index: &u32| {
            let entry = transfer.entry(*index);
            entry.is_some_and(|entry| entry.encoding.is_packed())
        };
        (0..transfer.header.frames())
            .filter(packed)
            .try_for_each(|index| self.clear(index))
    }
}

/// What new files of this process are not.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let mask = mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok());
    mask.unwrap_or(0o077)
}

/// Removes what was left of trees by those who were killed. Old ones may stay until the next time.
///
/// Errors: of one that was being unpacked, in whose place the next one comes.
pub(super) fn sweep(directory: &Path, name: &str) -> io::Result<()> {
    let half = beside(directory, name, "tree");
    unpack::remove(&half)
        .map_err(|e| io::Error::new(e.kind(), format!("removing {}: {e}", half.display())))?;
    let old = format!("{name}.old.");
    let entries = std::fs::read_dir(directory.join(".spread"));
    for entry in entries.into_iter().flatten().flatten() {
        let file = entry.file_name();
        let id = file.to_str().and_then(|file| file.strip_prefix(&old));
        if id.is_some_and(|id| id.parse::<Id>().is_ok()) {
            let _ = unpack::remove(&entry.path());
        }
    }
    Ok(())
}

/// Removes what is beside a file.
pub(super) fn remove(directory: &Path, name: &str, what: &[&str]) {
    for what in what {
        let _ = std::fs::remove_file(beside(directory, name, what));
    }
}

/// Brings to its end what somebody who was killed had begun: if the file has its name already, what proves it gets its
/// names, too. To be called with the lock.
///
/// Errors: what was begun in a tree can be neither done nor undone now; nothing else may be begun.
pub(super) fn settle(directory: &Path, name: &str) -> io::Result<()> {
    match change::go_on(directory, name, true) {
        Err(e) if beside(directory, name, "steps").try_exists()? => return Err(e),
        // One that cannot be changed is what it was.
        _ => {}
    }
    let new = |what: &str| beside(directory, name, &format!("{what}.new"));
    let seen = std::fs::read(new("seen")).ok();
    let seen = seen.and_then(|text| serde_json::from_slice::<Seen>(&text).ok());
    let named = seen.is_some_and(|seen| {
        // These get their name first.
        let mut names = ["names.new", "names"].into_iter();
        names.any(|names| seen.still(directory, name, names).is_some())
            && seen.put_time_back(&directory.join(name)).is_ok()
    });
    for what in ["names", "manifest.minisig", "manifest", "seen"] {
        match named {
            true => drop(std::fs::rename(new(what), beside(directory, name, what))),
            false => drop(std::fs::remove_file(new(what))),
        }
    }
    for what in [
        "names.new",
        "names",
        "manifest.minisig.new",
        "manifest.new",
        "seen.new",
        "seen",
    ] {
        remove(directory, name, &[&format!("{what}.tmp")]);
    }
    let head = std::fs::read(beside(directory, name, "head")).ok();
    let head = head.and_then(|text| serde_json::from_slice::<Head>(&text).ok());
    let coming = head.and_then(|head| Header::read(&head.header).ok());
    if coming.is_some_and(|coming| has(directory, name, coming.id)) {
        remove(directory, name, &["part", "pages", "spool", "head"]);
    }
    Ok(())
}

/// Trees that somebody was changing where they are who was killed become one version. Whatever is offered of one of which that
/// cannot be is refused, and says why.
pub fn recover_trees(directory: &Path) {
    let entries = std::fs::read_dir(directory.join(".spread"));
    for entry in entries.into_iter().flatten().flatten() {
        let file = entry.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".steps"));
        let _ = name.map(|name| recover(directory, name));
    }
}

/// Puts right what somebody left who was killed. `false`: somebody is about to give the file its name; look again.
///
/// Errors: as [`settle`].
pub fn recover(directory: &Path, name: &str) -> io::Result<bool> {
    let is = |what: &str| beside(directory, name, what).exists();
    let Ok(lock) = File::open(beside(directory, name, "lock")) else {
        return Ok(true);
    };
    if !is("seen.new") && !is("steps") && !is("head") {
        return Ok(true);
    }
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(!is("seen.new") && !is("steps"));
    }
    settle(directory, name).map(|()| true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{is_there, look};
    use super::*;
    use crate::manifest::{Entry, Page};
    use crate::rereading::Rereading;
    use crate::sign::Signer;
    use std::os::unix::fs::FileExt;

    /// After a rename and before the manifest had its place a kill left a file that nobody knew: it was refused from then
    /// on. Whatever was the last step, the next offer finds it whole or goes on, and its end is the same.
    #[test]
    fn a_kill_between_any_two_steps_of_the_end() {
        let signer = Signer::new().unwrap();
        let bytes = vec![5; 1000];
        let entry = Entry::raw(1000, *blake3::hash(&bytes).as_bytes());
        let header = Header::new(Id([3; 16]), "disk", 1000, 7, None).unwrap();
        let line = header.line().unwrap();
        let page = Page {
            first: 0,
            entries: vec![entry],
        };
        let body = page.bytes(header.id);
        for steps in 0..=7 {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            let reading = Rereading::default();
            let open = || Files::open(dir, &header, &line, "proof", &signer.key(), None, &reading);
            let (files, transfer, _) = open().unwrap();
            let title = pull::page_title(&transfer, 0);
            let mut wire = (body.len() as u32).to_le_bytes().to_vec();
            wire.extend(&body);
            wire.extend(signer.sign(&body, &title).as_bytes());
            transfer.add_page(&page, wire.as_slice().into());
            files.page(&wire).unwrap();
            files.part.write_all_at(&bytes, 0).unwrap();
            transfer.good(0, None);
            transfer.seal("seal".into());
            files.finish_up_to(&transfer, steps).unwrap();
            drop((files, transfer));

            recover(dir, "disk").unwrap();
            let known = look(dir, "disk").0;
            let named = dir.join("disk").exists();
            assert_eq!(named, steps >= 2, "after {steps}");
            assert_eq!(known.is_some_and(|(_, same)| same), named, "after {steps}");
            match open() {
                Err(e) => assert!(named && is_there(&e), "after {steps}: {e}"),
                Ok((files, transfer, _)) => {
                    assert!(!named && transfer.is_good(0), "after {steps}");
                    transfer.seal("seal".into());
                    files.finish(&transfer).unwrap();
                }
            }
            assert_eq!(std::fs::read(dir.join("disk")).unwrap(), bytes);
            assert!(look(dir, "disk").0.unwrap().1);
            let beside = std::fs::read_dir(dir.join(".spread")).unwrap();
            assert_eq!(beside.count(), 4, "after {steps}");
        }
    }
}

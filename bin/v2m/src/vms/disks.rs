//! Which disks go with a VM: those that v2m made for it, which are still the same files, and which no other VM has.

use super::Vms;
use crate::owner;
use crate::record::{Made, Record};
use anyhow::{Context as _, Result};
use api::Name;
use files::{Identity, Place};
use profile::Disk;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

impl Vms {
    /// The disks that `destroy --disks` of all of these removes with this VM, and why others that were made for it stay.
    pub fn going(&self, record: &Record, with: &[Name]) -> Result<(Vec<PathBuf>, Vec<String>)> {
        let (mut going, mut staying) = (Vec::new(), Vec::new());
        for made in &record.made {
            match self.stays(record, with, made)? {
                None => going.push(made.path.clone()),
                // It is gone already.
                Some(why) if why.is_empty() => {}
                Some(why) => staying.push(format!("{} stays: {why}", made.path.display())),
            }
        }
        Ok((going, staying))
    }

    fn stays(&self, record: &Record, with: &[Name], made: &Made) -> Result<Option<String>> {
        let found = match identity(Place::of(&made.path)) {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(String::new())),
            Err(e) => return Ok(Some(e.to_string())),
        };
        if !made.identity.is(&found) {
            return Ok(Some("it is another file than v2m made".to_owned()));
        }
        for other in self.all()? {
            if other.vm.name == record.vm.name || with.contains(&other.vm.name) {
                continue;
            }
            if other.damaged.is_some() {
                let why = format!("VM {} may have it, whose record is damaged", other.vm.name);
                return Ok(Some(why));
            }
            for disk in &other.vm.disks {
                match uses(disk, made) {
                    Some(false) => {}
                    Some(true) => return Ok(Some(format!("VM {} has it, too", other.vm.name))),
                    None => {
                        let (name, disk) = (&other.vm.name, disk.path.display());
                        let why =
                            format!("VM {name} may have it: what {disk} stands on is not known");
                        return Ok(Some(why));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Removes them.
    pub(super) fn remove_made(&self, record: &Record, with: &[Name]) -> Result<Vec<PathBuf>> {
        let (going, _) = self.going(record, with)?;
        for path in &going {
            files::remove(path).with_context(|| format!("{} cannot be removed", path.display()))?;
            v3m_qemu::disk::sweep_beside(path);
        }
        Ok(going)
    }

    /// A disk that a VM was given is root's again. What stands against it is told, and stops nothing.
    pub(super) fn give_back(&self, record: &Record, disk: &Disk) {
        let Some((id, _)) = record.number.and_then(owner::of_number) else {
            return;
        };
        if disk.read_only {
            return;
        }
        match owner::give_back(&disk.path, id) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => {
                let path = disk.path.display();
                self.screen.say(format!("{path} is not given back: {e}"));
            }
        }
    }
}

/// Is this the file that v2m made for this VM?
pub fn is_made(record: &Record, path: &Path) -> bool {
    let made = record.made.iter().find(|made| made.path == path);
    made.is_some_and(|made| identity(Place::of(path)).is_ok_and(|found| made.identity.is(&found)))
}

fn identity(place: std::io::Result<Place>) -> std::io::Result<Identity> {
    Identity::of(&place?.handle()?)
}

/// Is this file the disk, or what it stands on? None: that cannot be known.
fn uses(disk: &Disk, made: &Made) -> Option<bool> {
    let is = |path: &Path| {
        path == made.path
            || identity(Place::found(path)).is_ok_and(|found| made.identity.is(&found))
    };
    if is(&disk.path) || !disk.path.exists() {
        return Some(is(&disk.path));
    }
    let below = v3m_qemu::disk::chain(&disk.path, disk.format).ok()?;
    Some(below.iter().any(|path| is(path)))
}

//! What is written down of VMs: found, kept, and told apart from what is damaged.
//!
//! A record that cannot be read is no reason to lose the VM: what runs is the driver's to say, which has the definition it
//! runs by, and the VM's number has a file of its own.

use super::Vms;
use crate::exit::{Code, Failure};
use crate::places;
use crate::record::{Made, Record};
use anyhow::{Context as _, Result};
use api::{MiB, Name};
use files::Identity;
use profile::{Backend, Boot, Vm};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use v3m::Error;

/// All that is in a VM's directory; the record is what makes the VM be, and goes last.
const FILES: [&str; 6] = [
    "boot",
    "boot.half",
    "number",
    "number.half",
    "record.half",
    "record.json",
];

impl Vms {
    pub(super) fn records(&self) -> PathBuf {
        self.state.join("vms")
    }

    pub(super) fn path(&self, name: &Name) -> PathBuf {
        self.records().join(name)
    }

    pub fn is_there(&self, name: &Name) -> bool {
        self.path(name).join("record.json").exists()
    }

    /// The record of a VM that was created.
    pub fn record(&self, name: &Name) -> Result<Record> {
        match self.find(name)? {
            Some(record) => Ok(record),
            None => Err(Error::NoSuchVm(name.clone()).into()),
        }
    }

    pub fn find(&self, name: &Name) -> Result<Option<Record>> {
        self.sound()?;
        self.read(name)
    }

    /// Nobody else can change what is written here, and with it what runs as whom.
    pub(super) fn sound(&self) -> Result<()> {
        files::own(&self.state).map_err(|why| {
            let message = format!("{} cannot hold VMs: {why}", self.state.display());
            let hint = "the state directory is its user's own, and nobody else may write to it or, as root, above it";
            Failure::new(Code::Usage, message).hint(hint).into()
        })
    }

    fn read(&self, name: &Name) -> Result<Option<Record>> {
        let path = self.path(name).join("record.json");
        let why = match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if record.vm.name == *name => return Ok(Some(record)),
                Ok(record) => format!("it is of VM {}", record.vm.name),
                Err(e) => e.to_string(),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => e.to_string(),
        };
        let why = format!("{} cannot be used: {why}", path.display());
        Ok(Some(self.rescued(name, why)))
    }

    /// What can be known of a VM whose record is damaged.
    fn rescued(&self, name: &Name, why: String) -> Record {
        let told = ["run", "fake"].iter().find_map(|driver| {
            let path = self.state.join(driver).join(name).join("vm.json");
            serde_json::from_slice::<Vm>(&std::fs::read(path).ok()?).ok()
        });
        let nothing = || {
            let boot = Boot::Firmware { order: Vec::new() };
            Vm::new(name.clone(), Backend::Auto, 0, MiB(0), boot)
        };
        let number = self.number(name);
        Record {
            vm: told.unwrap_or_else(nothing),
            profile: PathBuf::new(),
            number,
            owner: number.and_then(crate::owner::of_number),
            made: Vec::new(),
            install: false,
            damaged: Some(why),
        }
    }

    /// All records, sorted by name; damaged ones, too.
    pub fn all(&self) -> Result<Vec<Record>> {
        self.sound()?;
        let mut all = Vec::new();
        for name in self.names()? {
            all.extend(self.read(&name)?);
        }
        all.sort_by(|a, b| a.vm.name.cmp(&b.vm.name));
        Ok(all)
    }

    fn names(&self) -> Result<Vec<Name>> {
        let records = self.records();
        let entries = match std::fs::read_dir(&records) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => {
                return Err(e).with_context(|| format!("{} cannot be read", records.display()));
            }
        };
        let names = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            Name::new(name.to_str()?).ok()
        });
        Ok(names.collect())
    }

    pub(super) fn keep(&self, record: &Record) -> Result<()> {
        let path = self.path(&record.vm.name).join("record.json");
        places::write(&path, &serde_json::to_vec(record)?)
    }

    /// Enters a disk that v2m is about to make; one that another made in between is not the same file.
    pub(super) fn remember(&self, name: &Name, path: &Path, identity: &Identity) -> io::Result<()> {
        let enter = || -> Result<()> {
            let mut record = self.record(name)?;
            record.usable()?;
            record.made.retain(|made| made.path != path);
            record.made.push(Made {
                path: path.to_owned(),
                identity: identity.clone(),
            });
            self.keep(&record)
        };
        enter().map_err(io::Error::other)
    }

    fn number(&self, name: &Name) -> Option<u32> {
        let text = std::fs::read_to_string(self.path(name).join("number")).ok()?;
        text.trim().parse().ok()
    }

    /// A number that no other VM has, given to this one.
    pub(super) async fn new_number(&self, name: &Name) -> Result<u32> {
        // Numbers are given out one at a time.
        let _all = lock(&self.records()).await?;
        let mut taken = Vec::new();
        for other in self.names()? {
            let of_record = || self.read(&other).ok().flatten()?.number;
            taken.extend(self.number(&other).or_else(of_record));
        }
        let free = (0..).find(|number| !taken.contains(number));
        let free = free.context("there are too many VMs")?;
        places::write(&self.path(name).join("number"), free.to_string().as_bytes())?;
        Ok(free)
    }

    /// One command at a time makes or removes a VM. It is there, or was removed by whoever had the lock.
    pub(super) async fn lock(&self, name: &Name) -> Result<File> {
        match lock(&self.path(name)).await? {
            Some(lock) if self.is_there(name) => Ok(lock),
            _ => Err(Error::NoSuchVm(name.clone()).into()),
        }
    }

    /// The same of one that is being made.
    pub(super) async fn lock_made(&self, name: &Name) -> Result<File> {
        let path = self.path(name);
        places::directory(&self.records(), false)?;
        let take = move || files::lock_made(&path, 0o700);
        let taken = tokio::task::spawn_blocking(take).await?;
        taken.with_context(|| format!("{} cannot be locked", self.path(name).display()))
    }

    /// Removes all that is written of a VM.
    pub(super) fn forget(&self, name: &Name) -> Result<()> {
        let path = self.path(name);
        for file in FILES {
            let file = path.join(file);
            files::remove(&file)
                .with_context(|| format!("{} cannot be removed", file.display()))?;
        }
        match std::fs::remove_dir(&path) {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Ok(())
            }
            Err(e) => Err(e).with_context(|| format!("{} cannot be removed", path.display())),
        }
    }
}

/// Waits for the lock on a directory, where waiting disturbs nobody; none if there is no such directory.
async fn lock(directory: &Path) -> Result<Option<File>> {
    let path = directory.to_owned();
    let taken = tokio::task::spawn_blocking(move || files::lock(&path)).await?;
    taken.with_context(|| format!("{} cannot be locked", directory.display()))
}

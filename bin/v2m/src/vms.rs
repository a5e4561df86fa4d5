//! The VMs of one state directory: what each should be (its record), and the driver that makes it so.
//!
//! The record is written before anything is made and removed after the last is gone, so that a command killed at any
//! moment is repeated or undone by the next one. What is, is the driver's to say.

use crate::exit::{Code, Failure};
use crate::owner::{self, Owner};
use crate::places;
use crate::record::{Record, absent, created};
use anyhow::{Context as _, Result};
use api::Name;
use profile::{Backend, Disk, Vm};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use v3m::{Action, Driver, Error, State, Status};
use v3m_fake::FakeDriver;
use v3m_qemu::{Options, QemuDriver};

/// What `create` came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    New,
    Replaced,
    /// It was there, and the same.
    Already,
}

#[derive(Clone, Debug)]
pub struct Vms {
    state: PathBuf,
}

impl Vms {
    pub fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
        }
    }

    fn records(&self) -> PathBuf {
        self.state.join("vms")
    }

    fn path(&self, name: &Name) -> PathBuf {
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
        let path = self.path(name).join("record.json");
        let damaged = || format!("{} cannot be used", path.display());
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(record) => Ok(Some(record)),
                Err(e) => {
                    let hint = "write it anew from the VM's profile: v2m create --replace FILE";
                    let message = format!("{}: {e}", damaged());
                    Err(Failure::new(Code::Failed, message).hint(hint).into())
                }
            },
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(damaged),
        }
    }

    /// All records, sorted by name, and what is wrong with those that are damaged: an error of each command that needs
    /// them, and not of the others.
    pub fn all(&self) -> Result<(Vec<Record>, Vec<anyhow::Error>)> {
        let records = self.records();
        let entries = match std::fs::read_dir(&records) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            Err(e) => {
                return Err(e).with_context(|| format!("{} cannot be read", records.display()));
            }
        };
        let (mut all, mut damaged) = (Vec::new(), Vec::new());
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| Name::new(name).ok()) else {
                continue;
            };
            match self.find(&name) {
                Ok(record) => all.extend(record),
                Err(error) => damaged.push(error),
            }
        }
        all.sort_by(|a, b| a.vm.name.cmp(&b.vm.name));
        Ok((all, damaged))
    }

    /// The driver of a VM, which runs it as whom the record says.
    pub fn driver(&self, record: &Record) -> Result<Box<dyn Driver>> {
        Ok(match record.vm.backend {
            Backend::Fake => Box::new(FakeDriver::open(&self.made("fake")?)?),
            Backend::Auto | Backend::Qemu | Backend::Kvm => {
                Box::new(self.qemu(self.owner(record)?)?)
            }
        })
    }

    /// The driver for QEMU on all VMs here: to look at them, or to start one as this user.
    pub fn qemu(&self, owner: Option<Owner>) -> Result<QemuDriver> {
        let driver = QemuDriver::open(&self.made("run")?, Options { owner })?;
        let driver = driver.probe_cache(&self.state.join("probe.json"));
        // There are hosts where a tiny guest boots under KVM and Linux does not: the host's own kernel is the best test.
        let release = rustix::system::uname();
        let kernel = format!("/boot/vmlinuz-{}", release.release().to_string_lossy());
        Ok(match File::open(&kernel) {
            Ok(_) => driver.probe_kernel(Path::new(&kernel)),
            Err(_) => driver,
        })
    }

    fn made(&self, place: &str) -> Result<PathBuf> {
        let path = self.state.join(place);
        // Before the first is made none is there, and the state directory has the same rights.
        places::directory(&path, true)?;
        Ok(path)
    }

    fn owner(&self, record: &Record) -> Result<Option<Owner>> {
        let Some(number) = record.number else {
            return Ok(None);
        };
        Ok(owner::of_disks(&record.vm)?.or_else(|| owner::of_number(number)))
    }

    /// What is, of all VMs that have a record; with what is wrong with damaged ones. Few reads a VM.
    pub async fn list(&self) -> Result<(Vec<(Record, Status)>, Vec<anyhow::Error>)> {
        let (records, damaged) = self.all()?;
        let is_fake = |record: &Record| record.vm.backend == Backend::Fake;
        let mut found: Vec<Status> = Vec::new();
        if records.iter().any(is_fake) {
            found.extend(FakeDriver::open(&self.made("fake")?)?.list().await?);
        }
        if !records.iter().all(is_fake) {
            found.extend(self.qemu(None)?.list().await?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let with = records.into_iter().map(|record| {
            let at = found.binary_search_by(|status| status.name.cmp(&record.vm.name));
            let status = at.ok().and_then(|at| found.get(at)).cloned();
            let status = status.unwrap_or_else(|| absent(&record));
            (record, created(status))
        });
        Ok((with.collect(), damaged))
    }

    /// What is, of one VM that has a record.
    pub async fn status(&self, record: &Record) -> Result<Status> {
        Ok(created(self.driver(record)?.status(&record.vm.name).await?))
    }

    /// Writes down what a VM should be. Of one that is there, and otherwise: an error, unless it may be replaced.
    pub async fn create(
        &self,
        vm: Vm,
        profile: &Path,
        install: bool,
        replace: bool,
    ) -> Result<Created> {
        let name = &vm.name;
        self.made("run")?;
        places::directory(&self.records(), false)?;
        // Numbers are given out one at a time; the VM is made or removed by one command at a time.
        let _all = lock(&self.records()).await?;
        let path = self.path(name);
        let _one = loop {
            places::directory(&path, false)?;
            if let Some(lock) = lock(&path).await? {
                break lock;
            }
        };
        let created = self.create_locked(vm, profile, install, replace).await;
        if created.is_err() {
            // Without a record it is nothing; with one it stays.
            let _ = std::fs::remove_dir(&path);
        }
        created
    }

    async fn create_locked(
        &self,
        vm: Vm,
        profile: &Path,
        install: bool,
        replace: bool,
    ) -> Result<Created> {
        let name = vm.name.clone();
        let before = match self.find(&name) {
            // What it was is lost; what it should be is told.
            Err(_) if replace => None,
            before => before?,
        };
        if let Some(before) = &before {
            if before.is(&vm) {
                return Ok(Created::Already);
            }
            if !replace {
                let message = format!(
                    "VM {name} is already there, and otherwise than {} says",
                    profile.display()
                );
                let hint =
                    format!("v2m create --replace FILE, when it is stopped; or: v2m start {name}");
                return Err(Failure::new(Code::Failed, message).hint(hint).into());
            }
            let state = self.status(before).await?.state;
            if state.is_live() {
                let message = format!("VM {name} is {state}: it cannot be replaced");
                let hint = format!("v2m stop {name}");
                return Err(Failure::new(Code::Failed, message).hint(hint).into());
            }
            if (before.vm.backend == Backend::Fake) != (vm.backend == Backend::Fake) {
                // The next start tells the driver of the new definition; another driver has to be told of the end.
                self.driver(before)?.undefine(&name).await?;
            }
        }
        // Whatever is not there now, and is to be, is ours to remove.
        let mut made: Vec<PathBuf> = before.iter().flat_map(|b| b.made.clone()).collect();
        for disk in vm.disks.iter().filter(|disk| disk.size.is_some()) {
            if !disk.path.exists() && !made.contains(&disk.path) {
                made.push(disk.path.clone());
            }
        }
        let number = match (vm.backend, &before) {
            (Backend::Fake, _) => None,
            _ if !rustix::process::geteuid().is_root() => None,
            (_, Some(before)) if before.number.is_some() => before.number,
            _ => Some(self.free_number()?),
        };
        let record = Record {
            vm,
            profile: std::path::absolute(profile)?,
            number,
            made,
            install,
        };
        if let Some(owner) = self.owner(&record)? {
            owner::can_reach(&record.vm, owner)?;
        }
        self.keep(&record)?;
        let Some(before) = before else {
            return Ok(Created::New);
        };
        let kept = |path: &Path| record.vm.disks.iter().any(|disk| disk.path == path);
        for disk in before.vm.disks.iter().filter(|disk| !kept(&disk.path)) {
            give_back(&before, disk)?;
        }
        Ok(Created::Replaced)
    }

    fn keep(&self, record: &Record) -> Result<()> {
        let path = self.path(&record.vm.name).join("record.json");
        places::write(&path, &serde_json::to_vec(record)?)
    }

    fn free_number(&self) -> Result<u32> {
        let taken: Vec<u32> = self.all()?.0.iter().filter_map(|r| r.number).collect();
        let free = (0..).find(|number| !taken.contains(number));
        free.context("there are too many VMs")
    }

    /// One command at a time makes or removes a VM. It is there, or was removed by whoever had the lock.
    async fn lock(&self, name: &Name) -> Result<File> {
        match lock(&self.path(name)).await? {
            Some(lock) if self.is_there(name) => Ok(lock),
            _ => Err(Error::NoSuchVm(name.clone()).into()),
        }
    }

    /// The driver of a VM, which knows the VM.
    pub async fn defined(&self, record: &Record) -> Result<Box<dyn Driver>> {
        // So that nothing is defined that is being removed.
        let _one = self.lock(&record.vm.name).await?;
        self.define(record).await
    }

    /// The driver of a VM, for an action that only one that was started takes. Of one that no driver knows yet it is
    /// refused, as of one that is defined.
    pub async fn started(&self, record: &Record, action: Action) -> Result<Box<dyn Driver>> {
        let driver = self.driver(record)?;
        let name = &record.vm.name;
        if driver.status(name).await?.state == State::Absent {
            let state = match self.is_there(name) {
                true => State::Defined,
                false => State::Absent,
            };
            state.check(action, name)?;
        }
        Ok(driver)
    }

    /// Makes the driver know the VM as its record says. A VM that lives stays what it is.
    async fn define(&self, record: &Record) -> Result<Box<dyn Driver>> {
        let driver = self.driver(record)?;
        let name = &record.vm.name;
        match driver.define(&record.vm).await {
            Err(Error::DefinedOtherwise { .. }) => {
                if !driver.status(name).await?.state.is_live() {
                    driver.redefine(&record.vm).await?;
                }
            }
            other => other?,
        }
        Ok(driver)
    }

    /// Starts a VM. Of one that runs: nothing happens.
    pub async fn start(&self, record: &Record) -> Result<()> {
        let name = &record.vm.name;
        // Whoever removes it waits, or was first.
        let _one = self.lock(name).await?;
        let driver = self.define(record).await?;
        if !driver.status(name).await?.state.is_live() {
            self.begins(name, driver.as_ref()).await?;
        }
        Ok(driver.start(name).await?)
    }

    /// Restarts a VM; `driver` knows it. What it printed before counts no more for who waits for its new start.
    pub async fn reboot(&self, name: &Name, driver: &dyn Driver, grace: Duration) -> Result<()> {
        self.begins(name, driver).await?;
        Ok(driver.reboot(name, grace).await?)
    }

    /// What a VM's console prints from now on is of its next start.
    async fn begins(&self, name: &Name, driver: &dyn Driver) -> Result<()> {
        let log = driver.console(name).await?.log;
        let length = std::fs::metadata(log).map_or(0, |m| m.len());
        places::write(&self.path(name).join("boot"), length.to_string().as_bytes())
    }

    /// Where in its console's log the last start of a VM began.
    pub fn boot(&self, name: &Name) -> u64 {
        let text = std::fs::read_to_string(self.path(name).join("boot"));
        text.ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
    }

    /// Removes a VM, with the disks that v2m made for it if they are to go. Disks that were root's are root's again.
    pub async fn destroy(&self, record: &Record, disks: bool) -> Result<()> {
        let name = &record.vm.name;
        let _one = self.lock(name).await?;
        let driver = self.driver(record)?;
        if driver.status(name).await?.state != State::Absent {
            driver.stop(name, Duration::ZERO).await?;
        }
        driver.undefine(name).await?;
        for disk in &record.vm.disks {
            if !(disks && record.made.contains(&disk.path)) {
                give_back(record, disk)?;
            }
        }
        if disks {
            // Those that an earlier profile of the VM named, too.
            for path in &record.made {
                remove(path)?;
            }
        }
        let path = self.path(name);
        for file in ["boot", "boot.half", "record.half", "record.json"] {
            remove(&path.join(file))?;
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

/// A disk that a VM was given is root's again.
fn give_back(record: &Record, disk: &Disk) -> Result<()> {
    if disk.read_only || record.number.is_none() {
        return Ok(());
    }
    owner::give_back(&disk.path)
        .with_context(|| format!("{} cannot be given back", disk.path.display()))
}

/// Waits for the lock on a directory, where waiting disturbs nobody; none if there is no such directory.
async fn lock(directory: &Path) -> Result<Option<File>> {
    let path = directory.to_owned();
    let take = move || -> std::io::Result<Option<File>> {
        loop {
            let found = File::open(&path).and_then(|file| {
                file.lock()?;
                // Whoever had the lock may have removed the directory, and another may have made it again.
                let same = std::fs::metadata(&path)?.ino() == file.metadata()?.ino();
                Ok(same.then_some(file))
            });
            match found {
                Ok(Some(file)) => return Ok(Some(file)),
                Ok(None) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    };
    let taken = tokio::task::spawn_blocking(take).await?;
    taken.with_context(|| format!("{} cannot be locked", directory.display()))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(|| format!("{} cannot be removed", path.display())),
    }
}

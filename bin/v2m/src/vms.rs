//! The VMs of one state directory: what each should be (its record), and the driver that makes it so.
//!
//! The record is written before anything is made and removed after the last is gone, so that a command killed at any
//! moment is repeated or undone by the next one. What is, is the driver's to say.

use crate::exit::{Code, Failure};
use crate::owner::{self, Owner};
use crate::places;
use crate::record::{Record, absent, created};
use anyhow::Result;
use api::Name;
use profile::{Backend, Vm};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use terminal::Screen;
use v3m::{Action, Driver, Error, State, Status};
use v3m_fake::FakeDriver;
use v3m_qemu::{Options, QemuDriver};

mod disks;
mod records;

pub use disks::is_made;

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
    screen: Screen,
}

impl Vms {
    pub fn new(state: &Path, screen: &Screen) -> Self {
        Self {
            state: state.to_owned(),
            screen: screen.clone(),
        }
    }

    /// The driver of a VM, which runs it as whom the record says, and enters what it makes there.
    pub fn driver(&self, record: &Record) -> Result<Box<dyn Driver>> {
        Ok(match record.vm.backend {
            Backend::Fake => Box::new(FakeDriver::open(&self.made("fake")?)?),
            Backend::Auto | Backend::Qemu | Backend::Kvm => {
                let (vms, name) = (self.clone(), record.vm.name.clone());
                let driver = self.qemu(record.owner)?;
                Box::new(driver.new_disk(move |path, identity| vms.remember(&name, path, identity)))
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
        self.sound()?;
        let path = self.state.join(place);
        // Before the first is made none is there, and the state directory has the same rights.
        places::directory(&path, true)?;
        Ok(path)
    }

    /// Whom a VM is to run as, by its disks as they are now.
    fn owner(&self, record: &Record) -> Result<Option<Owner>> {
        let Some(number) = record.number else {
            return Ok(None);
        };
        let owner = owner::of_disks(&record.vm)?.or_else(|| owner::of_number(number));
        if let Some(owner) = owner {
            owner::can_reach(&record.vm, owner)?;
        }
        Ok(owner)
    }

    /// What is, of all VMs that have a record. Few reads a VM.
    pub async fn list(&self) -> Result<Vec<(Record, Status)>> {
        let records = self.all()?;
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
            let status = created(&record, status);
            (record, status)
        });
        Ok(with.collect())
    }

    /// What is, of one VM that has a record.
    pub async fn status(&self, record: &Record) -> Result<Status> {
        let status = self.driver(record)?.status(&record.vm.name).await?;
        Ok(created(record, status))
    }

    /// Writes down what a VM should be. Of one that is there, and otherwise: an error, unless it may be replaced.
    pub async fn create(
        &self,
        vm: Vm,
        profile: &Path,
        install: bool,
        replace: bool,
    ) -> Result<Created> {
        let name = vm.name.clone();
        self.made("run")?;
        // The VM is made or removed by one command at a time.
        let _one = self.lock_made(&name).await?;
        let created = self.create_locked(vm, profile, install, replace).await;
        if created.is_err() && !self.is_there(&name) {
            // Without a record it is nothing.
            let _ = self.forget(&name);
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
        let before = self.find(&name)?;
        if let Some(before) = &before {
            if before.damaged.is_none() && before.is(&vm) {
                return Ok(Created::Already);
            }
            if !replace {
                before.usable()?;
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
        let number = match (vm.backend, &before) {
            (Backend::Fake, _) => None,
            _ if !files::is_root() => None,
            (_, Some(before)) if before.number.is_some() => before.number,
            _ => Some(self.new_number(&name).await?),
        };
        let mut record = Record {
            vm,
            profile: crate::source::recorded(profile)?,
            number,
            owner: None,
            // An earlier profile's, too.
            made: before.iter().flat_map(|b| b.made.clone()).collect(),
            install,
            damaged: None,
        };
        record.owner = self.owner(&record)?;
        self.keep(&record)?;
        let Some(before) = before else {
            return Ok(Created::New);
        };
        let kept = |path: &Path| record.vm.disks.iter().any(|disk| disk.path == path);
        for disk in before.vm.disks.iter().filter(|disk| !kept(&disk.path)) {
            self.give_back(&before, disk);
        }
        Ok(Created::Replaced)
    }

    /// The driver of a VM, which knows the VM.
    pub async fn defined(&self, record: &Record) -> Result<Box<dyn Driver>> {
        record.usable()?;
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
        let mut record = self.record(name)?;
        record.usable()?;
        // One that lives runs as whoever it was started as.
        let starts = !self.status(&record).await?.state.is_live();
        if starts {
            let owner = self.owner(&record)?;
            if record.number.is_some() && owner.is_none() {
                self.screen.say(
                    "note: this user namespace has no ids for VMs: QEMU runs as its root, which is who made it",
                );
            }
            if owner != record.owner {
                record.owner = owner;
                self.keep(&record)?;
            }
        }
        let driver = self.define(&record).await?;
        if starts {
            self.begins(name, driver.as_ref()).await?;
        }
        Ok(driver.start(name).await?)
    }

    /// Restarts a VM; `driver` knows it. What it printed before counts no more for who waits for its new start.
    pub async fn reboot(&self, name: &Name, driver: &dyn Driver, grace: Duration) -> Result<()> {
        {
            // The mark is written by one command at a time, and not where the driver refuses.
            let _one = self.lock(name).await?;
            let state = driver.status(name).await?.state;
            state.check(Action::Reboot, name)?;
            self.begins(name, driver).await?;
        }
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

    /// Removes a VM; `disks`: with those that v2m made for it and that no VM has but these, which are returned. Disks that were
    /// root's are root's again.
    pub async fn destroy(&self, record: &Record, disks: Option<&[Name]>) -> Result<Vec<PathBuf>> {
        let name = &record.vm.name;
        let _one = self.lock(name).await?;
        let driver = self.driver(record)?;
        if driver.status(name).await?.state != State::Absent {
            driver.stop(name, Duration::ZERO).await?;
        }
        driver.undefine(name).await?;
        // What is written there now: a start may have made disks since it was asked for.
        let record = self.find(name)?.unwrap_or_else(|| record.clone());
        let gone = match disks {
            Some(with) => self.remove_made(&record, with)?,
            None => Vec::new(),
        };
        for disk in &record.vm.disks {
            self.give_back(&record, disk);
        }
        self.forget(name)?;
        Ok(gone)
    }
}

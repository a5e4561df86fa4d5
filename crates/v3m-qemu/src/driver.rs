//! The driver: the table is asked, and what it says is done.

use crate::arguments::Accelerator;
use crate::disk;
use crate::home::{Home, at};
use crate::launch::{self, Owner};
use crate::probe::{self, Programs};
use api::Name;
use async_trait::async_trait;
use profile::{Backend, Display, Vm};
use rustix::process::Signal;
use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use v3m::{
    Action, Capabilities, Console, Driver, Error, Probe, Result, Snapshots, State, Stats, Status,
    Stopped,
};

/// How long a guest's CPUs may take until they run: QEMU's own start on an overloaded host.
const START: Duration = Duration::from_secs(60);
/// For one QMP command. QEMU takes one connection at a time, so another process may be before us.
pub(crate) const COMMAND: Duration = Duration::from_secs(10);
/// From SIGTERM, at which QEMU closes its disks and ends, to SIGKILL.
const CLOSE: Duration = Duration::from_secs(5);
/// From SIGKILL to the end of the process: the kernel's time to free its memory.
const KILLED: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// As root: the user and group that QEMU runs as. The directories above the VM's files must let that user pass.
    /// Writable disks of root's and channel logs become that user's; disks of another user's are refused, and so is the
    /// user or group root. As an ordinary user it changes nothing. None: QEMU runs as its caller; as root that is root,
    /// with all its rights, and a guest that breaks out of QEMU has them: give an owner there.
    pub owner: Option<(u32, u32)>,
}

/// The VMs of one directory.
pub struct QemuDriver {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    owner: Option<Owner>,
    programs: Programs,
    new_disk: Box<NewDisk>,
}

/// See [`QemuDriver::new_disk`].
type NewDisk = dyn Fn(&Path, &disk::Identity) -> std::io::Result<()> + Send + Sync;

impl QemuDriver {
    /// The driver on `dir`, which is made where it is missing, for nobody else to read.
    /// One that others can write to is refused: what is in it says what runs.
    pub fn open(dir: &Path, options: Options) -> Result<Self> {
        files::own(dir).map_err(at(dir))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(at(dir))?;
        // QEMU's working directory is not ours: what it is told must not depend on ours.
        let dir = fs::canonicalize(dir).map_err(at(dir))?;
        Ok(Self {
            inner: Arc::new(Inner {
                programs: Programs::new(&dir),
                dir,
                owner: options.owner,
                new_disk: Box::new(|_, _| Ok(())),
            }),
        })
    }

    /// Where the verdict on KVM is kept, instead of in the driver's directory: several drivers then share it.
    pub fn probe_cache(mut self, path: &Path) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.programs.cache = path.to_owned();
        }
        self
    }

    /// A Linux kernel for the probe to boot after its own small guest, e.g. the image's: nothing is closer to the truth.
    pub fn probe_kernel(mut self, path: &Path) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.programs.kernel = Some(path.to_owned());
        }
        self
    }

    /// QEMU's program, instead of `qemu-system-x86_64` on the path.
    pub fn program(mut self, path: &Path) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.programs.qemu = path.to_owned();
        }
        self
    }

    /// Is told of each disk that a start makes, before it appears; where it fails, there is no disk and no start.
    pub fn new_disk(
        mut self,
        told: impl Fn(&Path, &disk::Identity) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.new_disk = Box::new(told);
        }
        self
    }

    /// What of this host stands against a start of this VM, each a sentence with its cure; empty: nothing was found. A
    /// start looks itself.
    pub async fn findings(&self, vm: &Vm) -> Result<Vec<String>> {
        let vm = vm.clone();
        self.blocking(&vm.name.clone(), move |inner, _| {
            let accelerator = inner.accelerator(vm.backend)?;
            Ok(crate::fit::findings(&vm, accelerator, Path::new("/")))
        })
        .await
    }

    /// Runs what may block where it may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        name: &Name,
        work: impl FnOnce(&Inner, &Home) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        let home = Home::new(&inner.dir, name);
        let failed = |e: tokio::task::JoinError| Error::Failed {
            name: name.clone(),
            reason: format!("the operation was cut off: {e}"),
        };
        tokio::task::spawn_blocking(move || {
            launch::bury();
            work(&inner, &home)
        })
        .await
        .map_err(failed)?
    }

    pub(crate) fn home(&self, name: &Name) -> Home {
        Home::new(&self.inner.dir, name)
    }
}

impl Inner {
    fn start(&self, home: &Home) -> Result<()> {
        // A start that another process began is waited for; if it comes to nothing, because that process was killed
        // before QEMU was on its own feet, ours is the next try.
        let mut begun_before = true;
        while begun_before {
            begun_before = {
                let _lock = home.locked()?;
                let state = home.status()?.state;
                if !state.check(Action::Start, &home.name)? {
                    return Ok(());
                }
                if state != State::Starting {
                    self.spawn(home)?;
                }
                state == State::Starting
            };
            let result = launch::wait_running(home, START);
            launch::bury();
            if !begun_before || result.is_ok() || home.process()?.is_some() {
                return result;
            }
        }
        Ok(())
    }

    fn spawn(&self, home: &Home) -> Result<()> {
        let Some(vm) = home.vm()? else {
            return Err(Error::NoSuchVm(home.name.clone()));
        };
        let accelerator = self.accelerator(vm.backend)?;
        // A crashed VM may have a process yet, whose guest cannot go on.
        let lock = home.lock_file();
        daemon::kill(&lock, KILLED).map_err(at(&lock))?;
        let log = home.file("console.log");
        crate::console_log::trim(&log).map_err(at(&log))?;
        let (program, owner) = (&self.programs.qemu, self.owner);
        launch::spawn(home, &vm, accelerator, program, owner, &*self.new_disk)
    }

    /// What a definition's back-end is on this host.
    fn accelerator(&self, backend: Backend) -> Result<Accelerator> {
        match backend {
            Backend::Qemu => Ok(Accelerator::Tcg),
            Backend::Kvm | Backend::Auto => match (probe::kvm_fault(&self.programs), backend) {
                (None, _) => Ok(Accelerator::Kvm),
                (Some(_), Backend::Auto) => Ok(Accelerator::Tcg),
                (Some(fault), _) => Err(Error::Unusable {
                    backend,
                    reason: probe::in_words(&fault),
                }),
            },
            Backend::Fake => Err(Error::Unusable {
                backend,
                reason: "the driver for QEMU runs real VMs only".to_owned(),
            }),
        }
    }

    /// Ends the process: QEMU's own way, at SIGTERM, which needs no place on its QMP socket; then SIGKILL.
    pub(crate) fn end(&self, home: &Home) -> Result<()> {
        let marker = home.file("stopping");
        // A VM without a directory has been refused before.
        mark(&marker)?;
        let lock = home.lock_file();
        daemon::signal(&lock, Signal::TERM).map_err(at(&lock))?;
        if !launch::wait_gone(home, CLOSE)? {
            daemon::kill(&lock, KILLED).map_err(at(&lock))?;
        }
        launch::bury();
        Ok(())
    }

    fn list(&self) -> Result<Vec<Status>> {
        let mut list = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at(&self.dir))? {
            let name = entry.map_err(at(&self.dir))?.file_name();
            // Anything else in the directory is no VM.
            if let Some(name) = name.to_str().and_then(|name| Name::new(name).ok()) {
                let status = Home::new(&self.dir, &name).status()?;
                if status.state != State::Absent {
                    list.push(status);
                }
            }
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }
}

pub(crate) fn mark(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop).map_err(at(path))
}

#[async_trait]
impl Driver for QemuDriver {
    fn capabilities(&self) -> Vec<Capabilities> {
        let of = |backend| Capabilities {
            backend,
            direct_kernel_boot: true,
            disk_boot: true,
            pause: true,
            console: true,
            snapshot: true,
            stats: true,
            migrate: false,
            fork: false,
            hotplug: false,
            install_medium: true,
            // The most that machine `pc` takes.
            max_cpus: 255,
        };
        vec![of(Backend::Kvm), of(Backend::Qemu)]
    }

    async fn probe(&self, backend: Backend) -> Probe {
        let inner = self.inner.clone();
        let probe = move || probe::probe(&inner.programs, backend);
        match tokio::task::spawn_blocking(probe).await {
            Ok(probe) => probe,
            Err(e) => probe::unusable(backend, format!("the probe was cut off: {e}"), None),
        }
    }

    async fn define(&self, vm: &Vm) -> Result<()> {
        if vm.backend == Backend::Fake {
            return Err(Error::Unusable {
                backend: vm.backend,
                reason: "the driver for QEMU runs real VMs only".to_owned(),
            });
        }
        let vm = vm.clone();
        self.blocking(&vm.name.clone(), move |_, home| home.define(&vm))
            .await
    }

    async fn redefine(&self, vm: &Vm) -> Result<()> {
        let (name, vm) = (vm.name.clone(), vm.clone());
        self.blocking(&name, move |inner, home| {
            let old = match home.locked()? {
                Some(_lock) => {
                    home.status()?.state.check(Action::Undefine, &home.name)?;
                    daemon::kill(&home.lock_file(), KILLED).map_err(at(&home.lock_file()))?;
                    // Of a damaged one nothing is known.
                    let old = home.vm().unwrap_or_default();
                    home.replace(&vm)?;
                    old
                }
                None => return home.define(&vm),
            };
            // The new one's NICs are made at its start.
            for nic in old.into_iter().flat_map(|old| old.nics) {
                crate::link::close(&nic.link, &inner.dir);
            }
            Ok(())
        })
        .await
    }

    async fn start(&self, name: &Name) -> Result<()> {
        self.blocking(name, |inner, home| inner.start(home)).await
    }

    async fn stop(&self, name: &Name, grace: Duration) -> Result<Stopped> {
        let state = self.status(name).await?.state;
        if !state.check(Action::Stop, name)? {
            return Ok(Stopped::Already);
        }
        if !grace.is_zero() && self.ask(name, state, grace).await? {
            return Ok(Stopped::Asked);
        }
        self.blocking(name, |inner, home| inner.end(home)).await?;
        // Of a VM whose process was gone already, nothing was forced but its traces.
        Ok(match state.is_live() {
            true => Stopped::Forced,
            false => Stopped::Already,
        })
    }

    async fn pause(&self, name: &Name) -> Result<()> {
        self.switch(name, Action::Pause, "stop").await
    }

    async fn resume(&self, name: &Name) -> Result<()> {
        self.switch(name, Action::Resume, "cont").await
    }

    async fn reboot(&self, name: &Name, grace: Duration) -> Result<()> {
        let home = Home::new(&self.inner.dir, name);
        if !self.status(name).await?.state.check(Action::Reboot, name)? {
            return Ok(());
        }
        if !grace.is_zero() {
            let end = Instant::now() + grace;
            // A QEMU that does not take this will not take the reset either, and says so there.
            let asked = self.command(&home, "system_powerdown", grace.min(COMMAND));
            if asked.await.is_ok() {
                let left = end.saturating_duration_since(Instant::now());
                let gone = self.blocking(name, move |_, home| launch::wait_gone(home, left));
                if gone.await? {
                    return self.start(name).await;
                }
            }
        }
        self.command(&home, "system_reset", COMMAND).await
    }

    /// As [`Driver::list`]: from the lock and QEMU's journal, without asking QEMU.
    async fn status(&self, name: &Name) -> Result<Status> {
        self.blocking(name, |_, home| home.status()).await
    }

    /// One lock test and three small reads a VM; no QEMU is asked, so one that hangs delays nothing. What it promises:
    /// each VM was in the state it says at some moment during the call.
    async fn list(&self) -> Result<Vec<Status>> {
        let inner = self.inner.clone();
        let list = move || {
            launch::bury();
            inner.list()
        };
        match tokio::task::spawn_blocking(list).await {
            Ok(list) => list,
            Err(e) => Err(Error::Io {
                path: self.inner.dir.clone(),
                source: e.into(),
            }),
        }
    }

    async fn console(&self, name: &Name) -> Result<Console> {
        self.blocking(name, |_, home| {
            let Some(vm) = home.vm()? else {
                return Err(Error::NoSuchVm(home.name.clone()));
            };
            Ok(Console {
                socket: home.file("console.sock"),
                log: home.file("console.log"),
                vnc: (vm.display == Display::Vnc).then(|| home.file("vnc/vnc.sock")),
            })
        })
        .await
    }

    async fn undefine(&self, name: &Name) -> Result<()> {
        self.blocking(name, |inner, home| {
            let Some(_lock) = home.locked()? else {
                return Ok(());
            };
            let status = home.status()?;
            // Of an absent VM too: an undefine that was cut off may have left files behind.
            status.state.check(Action::Undefine, &home.name)?;
            // What a crashed VM left of itself, or one whose definition was taken away under it.
            if home.process()?.is_some() {
                daemon::kill(&home.lock_file(), KILLED).map_err(at(&home.lock_file()))?;
            }
            let vm = home.vm().unwrap_or_default();
            for nic in vm.into_iter().flat_map(|vm| vm.nics) {
                crate::link::close(&nic.link, &inner.dir);
            }
            home.remove()
        })
        .await
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn stats(&self) -> Option<&dyn Stats> {
        Some(self)
    }
}

//! A V3M driver without VMs, for tests and rehearsals of everything above the driver contract.
//!
//! It keeps the contract to the letter (the same model test as every other driver says so), but a VM is only a file
//! that says its state, so that another process finds it. When a VM starts, its channels get the lines that a guest
//! writes, seconds since its boot first: `0.00 boot kernel`, and `0.00 ready` when its packages are ready. What can go
//! wrong with a VM goes wrong on demand: [`Failure`].
//!
//! ```text
//! <dir>/<name>/vm.json        the definition
//! <dir>/<name>/state.json     the state
//! <dir>/<name>/console.log    one line a start
//! <dir>/<name>.failure.json   what goes wrong when it starts; kept until it is taken back
//! ```

mod home;

use api::Name;
use async_trait::async_trait;
use home::{Home, read, remove, write};
use profile::{Backend, Vm};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use v3m::{
    Action, Capabilities, Console, Driver, Error, Missing, Probe, Result, State, Status, Stopped,
};

/// What goes wrong when the VM starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The start fails, for this reason.
    Start(String),
    /// It runs, and never says that it is ready.
    NeverReady,
    /// It starts, and crashes for this reason before it is ready.
    Crash(String),
}

/// States as files under one directory.
#[derive(Clone, Debug)]
pub struct FakeDriver {
    dir: PathBuf,
}

/// The state of one VM, as its file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    state: State,
    reason: Option<String>,
}

impl FakeDriver {
    /// The driver on `dir`, which is made where it is missing.
    pub fn open(dir: &Path) -> Result<Self> {
        files::own(dir).map_err(home::io(dir))?;
        fs::create_dir_all(dir).map_err(home::io(dir))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// From the next start on, this goes wrong with the VM, defined or not; `None`: nothing does.
    pub fn fail(&self, name: &Name, failure: Option<Failure>) -> Result<()> {
        let path = self.failure(name);
        match failure {
            Some(failure) => write(&path, &failure),
            None => remove(&path),
        }
    }

    /// A running or paused VM crashes now; of any other: nothing happens.
    pub fn crash(&self, name: &Name, reason: &str) -> Result<()> {
        let Some(home) = self.home(name)? else {
            return Ok(());
        };
        if home.kept()?.state.is_live() {
            home.keep(State::Crashed, Some(reason))?;
        }
        Ok(())
    }

    fn failure(&self, name: &Name) -> PathBuf {
        self.dir.join(format!("{name}.failure.json"))
    }

    /// The VM's files, locked against every other call, here or in another process; `None` if it is not defined.
    fn home(&self, name: &Name) -> Result<Option<Home>> {
        Home::locked(self.dir.join(name))
    }

    /// What most calls are: look, ask the table, do.
    fn act(
        &self,
        name: &Name,
        action: Action,
        how: impl FnOnce(&Home) -> Result<()>,
    ) -> Result<()> {
        let home = self.home(name)?;
        let state = match &home {
            Some(home) => home.kept()?.state,
            None => State::Absent,
        };
        match (state.check(action, name)?, &home) {
            (true, Some(home)) => how(home),
            _ => Ok(()),
        }
    }

    /// Writes lines to every channel, all at once.
    fn tell(&self, home: &Home, lines: &[&str]) -> Result<()> {
        let vm: Option<Vm> = read(&home.definition())?;
        for channel in vm.into_iter().flat_map(|vm| vm.channels) {
            home::append(&channel.log, &lines.join("\n"))?;
        }
        Ok(())
    }

    fn run(&self, name: &Name, home: &Home) -> Result<()> {
        let failure: Option<Failure> = read(&self.failure(name))?;
        home.log("started")?;
        // What a guest says comes before the state that says that it runs: a process that is killed between the two
        // would leave a VM that runs and never says anything, and nobody would start it again.
        match failure {
            None => {
                self.tell(home, &[BOOT, READY])?;
                home.keep(State::Running, None)
            }
            Some(Failure::NeverReady) => {
                self.tell(home, &[BOOT])?;
                home.keep(State::Running, None)
            }
            Some(Failure::Crash(reason)) => {
                self.tell(home, &[BOOT])?;
                home.log(&reason)?;
                home.keep(State::Crashed, Some(&reason))
            }
            Some(Failure::Start(reason)) => {
                home.log(&reason)?;
                home.keep(State::Crashed, Some(&reason))?;
                Err(Error::StartFailed {
                    name: name.clone(),
                    reason,
                })
            }
        }
    }
}

const BOOT: &str = "0.00 boot kernel";
const READY: &str = "0.00 ready";

#[async_trait]
impl Driver for FakeDriver {
    fn capabilities(&self) -> Vec<Capabilities> {
        vec![Capabilities {
            backend: Backend::Fake,
            direct_kernel_boot: true,
            disk_boot: true,
            pause: true,
            console: false,
            snapshot: false,
            stats: false,
            migrate: false,
            fork: false,
            hotplug: false,
            install_medium: false,
            max_cpus: u16::MAX,
        }]
    }

    async fn probe(&self, backend: Backend) -> Probe {
        let usable = matches!(backend, Backend::Fake | Backend::Auto);
        Probe {
            backend,
            usable,
            found: "no hypervisor: states only".to_owned(),
            missing: if usable {
                Vec::new()
            } else {
                vec![Missing {
                    what: "this is the driver without VMs".to_owned(),
                    remedy: None,
                }]
            },
        }
    }

    async fn define(&self, vm: &Vm) -> Result<()> {
        let home = Home::made(self.dir.join(&vm.name))?;
        match read::<Vm>(&home.definition())? {
            None => write(&home.definition(), vm),
            Some(old) if old == *vm => Ok(()),
            Some(_) => Err(Error::DefinedOtherwise {
                name: vm.name.clone(),
            }),
        }
    }

    async fn start(&self, name: &Name) -> Result<()> {
        self.act(name, Action::Start, |home| self.run(name, home))
    }

    async fn stop(&self, name: &Name, grace: Duration) -> Result<Stopped> {
        let mut stopped = Stopped::Already;
        self.act(name, Action::Stop, |home| {
            stopped = match grace.is_zero() {
                true => Stopped::Forced,
                false => Stopped::Asked,
            };
            home.keep(State::Stopped, None)
        })?;
        Ok(stopped)
    }

    async fn pause(&self, name: &Name) -> Result<()> {
        self.act(name, Action::Pause, |home| home.keep(State::Paused, None))
    }

    async fn resume(&self, name: &Name) -> Result<()> {
        self.act(name, Action::Resume, |home| home.keep(State::Running, None))
    }

    async fn reboot(&self, name: &Name, _grace: Duration) -> Result<()> {
        self.act(name, Action::Reboot, |home| self.run(name, home))
    }

    async fn status(&self, name: &Name) -> Result<Status> {
        // Without the lock: files change by rename, so whatever is read was true.
        let kept = Home::unlocked(self.dir.join(name)).kept()?;
        Ok(Status {
            name: name.clone(),
            state: kept.state,
            pid: None,
            backend: Backend::Fake,
            reason: kept.reason,
        })
    }

    async fn list(&self) -> Result<Vec<Status>> {
        let mut list = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(home::io(&self.dir))? {
            let entry = entry.map_err(home::io(&self.dir))?;
            let name = entry.file_name();
            if let Some(name) = name.to_str().and_then(|n| Name::new(n).ok()) {
                let status = self.status(&name).await?;
                if status.state != State::Absent {
                    list.push(status);
                }
            }
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    async fn console(&self, name: &Name) -> Result<Console> {
        match self.status(name).await?.state {
            State::Absent => Err(Error::NoSuchVm(name.clone())),
            _ => {
                let dir = self.dir.join(name);
                Ok(Console {
                    socket: dir.join("console.sock"),
                    log: dir.join("console.log"),
                    vnc: None,
                })
            }
        }
    }

    async fn undefine(&self, name: &Name) -> Result<()> {
        self.act(name, Action::Undefine, Home::removed)
    }
}

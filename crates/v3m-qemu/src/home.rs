//! The directory of one VM: what is in it, and what that says about the VM.
//!
//! ```text
//! vm.json        the definition; it is what makes the VM be
//! run.json       the accelerator of the last start; missing: never started
//! stopping       we are about to end QEMU, or have: whatever follows was meant
//! paused         a pause is ours: QEMU also stops a guest by itself, when it cannot go on
//! qemu.lock      held by QEMU for its whole life (crate daemon)
//! journal.in     FIFO, journal.out: see module journal
//! qmp.sock       console.sock
//! console.log    all that the guest ever printed
//! qemu.log       what the last QEMU said
//! snapshots.json which machine the memory in a snapshot is of: see module machine
//! uefi-vars.fd   the variables of a UEFI machine; cloud-init.img: see module cloud
//! vnc/vnc.sock   the display, where there is one; the directory is QEMU's own
//! ```
//!
//! Nothing here asks QEMU: the state of a VM is one lock test and a few small files.

use crate::arguments::Accelerator;
use crate::journal::Journal;
use api::Name;
use profile::Vm;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use v3m::{Error, Result, State, Status};

/// All that a driver makes in a VM's directory, but for the definition, which is last to go.
const FILES: [&str; 19] = [
    "run.json",
    "run.half",
    "stopping",
    "paused",
    "qmp.sock",
    "console.sock",
    "console.log",
    "qemu.log",
    "journal.in",
    "journal.out",
    crate::cloud::FILE,
    crate::cloud::HALF,
    crate::firmware::VARIABLES,
    crate::firmware::HALF,
    "vnc/vnc.sock",
    "vm.half",
    crate::machine::FILE,
    crate::machine::HALF,
    "qemu.lock",
];

#[derive(Clone, Debug)]
pub struct Home {
    pub name: Name,
    pub path: PathBuf,
}

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub kvm: bool,
}

impl Run {
    pub fn accelerator(&self) -> Accelerator {
        if self.kvm {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        }
    }
}

impl Home {
    pub fn new(dir: &Path, name: &Name) -> Self {
        Self {
            name: name.clone(),
            path: dir.join(name),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn lock_file(&self) -> PathBuf {
        self.file("qemu.lock")
    }

    pub fn vm(&self) -> Result<Option<Vm>> {
        read(&self.file("vm.json"))
    }

    /// Holds every other change of this VM off, here and in other processes; `None` if there is no directory.
    pub fn locked(&self) -> Result<Option<File>> {
        files::lock(&self.path).map_err(at(&self.path))
    }

    pub fn define(&self, vm: &Vm) -> Result<()> {
        let _lock = files::lock_made(&self.path, 0o700).map_err(at(&self.path))?;
        match self.vm() {
            Ok(None) => write(&self.file("vm.json"), vm),
            Ok(Some(old)) if old == *vm => Ok(()),
            // One that is damaged is not this one.
            Ok(Some(_)) | Err(_) => Err(Error::DefinedOtherwise {
                name: self.name.clone(),
            }),
        }
    }

    /// Puts another definition in the place of the old one; the caller has the lock and has seen that no process runs.
    /// With it the VM was never started, and has its firmware's variables and its console's past.
    pub fn replace(&self, vm: &Vm) -> Result<()> {
        remove(&self.file("run.json"))?;
        write(&self.file("vm.json"), vm)
    }

    /// Removes what `define` and `start` made; the caller has the lock and has seen that no process runs.
    pub fn remove(&self) -> Result<()> {
        for file in FILES.iter().chain(&["vm.json"]) {
            remove(&self.file(file))?;
        }
        // With something of another's in it, it stays, and the directory with it.
        let _ = fs::remove_dir(self.file("vnc"));
        match fs::remove_dir(&self.path) {
            Ok(()) => Ok(()),
            // Disks and logs that the definition only refers to are another's.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Ok(())
            }
            Err(e) => Err(at(&self.path)(e)),
        }
    }

    /// The process that runs the VM.
    pub fn process(&self) -> Result<Option<u32>> {
        let lock = self.lock_file();
        daemon::running(&lock).map_err(at(&lock))
    }

    pub fn journal(&self) -> Result<Journal> {
        let path = self.file("journal.out");
        Journal::read(&path).map_err(at(&path))
    }

    /// What is.
    pub fn status(&self) -> Result<Status> {
        let status = |state, backend, pid, reason| Status {
            name: self.name.clone(),
            state,
            pid,
            backend,
            reason,
        };
        let backend = match self.vm() {
            Ok(Some(vm)) => vm.backend,
            Ok(None) => return Ok(status(State::Absent, profile::Backend::Auto, None, None)),
            // Damaged: what runs is known even so, and can be stopped.
            Err(_) => profile::Backend::Auto,
        };
        // Before anything that QEMU writes: what is read after it is at least as new.
        let pid = self.process()?;
        let run: Option<Run> = match read(&self.file("run.json")) {
            Ok(run) => run,
            Err(e) => {
                // Whatever it was: its process is there, or is not.
                let state = match pid {
                    Some(_) => State::Unknown,
                    None => State::Crashed,
                };
                return Ok(status(state, backend, pid, Some(e.to_string())));
            }
        };
        let Some(run) = run else {
            return Ok(status(State::Defined, backend, None, None));
        };
        let stopping = self.file("stopping").exists();
        let (state, reason) = match pid {
            // A process that has not said who it is, between fork and exec.
            Some(0) => {
                return Ok(status(
                    State::Starting,
                    run.accelerator().backend(),
                    None,
                    None,
                ));
            }
            Some(_) => live(&self.journal()?, stopping, self.file("paused").exists()),
            None if stopping => (State::Stopped, None),
            None => {
                let journal = self.journal()?;
                if journal.ended_well() {
                    (State::Stopped, None)
                } else {
                    (State::Crashed, Some(self.obituary(&journal)))
                }
            }
        };
        Ok(status(state, run.accelerator().backend(), pid, reason))
    }

    /// Why a VM whose process is gone has crashed.
    fn obituary(&self, journal: &Journal) -> String {
        if journal.panicked {
            return "the guest's kernel panicked; the end of its console says why".to_owned();
        }
        let last = self.last_words(1);
        match (&journal.ended, last.is_empty()) {
            (Some(reason), true) => format!("QEMU ended: {reason}"),
            (_, false) => last,
            (None, true) if journal.started => {
                "QEMU is gone without a word: it was killed (out of memory? see dmesg)".to_owned()
            }
            (None, true) => "the start was cut off before QEMU ran; start it again".to_owned(),
        }
    }

    /// The last lines that QEMU said, without their time stamps.
    pub fn last_words(&self, lines: usize) -> String {
        let mut text = Vec::new();
        let tail = |mut file: File| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
            file.take(4096).read_to_end(&mut text)
        };
        // A missing log has no last words; there is nothing else to say about it here.
        let _ = File::open(self.file("qemu.log")).and_then(tail);
        let text = String::from_utf8_lossy(&text);
        let said: Vec<&str> = text
            .lines()
            .map(|line| {
                line.split_once(" qemu-system-x86_64: ")
                    .map_or(line, |l| l.1)
            })
            .filter(|line| !line.trim().is_empty())
            .collect();
        said[said.len().saturating_sub(lines)..].join("\n")
    }
}

/// The state of a VM that has a process.
fn live(journal: &Journal, stopping: bool, pause_is_ours: bool) -> (State, Option<String>) {
    if stopping || journal.ended.is_some() {
        (State::Stopping, None)
    } else if !journal.started {
        (State::Starting, None)
    } else if journal.panicked && journal.paused {
        let reason = "the guest's kernel panicked; the end of its console says why";
        (State::Crashed, Some(reason.to_owned()))
    } else if journal.disk_full && journal.paused {
        let reason = "the host's disk is full; make room, then resume";
        (State::Paused, Some(reason.to_owned()))
    } else if journal.paused && !pause_is_ours {
        let reason = "QEMU stopped the guest because it could not go on; qemu.log may say why";
        (State::Crashed, Some(reason.to_owned()))
    } else if journal.paused {
        (State::Paused, None)
    } else {
        (State::Running, None)
    }
}

pub fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io {
        path: path.to_owned(),
        source,
    }
}

pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| at(path)(e.into())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(path)(e)),
    }
}

/// Writes a private file that appears whole or not at all.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| at(path)(e.into()))?;
    files::write(path, &text).map_err(at(path))
}

pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(at(path)(e)),
    }
}

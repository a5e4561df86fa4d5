//! Snapshots of a VM inside its qcow2 disks: by QEMU's jobs while it lives, by qemu-img when it does not.
//!
//! All writable disks have to be qcow2, since a snapshot of some would be of no moment that ever was. A live VM's memory
//! goes into the first of them. While QEMU saves or loads, the guest stands still: QEMU stops and resumes it, and the
//! marker `paused` says that this is meant.
//!
//! QEMU takes the disks back before it loads the memory, and where that fails they stay as they were then: a guest that went
//! on would write over them what it remembers of others. So such a guest is ended. What is known not to fit is refused
//! before: a snapshot's memory is that of one machine (module `machine`).
//!
//! Commands: QEMU QMP Reference Manual, `snapshot-save`, `snapshot-load`, `snapshot-delete`, `query-jobs`.

use crate::disk;
use crate::driver::{QemuDriver, mark};
use crate::home::{Home, remove};
use crate::machine;
use crate::qmp::Qmp;
use api::Name;
use async_trait::async_trait;
use profile::{DiskFormat, Medium, Vm};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use v3m::{Error, Result, Snapshot, Snapshots, State};

/// For one answer of QEMU, whose jobs write a guest's memory to disk beside it.
const ANSWER: Duration = Duration::from_secs(60);
/// For a whole job: a guest's memory on a slow disk.
const JOB: Duration = Duration::from_secs(1800);

/// The writable disks of a VM with their numbers.
fn disks(vm: &Vm) -> std::result::Result<Vec<(usize, PathBuf)>, String> {
    let mut disks = Vec::new();
    for (number, disk) in vm.disks.iter().enumerate() {
        if disk.read_only || disk.medium == Medium::Cdrom {
            continue;
        }
        if disk.format != DiskFormat::Qcow2 {
            return Err(format!(
                "{} is not qcow2, and only qcow2 disks have snapshots; convert it, or make it read only",
                disk.path.display()
            ));
        }
        disks.push((number, disk.path.clone()));
    }
    match disks.is_empty() {
        true => Err("it has no writable disk that could hold a snapshot".to_owned()),
        false => Ok(disks),
    }
}

fn failed(name: &Name, reason: impl std::fmt::Display) -> Error {
    Error::Failed {
        name: name.clone(),
        reason: reason.to_string(),
    }
}

/// The snapshots that all of the disks have, with what the first says of them.
fn common(name: &Name, disks: &[(usize, PathBuf)]) -> Result<Vec<Snapshot>> {
    let mut lists = Vec::new();
    for (_, path) in disks {
        lists.push(disk::snapshot_list(path).map_err(|e| failed(name, with_source(&e)))?);
    }
    let Some((first, others)) = lists.split_first() else {
        return Ok(Vec::new());
    };
    let everywhere = |name: &str| others.iter().all(|l| l.iter().any(|s| s.name == name));
    Ok(first
        .iter()
        .filter(|snapshot| everywhere(&snapshot.name))
        .map(|snapshot| Snapshot {
            name: snapshot.name.clone(),
            created: snapshot.created,
            memory: snapshot.memory > 0,
        })
        .collect())
}

/// What a `v3m::Error` has no place for goes into its reason.
fn with_source(error: &disk::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Create,
    Apply,
    Delete,
}

impl What {
    fn command(self) -> &'static str {
        match self {
            Self::Create => "snapshot-save",
            Self::Apply => "snapshot-load",
            Self::Delete => "snapshot-delete",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Create => "snapshot",
            Self::Apply => "going back to a snapshot",
            Self::Delete => "removing a snapshot",
        }
    }
}

impl QemuDriver {
    async fn snapshot(&self, name: &Name, snapshot: &Name, what: What) -> Result<()> {
        // One at a time, and no pause or resume beside it: it stops the guest and lets it go on itself.
        let lock = self.blocking(name, |_, home| home.locked()).await?;
        let state = self.existing(name).await?;
        let tag = snapshot.as_str().to_owned();
        match state {
            State::Running | State::Paused => self.live(name, &tag, what).await,
            State::Defined | State::Stopped => {
                drop(lock);
                self.blocking(name, move |_, home| offline(home, &tag, what))
                    .await
            }
            _ => Err(Error::WrongState {
                name: name.clone(),
                action: what.word(),
                state,
            }),
        }
    }

    async fn existing(&self, name: &Name) -> Result<State> {
        match v3m::Driver::status(self, name).await?.state {
            State::Absent => Err(Error::NoSuchVm(name.clone())),
            state => Ok(state),
        }
    }

    async fn live(&self, name: &Name, tag: &str, what: What) -> Result<()> {
        let home = self.home(name);
        let mut qmp = self.connect(&home, ANSWER).await?;
        // What a killed command has told QEMU to do is done first; until then the guest stands still without being paused,
        // and the list of snapshots is not what it will be.
        let (running, broken) = tokio::time::timeout(JOB, settled(&mut qmp))
            .await
            .map_err(|_| failed(name, format!("QEMU has been busy for {JOB:?}")))?
            .map_err(|e| failed(name, e))?;
        if let Some(why) = broken {
            return Err(self.halfway(name, "a snapshot", &failed(name, why)).await);
        }
        let list = Snapshots::list(self, name).await?;
        let snapshot = list.iter().find(|s| s.name == tag);
        match (what, snapshot) {
            (What::Create, Some(_)) => {
                return Err(failed(name, format!("it has a snapshot {tag} already")));
            }
            (What::Apply | What::Delete, None) => {
                return Err(failed(name, format!("it has no snapshot {tag}")));
            }
            (What::Apply, Some(Snapshot { memory: false, .. })) => {
                return Err(failed(
                    name,
                    format!(
                        "snapshot {tag} has no memory, so that only a stopped VM goes back to it; stop it first"
                    ),
                ));
            }
            _ => {}
        }
        let vm = home.vm()?.ok_or_else(|| Error::NoSuchVm(name.clone()))?;
        if let (What::Apply, Some(found)) = (what, snapshot) {
            machine::fits(&home, &vm, found)?;
        }
        let nodes: Vec<String> = disks(&vm)
            .map_err(|reason| failed(name, reason))?
            .iter()
            .map(|(number, _)| format!("disk{number}"))
            .collect();
        if what != What::Delete {
            mark(&home.file("paused"))?;
        }
        let job = format!("oscarv-{}-{}", std::process::id(), what.command());
        let mut arguments = json!({"job-id": job, "tag": tag, "devices": nodes});
        if what != What::Delete {
            arguments["vmstate"] = json!(nodes[0]);
        }
        qmp.execute(what.command(), arguments)
            .await
            .map_err(|e| failed(name, e))?;
        let done = tokio::time::timeout(JOB, concluded(&mut qmp, &job)).await;
        let result = match done {
            Ok(result) => result.map_err(|e| failed(name, e)),
            Err(_) => Err(failed(
                name,
                format!("QEMU took longer than {JOB:?} for it"),
            )),
        };
        if let (What::Apply, Err(why)) = (what, &result) {
            return Err(self.halfway(name, tag, why).await);
        }
        if what == What::Delete {
            result?;
            return machine::forget(&home, tag);
        }
        // A save leaves the guest as it was; a load, as it was when it was saved.
        let before = match running {
            true => "cont",
            false => "stop",
        };
        qmp.execute(before, json!({}))
            .await
            .map_err(|e| failed(name, e))?;
        if running {
            // From here on a guest that stands still could not go on.
            remove(&home.file("paused"))?;
        }
        if what == What::Create && result.is_ok() {
            let list = Snapshots::list(self, name).await?;
            if let Some(made) = list.iter().find(|s| s.name == tag) {
                machine::remember(&home, &vm, made)?;
            }
        }
        result
    }

    /// Ends a guest whose disks went back without its memory, before it writes to them.
    async fn halfway(&self, name: &Name, tag: &str, why: &Error) -> Error {
        let why = match why {
            Error::Failed { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        let ended = self.blocking(name, |inner, home| inner.end(home)).await;
        let then = match ended {
            Ok(()) => "so it was switched off: a start boots from these disks".to_owned(),
            Err(e) => format!("and it cannot be ended ({e}): do not resume it, stop it"),
        };
        failed(
            name,
            format!("its disks are as in {tag}, its memory could not be loaded ({why}), {then}"),
        )
    }
}

/// Waits until QEMU has no job of an earlier command: does the guest run, and why did such a load fail?
async fn settled(qmp: &mut Qmp<UnixStream>) -> std::result::Result<(bool, Option<String>), String> {
    let text = |e: crate::qmp::Error| e.to_string();
    let mut broken = None;
    let jobs = qmp.execute("query-jobs", json!({})).await.map_err(text)?;
    for job in jobs.as_array().into_iter().flatten() {
        let Some(id) = job["id"].as_str().filter(|id| id.starts_with("oscarv-")) else {
            continue;
        };
        // Other errors were for whoever had asked.
        if let (Err(why), true) = (
            concluded(qmp, id).await,
            id.ends_with(What::Apply.command()),
        ) {
            broken = Some(why);
        }
    }
    let status = qmp.execute("query-status", json!({})).await.map_err(text)?;
    Ok((status["running"] == true, broken))
}

/// Waits for a job's end, by its events, and takes its result.
async fn concluded(qmp: &mut Qmp<UnixStream>, job: &str) -> std::result::Result<(), String> {
    let text = |e: crate::qmp::Error| e.to_string();
    loop {
        // First asked, then waited: the end may have come before anybody listened.
        let jobs = qmp.execute("query-jobs", json!({})).await.map_err(text)?;
        let ours = |found: &&Value| found["id"] == job;
        let Some(found) = jobs.as_array().and_then(|jobs| jobs.iter().find(ours)) else {
            return Err("QEMU lost it".to_owned());
        };
        if found["status"] == "concluded" {
            let error = found["error"].as_str().map(str::to_owned);
            let dismiss = json!({"id": job});
            qmp.execute("job-dismiss", dismiss).await.map_err(text)?;
            return error.map_or(Ok(()), Err);
        }
        while qmp.event().await.map_err(text)?.name != "JOB_STATUS_CHANGE" {}
    }
}

/// Of a VM without a process: all disks, or as before.
fn offline(home: &Home, tag: &str, what: What) -> Result<()> {
    let name = &home.name;
    // No start comes between.
    let _lock = home.locked()?;
    let Some(vm) = home.vm()? else {
        return Err(Error::NoSuchVm(name.clone()));
    };
    let state = home.status()?.state;
    if !matches!(state, State::Defined | State::Stopped) {
        return Err(Error::WrongState {
            name: name.clone(),
            action: what.word(),
            state,
        });
    }
    let disks = disks(&vm).map_err(|reason| failed(name, reason))?;
    if what != What::Create && !common(name, &disks)?.iter().any(|s| s.name == tag) {
        return Err(failed(name, format!("it has no snapshot {tag}")));
    }
    for (done, (_, path)) in disks.iter().enumerate() {
        let result = match what {
            What::Create => disk::snapshot_create(path, tag),
            What::Apply => disk::snapshot_apply(path, tag),
            What::Delete => disk::snapshot_delete(path, tag),
        };
        if let Err(e) = result {
            if what == What::Create {
                for (_, path) in &disks[..done] {
                    // What cannot be undone is a snapshot of one disk, which no list shows.
                    let _ = disk::snapshot_delete(path, tag);
                }
            }
            return Err(failed(name, with_source(&e)));
        }
    }
    match what {
        What::Delete => machine::forget(home, tag),
        _ => Ok(()),
    }
}

#[async_trait]
impl Snapshots for QemuDriver {
    async fn create(&self, vm: &Name, snapshot: &Name) -> Result<()> {
        self.snapshot(vm, snapshot, What::Create).await
    }

    async fn list(&self, vm: &Name) -> Result<Vec<Snapshot>> {
        self.blocking(vm, |_, home| {
            let Some(vm) = home.vm()? else {
                return Err(Error::NoSuchVm(home.name.clone()));
            };
            match disks(&vm) {
                // One that is not made yet has none.
                Ok(disks) if disks.iter().all(|(_, path)| path.exists()) => {
                    common(&home.name, &disks)
                }
                _ => Ok(Vec::new()),
            }
        })
        .await
    }

    async fn apply(&self, vm: &Name, snapshot: &Name) -> Result<()> {
        self.snapshot(vm, snapshot, What::Apply).await
    }

    async fn delete(&self, vm: &Name, snapshot: &Name) -> Result<()> {
        self.snapshot(vm, snapshot, What::Delete).await
    }
}

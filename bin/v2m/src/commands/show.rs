//! `list` and `status`: what is. Both only read.

use crate::context::Context;
use crate::exit::{self, Code};
use crate::record::Record;
use crate::source::{self, Target};
use crate::vms::Vms;
use anyhow::Result;
use api::Name;
use serde::Serialize;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use terminal::table::{Cell, Table, Tone, number};
use terminal::{print, small_runtime};
use v3m::{Error, State, Status};

/// One VM, as programs read it.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    name: &'a Name,
    state: State,
    backend: profile::Backend,
    cpus: u16,
    /// MiB.
    memory: u64,
    pid: Option<u32>,
    reason: Option<&'a str>,
    profile: &'a Path,
}

pub fn shown<'a>(record: &'a Record, status: &'a Status) -> Shown<'a> {
    Shown {
        name: &record.vm.name,
        state: status.state,
        backend: status.backend,
        cpus: record.vm.cpus,
        memory: record.vm.memory.0,
        pid: status.pid,
        reason: status.reason.as_deref(),
        profile: &record.profile,
    }
}

pub fn list(context: &Context) -> Result<Code> {
    let (all, damaged) = small_runtime()?.block_on(context.vms().list())?;
    for error in &damaged {
        let text = exit::render(error, context.colored_messages);
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    if all.is_empty() && !context.json() {
        context.say("there is no VM; make one with: v2m create FILE");
        return Ok(Code::Ok);
    }
    let vms: Vec<_> = all.iter().map(|(r, s)| shown(r, s)).collect();
    context.result(&json!({ "vms": vms }), || {
        let mut table = Table::new(&["VM", "STATE", "TYPE", "CPUS", "MEMORY", "PID"]);
        for (record, status) in &all {
            table.row(vec![
                Cell::from(&record.vm.name),
                state(status.state),
                Cell::from(status.backend),
                number(record.vm.cpus),
                number(record.vm.memory),
                number(pid(status)),
            ]);
        }
        table
    })?;
    Ok(Code::Ok)
}

pub fn status(context: &Context, vm: &str, word: bool) -> Result<Code> {
    let vms = context.vms();
    let name = name(&vms, vm)?;
    let record = match vms.record(&name) {
        Err(error) if word && error.downcast_ref::<Error>().is_some_and(is_absent) => {
            print("not found\n")?;
            return Ok(Code::NotFound);
        }
        record => record?,
    };
    let (status, console) = small_runtime()?.block_on(async {
        let status = vms.status(&record).await?;
        let console = vms.driver(&record)?.console(&name).await.ok();
        anyhow::Ok((status, console))
    })?;
    if word {
        print(format!("{}\n", originals_word(status.state)))?;
        return Ok(Code::Ok);
    }
    let log: Option<PathBuf> = console.map(|console| console.log);
    if context.json() {
        let mut document = serde_json::to_value(shown(&record, &status))?;
        if let Some(fields) = document.as_object_mut() {
            fields.insert("definition".to_owned(), serde_json::to_value(&record.vm)?);
            fields.insert("console_log".to_owned(), serde_json::to_value(&log)?);
        }
        context.document(&document)?;
        return Ok(Code::Ok);
    }
    print(page(&record, &status, log.as_deref()).render(context.colored))?;
    Ok(Code::Ok)
}

fn page(record: &Record, status: &Status, log: Option<&Path>) -> Table {
    let vm = &record.vm;
    let mut table = Table::new(&["FIELD", "VALUE"]);
    let mut row = |key: &str, value: Cell| table.row(vec![Cell::from(key), value]);
    row("name", Cell::from(&vm.name));
    row("state", state(status.state));
    if let Some(reason) = &status.reason {
        row("because", Cell::from(reason));
    }
    row("type", Cell::from(status.backend));
    row("cpus", Cell::from(vm.cpus));
    row("memory", Cell::from(vm.memory));
    for disk in &vm.disks {
        let medium = match disk.medium {
            profile::Medium::Disk => "disk",
            profile::Medium::Cdrom => "cdrom",
        };
        row(medium, Cell::from(disk.path.display()));
    }
    for nic in &vm.nics {
        row("nic", Cell::from(nic.mac));
    }
    if let Some(pid) = status.pid {
        row("process", Cell::from(pid));
    }
    row("profile", Cell::from(record.profile.display()));
    if let Some(log) = log {
        row("console log", Cell::from(log.display()));
    }
    table
}

/// The name that a person means: of a VM, or of the one in a profile.
pub fn name(vms: &Vms, text: &str) -> Result<Name> {
    Ok(match source::target(text, |name| vms.is_there(name))? {
        Target::Vm(name) => name,
        Target::Profile(path) => source::read(&path)?.name,
    })
}

fn is_absent(error: &Error) -> bool {
    matches!(error, Error::NoSuchVm(_))
}

fn pid(status: &Status) -> String {
    status.pid.map(|pid| pid.to_string()).unwrap_or_default()
}

pub fn state(state: State) -> Cell {
    let tone = match state {
        State::Running => Tone::Good,
        State::Crashed | State::Unknown => Tone::Bad,
        State::Paused | State::Starting | State::Stopping | State::Migrating => Tone::Warning,
        State::Absent | State::Defined | State::Stopped => Tone::Faint,
    };
    Cell::from(state).tone(tone)
}

/// What libv3m's users know.
fn originals_word(state: State) -> &'static str {
    match state {
        State::Running | State::Starting | State::Stopping | State::Migrating => "running",
        State::Paused => "paused",
        State::Defined | State::Stopped => "shutdown",
        State::Crashed => "crashed",
        State::Unknown => "unknown",
        State::Absent => "not found",
    }
}

//! `list` and `status`: what is. Both only read.

use super::many;
use crate::context::Context;
use crate::exit::{self, Code, Failure};
use crate::record::Record;
use crate::vms::Vms;
use anyhow::Result;
use api::Name;
use serde::Serialize;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::Path;
use terminal::table::{Cell, Table, Tone, number};
use terminal::{print, small_runtime};
use v3m::{Console, Error, State, Status};

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
    let all = small_runtime()?.block_on(context.vms().list())?;
    for (record, _) in &all {
        if let Err(error) = record.usable() {
            exit::tell(&error.into(), context.colored_messages);
        }
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

/// Of one VM, or of each in a file that has several.
pub fn status(context: &Context, vm: &OsStr, word: bool) -> Result<Code> {
    let vms = context.vms();
    let names = many::names(&vms, vm)?;
    let runtime = small_runtime()?;
    let (mut documents, mut failures) = (Vec::new(), Vec::new());
    let mut code = Code::Ok;
    for name in &names {
        let record = match vms.record(name) {
            Ok(record) => record,
            Err(error) if word && error.downcast_ref::<Error>().is_some_and(is_absent) => {
                print("not found\n")?;
                code = Code::NotFound;
                continue;
            }
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        let (status, console) = runtime.block_on(async {
            let status = vms.status(&record).await?;
            let console = vms.driver(&record)?.console(name).await.ok();
            anyhow::Ok((status, console))
        })?;
        if word {
            print(format!("{}\n", originals_word(status.state)))?;
        } else if context.json() {
            documents.push(document(&record, &status, console.as_ref())?);
        } else {
            let page = page(&record, &status, console.as_ref());
            print(page.render(context.colored))?;
        }
    }
    match documents.as_slice() {
        [one] if names.len() == 1 => context.document(one)?,
        [] if !context.json() || names.len() == 1 => {}
        all => context.document(&json!({ "vms": all }))?,
    }
    match failures.is_empty() {
        true => Ok(code),
        false => many::ended(context, failures),
    }
}

fn document(record: &Record, status: &Status, console: Option<&Console>) -> Result<Value> {
    let mut document = serde_json::to_value(shown(record, status))?;
    if let Some(fields) = document.as_object_mut() {
        let mut put = |key: &str, value| fields.insert(key.to_owned(), value);
        put("definition", serde_json::to_value(&record.vm)?);
        put("console_log", json!(console.map(|console| &console.log)));
        put(
            "vnc",
            json!(console.and_then(|console| console.vnc.as_ref())),
        );
    }
    Ok(document)
}

fn page(record: &Record, status: &Status, console: Option<&Console>) -> Table {
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
    if let Some(console) = console {
        row("console log", Cell::from(console.log.display()));
        if let Some(vnc) = &console.vnc {
            row("vnc", Cell::from(vnc.display()));
        }
    }
    table
}

/// The one name that a person means: of a VM, or of the one in a profile.
pub fn name(vms: &Vms, text: impl AsRef<OsStr>) -> Result<Name> {
    let text = text.as_ref();
    let mut names = many::names(vms, text)?;
    match (names.pop(), names.as_slice()) {
        (Some(name), []) => Ok(name),
        (last, _) => {
            let mut all: Vec<String> = names.iter().map(ToString::to_string).collect();
            all.extend(last.map(|name| name.to_string()));
            let message = format!("{} has several VMs: which one?", text.display());
            let hint = format!("say its name: {}", all.join(", "));
            Err(Failure::new(Code::Usage, message).hint(hint).into())
        }
    }
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

//! `start`, `stop`, `reboot`, `pause`, `resume`: what is done to VMs that are there, to many at once.

use super::show::{self, shown};
use crate::args::{Many, Start};
use crate::context::Context;
use crate::exit::{self, Code, Failure};
use crate::record::Record;
use crate::source::{self, Target};
use crate::vms::Vms;
use anyhow::Result;
use api::Unit;
use serde_json::json;
use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use terminal::{runtime, small_runtime};
use tokio::sync::Semaphore;
use v3m::{Action, State};

/// VMs that are worked on at the same time.
const AT_ONCE: usize = 32;
/// Between two looks at what a VM has printed.
const LOOK: Duration = Duration::from_millis(50);

pub fn start(context: &Context, args: &Start) -> Result<Code> {
    let vms = context.vms();
    let runtime = small_runtime()?;
    let mut records = Vec::new();
    for text in &args.vms.vms {
        match source::target(text, |name| vms.is_there(name))? {
            Target::Vm(name) => records.push(vms.record(&name)?),
            Target::Profile(path) => {
                let checked = source::read_all(&path)?;
                context.notes(&checked.notes);
                for vm in checked.value {
                    let name = vm.name.clone();
                    runtime.block_on(vms.create(vm, &path, false, false))?;
                    records.push(vms.record(&name)?);
                }
            }
        }
    }
    let (wait, limit) = (args.wait_ready.clone(), args.time_limit);
    each(context, "start", records, move |vms, record| {
        let wait = wait.clone();
        async move {
            vms.start(&record).await?;
            match wait {
                Some(text) => ready(&vms, &record, text.as_bytes(), limit).await,
                None => Ok(()),
            }
        }
    })
}

pub fn stop(context: &Context, vms: &Many, grace: Duration) -> Result<Code> {
    let records = named(context, vms)?;
    each(context, "stop", records, move |vms, record| async move {
        let driver = vms.driver(&record)?;
        // One that no driver knows yet never ran.
        if driver.status(&record.vm.name).await?.state != State::Absent {
            driver.stop(&record.vm.name, grace).await?;
        }
        Ok(())
    })
}

pub fn reboot(context: &Context, vms: &Many, grace: Duration) -> Result<Code> {
    let records = named(context, vms)?;
    each(context, "reboot", records, move |vms, record| async move {
        let driver = vms.started(&record, Action::Reboot).await?;
        let name = &record.vm.name;
        vms.reboot(name, driver.as_ref(), grace).await
    })
}

pub fn pause(context: &Context, vms: &Many) -> Result<Code> {
    each(
        context,
        "pause",
        named(context, vms)?,
        |vms, record| async move {
            let driver = vms.started(&record, Action::Pause).await?;
            Ok(driver.pause(&record.vm.name).await?)
        },
    )
}

pub fn resume(context: &Context, vms: &Many) -> Result<Code> {
    each(
        context,
        "resume",
        named(context, vms)?,
        |vms, record| async move {
            let driver = vms.started(&record, Action::Resume).await?;
            Ok(driver.resume(&record.vm.name).await?)
        },
    )
}

fn named(context: &Context, many: &Many) -> Result<Vec<Record>> {
    let vms = context.vms();
    let names = many.vms.iter().map(|text| show::name(&vms, text));
    names.map(|name| vms.record(&name?)).collect()
}

/// Does it to each, many at a time; says how each is then. The code is the first failure's.
fn each<F, W>(context: &Context, stage: &str, mut records: Vec<Record>, work: F) -> Result<Code>
where
    F: Fn(Vms, Record) -> W,
    W: Future<Output = Result<()>> + Send + 'static,
{
    records.sort_by(|a, b| a.vm.name.cmp(&b.vm.name));
    records.dedup_by(|a, b| a.vm.name == b.vm.name);
    let vms = context.vms();
    let runtime = match records.len() {
        1 => small_runtime()?,
        _ => runtime()?,
    };
    let told = context.progress();
    let total = records.len() as u64;
    let many = total > 1;
    if many {
        told.progress.started(stage, Some(total), Unit::Items);
    }
    let (failures, states) = runtime.block_on(async {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let tasks: Vec<_> = records
            .iter()
            .map(|record| {
                let (places, work) = (places.clone(), work(vms.clone(), record.clone()));
                tokio::spawn(async move {
                    let _place = places.acquire_owned().await?;
                    work.await
                })
            })
            .collect();
        let mut failures = Vec::new();
        for (done, task) in (1..).zip(tasks) {
            if let Err(error) = task.await? {
                failures.push(error);
            }
            if many {
                told.progress.advanced(stage, done, Some(total), "");
            }
        }
        if many {
            told.progress.done(stage, "");
        }
        let mut states = Vec::new();
        for record in &records {
            states.push(vms.status(record).await?);
        }
        anyhow::Ok((failures, states))
    })?;
    told.end();
    if context.json() {
        let shown: Vec<_> = records
            .iter()
            .zip(&states)
            .map(|(r, s)| shown(r, s))
            .collect();
        context.document(&json!({ "vms": shown }))?;
    } else if failures.is_empty() {
        for (record, status) in records.iter().zip(&states) {
            context.say(format!("{} is {}", record.vm.name, status.state));
        }
    }
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else {
        return Ok(Code::Ok);
    };
    for error in failures {
        let text = exit::render(&error, context.colored_messages);
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    Err(first)
}

/// Waits until a VM has printed this text since its start.
async fn ready(vms: &Vms, record: &Record, text: &[u8], limit: Duration) -> Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let name = &record.vm.name;
    let driver = vms.driver(record)?;
    let log = driver.console(name).await?.log;
    let end = Instant::now() + limit;
    let wanted = String::from_utf8_lossy(text).into_owned();
    let mut at = vms.boot(name);
    // The end of what was read: the text may come in two pieces.
    let mut seen: Vec<u8> = Vec::new();
    loop {
        // Before the log, so that the last words of one that ends are read.
        let status = driver.status(name).await?;
        if let Ok(mut file) = std::fs::File::open(&log) {
            file.seek(SeekFrom::Start(at))?;
            at += file.take(1 << 20).read_to_end(&mut seen)? as u64;
        }
        if text.is_empty() || seen.windows(text.len()).any(|w| w == text) {
            return Ok(());
        }
        let keep = seen.len().saturating_sub(text.len().saturating_sub(1));
        seen.drain(..keep);
        if !status.state.is_live() {
            let why = status.reason.map(|r| format!(": {r}")).unwrap_or_default();
            let message = format!(
                "{name} is {} before it printed {wanted:?}{why}",
                status.state
            );
            let hint = format!("what it printed is in {}", log.display());
            return Err(Failure::new(Code::Failed, message).hint(hint).into());
        }
        if Instant::now() >= end {
            let limit = terminal::time::show(limit);
            let message = format!("{name} runs, and has not printed {wanted:?} in {limit}");
            let hint = format!("what it printed is in {}", log.display());
            return Err(Failure::new(Code::TimeLimit, message).hint(hint).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

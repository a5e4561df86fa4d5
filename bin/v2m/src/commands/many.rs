//! Several VMs in one command. What is wrong with one of the names or profiles is found before anything is done; what
//! cannot be done with one VM is kept until the others are done.

use super::show::shown;
use crate::context::Context;
use crate::exit::{self, Code};
use crate::record::Record;
use crate::source::{self, Target};
use crate::vms::Vms;
use anyhow::{Error, Result};
use api::{Name, Unit};
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use terminal::{runtime, small_runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// VMs that are started, paused and so on at the same time.
pub const AT_ONCE: usize = 32;
/// VMs that are waited for at the same time: each costs a descriptor and a thread that sleeps.
pub const WAITED_FOR: usize = 400;

/// VMs to do something with, and why others could not come that far.
#[derive(Default)]
pub struct Found {
    pub records: Vec<Record>,
    pub failures: Vec<Error>,
}

impl Found {
    /// VMs that are there, by their names or by profiles: all of them, or an error.
    pub fn named(context: &Context, texts: &[OsString]) -> Result<Self> {
        let vms = &context.vms();
        let mut found = Self::default();
        for text in texts {
            match names(vms, text) {
                Ok(names) => names.iter().for_each(|name| found.add(vms.record(name))),
                Err(error) => found.failures.push(error),
            }
        }
        ended(context, std::mem::take(&mut found.failures))?;
        Ok(found)
    }

    pub fn add(&mut self, record: Result<Record>) {
        match record {
            Ok(record) if self.records.iter().any(|r| r.vm.name == record.vm.name) => {}
            Ok(record) => self.records.push(record),
            Err(error) => self.failures.push(error),
        }
    }
}

/// The names that a person means: of a VM, or of all in a profile.
pub fn names(vms: &Vms, text: &OsStr) -> Result<Vec<Name>> {
    Ok(match source::target(text, |name| vms.is_there(name))? {
        Target::Vm(name) => vec![name],
        Target::Profile(path) => {
            let all = source::read_all(&path)?.vms;
            all.into_iter().map(|vm| vm.name).collect()
        }
    })
}

/// How the command ends: as the first failure says, which is told last.
pub fn ended(context: &Context, failures: Vec<Error>) -> Result<Code> {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else {
        return Ok(Code::Ok);
    };
    for error in failures {
        exit::tell(&error, context.colored_messages);
    }
    Err(first)
}

/// Does it to each, so many at a time, and says how each is then. What is done may give its place to another before it
/// has ended, and may have a word to add.
pub fn each<F, W>(
    context: &Context,
    stage: &str,
    found: Found,
    at_once: usize,
    work: F,
) -> Result<Code>
where
    F: Fn(Vms, Record, Place) -> W,
    W: Future<Output = Result<Option<String>>> + Send + 'static,
{
    let Found {
        mut records,
        mut failures,
    } = found;
    records.sort_by(|a, b| a.vm.name.cmp(&b.vm.name));
    let vms = context.vms();
    let runtime = match records.len() {
        0 | 1 => small_runtime()?,
        _ => runtime()?,
    };
    let told = context.progress();
    let total = records.len() as u64;
    let many = total > 1;
    if many {
        told.progress.started(stage, Some(total), Unit::Items);
    }
    let (answers, states) = runtime.block_on(async {
        let places = Arc::new(Semaphore::new(at_once));
        let tasks: Vec<_> = records
            .iter()
            .map(|record| {
                let place = Place(places.clone());
                tokio::spawn(work(vms.clone(), record.clone(), place))
            })
            .collect();
        let mut answers = Vec::new();
        for (done, task) in (1..).zip(tasks) {
            answers.push(task.await?);
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
        anyhow::Ok((answers, states))
    })?;
    told.end();
    if context.json() {
        let all = records.iter().zip(&states);
        let all: Vec<_> = all.map(|(record, status)| shown(record, status)).collect();
        context.document(&json!({ "vms": all }))?;
    }
    for ((record, status), answer) in records.iter().zip(&states).zip(answers) {
        match answer {
            Ok(_) if context.json() => {}
            Ok(None) => context.say(format!("{} is {}", record.vm.name, status.state)),
            Ok(Some(word)) => {
                context.say(format!("{} is {}: {word}", record.vm.name, status.state));
            }
            Err(error) => failures.push(error),
        }
    }
    ended(context, failures)
}

/// The way to a place among those that are worked on.
pub struct Place(Arc<Semaphore>);

impl Place {
    /// Waits for one; it is free again when what is returned is dropped.
    pub async fn take(self) -> Result<OwnedSemaphorePermit> {
        Ok(self.0.acquire_owned().await?)
    }
}

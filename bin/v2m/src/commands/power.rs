//! `start`, `stop`, `reboot`, `pause`, `resume`: what is done to VMs that are there, to many at once.

use super::many::{AT_ONCE, Found, WAITED_FOR, each, ended};
use crate::args::{Many, Start};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::record::Record;
use crate::source::{self, Target};
use crate::vms::Vms;
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use terminal::{Screen, small_runtime};
use v3m::{Action, State, Stopped};

/// Between two looks at what a VM has printed.
const LOOK: Duration = Duration::from_millis(50);
/// A guest that takes longer to shut down is worth a word.
const SOON: Duration = Duration::from_secs(1);

pub fn start(context: &Context, args: &Start) -> Result<Code> {
    let vms = context.vms();
    let runtime = small_runtime()?;
    let mut found = Found::default();
    // All are read before the first is made.
    let mut profiles = Vec::new();
    for text in &args.vms.vms {
        match source::target(text, |name| vms.is_there(name)) {
            Ok(Target::Vm(name)) => found.add(vms.record(&name)),
            Ok(Target::Profile(path)) => match source::read_all(&path) {
                Ok(read) => profiles.push(read),
                Err(error) => found.failures.push(error),
            },
            Err(error) => found.failures.push(error),
        }
    }
    ended(context, std::mem::take(&mut found.failures))?;
    for read in profiles {
        context.filled_in(&read);
        for vm in read.vms {
            let name = vm.name.clone();
            let created = runtime.block_on(vms.create(vm, &read.file, false, false));
            found.add(created.and_then(|_| vms.record(&name)));
        }
    }
    start_all(context, found, args.wait_ready.clone(), args.time_limit)
}

/// Starts VMs that are there; waits until each has printed that text, if one is told.
pub fn start_all(
    context: &Context,
    found: Found,
    wait: Option<String>,
    limit: Duration,
) -> Result<Code> {
    each(
        context,
        "start",
        found,
        AT_ONCE,
        move |vms, record, place| {
            let wait = wait.clone();
            async move {
                let place = place.take().await?;
                vms.start(&record).await?;
                match wait {
                    Some(text) => {
                        // While this one boots the next can be started.
                        drop(place);
                        ready(&vms, &record, text.as_bytes(), limit).await?;
                    }
                    None => runs(&vms, &record).await?,
                }
                Ok(None)
            }
        },
    )
}

/// A start that ended at once was none.
async fn runs(vms: &Vms, record: &Record) -> Result<()> {
    let status = vms.status(record).await?;
    if status.state == State::Running {
        return Ok(());
    }
    let name = &record.vm.name;
    let why = match (status.reason, status.state) {
        (Some(reason), _) => format!(": {reason}"),
        (None, State::Stopped) => ": its guest has shut down".to_owned(),
        (None, _) => String::new(),
    };
    let message = format!("{name} was started and is {} already{why}", status.state);
    let log = vms.driver(record)?.console(name).await?.log;
    let hint = format!("what it printed is in {}", log.display());
    Err(Failure::new(Code::Failed, message).hint(hint).into())
}

pub fn stop(context: &Context, many: &Many, grace: Duration) -> Result<Code> {
    let found = Found::named(context, &many.vms)?;
    let waiting = Waiting::new(context, &found, grace, "switched off");
    let at_once = places(grace);
    each(
        context,
        "stop",
        found,
        at_once,
        move |vms, record, place| {
            let waiting = waiting.clone();
            async move {
                let _place = place.take().await?;
                let (driver, name) = (vms.driver(&record)?, &record.vm.name);
                // One that no driver knows yet never ran.
                if driver.status(name).await?.state == State::Absent {
                    return Ok(None);
                }
                let forced = waiting.during(driver.stop(name, grace)).await? == Stopped::Forced;
                let after = terminal::time::show(grace);
                Ok((forced && !grace.is_zero()).then(|| format!("switched off after {after}")))
            }
        },
    )
}

pub fn reboot(context: &Context, many: &Many, grace: Duration) -> Result<Code> {
    let found = Found::named(context, &many.vms)?;
    let waiting = Waiting::new(context, &found, grace, "reset");
    let at_once = places(grace);
    each(
        context,
        "reboot",
        found,
        at_once,
        move |vms, record, place| {
            let waiting = waiting.clone();
            async move {
                let _place = place.take().await?;
                let driver = vms.started(&record, Action::Reboot).await?;
                let rebooted = vms.reboot(&record.vm.name, driver.as_ref(), grace);
                waiting.during(rebooted).await?;
                Ok(None)
            }
        },
    )
}

/// Guests that are given time are waited for: that is no work.
fn places(grace: Duration) -> usize {
    match grace.is_zero() {
        true => AT_ONCE,
        false => WAITED_FOR,
    }
}

pub fn pause(context: &Context, many: &Many) -> Result<Code> {
    let found = Found::named(context, &many.vms)?;
    each(
        context,
        "pause",
        found,
        AT_ONCE,
        |vms, record, place| async move {
            let _place = place.take().await?;
            let driver = vms.started(&record, Action::Pause).await?;
            driver.pause(&record.vm.name).await?;
            Ok(None)
        },
    )
}

pub fn resume(context: &Context, many: &Many) -> Result<Code> {
    let found = Found::named(context, &many.vms)?;
    each(
        context,
        "resume",
        found,
        AT_ONCE,
        |vms, record, place| async move {
            let _place = place.take().await?;
            let driver = vms.started(&record, Action::Resume).await?;
            driver.resume(&record.vm.name).await?;
            Ok(None)
        },
    )
}

/// Says once that guests take their time, and what comes then.
#[derive(Clone)]
struct Waiting {
    screen: Screen,
    message: String,
    said: Arc<AtomicBool>,
}

impl Waiting {
    fn new(context: &Context, found: &Found, grace: Duration, then: &str) -> Self {
        let after = terminal::time::show(grace);
        let message = match found.records.as_slice() {
            [one] => format!(
                "waiting for {} to shut down; it is {then} after {after}",
                one.vm.name
            ),
            _ => format!("waiting for guests to shut down; they are {then} after {after}"),
        };
        Self {
            screen: Screen::clone(context),
            message,
            said: Arc::new(AtomicBool::new(grace <= SOON)),
        }
    }

    async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(SOON) => {}
        }
        if !self.said.swap(true, Ordering::Relaxed) {
            self.screen.say(&self.message);
        }
        work.await
    }
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

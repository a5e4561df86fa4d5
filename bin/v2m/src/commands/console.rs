//! `console`: our terminal and a VM's serial console, joined.

use super::show;
use crate::args;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::record::Record;
use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::time::{Duration, Instant};
use terminal::{console, small_runtime};
use v3m::{Console, Held};

/// How long whoever has the console may take to let go of it.
const LET_GO: Duration = Duration::from_secs(5);

pub fn run(context: &Context, args: &args::Console) -> Result<Code> {
    let vms = context.vms();
    let record = vms.record(&show::name(&vms, &args.vm.vm)?)?;
    attach(context, &record, args.take)
}

/// Shows the past of a VM's console and joins it with our terminal; `take`: even if somebody else has it.
pub fn attach(context: &Context, record: &Record, take: bool) -> Result<Code> {
    let name = &record.vm.name;
    let driver = context.vms().driver(record)?;
    let (status, found) = small_runtime()?
        .block_on(async { anyhow::Ok((driver.status(name).await?, driver.console(name).await)) })?;
    let can = driver.capabilities();
    if can
        .iter()
        .all(|c| c.backend != status.backend || !c.console)
    {
        let message = format!("VMs of type {} have no console", status.backend);
        return Err(Failure::new(Code::Failed, message).into());
    }
    let found = match found {
        Err(v3m::Error::NoSuchVm(_)) => {
            let message = format!("{name} was never started: it has no console yet");
            let hint = format!("v2m start {name}");
            return Err(Failure::new(Code::Failed, message).hint(hint).into());
        }
        found => found?,
    };
    let unreachable = |e: std::io::Error| {
        let message = format!("the console of {name} cannot be reached: {e}");
        let hint = format!(
            "does it run? `v2m status {name}`; what it printed is in {}",
            found.log.display()
        );
        Failure::new(Code::Failed, message).hint(hint)
    };
    let _ours = held(&found, name.as_str(), take, unreachable)?;
    console::past(&found.log)?;
    let mut far = found.connect().map_err(unreachable)?;
    console::attach(context, name.as_str(), &mut far)?;
    Ok(Code::Ok)
}

/// Makes the console ours, or says who has it.
fn held(
    console: &Console,
    name: &str,
    take: bool,
    unreachable: impl Fn(std::io::Error) -> Failure,
) -> Result<File> {
    let end = Instant::now() + LET_GO;
    let mut asked = None;
    loop {
        let who = match console.hold().map_err(&unreachable)? {
            Held::Ours(file) => return Ok(file),
            Held::Others(who) => who,
        };
        let pid = who.and_then(|pid| i32::try_from(pid).ok());
        match pid.and_then(Pid::from_raw) {
            Some(pid) if take && Instant::now() < end => {
                // Each is asked once: it has a terminal to put right.
                if asked != Some(pid) {
                    let _ = kill_process(pid, Signal::TERM);
                    asked = Some(pid);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            _ => {
                let by = who.map_or("another process".to_owned(), |pid| format!("process {pid}"));
                let message = format!("the console of {name} is in use by {by}");
                let hint = format!("take it over with: v2m console --take {name}");
                return Err(Failure::new(Code::Failed, message).hint(hint).into());
            }
        }
    }
}

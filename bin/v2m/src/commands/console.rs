//! `console`: our terminal and a VM's serial console, joined.

use super::show;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::record::Record;
use anyhow::Result;
use terminal::{console, small_runtime};

pub fn run(context: &Context, vm: &str) -> Result<Code> {
    let vms = context.vms();
    let record = vms.record(&show::name(&vms, vm)?)?;
    attach(context, &record)
}

/// Shows the past of a VM's console and joins it with our terminal.
pub fn attach(context: &Context, record: &Record) -> Result<Code> {
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
    console::past(&found.log)?;
    let mut far = found.connect().map_err(|e| {
        let message = format!("the console of {name} cannot be reached: {e}");
        let hint = format!(
            "does it run? `v2m status {name}`; what it printed is in {}",
            found.log.display()
        );
        Failure::new(Code::Failed, message).hint(hint)
    })?;
    console::attach(context, name.as_str(), &mut far)?;
    Ok(Code::Ok)
}

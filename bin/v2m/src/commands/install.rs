//! `create-image-from-cdrom`: a VM with an ISO and an empty disk. The disk is first in the boot order: while it is empty
//! the firmware goes on to the CD, and after the installer's reboot the installed system comes up.

use super::console;
use crate::args::Install;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::record::for_install;
use crate::source;
use crate::vms::is_made;
use anyhow::Result;
use profile::{Boot, Medium};
use terminal::small_runtime;

pub fn run(context: &Context, args: &Install) -> Result<Code> {
    let file = &args.file.file;
    let read = source::read_all(file)?;
    let usage = |message: String, hint: &str| Failure::new(Code::Usage, message).hint(hint);
    let [vm] = read.vms.as_slice() else {
        let message = format!("{} has several VMs", read.file.display());
        return Err(usage(
            message,
            "one is installed at a time: give it a file of its own",
        )
        .into());
    };
    context.filled_in(&read);
    let name = vm.name.clone();
    if matches!(vm.boot, Boot::Kernel { .. }) {
        let message = format!("VM {name} boots a kernel of the host's: its CD would not be used");
        return Err(usage(message, "leave the kernel out of the profile").into());
    }
    if !vm.disks.iter().any(|disk| disk.medium == Medium::Cdrom) {
        let message = format!("VM {name} has no CD to be installed from");
        return Err(usage(
            message,
            "write it into the profile, as a disk with cdrom = true",
        )
        .into());
    }
    let Some(disk) = vm.disks.iter().find(|disk| disk.medium == Medium::Disk) else {
        let message = format!("VM {name} has no disk to be installed onto");
        return Err(usage(message, "write one into the profile, with its size").into());
    };
    let vms = context.vms();
    let ours = vms.find(&name)?.is_some_and(|r| is_made(&r, &disk.path));
    if disk.path.exists() && !ours {
        let message = format!(
            "{} is there already, and v2m did not make it: it may hold something",
            disk.path.display()
        );
        let hint = "move it away; an empty disk of the profile's size is made in its place";
        return Err(Failure::new(Code::Failed, message).hint(hint).into());
    }
    if disk.size.is_none() {
        let message = format!("how large is {} to be?", disk.path.display());
        return Err(usage(message, "give the disk a size in the profile").into());
    }
    let is_new = !disk.path.exists();
    let runtime = small_runtime()?;
    let before = runtime.block_on(async {
        vms.create(for_install(vm), &read.file, true, false).await?;
        let record = vms.record(&name)?;
        let before = vms.status(&record).await?.state;
        vms.start(&record).await?;
        anyhow::Ok(before)
    })?;
    let record = vms.record(&name)?;
    context.say(match (before.is_live(), is_new) {
        (true, _) => format!("{name} runs already"),
        (false, true) => format!("{name} boots from its CD"),
        // The firmware looks at the disk first.
        (false, false) => format!("{name} boots from its disk, or from its CD if that is empty"),
    });
    if args.detach {
        context.say(format!("see it with: v2m console {name}"));
        return Ok(Code::Ok);
    }
    console::attach(context, &record, false)
}

//! One file a command, or a few that belong together. Each takes its arguments and says how it ended.

mod check;
mod console;
mod define;
mod generate;
mod image;
mod install;
mod many;
mod power;
mod profile;
mod show;
mod top;

use crate::args::Command;
use crate::context::Context;
use crate::exit::{Code, Failure, NOT_YET};
use anyhow::Result;

pub fn run(context: &Context, command: Command) -> Result<Code> {
    match command {
        Command::Validate(args) => profile::validate(context, &args.file),
        Command::Convert { file, to, vm } => profile::convert(&file.file, to, vm.as_ref()),
        Command::Check => check::check(context),
        Command::Capabilities => check::capabilities(context),
        Command::Create(args) => define::create(context, &args),
        Command::Start(args) => power::start(context, &args),
        Command::Stop { vms, grace } => power::stop(context, &vms, grace),
        Command::Reboot { vms, grace } => power::reboot(context, &vms, grace),
        Command::Pause(vms) => power::pause(context, &vms),
        Command::Resume(vms) => power::resume(context, &vms),
        Command::Destroy(args) => define::destroy(context, &args),
        Command::List => show::list(context),
        Command::Status { vm, word } => show::status(context, &vm.vm, word),
        Command::Console(args) => console::run(context, &args),
        Command::Top(args) => top::run(context, &args),
        Command::Image(args) => image::run(context, args),
        Command::CreateImageFromCdrom(args) => install::run(context, &args),
        Command::Completion { shell } => generate::completion(shell),
        Command::Man { dir } => generate::man(context, &dir),
        Command::ExitCodes => generate::exit_codes(),
        Command::Version => generate::version(context),
        Command::Migrate { vm, host } => not_yet(
            format!(
                "{} cannot be moved to {host}: v2m cannot migrate VMs yet",
                vm.display()
            ),
            "stop it, copy its disks and its profile there, and start it there",
        ),
        Command::InstallWithOscar { vm } => not_yet(
            format!(
                "{} cannot be installed with OSCAR: v2m cannot do that yet",
                vm.display()
            ),
            "a cluster's nodes are installed by: oscarv up FILE",
        ),
    }
}

/// What the original promised and we do not do: it says so, and changes nothing.
fn not_yet(message: String, hint: &str) -> Result<Code> {
    Err(
        Failure::new(NOT_YET, format!("{message}; nothing was done"))
            .hint(hint)
            .into(),
    )
}

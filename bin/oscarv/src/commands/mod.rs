//! One file a command, or a few that belong together. Each takes its arguments and says how it ended.

mod check;
mod console;
mod down;
mod exec;
mod files;
mod generate;
mod image;
mod internal;
mod logs;
mod spread;
mod spread_bundle;
mod ssh;
mod status;
mod test;
mod up;
mod validate;

use crate::args::Command;
use crate::context::Context;
use crate::exit::Code;
use anyhow::Result;

pub fn run(context: &Context, command: Command) -> Result<Code> {
    match command {
        Command::Up(args) => up::run(context, &args),
        Command::Down(args) => down::run(context, &args),
        Command::Status(args) => status::status(context, &args),
        Command::List => status::list(context),
        Command::Ssh(args) => ssh::ssh(context, &args),
        Command::Exec(args) => exec::run(context, &args),
        Command::Run(args) => ssh::run(context, &args),
        Command::Push(args) => files::push(context, &args),
        Command::Get(args) => files::get(context, &args),
        Command::Console(args) => console::run(context, &args),
        Command::Logs(args) => logs::run(context, &args),
        Command::Image(args) => image::run(context, &args),
        Command::Spread(args) => spread::run(context, &args),
        Command::Check => check::run(context),
        Command::Test(args) => test::run(context, &args),
        Command::Validate(args) => validate::run(context, &args),
        Command::SshConfig(args) => ssh::config(context, &args),
        Command::Completion { shell } => generate::completion(shell),
        Command::Man { dir } => generate::man(context, &dir),
        Command::ExitCodes => generate::exit_codes(),
        Command::Version => generate::version(context),
        Command::Dial {
            cluster,
            host,
            port,
        } => internal::dial(context, &cluster, &host, port),
        Command::NetHolder { dir } => internal::net_holder(&dir),
    }
}

//! `v2m`: single VMs, one profile each. Arguments in, calls, messages out.

mod args;
mod commands;
mod context;
mod exit;
mod legacy;
mod owner;
mod places;
mod record;
mod source;
mod vms;

use args::Cli;
use clap::Parser;
use clap::error::ErrorKind;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let parsed = Cli::try_parse_from(legacy::translated(&words).unwrap_or_else(|| words.clone()));
    let cli = parsed.unwrap_or_else(|error| {
        let hint = match error.kind() {
            ErrorKind::InvalidSubcommand => legacy::hint(&words),
            _ => None,
        };
        let Some(hint) = hint else { error.exit() };
        let _ = error.print();
        let _ = writeln!(std::io::stderr(), "\nhint: {hint}");
        std::process::exit(error.exit_code());
    });
    let when = cli.global.form.color;
    let ended = context::Context::new(cli.global).and_then(|c| commands::run(&c, cli.command));
    let code = ended.unwrap_or_else(|error| {
        let colored = terminal::colors(when, std::io::stderr().is_terminal());
        exit::tell(&error, colored);
        exit::code_of(&error)
    });
    code.into()
}

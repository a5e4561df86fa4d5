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
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let cli = match legacy::translated(&words) {
        Some(words) => Cli::parse_from(words),
        None => Cli::parse_from(words),
    };
    let when = cli.global.form.color;
    let ended = context::Context::new(cli.global).and_then(|c| commands::run(&c, cli.command));
    let code = ended.unwrap_or_else(|error| {
        let colored = terminal::colors(when, std::io::stderr().is_terminal());
        let _ = writeln!(std::io::stderr(), "{}", exit::render(&error, colored));
        exit::code_of(&error)
    });
    code.into()
}

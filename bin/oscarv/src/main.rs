//! `oscarv`: arguments in, calls, messages out.

mod args;
mod commands;
mod context;
mod engine;
mod exit;
mod hpcc;
mod target;

use args::{Cli, Command};
use clap::Parser;
use exit::Code;
use std::io::IsTerminal;
use std::process::ExitCode;
use terminal::{progress, table, time};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let when = cli.global.form.color;
    // Their codes are the command's own on the node, so that ours must not look like one of them.
    let on_nodes = matches!(
        cli.command,
        Command::Exec(_) | Command::Run(_) | Command::Ssh(_)
    );
    let ended = context::Context::new(cli.global).and_then(|c| commands::run(&c, cli.command));
    let code = ended.unwrap_or_else(|error| {
        let colored = terminal::colors(when, std::io::stderr().is_terminal());
        exit::tell(&error, colored);
        if on_nodes && !error.is::<terminal::exit::ReaderGone>() {
            Code::Of(125)
        } else {
            exit::code_of(&error)
        }
    });
    code.into()
}

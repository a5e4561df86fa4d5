//! What the command line says of itself.

use crate::args::Cli;
use crate::context::{Context, print};
use crate::exit::{CODES, Code};
use anyhow::{Context as _, Result};
use clap::CommandFactory;
use serde_json::json;
use std::path::Path;

pub fn completion(shell: clap_complete::Shell) -> Result<Code> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(), "oscarv", &mut script);
    print(script)?;
    Ok(Code::Ok)
}

/// The command line without what only programs call: completion does not leave hidden commands out by itself.
fn visible() -> clap::Command {
    let all = Cli::command();
    clap::Command::new("oscarv")
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments().cloned())
        .subcommands(all.get_subcommands().filter(|c| !c.is_hide_set()).cloned())
}

/// One page for each command, and one for all of it.
pub fn man(context: &Context, dir: &Path) -> Result<Code> {
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, dir)
        .with_context(|| format!("man pages cannot be written into {}", dir.display()))?;
    context.say(format!(
        "man pages are in {}; read them with: man {0}/oscarv.1",
        dir.display()
    ));
    Ok(Code::Ok)
}

pub fn exit_codes() -> Result<Code> {
    print(format!("{CODES}\n"))?;
    Ok(Code::Ok)
}

pub fn version(context: &Context) -> Result<Code> {
    let version = env!("CARGO_PKG_VERSION");
    match context.json() {
        true => context.document(&json!({ "version": version }))?,
        false => print(format!("oscarv {version}\n"))?,
    }
    Ok(Code::Ok)
}

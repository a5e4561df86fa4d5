//! What the command line says of itself.

use crate::args::Cli;
use crate::context::Context;
use crate::exit::{CODES, Code};
use anyhow::Result;
use clap::CommandFactory;
use serde_json::json;
use std::path::Path;
use terminal::{generate, print};

pub fn completion(shell: clap_complete::Shell) -> Result<Code> {
    generate::completion(shell, "v2m", &Cli::command())?;
    Ok(Code::Ok)
}

pub fn man(context: &Context, dir: &Path) -> Result<Code> {
    generate::man(Cli::command(), dir)?;
    context.say(format!(
        "man pages are in {}; read them with: man {0}/v2m.1",
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
        false => print(format!("v2m {version}\n"))?,
    }
    Ok(Code::Ok)
}

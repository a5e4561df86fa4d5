//! What the command line says of itself.

use crate::args::Cli;
use crate::context::Context;
use crate::exit::{CODES, Code};
use anyhow::Result;
use clap::CommandFactory;
use std::path::Path;
use terminal::{generate, print};

pub fn completion(shell: clap_complete::Shell) -> Result<Code> {
    generate::completion(shell, "v2m", &Cli::command())?;
    Ok(Code::Ok)
}

pub fn man(context: &Context, dir: &Path) -> Result<Code> {
    generate::man(context, Cli::command(), dir)?;
    Ok(Code::Ok)
}

pub fn exit_codes() -> Result<Code> {
    print(format!("{CODES}\n"))?;
    Ok(Code::Ok)
}

pub fn version(context: &Context) -> Result<Code> {
    generate::version(context, "v2m", env!("CARGO_PKG_VERSION"))?;
    Ok(Code::Ok)
}

//! `spread`: a file on many hosts in the time of one.

mod dry_run;
mod hosts;
mod receive;
mod send;
mod simulate;
mod tell;

use super::spread_bundle;
use crate::args::Spread as Args;
use crate::context::Context;
use crate::exit::Code;
use crate::table::{Cell, Table};
use anyhow::{Context as _, Result};
use serde_json::json;
use spread::sign::Signer;

/// Where receivers listen, if nobody says otherwise.
const PORT: u16 = 7117;

pub fn run(context: &Context, args: &Args) -> Result<Code> {
    match args {
        Args::Send(args) => send::run(context, args),
        Args::Receive(args) => receive::run(context, args),
        Args::Simulate(args) => simulate::run(context, args),
        Args::Bundle(args) => spread_bundle::run(context, args),
        Args::Key => {
            let key = signer(context)?.key().to_string();
            context.result(&json!({ "key": key }), || {
                let mut table = Table::new(&["KEY"]);
                table.row(vec![Cell::from(key.as_str())]);
                table
            })?;
            Ok(Code::Ok)
        }
    }
}

fn signer(context: &Context) -> Result<Signer> {
    Ok(Signer::load_or_make(&context.state.join("spread/key"))?)
}

/// Before anything starts a thread.
fn stand_back(idle: bool) -> Result<()> {
    match idle {
        true => spread::idle::stand_back().context("no idle priority"),
        false => Ok(()),
    }
}

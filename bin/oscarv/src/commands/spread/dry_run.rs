//! `spread send --dry-run`: what it would do.

use super::hosts::{self, Hosts};
use crate::context::{Context, runtime};
use crate::exit::{Code, Failure};
use crate::table::{Cell, Table, number};
use anyhow::Result;
use serde_json::json;
use spread::send::{Asked, Has, Options, Plan, ask};
use spread::version::Outlook;

pub fn run(
    context: &Context,
    name: &str,
    outlook: &Outlook,
    options: &Options,
    plan: &Plan,
    named: &Hosts,
) -> Result<Code> {
    let hosts = runtime()?.block_on(ask(outlook, options, plan));
    let most: u64 = hosts.iter().map(|host| host.bytes).sum();
    let cannot = |host: &&Asked| matches!(host.has, Has::Refuses | Has::Away);
    let failed = hosts.iter().filter(cannot).count() + named.unknown.len();
    let unknown = named.unknown.iter().map(|(name, why)| {
        json!({ "name": name, "has": Has::Away, "parent": null, "bytes": 0, "note": why })
    });
    let all: Vec<_> = hosts
        .iter()
        .map(|host| json!(host))
        .chain(unknown)
        .collect();
    let document = json!({
        "name": name, "bytes": outlook.size, "most": most, "dry_run": true, "hosts": all,
    });
    context.result(&document, || {
        let mut table = Table::new(&["HOST", "HAS", "FROM", "AT MOST", "NOTES"]);
        for host in &hosts {
            let gets = matches!(host.has, Has::Base | Has::Nothing);
            let parent = host.parent.as_deref().unwrap_or("here");
            table.row(vec![
                Cell::from(host.name.as_str()),
                Cell::from(match host.has {
                    Has::It => "it",
                    Has::Base => "the version before",
                    Has::Nothing => "nothing of it",
                    Has::Refuses => "refuses",
                    Has::Away => "not reached",
                }),
                Cell::from(if gets { parent } else { "" }),
                number(match gets {
                    true => crate::progress::bytes(host.bytes),
                    false => String::new(),
                }),
                Cell::from(host.note.as_deref().unwrap_or_default()),
            ]);
        }
        for (name, why) in &named.unknown {
            table.row(vec![
                Cell::from(name.as_str()),
                Cell::from("not reached"),
                Cell::from(""),
                number(String::new()),
                Cell::from(why.as_str()),
            ]);
        }
        table
    })?;
    match failed {
        0 => Ok(Code::Ok),
        _ => {
            let message = format!("{failed} of {} hosts would not have it", named.names.len());
            let closed = hosts.iter().find(|host| host.is_closed());
            let hint = closed.map(|host| hosts::how_to_start(&host.name));
            let hint = hint.unwrap_or_else(|| "mend what the notes say".to_owned());
            Err(Failure::new(Code::Failed, message).hint(hint).into())
        }
    }
}

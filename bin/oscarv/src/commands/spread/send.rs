//! `spread send`: one run, and its report.

use super::tell::Teller;
use super::{hosts, signer, stand_back};
use crate::args::SpreadSend;
use crate::commands::spread_bundle;
use crate::context::{Context, runtime};
use crate::exit::{Code, Failure};
use crate::table::{Cell, Table, number};
use anyhow::{Context as _, Result};
use serde_json::json;
use spread::send::{self, Host, State, What};
use spread::sign::Signer;
use spread::source::{self, From, Source};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// A version of a file, and what is remembered of it.
struct Version {
    file: PathBuf,
    name: String,
    signer: Arc<Signer>,
    memory: PathBuf,
    made: u64,
}

impl Version {
    fn open(&self, from: From) -> Result<Option<Source>, source::Wrong> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let (signer, made) = (self.signer.clone(), Some(self.made));
        source::open_made(
            &self.file,
            &self.name,
            signer,
            &self.memory,
            threads,
            from,
            made,
        )
    }

    fn whole(&self) -> Result<Source, source::Wrong> {
        let source = self.open(From::Nothing)?;
        source.ok_or_else(|| source::Wrong::NotAFile(self.file.clone()))
    }
}

pub fn run(context: &Context, args: &SpreadSend) -> Result<Code> {
    stand_back(args.idle)?;
    let (file, name) = what(context, &args.what)?;
    let name = args.name.clone().unwrap_or(name);
    let topology = args.topology.as_deref().map(hosts::topology).transpose()?;
    let plan = send::Plan {
        from: hosts::hosts(&args.from)?,
        topology,
        listen: None,
    };
    let hosts = hosts::hosts(&args.to)?;
    let signer = Arc::new(signer(context)?);
    let tls = spread_bundle::of_source(context, &args.private)?;
    let memory = context.state.join("spread/sent");
    let made = source::made(&file, &name, &signer, &memory, false)?;
    let version = Version {
        file,
        name: name.clone(),
        signer,
        memory,
        made,
    };
    let begin = Instant::now();
    let options = send::Options {
        hosts,
        chains: args.chains.into(),
        patience: args.patience,
        limit: args
            .limit
            .map(|rate| spread::limit::Limit::new(rate.bytes())),
        tls,
    };
    // What is new, for those that have the version before; all of it, for the others.
    let news = match args.whole {
        true => None,
        false => version.open(From::Version)?,
    };
    let (size, what) = match news {
        Some(news) => {
            let whole = Box::new(move || version.whole());
            (news.transfer.header.size, What::News(news, whole))
        }
        None => {
            let whole = version.whole()?;
            (whole.transfer.header.size, What::Whole(whole))
        }
    };
    let shown = context.progress();
    let mut teller = Teller::new(&shown, &name, size, options.hosts.len());
    let sent = send::send_version(what, options, plan, |hosts| teller.tell(hosts));
    let sent = runtime()?.block_on(sent).context("no port to send from")?;
    teller.end(&sent.hosts);
    shown.end();
    // Those who were said to have it and do not, and why.
    for host in sent.from.iter().filter(|host| host.state != State::Done) {
        let why = host.notes.join("; ");
        context.say(format!("nothing came from {}: {why}", host.name));
    }
    let hosts = sent.hosts;
    let seconds = begin.elapsed().as_secs_f64();
    let done = hosts.iter().filter(|h| h.state == State::Done).count();
    let names = |done: bool| {
        let of = hosts.iter().filter(|h| (h.state == State::Done) == done);
        of.map(|h| h.name.as_str()).collect::<Vec<_>>()
    };
    let document = json!({
        "name": name, "id": sent.id, "bytes": size, "seconds": seconds,
        "ok": names(true), "failed": names(false), "hosts": hosts,
    });
    context.result(&document, || table(&hosts))?;
    match done == hosts.len() {
        true => Ok(Code::Ok),
        false => Err(Failure::new(
            Code::Failed,
            format!(
                "{} of {} hosts do not have it",
                hosts.len() - done,
                hosts.len()
            ),
        )
        .hint("mend what the notes say and send it again: hosts that have it are left alone")
        .into()),
    }
}

/// The file or directory that is meant, and what it is called.
fn what(context: &Context, what: &Path) -> Result<(PathBuf, String)> {
    if what.exists() {
        // "." and ".." have names, too.
        let named = match what.file_name() {
            Some(_) => what.to_owned(),
            None => what.canonicalize()?,
        };
        let name = named.file_name().unwrap_or_default().to_string_lossy();
        return Ok((what.to_owned(), name.into_owned()));
    }
    let text = what.to_string_lossy();
    if text.contains(['/', '.']) {
        let message = format!("there is no file or directory {}", what.display());
        return Err(Failure::new(Code::NotFound, message).into());
    }
    let image = context.head()?.images().show(&text)?;
    let short = image.id.get(..12).unwrap_or(&image.id);
    Ok((image.disk, format!("{short}.raw")))
}

fn table(hosts: &[Host]) -> Table {
    let mut table = Table::new(&["HOST", "STATE", "SECONDS", "RECEIVED", "NOTES"]);
    for host in hosts {
        let state = match host.state {
            State::Done => "done",
            State::Refused => "refused",
            _ => "failed",
        };
        table.row(vec![
            Cell::from(host.name.as_str()),
            Cell::from(state),
            number(host.seconds.map_or(String::new(), |s| format!("{s:.1}"))),
            number(crate::progress::bytes(host.received)),
            Cell::from(host.notes.join("; ")),
        ]);
    }
    table
}

//! `spread send`: one run, and its report.

use super::hosts::{self, Hosts};
use super::tell::Teller;
use super::{dry_run, signer, stand_back};
use crate::args::SpreadSend;
use crate::commands::spread_bundle;
use crate::context::{Context, runtime};
use crate::exit::{Code, Failure};
use crate::table::{Cell, Table, number};
use anyhow::{Context as _, Result};
use serde_json::json;
use spread::manifest::Bad;
use spread::send::{self, Host, State, What};
use spread::source::From;
use spread::version::Version;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub fn run(context: &Context, args: &SpreadSend) -> Result<Code> {
    stand_back(args.idle)?;
    let named = what(context, &args.what)?;
    let name = args.name.clone().unwrap_or(named.name);
    Version::check_name(&name).map_err(|e| {
        Failure::new(Code::Usage, e.to_string()).hint("--name says what it is to be called there")
    })?;
    let topology = args.topology.as_deref().map(hosts::topology).transpose()?;
    let from = Hosts::read(&args.from)?;
    let to = Hosts::read(&args.to)?;
    let signer = Arc::new(signer(context)?);
    let tls = spread_bundle::of_source(context, &args.private)?;
    let memory = context.state.join("spread/sent");
    let mut version = Version::new(&named.file, &name, signer, &memory).anew(args.anew);
    if let Some(kin) = named.kin {
        version = version.of_kin(&kin);
    }
    let plan = send::Plan {
        from: from.known,
        topology,
        listen: args.listen,
    };
    let options = send::Options {
        hosts: to.known.clone(),
        chains: args.chains.into(),
        patience: args.patience,
        limit: args
            .limit
            .map(|rate| spread::limit::Limit::new(rate.bytes())),
        tls,
    };
    for (name, why) in from.unknown {
        context.say(format!("nothing comes from {name}: {why}"));
    }
    if args.dry_run {
        let outlook = match args.whole {
            true => version.outlook()?.without_base(),
            false => version.outlook()?,
        };
        return dry_run::run(context, &name, &outlook, &options, &plan, &to);
    }
    let begin = Instant::now();
    let (size, what) = open(version, args.whole)?;
    let shown = context.progress();
    let mut teller = Teller::new(&shown, &name, size, to.names.len());
    let sent = send::send_version(what, options, plan, |hosts| teller.tell(hosts));
    let sent = runtime()?.block_on(sent);
    let sent = sent.with_context(|| match args.listen {
        Some(address) => format!("{address} cannot be listened on"),
        None => "there is no port to send from".to_owned(),
    })?;
    let hosts = with_unknown(sent.hosts, &to);
    teller.end(&hosts);
    shown.end();
    // Those who were said to have it and do not, and why.
    for host in sent.from.iter().filter(|host| host.state != State::Done) {
        let why = host.notes.join("; ");
        context.say(format!("nothing came from {}: {why}", host.name));
    }
    for note in &sent.notes {
        context.say(note);
    }
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
                "{} of {} hosts do not have it: {}",
                hosts.len() - done,
                hosts.len(),
                hosts::fold(names(false)),
            ),
        )
        .hint(hint(&hosts))
        .into()),
    }
}

/// What to do so that all have it the next time.
fn hint(hosts: &[Host]) -> String {
    let how = match hosts.iter().find(|host| host.is_closed()) {
        _ if hosts.iter().any(Host::is_shut_out) => {
            "hosts cannot reach this one: let a port through its firewall, name it by --listen ADDRESS:PORT,".to_owned()
        }
        Some(host) => format!("{},", hosts::how_to_start(&host.name)),
        None => "mend what the notes say".to_owned(),
    };
    format!("{how} and send it again: hosts that have it are left alone")
}

/// What is new, for those that have the version before, and all of it for the others; and how many bytes it has.
fn open(version: Version, whole: bool) -> Result<(u64, What)> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let made = version.made()?;
    let news = match whole {
        true => None,
        false => version.open(made, threads, From::Version)?,
    };
    let all = move || {
        let source = version.open(made, threads, From::Nothing)?;
        source.ok_or_else(|| Bad("it is made from nothing".to_owned()).into())
    };
    Ok(match news {
        Some(news) => (news.transfer.header.size, What::News(news, Box::new(all))),
        None => {
            let source = all()?;
            (source.transfer.header.size, What::Whole(source))
        }
    })
}

/// In the order in which they were named, with those that have no address.
fn with_unknown(mut hosts: Vec<Host>, named: &Hosts) -> Vec<Host> {
    hosts.extend(named.unknown.iter().map(|(name, why)| Host {
        name: name.clone(),
        state: State::Failed,
        notes: vec![why.clone()],
        ..Host::default()
    }));
    let places: HashMap<&str, usize> = named.names.iter().map(String::as_str).zip(0..).collect();
    hosts.sort_by_key(|host| places.get(host.name.as_str()).copied());
    hosts
}

/// What is to be sent.
struct Named {
    file: PathBuf,
    name: String,
    /// What others are like it that are called otherwise.
    kin: Option<String>,
}

/// The file, the directory or the image that is meant, and what it is called.
fn what(context: &Context, what: &Path) -> Result<Named> {
    if what.exists() {
        // "." and ".." have names, too.
        let named = match what.file_name() {
            Some(_) => what.to_owned(),
            None => what.canonicalize()?,
        };
        let name = named.file_name().unwrap_or_default().to_string_lossy();
        return Ok(Named {
            file: what.to_owned(),
            name: name.into_owned(),
            kin: None,
        });
    }
    let text = what.to_string_lossy();
    if text.contains(['/', '.']) {
        let message = format!("there is no file or directory {}", what.display());
        return Err(Failure::new(Code::NotFound, message).into());
    }
    let image = context.head()?.images().show(&text).map_err(|e| match e {
        image::Error::NoImage(_) => {
            let message = format!("there is neither a file nor an image {text:?}");
            anyhow::Error::from(Failure::new(Code::NotFound, message).hint(
                "name a file or a directory by its path, or an image as `oscarv image list` shows it",
            ))
        }
        other => other.into(),
    })?;
    let short = image.id.get(..12).unwrap_or(&image.id);
    // Each has a name of its own, and much in common with others of the same distribution.
    let recipe = &image.manifest.recipe;
    Ok(Named {
        name: format!("{short}.raw"),
        kin: Some(format!("image {} {}", recipe.distribution, recipe.release)),
        file: image.disk,
    })
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

//! `spread`: a file on many hosts in the time of one.

mod simulate;

use super::spread_bundle;
use crate::args::{Spread as Args, SpreadReceive, SpreadSend};
use crate::context::{Context, runtime};
use crate::exit::{Code, Failure};
use crate::table::{Cell, Table, number};
use anyhow::{Context as _, Result};
use api::{Progress, Unit};
use serde_json::json;
use spread::receive::{self, Event};
use spread::send::{self, Host, State};
use spread::sign::{Key, Signer};
use spread::source::{self, From};
use spread::topology::Topology;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Where receivers listen, if nobody says otherwise.
const PORT: u16 = 7117;

/// Hosts whose progress is shown one by one to people. Programs are told of all, of more than these once a second.
const FEW: usize = 16;

pub fn run(context: &Context, args: &Args) -> Result<Code> {
    match args {
        Args::Send(args) => send_to(context, args),
        Args::Receive(args) => receive_into(context, args),
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

fn send_to(context: &Context, args: &SpreadSend) -> Result<Code> {
    stand_back(args.idle)?;
    let (file, name) = what(context, &args.what)?;
    let name = args.name.clone().unwrap_or(name);
    let from_hosts = self::hosts(&args.from)?;
    let topology = args.topology.as_deref().map(topology).transpose()?;
    let hosts = hosts(&args.to)?;
    let signer = Arc::new(signer(context)?);
    let tls = spread_bundle::of_source(context, &args.private)?;
    let memory = context.state.join("spread/sent");
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let begin = Instant::now();
    let shown = context.progress();
    let progress = shown.progress.clone();
    let listed: Vec<String> = hosts.iter().map(|(name, _)| name.clone()).collect();
    let mut open = hosts;
    let mut done = Vec::new();
    let mut size = 0;
    // Those who were said to have it and do not, and why.
    let mut useless: Vec<(String, String)> = Vec::new();
    // First what is new, for those that have the version before; then all of it, for the others.
    for from in [From::Version, From::Nothing] {
        if open.is_empty() || (args.whole && from == From::Version) {
            continue;
        }
        let source = source::open(&file, &name, signer.clone(), &memory, threads, from)?;
        let Some(source) = source else { continue };
        size = source.transfer.header.size;
        progress.started(&name, Some(size * open.len() as u64), Unit::Bytes);
        let mut looks = (0_u32..).map(|look| match open.len() <= FEW {
            true => true,
            false => shown.for_programs && look.is_multiple_of(10),
        });
        let options = send::Options {
            hosts: open.clone(),
            chains: args.chains.into(),
            patience: args.patience,
            limit: args
                .limit
                .map(|rate| spread::limit::Limit::new(rate.bytes())),
            tls: tls.clone(),
        };
        let before = begin.elapsed().as_secs_f64();
        let plan = send::Plan {
            from: from_hosts.clone(),
            topology: topology.clone(),
        };
        let sent = send::send_by(source.transfer.clone(), options, plan, |hosts| {
            let each = looks.next() == Some(true);
            tell(&progress, &name, size, &hosts[..open.len()], each);
        });
        let mut report = runtime()?.block_on(sent).context("no port to send from")?;
        let mut rest = Vec::new();
        for host in report.split_off(open.len()) {
            // What came last counts.
            useless.retain(|(name, _)| *name != host.name);
            if host.state != State::Done {
                useless.push((host.name, host.notes.join("; ")));
            }
        }
        for (mut host, address) in report.into_iter().zip(&open) {
            if host.state == State::NoBase {
                rest.push(address.clone());
            } else {
                host.seconds = host.seconds.map(|seconds| seconds + before);
                done.push(host);
            }
        }
        open = rest;
    }
    let mut hosts = done;
    hosts.sort_by_key(|host| listed.iter().position(|name| *name == host.name));
    let seconds = begin.elapsed().as_secs_f64();
    let done = hosts.iter().filter(|h| h.state == State::Done).count();
    match done == hosts.len() {
        true => progress.done(&name, format!("{done} hosts have it")),
        false => progress.failed(&name, format!("{done} of {} hosts have it", hosts.len())),
    }
    shown.end();
    for (name, why) in useless {
        context.say(format!("nothing came from {name}: {why}"));
    }
    let names = |done: bool| {
        let of = hosts.iter().filter(|h| (h.state == State::Done) == done);
        of.map(|h| h.name.as_str()).collect::<Vec<_>>()
    };
    let document = json!({
        "name": name, "bytes": size, "seconds": seconds,
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

/// All hosts of these lists, each with its address; none twice.
fn hosts(lists: &[String]) -> Result<Vec<(String, SocketAddr)>> {
    let mut hosts: Vec<(String, SocketAddr)> = Vec::new();
    for word in lists.iter().flat_map(|list| words(list)) {
        for (name, address) in addresses(word)? {
            if let Some((other, _)) = hosts.iter().find(|(_, known)| *known == address) {
                let message = match *other == name {
                    true => format!("{name} is listed twice"),
                    false => format!("{other} and {name} are the same host: {address}"),
                };
                return Err(Failure::new(Code::Usage, message).into());
            }
            hosts.push((name, address));
        }
    }
    // Whoever names none means none, but a word without a host in it is a mistake.
    if hosts.is_empty() && !lists.is_empty() {
        return Err(Failure::new(Code::Usage, "no hosts are named")
            .hint("hosts are written as in node[1-8],server.example.org:7000,10.0.0.9")
            .into());
    }
    Ok(hosts)
}

/// What commas separate, outside of brackets.
fn words(list: &str) -> Vec<&str> {
    let mut inside = false;
    let at_comma = |c: char| {
        inside = (inside || c == '[') && c != ']';
        c == ',' && !inside
    };
    let words = list.split(at_comma).map(str::trim);
    words.filter(|word| !word.is_empty()).collect()
}

/// The file that says which switches hosts are at, and this host's own name.
fn topology(file: &Path) -> Result<(Topology, String)> {
    let wrong = |message: String| Failure::new(Code::Usage, message);
    let text = std::fs::read_to_string(file)
        .map_err(|e| wrong(format!("{} cannot be read: {e}", file.display())))?;
    let expand = |set: &str| match remote::parse_names(set) {
        Ok(names) => Ok(names.iter().map(ToString::to_string).collect()),
        Err(e) => Err(e.to_string()),
    };
    let topology = Topology::read(&text, &file.display().to_string(), expand)
        .map_err(|e| wrong(e.to_string()))?;
    let system = rustix::system::uname();
    Ok((topology, system.nodename().to_string_lossy().into_owned()))
}

fn addresses(word: &str) -> Result<Vec<(String, SocketAddr)>> {
    if let Ok(address) = word.parse::<SocketAddr>() {
        return Ok(vec![(word.to_owned(), address)]);
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        return Ok(vec![(word.to_owned(), SocketAddr::new(address, PORT))]);
    }
    let (set, port) = match word.rsplit_once(':') {
        None => (word, PORT),
        Some((set, port)) => (
            set,
            port.parse().map_err(|_| {
                Failure::new(Code::Usage, format!("{word:?}: {port:?} is not a port"))
                    .hint("hosts are written as in node[1-8],server.example.org:7000,10.0.0.9")
            })?,
        ),
    };
    let names = match set.contains('[') {
        true => remote::parse_names(set)?
            .iter()
            .map(ToString::to_string)
            .collect(),
        false => vec![set.to_owned()],
    };
    let resolve = |name: String| {
        let found = (name.as_str(), port).to_socket_addrs();
        let found = found.with_context(|| format!("the host {name} is not known"))?;
        let all: Vec<_> = found.collect();
        // One that most networks have.
        let address = all.iter().find(|a| a.is_ipv4()).or(all.first());
        let address = address.with_context(|| format!("the host {name} has no address"))?;
        Ok((name, *address))
    };
    names.into_iter().map(resolve).collect()
}

fn tell(progress: &Progress, name: &str, size: u64, hosts: &[Host], each: bool) {
    let frame = u64::from(spread::manifest::FRAME);
    let bytes = |host: &Host| (u64::from(host.frames) * frame).min(size);
    let done = hosts.iter().filter(|h| h.state == State::Done).count();
    let message = format!("{done} of {} hosts have it", hosts.len());
    let sum = hosts.iter().map(bytes).sum();
    progress.advanced(name, sum, Some(size * hosts.len() as u64), message);
    if each {
        for host in hosts.iter().filter(|h| h.state == State::Receiving) {
            let from = host.parent.as_deref().unwrap_or("here");
            let stage = format!("{name} to {}", host.name);
            progress.advanced(&stage, bytes(host), Some(size), format!("from {from}"));
        }
    }
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

fn receive_into(context: &Context, args: &SpreadReceive) -> Result<Code> {
    stand_back(args.idle)?;
    let mut keys = Vec::new();
    for text in &args.key {
        let from_file = std::fs::read_to_string(text);
        keys.push(Key::read(from_file.as_deref().unwrap_or(text))?);
    }
    if keys.is_empty() {
        keys.push(signer(context)?.key());
    }
    let tls = spread_bundle::of_receiver(context, &args.private)?;
    std::fs::create_dir_all(&args.into)
        .with_context(|| format!("{} cannot be made", args.into.display()))?;
    let screen = context.screen.clone();
    let told = move |event: Event| match event {
        Event::Begun { header, from } => {
            screen.say(format!(
                "{}: {} from {from}",
                header.name,
                crate::progress::bytes(header.size)
            ));
        }
        Event::Done { header } => screen.say(format!("{} is here", header.name)),
        Event::Failed { header, why } => screen.say(format!("{}: {why}", header.name)),
        Event::Refused { name, why } => screen.say(format!("refused {name}: {why}")),
    };
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen).await;
        let listener =
            listener.with_context(|| format!("{} cannot be listened on", args.listen))?;
        context.say(format!("listening on {}", listener.local_addr()?));
        let options = receive::Options {
            into: args.into.clone(),
            keys,
            replace: args.replace,
            tls,
        };
        tokio::select! {
            ended = receive::receive(listener, options, told) => ended.map(|()| Code::Ok).map_err(Into::into),
            _ = tokio::signal::ctrl_c() => Ok(Code::Of(130)),
        }
    })
}

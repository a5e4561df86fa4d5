//! `status` and `list`: what is. Both only read, and start no threads.

use crate::args::OneCluster;
use crate::context::{Context, small_runtime};
use crate::engine::{ClusterStatus, Health, NodeStatus, Readiness};
use crate::exit::Code;
use crate::table::{Cell, Table, Tone, number, paint};
use anyhow::Result;
use serde_json::json;
use v3m::State;

pub fn list(context: &Context) -> Result<Code> {
    let head = context.head()?;
    let clusters = small_runtime()?.block_on(head.list())?;
    if clusters.is_empty() && !context.json() {
        context.say("there is no cluster; make one with: oscarv up FILE");
        return Ok(Code::Ok);
    }
    context.result(&json!({ "clusters": clusters }), || {
        let mut table = Table::new(&[
            "CLUSTER", "HEALTH", "NODES", "RUNNING", "READY", "CPUS", "MEMORY", "TYPE",
        ]);
        for cluster in &clusters {
            let (word, tone) = health(cluster.health);
            table.row(vec![
                Cell::from(&cluster.name),
                Cell::from(word).tone(tone),
                number(cluster.nodes),
                number(cluster.running),
                number(cluster.ready),
                number(cluster.cpus),
                number(cluster.memory),
                Cell::from(backend(cluster.backend)),
            ]);
        }
        table
    })?;
    Ok(Code::Ok)
}

pub fn status(context: &Context, args: &OneCluster) -> Result<Code> {
    let head = context.head()?;
    let named = args.cluster.as_ref().or(context.global.cluster.as_ref());
    let names = match named {
        Some(name) => vec![name.clone()],
        None => head.names()?,
    };
    let clusters = small_runtime()?.block_on(async {
        let mut clusters = Vec::with_capacity(names.len());
        for name in &names {
            clusters.push(head.status(name).await?);
        }
        Ok::<_, anyhow::Error>(clusters)
    })?;
    if context.json() {
        context.document(&json!({ "clusters": clusters }))?;
        return Ok(Code::Ok);
    }
    if clusters.is_empty() {
        context.say("there is no cluster; make one with: oscarv up FILE");
    }
    let texts: Vec<String> = clusters.iter().map(|c| show(c, context.colored)).collect();
    crate::context::print(texts.join("\n"))?;
    Ok(Code::Ok)
}

fn show(cluster: &ClusterStatus, colored: bool) -> String {
    let (word, tone) = health(cluster.health);
    let mut text = format!("{}  {}", cluster.name, paint(tone, word, colored));
    let network = &cluster.network;
    text += &format!(
        "  network {} ({}, {})",
        network.subnet,
        network.domain,
        if network.up { "up" } else { "not up" }
    );
    if let Some(image) = &cluster.image {
        text += &format!("  image {}", image.get(..12).unwrap_or(image));
    }
    text.push('\n');
    if let Some(pid) = cluster.busy {
        text += &format!("another oscarv (process {pid}) works on it now\n");
    }
    if let Some(reason) = &network.reason {
        text += &format!(
            "{}: {}\n",
            paint(Tone::Warning, "network", colored),
            Cell::from(reason).text()
        );
    }
    let mut table = Table::new(&[
        "NODE", "GROUP", "STATE", "READY", "ADDRESS", "CPUS", "MEMORY", "DISK", "TYPE", "PID",
    ]);
    for node in &cluster.nodes {
        table.row(vec![
            Cell::from(&node.name),
            Cell::from(&node.group),
            Cell::from(node.state).tone(state_tone(node.state)),
            readiness(node),
            Cell::from(node.address),
            number(node.cpus),
            number(node.memory),
            number(node.disk),
            Cell::from(backend(node.backend)),
            number(node.pid.map_or("-".to_owned(), |pid| pid.to_string())),
        ]);
    }
    text += &table.render(colored);
    for node in &cluster.nodes {
        if let Some(reason) = &node.reason {
            text += &format!(
                "{}: {}\n",
                paint(Tone::Bad, node.name.as_str(), colored),
                Cell::from(reason).text()
            );
        }
    }
    text
}

fn readiness(node: &NodeStatus) -> Cell {
    match &node.ready {
        Readiness::Ready => Cell::from("ready").tone(Tone::Good),
        // What was last reported by a node that does not run is history.
        _ if !matches!(node.state, State::Running | State::Starting | State::Paused) => {
            Cell::from("-")
        }
        Readiness::Silent => Cell::from("silent").tone(Tone::Warning),
        Readiness::Booting(what) => Cell::from(what).tone(Tone::Warning),
        Readiness::Failed(what) => Cell::from(format!("failed: {what}")).tone(Tone::Bad),
    }
}

pub fn health(health: Health) -> (&'static str, Tone) {
    match health {
        Health::Ready => ("ready", Tone::Good),
        Health::Starting => ("starting", Tone::Warning),
        Health::Degraded => ("degraded", Tone::Bad),
        Health::Down => ("down", Tone::Faint),
    }
}

fn state_tone(state: State) -> Tone {
    match state {
        State::Running => Tone::Good,
        State::Crashed | State::Unknown => Tone::Bad,
        State::Absent | State::Defined | State::Stopped => Tone::Faint,
        State::Starting | State::Stopping | State::Paused | State::Migrating => Tone::Warning,
    }
}

pub fn backend(backend: profile::Backend) -> &'static str {
    match backend {
        profile::Backend::Auto => "auto",
        profile::Backend::Qemu => "qemu",
        profile::Backend::Kvm => "kvm",
        profile::Backend::Fake => "fake",
    }
}

/// `1 node`, `3 nodes`.
pub fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

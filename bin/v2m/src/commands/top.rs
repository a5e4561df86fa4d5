//! `top`: what VMs use, for people, for programs and for Prometheus.

use crate::args::Top;
use crate::context::Context;
use crate::exit::{Code, Failure};
use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::{IsTerminal, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use terminal::progress::bytes;
use terminal::table::{Cell, Table, number};
use terminal::{print, small_runtime};
use v3m::{Driver, Usage};

/// Rates of one VM: between two looks, or since its process began.
#[derive(Debug)]
struct Row {
    usage: Usage,
    /// Hundredths of one processor.
    cpu_percent: f64,
    /// Bytes a second.
    disk_read_rate: Option<f64>,
    disk_written_rate: Option<f64>,
    net_received_rate: Option<f64>,
    net_sent_rate: Option<f64>,
}

impl Row {
    /// For programs. What is not known is left out: no number would be true.
    fn json(&self) -> Value {
        let usage = &self.usage;
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("name", json!(usage.name));
        put("pid", json!(usage.pid));
        put("uptime_seconds", json!(usage.uptime.as_secs_f64()));
        put("cpu_seconds", json!(usage.cpu.as_secs_f64()));
        put("cpu_percent", json!(self.cpu_percent));
        put("memory", json!(usage.memory));
        put("memory_configured", json!(usage.memory_configured));
        for (key, value) in [
            ("memory_used", usage.memory_used),
            ("disk_read", usage.disk_read),
            ("disk_written", usage.disk_written),
            ("net_received", usage.net_received),
            ("net_sent", usage.net_sent),
        ] {
            value.map(|value| put(key, json!(value)));
        }
        for (key, value) in [
            ("disk_read_rate", self.disk_read_rate),
            ("disk_written_rate", self.disk_written_rate),
            ("net_received_rate", self.net_received_rate),
            ("net_sent_rate", self.net_sent_rate),
        ] {
            value.map(|value| put(key, json!(value)));
        }
        Value::Object(fields)
    }
}

fn document(rows: &[Row]) -> Value {
    json!({ "vms": rows.iter().map(Row::json).collect::<Vec<_>>() })
}

pub fn run(context: &Context, args: &Top) -> Result<Code> {
    let driver = context.vms().qemu(None)?;
    let runtime = small_runtime()?;
    let mut before: Vec<Usage> = Vec::new();
    loop {
        let now = match driver.stats() {
            Some(stats) => runtime.block_on(stats.usage())?,
            None => Vec::new(),
        };
        let rows: Vec<Row> = now
            .iter()
            .map(|usage| {
                let earlier = before
                    .iter()
                    .find(|b| b.name == usage.name && b.pid == usage.pid);
                row(usage, earlier)
            })
            .collect();
        match &args.prometheus {
            Some(file) if file == Path::new("-") => print(prometheus(&now))?,
            Some(file) => publish(file, prometheus(&now).as_bytes())?,
            None if context.json() && args.once => context.document(&document(&rows))?,
            None if context.json() => print(document(&rows).to_string() + "\n")?,
            None => {
                // A terminal shows the newest only.
                let clear = !args.once && std::io::stdout().is_terminal();
                let table = table(&rows).render(context.colored);
                print(format!(
                    "{}{table}",
                    if clear { "\x1b[H\x1b[2J" } else { "" }
                ))?;
            }
        }
        if args.once {
            return Ok(Code::Ok);
        }
        before = now;
        std::thread::sleep(args.interval.max(Duration::from_millis(10)));
    }
}

fn row(now: &Usage, before: Option<&Usage>) -> Row {
    let seconds = (now.uptime - before.map_or(Duration::ZERO, |b| b.uptime).min(now.uptime))
        .as_secs_f64()
        .max(0.001);
    let cpu = now
        .cpu
        .saturating_sub(before.map_or(Duration::ZERO, |b| b.cpu));
    let rate = |of: fn(&Usage) -> Option<u64>| {
        let earlier = before.and_then(of).unwrap_or(0);
        of(now).map(|bytes| (bytes.saturating_sub(earlier) as f64 / seconds).round())
    };
    Row {
        cpu_percent: (cpu.as_secs_f64() / seconds * 1000.0).round() / 10.0,
        disk_read_rate: rate(|u| u.disk_read),
        disk_written_rate: rate(|u| u.disk_written),
        net_received_rate: rate(|u| u.net_received),
        net_sent_rate: rate(|u| u.net_sent),
        usage: now.clone(),
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "VM", "PID", "UP", "CPU %", "USED", "OF", "ON HOST", "READ/S", "WRITE/S", "IN/S", "OUT/S",
    ]);
    let rate = |rate: Option<f64>| number(rate.map_or("-".to_owned(), |r| bytes(r as u64)));
    for row in rows {
        table.row(vec![
            Cell::from(&row.usage.name),
            number(row.usage.pid),
            number(terminal::time::show(row.usage.uptime)),
            number(format!("{:.1}", row.cpu_percent)),
            number(row.usage.memory_used.map_or("-".to_owned(), bytes)),
            number(bytes(row.usage.memory_configured)),
            number(bytes(row.usage.memory)),
            rate(row.disk_read_rate),
            rate(row.disk_written_rate),
            rate(row.net_received_rate),
            rate(row.net_sent_rate),
        ]);
    }
    table
}

/// Puts a file that all may read, as a node exporter's own user has to, into the place of the one before, whole. What is
/// there and no plain file is left alone: a link, `/dev/stdout`.
fn publish(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = || format!("{} cannot be written", path.display());
    if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        let message = format!("{}: it is no plain file", failed());
        return Err(Failure::new(Code::Usage, message).into());
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Made anew under a random name, which nobody else's file has, and which the exporter does not read.
    let mut new = tempfile::Builder::new()
        .prefix(".v2m-")
        .tempfile_in(directory)
        .with_context(failed)?;
    new.write_all(bytes).with_context(failed)?;
    let all = Permissions::from_mode(0o644);
    new.as_file().set_permissions(all).with_context(failed)?;
    new.persist(path).with_context(failed)?;
    Ok(())
}

/// One metric of the text form: name, type, help, value.
type Metric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Usage) -> Option<f64>,
);

const METRICS: [Metric; 9] = [
    (
        "v2m_cpu_seconds_total",
        "counter",
        "Processor time of the host.",
        |u| Some(u.cpu.as_secs_f64()),
    ),
    (
        "v2m_uptime_seconds",
        "gauge",
        "Since the VM's process began.",
        |u| Some(u.uptime.as_secs_f64()),
    ),
    (
        "v2m_memory_bytes",
        "gauge",
        "Memory of the host that the VM's process holds.",
        |u| Some(u.memory as f64),
    ),
    (
        "v2m_memory_used_bytes",
        "gauge",
        "Memory that the guest says it uses, without its caches.",
        |u| u.memory_used.map(|b| b as f64),
    ),
    (
        "v2m_memory_configured_bytes",
        "gauge",
        "Memory that the guest's machine has.",
        |u| Some(u.memory_configured as f64),
    ),
    (
        "v2m_disk_read_bytes_total",
        "counter",
        "Bytes read from the host's disks.",
        |u| u.disk_read.map(|b| b as f64),
    ),
    (
        "v2m_disk_written_bytes_total",
        "counter",
        "Bytes written to the host's disks.",
        |u| u.disk_written.map(|b| b as f64),
    ),
    (
        "v2m_net_received_bytes_total",
        "counter",
        "Bytes that came to the guest.",
        |u| u.net_received.map(|b| b as f64),
    ),
    (
        "v2m_net_sent_bytes_total",
        "counter",
        "Bytes that went out of the guest.",
        |u| u.net_sent.map(|b| b as f64),
    ),
];

/// https://prometheus.io/docs/instrumenting/exposition_formats/ (text). Names of VMs need no escapes.
fn prometheus(all: &[Usage]) -> String {
    let mut out = String::new();
    for (name, kind, help, value) in METRICS {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for usage in all {
            if let Some(value) = value(usage) {
                let _ = writeln!(out, "{name}{{vm=\"{}\"}} {value}", usage.name);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(uptime: u64, cpu: u64, read: u64) -> Usage {
        Usage {
            name: api::Name::new("a").unwrap(),
            pid: 7,
            uptime: Duration::from_secs(uptime),
            cpu: Duration::from_secs(cpu),
            memory: 1 << 20,
            memory_used: None,
            memory_configured: 1 << 24,
            disk_read: Some(read),
            disk_written: None,
            net_received: None,
            net_sent: None,
        }
    }

    #[test]
    fn rates_are_differences() {
        let first = row(&usage(10, 5, 1000), None);
        assert_eq!(
            (first.cpu_percent, first.disk_read_rate),
            (50.0, Some(100.0))
        );
        let next = row(&usage(12, 6, 5000), Some(&usage(10, 5, 1000)));
        assert_eq!(
            (next.cpu_percent, next.disk_read_rate),
            (50.0, Some(2000.0))
        );
        assert_eq!(next.net_sent_rate, None);
    }

    #[test]
    fn prometheus_gets_what_is_counted() {
        let text = prometheus(&[usage(10, 5, 1000)]);
        assert!(
            text.contains(
                "# TYPE v2m_cpu_seconds_total counter\nv2m_cpu_seconds_total{vm=\"a\"} 5\n"
            )
        );
        assert!(text.contains("v2m_disk_read_bytes_total{vm=\"a\"} 1000\n"));
        assert!(!text.contains("v2m_net_sent_bytes_total{"));
    }
}

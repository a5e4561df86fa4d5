//! Waiting until every node is ready, by its own report.

use crate::error::Unready;
use crate::events;
use crate::head::Head;
use crate::layout::Layout;
use crate::record::Record;
use crate::{Error, Readiness, Result};
use api::{Name, Progress, Unit};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant, SystemTime};
use v3m::State;

/// Between two looks at the reports: they are files on this host.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks at the VMs.
const LOOK_AT_VMS: Duration = Duration::from_millis(500);
/// So many lines of a console are shown when its node does not come up.
const CONSOLE_LINES: usize = 12;

impl Head {
    pub(crate) async fn wait_ready(
        &self,
        layout: &Layout,
        record: &Record,
        end: Instant,
        limit: Duration,
        progress: &Progress,
    ) -> Result<()> {
        const STAGE: &str = "ready";
        let driver = self.driver(layout, record.slot, record.backend)?;
        let mut waiting: BTreeMap<Name, (Option<SystemTime>, Readiness)> = record
            .cluster
            .nodes()
            .map(|(_, node)| (node.name.clone(), (None, Readiness::Silent)))
            .collect();
        let total = waiting.len() as u64;
        let mut vms_at = Instant::now() + LOOK_AT_VMS;
        let mut said = String::new();
        progress.started(STAGE, Some(total), Unit::Items);
        loop {
            for (node, (seen, readiness)) in &mut waiting {
                let path = layout.events(node);
                let changed = fs::metadata(&path).and_then(|meta| meta.modified()).ok();
                if changed != *seen {
                    *seen = changed;
                    *readiness = events::readiness(&path);
                }
            }
            waiting.retain(|_, (_, readiness)| *readiness != Readiness::Ready);
            let done = total - waiting.len() as u64;
            if waiting.is_empty() {
                let unit = if total == 1 { "node" } else { "nodes" };
                progress.done(STAGE, format!("{total} {unit}"));
                return Ok(());
            }
            let message = message(&waiting);
            if message != said {
                progress.advanced(STAGE, done, Some(total), message.clone());
                said = message;
            }
            let mut bad: Vec<(Name, String)> = Vec::new();
            for (node, (_, readiness)) in &waiting {
                if let Readiness::Failed(why) = readiness {
                    bad.push((node.clone(), why.clone()));
                }
            }
            let now = Instant::now();
            if now >= vms_at {
                vms_at = now + LOOK_AT_VMS;
                for status in driver.list().await? {
                    if waiting.contains_key(&status.name)
                        && matches!(
                            status.state,
                            State::Crashed | State::Stopped | State::Defined | State::Absent
                        )
                    {
                        let reason = status.reason.unwrap_or_else(|| "it ended".to_owned());
                        bad.push((status.name, format!("its VM is {}: {reason}", status.state)));
                    }
                }
            }
            let late = bad.is_empty() && now >= end;
            if late {
                bad = waiting
                    .iter()
                    .map(|(node, (_, is))| (node.clone(), unready(is, limit)))
                    .collect();
            }
            if !bad.is_empty() {
                progress.failed(STAGE, format!("{done} of {total} nodes"));
                let nodes = bad.into_iter().map(|(node, reason)| {
                    let console = console_lines(layout, &node);
                    Unready {
                        node,
                        reason,
                        console,
                    }
                });
                return Err(Error::NotReady {
                    cluster: record.cluster.name.clone(),
                    late,
                    nodes: nodes.collect(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn unready(is: &Readiness, limit: Duration) -> String {
    let limit = limit.as_secs();
    match is {
        Readiness::Booting(what) => format!("after {limit} s it is still at \"{what}\""),
        _ => format!("after {limit} s it has reported nothing"),
    }
}

/// What the slowest are at.
fn message(waiting: &BTreeMap<Name, (Option<SystemTime>, Readiness)>) -> String {
    let mut by_what: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, (_, readiness)) in waiting {
        let what = match readiness {
            Readiness::Booting(what) => what.as_str(),
            _ => "starting",
        };
        by_what.entry(what).or_default().push(node.as_str());
    }
    let parts = by_what
        .into_iter()
        .map(|(what, nodes)| format!("{} {what}", plan::fold(nodes)));
    parts.collect::<Vec<_>>().join("; ")
}

/// The last lines that a node printed, without the control characters that a terminal would obey.
fn console_lines(layout: &Layout, node: &Name) -> Vec<String> {
    let path = layout.vms().join(node).join("console.log");
    let text = events::tail(&path, 8192).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    let lines: Vec<String> = text
        .lines()
        .map(clean)
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES)..].to_vec()
}

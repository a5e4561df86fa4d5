//! `check`: is this machine fit, and what mends it.

use crate::context::{Context, small_runtime};
use crate::exit::Code;
use crate::progress;
use crate::table::{Cell, Table, Tone};
use anyhow::Result;
use profile::Backend;
use rustix::fs::statvfs;
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use terminal::absent;

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Finding {
    /// What it is for.
    area: &'static str,
    what: String,
    state: State,
    /// A command that mends it.
    remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Ok,
    /// It is missing, and nothing works without.
    Missing,
    /// It would be better to have it.
    Optional,
}

pub fn run(context: &Context) -> Result<Code> {
    let mut findings = Vec::new();
    let images = image::check().into_iter().map(|f| (f.what, Some(f.remedy)));
    add(&mut findings, "images", "images can be built", images);
    let networks = net::check().into_iter().map(|m| (m.what, m.remedy));
    add(&mut findings, "network", "networks can be made", networks);
    hypervisors(context, &mut findings)?;
    add(
        &mut findings,
        "access",
        "ssh client and tar are there",
        absent(&[
            ("ssh", "openssh-client"),
            ("ssh-keygen", "openssh-client"),
            ("tar", "tar"),
        ]),
    );
    let disks = absent(&[("qemu-img", "qemu-utils")]);
    add(&mut findings, "disks", "disks of nodes can be made", disks);
    findings.push(memory());
    findings.push(disk(&context.state));
    let fit = findings.iter().all(|f| f.state != State::Missing);
    context.result(&json!({ "fit": fit, "findings": findings }), || {
        table(&findings)
    })?;
    if fit {
        context.say("this machine is fit");
        return Ok(Code::Ok);
    }
    context.say("this machine is not fit yet; the last column says what mends it");
    Ok(Code::Unfit)
}

fn add(
    findings: &mut Vec<Finding>,
    area: &'static str,
    good: &str,
    missing: impl IntoIterator<Item = (String, Option<String>)>,
) {
    let before = findings.len();
    findings.extend(missing.into_iter().map(|(what, remedy)| Finding {
        area,
        what,
        state: State::Missing,
        remedy,
    }));
    if findings.len() == before {
        findings.push(Finding {
            area,
            what: good.to_owned(),
            state: State::Ok,
            remedy: None,
        });
    }
}

/// One usable hypervisor is enough. Each is asked by its driver; for KVM that is a probe boot, remembered.
fn hypervisors(context: &Context, findings: &mut Vec<Finding>) -> Result<()> {
    let head = match context.head() {
        Ok(head) => head,
        Err(error) => {
            findings.push(Finding {
                area: "state",
                what: format!("{error:#}"),
                state: State::Missing,
                remedy: Some("oscarv --state DIR …, a directory that you may write to".to_owned()),
            });
            return Ok(());
        }
    };
    let mut probes = Vec::new();
    let runtime = small_runtime()?;
    for backend in [Backend::Qemu, Backend::Kvm] {
        probes.push(runtime.block_on(head.probe(backend))?);
    }
    let any = probes.iter().any(|p| p.usable);
    for probe in probes {
        let name = super::status::backend(probe.backend);
        if probe.usable {
            findings.push(Finding {
                area: "hypervisor",
                what: format!("{name}: {}", probe.found),
                state: State::Ok,
                remedy: None,
            });
        }
        for missing in probe.missing {
            findings.push(Finding {
                area: "hypervisor",
                what: format!("{name}: {}", missing.what),
                state: if any { State::Optional } else { State::Missing },
                remedy: missing.remedy,
            });
        }
    }
    Ok(())
}

/// Less than this starts nothing of use.
const LEAST_MEMORY: u64 = 1 << 30;
const LEAST_DISK: u64 = 4 << 30;

fn memory() -> Finding {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = available_memory(&meminfo).unwrap_or(0);
    let fit = available >= LEAST_MEMORY;
    Finding {
        area: "memory",
        what: format!("{} are available", progress::bytes(available)),
        state: if fit { State::Ok } else { State::Missing },
        remedy: None,
    }
}

/// `MemAvailable:   24013964 kB`, in bytes.
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn disk(state: &Path) -> Finding {
    // The directory may not be there yet: where it would be.
    let place = state
        .ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("/"));
    let free = statvfs(place).map_or(0, |s| s.f_bavail * s.f_frsize);
    let fit = free >= LEAST_DISK;
    Finding {
        area: "disk",
        what: format!("{} are free in {}", progress::bytes(free), place.display()),
        state: if fit { State::Ok } else { State::Missing },
        remedy: (!fit).then(|| "oscarv --state DIR …, on a larger disk".to_owned()),
    }
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new(&["FOR", "STATE", "WHAT", "REMEDY"]);
    for finding in findings {
        let (word, tone) = match finding.state {
            State::Ok => ("OK", Tone::Good),
            State::Missing => ("missing", Tone::Bad),
            State::Optional => ("optional", Tone::Warning),
        };
        table.row(vec![
            Cell::from(finding.area),
            Cell::from(word).tone(tone),
            Cell::from(&finding.what),
            Cell::from(finding.remedy.as_deref().unwrap_or("")),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        let text = "MemTotal:       24689764 kB\nMemFree: 1 kB\nMemAvailable:   24013964 kB\n";
        assert_eq!(available_memory(text), Some(24_013_964 * 1024));
        assert_eq!(available_memory("nonsense"), None);
    }
}

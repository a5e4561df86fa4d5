//! `check` and `capabilities`: is this machine fit, what mends it, and what can be done here.

use crate::context::Context;
use crate::exit::Code;
use profile::Backend;
use serde::Serialize;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use terminal::table::{Cell, Table, Tone};
use terminal::{absent, small_runtime};
use v3m::{Capabilities, Driver};
use v3m_fake::FakeDriver;

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Finding {
    /// What it is for.
    area: &'static str,
    what: String,
    /// `ok`, `missing` (nothing works without) or `optional`.
    state: &'static str,
    /// A command that mends it.
    remedy: Option<String>,
}

pub fn check(context: &Context) -> anyhow::Result<Code> {
    let mut findings = Vec::new();
    let driver = context.vms().qemu(None)?;
    let runtime = small_runtime()?;
    let probes: Vec<_> = [Backend::Qemu, Backend::Kvm]
        .into_iter()
        .map(|backend| runtime.block_on(driver.probe(backend)))
        .collect();
    let any = probes.iter().any(|probe| probe.usable);
    for probe in probes {
        if probe.usable {
            findings.push(Finding {
                area: "hypervisor",
                what: format!("{}: {}", probe.backend, probe.found),
                state: "ok",
                remedy: None,
            });
        }
        findings.extend(probe.missing.into_iter().map(|missing| Finding {
            area: "hypervisor",
            what: format!("{}: {}", probe.backend, missing.what),
            state: if any { "optional" } else { "missing" },
            remedy: missing.remedy,
        }));
    }
    let tools = absent(&[("qemu-img", "qemu-utils")]);
    if tools.is_empty() {
        findings.push(Finding {
            area: "disks",
            what: "disks can be made".to_owned(),
            state: "ok",
            remedy: None,
        });
    }
    findings.extend(tools.into_iter().map(|(what, remedy)| Finding {
        area: "disks",
        what,
        state: "missing",
        remedy,
    }));
    findings.extend(for_some());
    let fit = findings.iter().all(|finding| finding.state != "missing");
    context.result(&json!({ "fit": fit, "findings": findings }), || {
        let mut table = Table::new(&["FOR", "STATE", "WHAT", "REMEDY"]);
        for finding in &findings {
            let tone = match finding.state {
                "ok" => Tone::Good,
                "missing" => Tone::Bad,
                _ => Tone::Warning,
            };
            table.row(vec![
                Cell::from(finding.area),
                Cell::from(finding.state).tone(tone),
                Cell::from(&finding.what),
                Cell::from(finding.remedy.as_deref().unwrap_or("")),
            ]);
        }
        table
    })?;
    context.say(match fit {
        true => "this machine is fit",
        false => "this machine is not fit yet; the last column says what mends it",
    });
    Ok(if fit { Code::Ok } else { Code::Unfit })
}

/// What only some VMs need.
fn for_some() -> Vec<Finding> {
    let finding = |area, found: Result<String, (&str, Option<&str>)>| match found {
        Ok(what) => Finding {
            area,
            what,
            state: "ok",
            remedy: None,
        },
        Err((what, remedy)) => Finding {
            area,
            what: what.to_owned(),
            state: "optional",
            remedy: remedy.map(str::to_owned),
        },
    };
    let uefi = match v3m_qemu::has_uefi() {
        true => Ok("there is firmware for UEFI".to_owned()),
        false => Err((
            "there is no firmware for UEFI",
            Some("sudo apt-get install ovmf"),
        )),
    };
    let root = rustix::process::geteuid().is_root();
    let groups = std::fs::read_dir("/sys/kernel/iommu_groups");
    let iommu = match groups.is_ok_and(|mut groups| groups.next().is_some()) {
        true => Ok("the IOMMU is on".to_owned()),
        false => Err((
            "the IOMMU is off: no device can be passed through; switch it on in the firmware",
            None,
        )),
    };
    vec![
        finding("uefi", uefi),
        finding("bridges", bridges(root)),
        finding("pass-through", iommu),
    ]
}

/// Can NICs be put on bridges of the host's?
fn bridges(root: bool) -> Result<String, (&'static str, Option<&'static str>)> {
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten();
    let bridges = interfaces
        .flatten()
        .filter(|i| i.path().join("bridge").is_dir());
    let mut names: Vec<_> = bridges
        .map(|bridge| bridge.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    if root && !Path::new("/dev/net/tun").exists() {
        return Err(("there is no /dev/net/tun", Some("sudo modprobe tun")));
    }
    if !root {
        match std::fs::metadata(v3m_qemu::BRIDGE_HELPER) {
            Err(_) => {
                return Err((
                    "qemu-bridge-helper, which puts a user's NICs on bridges, is missing",
                    Some("sudo apt-get install qemu-system-common"),
                ));
            }
            Ok(helper) if helper.permissions().mode() & 0o4000 == 0 => {
                return Err((
                    "qemu-bridge-helper may not put a user's NICs on bridges",
                    Some("sudo chmod u+s /usr/lib/qemu/qemu-bridge-helper"),
                ));
            }
            Ok(_) => {}
        }
    }
    match names.is_empty() {
        true => Err((
            "this host has no bridge",
            Some("sudo ip link add br0 type bridge && sudo ip link set br0 up"),
        )),
        false => Ok(format!("bridges: {}", names.join(", "))),
    }
}

/// What a back-end can do, and whether it can do it here.
#[derive(Debug, Serialize)]
struct Ability {
    usable: bool,
    #[serde(flatten)]
    can: Capabilities,
}

pub fn capabilities(context: &Context) -> anyhow::Result<Code> {
    let runtime = small_runtime()?;
    let qemu = context.vms().qemu(None)?;
    let fake = FakeDriver::open(&context.state.join("fake"))?;
    let mut all = Vec::new();
    for driver in [&qemu as &dyn Driver, &fake] {
        for can in driver.capabilities() {
            let usable = runtime.block_on(driver.probe(can.backend)).usable;
            all.push(Ability { usable, can });
        }
    }
    context.result(&json!({ "backends": all }), || {
        let mut table = Table::new(&["TYPE", "USABLE", "CAN", "MOST CPUS"]);
        for ability in &all {
            let usable = match ability.usable {
                true => Cell::from("yes").tone(Tone::Good),
                false => Cell::from("no").tone(Tone::Bad),
            };
            table.row(vec![
                Cell::from(ability.can.backend),
                usable,
                Cell::from(abilities(&ability.can)),
                terminal::table::number(ability.can.max_cpus),
            ]);
        }
        table
    })?;
    Ok(Code::Ok)
}

fn abilities(can: &Capabilities) -> String {
    let words = [
        (can.direct_kernel_boot, "direct kernel boot"),
        (can.disk_boot, "disk boot"),
        (can.install_medium, "install from CD"),
        (can.pause, "pause"),
        (can.console, "console"),
        (can.snapshot, "snapshots"),
        (can.stats, "figures"),
        (can.migrate, "migration"),
        (can.fork, "fork"),
        (can.hotplug, "hot-plug"),
    ];
    let words = words.iter().filter(|(can, _)| *can).map(|(_, word)| *word);
    words.collect::<Vec<_>>().join(", ")
}

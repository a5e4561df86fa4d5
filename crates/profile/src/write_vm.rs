//! Checked → TOML or XML: a profile that says everything, so that reading it gives the same VM again.
//!
//! Both forms are written from one list of what there is to say ([`entries`]), as both are read into one raw model.

use crate::model::{Boot, Bus, DiskFormat, Display, Firmware, Link, Medium, NicModel, Vm};
use crate::write::{Entry, Value, toml, xml};
use std::fmt;
use std::path::Path;

/// Why a VM cannot be written as a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// A NIC (counted from 1) that is a port of a cluster's network.
    ClusterNetwork { nic: usize },
    /// Ports to the host, which only clusters have.
    Channels,
    /// A path that is not UTF-8 text.
    Path(String),
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterNetwork { nic } => write!(
                f,
                "NIC {nic} is a port of a cluster's network, which no profile can say"
            ),
            Self::Channels => f.write_str("the VM has ports to the host, which no profile can say"),
            Self::Path(path) => write!(f, "the path {path:?} is not UTF-8 text"),
        }
    }
}

impl std::error::Error for Unwritable {}

/// The VM as a profile in TOML, with all that was filled in.
pub fn vm_to_toml(vm: &Vm) -> Result<String, Unwritable> {
    Ok(toml(&entries(vm)?))
}

/// The VM as a profile in XML, with all that was filled in.
pub fn vm_to_xml(vm: &Vm) -> Result<String, Unwritable> {
    Ok(xml("vm", &entries(vm)?))
}

fn entries(vm: &Vm) -> Result<Vec<Entry>, Unwritable> {
    if !vm.channels.is_empty() {
        return Err(Unwritable::Channels);
    }
    let mut top = vec![
        Entry::text("name", vm.name.as_str()),
        Entry::text("type", vm.backend.as_str()),
        Entry::number("cpus", vm.cpus),
        Entry::text("memory", vm.memory.to_string()),
        Entry::flag("huge-pages", vm.huge_pages),
    ];
    let direct = matches!(vm.boot, Boot::Kernel { .. });
    let firmware = match vm.firmware {
        Firmware::Bios => "bios",
        Firmware::Uefi => "uefi",
    };
    // A kernel is booted without any; the default is what may stand beside it.
    top.push(Entry::text(
        "firmware",
        if direct { "bios" } else { firmware },
    ));
    let display = match vm.display {
        Display::None => "none",
        Display::Vnc => "vnc",
    };
    top.push(Entry::text("display", display));
    for (key, list) in [("devices", &vm.devices), ("extra", &vm.extra)] {
        if !list.is_empty() {
            top.push(Entry::new(key, Value::Texts(list.clone())));
        }
    }
    if vm.nics.is_empty() {
        top.push(Entry::new("nic", Value::Tables(Vec::new())));
    }
    let mut cpu = Vec::new();
    if let Some(model) = &vm.cpu.model {
        cpu.push(Entry::text("model", model));
    }
    if let Some(topology) = vm.cpu.topology {
        cpu.push(Entry::number("sockets", topology.sockets));
        cpu.push(Entry::number("cores", topology.cores));
        cpu.push(Entry::number("threads", topology.threads));
    }
    if !cpu.is_empty() {
        top.push(Entry::new("cpu", Value::Table(cpu)));
    }
    if !vm.numa.is_empty() {
        let nodes = vm.numa.iter().map(|node| {
            vec![
                Entry::text("cpus", ranges(&node.cpus)),
                Entry::text("memory", node.memory.to_string()),
            ]
        });
        top.push(Entry::new("numa", Value::Tables(nodes.collect())));
    }
    top.push(Entry::new("boot", Value::Table(boot(&vm.boot)?)));
    let disks: Result<Vec<_>, _> = vm.disks.iter().map(disk).collect();
    let disks = disks?;
    if !disks.is_empty() {
        top.push(Entry::new("disk", Value::Tables(disks)));
    }
    let mut nics = Vec::new();
    for (at, nic) in vm.nics.iter().enumerate() {
        let mut entries = link(&nic.link).ok_or(Unwritable::ClusterNetwork { nic: at + 1 })?;
        entries.push(Entry::text("mac", nic.mac.to_string()));
        let model = match nic.model {
            NicModel::Virtio => "virtio",
            NicModel::E1000 => "e1000",
        };
        entries.push(Entry::text("model", model));
        nics.push(entries);
    }
    if !nics.is_empty() {
        top.push(Entry::new("nic", Value::Tables(nics)));
    }
    if let Some(init) = &vm.cloud_init {
        let mut entries = vec![Entry::text("user-data", &init.user_data)];
        if let Some(network) = &init.network_config {
            entries.push(Entry::text("network-config", network));
        }
        top.push(Entry::new("cloud-init", Value::Table(entries)));
    }
    Ok(top)
}

fn boot(boot: &Boot) -> Result<Vec<Entry>, Unwritable> {
    Ok(match boot {
        Boot::Kernel {
            kernel,
            initrd,
            arguments,
        } => {
            let mut entries = vec![path("kernel", kernel)?];
            if let Some(initrd) = initrd {
                entries.push(path("initrd", initrd)?);
            }
            entries.push(Entry::text("arguments", arguments));
            entries
        }
        Boot::Firmware { order } => {
            let order = order.iter().map(|device| device.as_str().to_owned());
            vec![Entry::new("order", Value::Texts(order.collect()))]
        }
    })
}

fn disk(disk: &crate::model::Disk) -> Result<Vec<Entry>, Unwritable> {
    let format = match disk.format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Vmdk => "vmdk",
        DiskFormat::Vdi => "vdi",
    };
    let bus = match disk.bus {
        Bus::Virtio => "virtio",
        Bus::Scsi => "scsi",
        Bus::Sata => "sata",
        Bus::Ide => "ide",
    };
    let mut entries = vec![
        path("path", &disk.path)?,
        Entry::text("format", format),
        Entry::text("bus", bus),
    ];
    match disk.medium {
        Medium::Cdrom => entries.push(Entry::flag("cdrom", true)),
        Medium::Disk => entries.push(Entry::flag("read-only", disk.read_only)),
    }
    if let Some(size) = disk.size {
        entries.push(Entry::text("size", size.to_string()));
    }
    Ok(entries)
}

/// None for what is internal to clusters.
fn link(link: &Link) -> Option<Vec<Entry>> {
    let kind = |kind: &str| Entry::text("kind", kind);
    Some(match link {
        Link::Network { .. } => return None,
        Link::Nat => vec![kind("nat")],
        Link::Unplugged => vec![kind("none")],
        Link::Bridged { bridge } => vec![kind("bridged"), Entry::text("bridge", bridge)],
        Link::Private { network } => vec![kind("private"), Entry::text("network", network)],
        Link::HostOnly { network } => vec![kind("host-only"), Entry::text("network", network)],
        Link::Vlan { bridge, tag } => vec![
            kind("vlan"),
            Entry::text("bridge", bridge),
            Entry::number("tag", *tag),
        ],
    })
}

fn path(key: &'static str, path: &Path) -> Result<Entry, Unwritable> {
    let text = path.to_str();
    let text = text.ok_or_else(|| Unwritable::Path(path.to_string_lossy().into_owned()))?;
    Ok(Entry::text(key, text))
}

/// `0-3,8`.
fn ranges(cpus: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*cpu) => *last = *cpu,
            _ => parts.push((*cpu, *cpu)),
        }
    }
    let texts = parts.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

//! One node: its disks, its definition, its start and its end. Every step may be done twice.

use crate::base::Base;
use crate::head::{Head, owner};
use crate::identity::Identity;
use crate::layout::{Layout, make_dir, remove_all, write};
use crate::record::Record;
use crate::{Error, Result};
use api::{MiB, Name};
use profile::{
    Backend, Boot, Channel, Disk, DiskFormat, Group, Link, Nic, NicModel, Node, Role, Vm,
};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

pub const EVENTS: &str = "org.oscarv.events";

/// For an emulated processor: each of these spares it work that an emulated machine has no use for (protection against
/// side channels of a real one, self-tests, clearing of memory that is fresh anyway).
const EMULATED: &str = "mitigations=off nokaslr cryptomgr.notests rcupdate.rcu_expedited=1 init_on_alloc=0 \
                        no_timer_check nowatchdog lsm=capability";
const ALWAYS: &str = "console=ttyS0 quiet root=/dev/vda oscarv.identity=/dev/vdb net.ifnames=0 8250.nr_uarts=1 \
                      audit=0 apparmor=0 random.trust_cpu=on";

/// What a node was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// Id of the image under its disk.
    pub image: String,
    pub disk: MiB,
    pub definition: Vm,
    /// Digest of its identity.
    pub identity: String,
}

impl Made {
    pub fn read(layout: &Layout, node: &Name) -> Result<Option<Self>> {
        let path = layout.made(node);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| Error::Damaged { path, source }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&path)(e)),
        }
    }

    fn write(&self, layout: &Layout) -> Result<()> {
        let path = layout.made(&self.definition.name);
        let text = serde_json::to_vec_pretty(self).map_err(|source| Error::Damaged {
            path: path.clone(),
            source,
        })?;
        write(&path, &text, 0o600)
    }
}

/// The VM that a node should be.
pub fn definition(
    layout: &Layout,
    record: &Record,
    image: &Base,
    group: &Group,
    node: &Node,
) -> Result<Vm> {
    let name = &node.name;
    let given = record.assigned(name).ok_or_else(|| Error::NoSuchNode {
        name: record.cluster.name.clone(),
        node: name.clone(),
    })?;
    let backend = match group.backend {
        Backend::Auto => record.backend,
        chosen => chosen,
    };
    let target = match group.role {
        Role::Head => "oscarv-head.target",
        Role::Compute => "oscarv-compute.target",
    };
    let tuning = if backend == Backend::Qemu {
        EMULATED
    } else {
        ""
    };
    let arguments = format!("{ALWAYS} systemd.unit={target} {tuning}");
    let boot = Boot::Kernel {
        kernel: image.kernel.clone(),
        initrd: Some(image.initrd.clone()),
        arguments: arguments.trim_end().to_owned(),
    };
    Ok(Vm {
        disks: vec![
            Disk::new(layout.disk(name), DiskFormat::Qcow2, false),
            Disk::new(layout.identity(name), DiskFormat::Raw, true),
        ],
        nics: vec![Nic {
            mac: given.mac,
            model: NicModel::Virtio,
            link: Link::Network {
                directory: layout.net(),
                port: name.to_string(),
            },
        }],
        channels: vec![Channel {
            name: EVENTS.to_owned(),
            log: layout.events(name),
        }],
        ..Vm::new(name.clone(), backend, group.cpus, group.memory, boot)
    })
}

/// Makes the disks that are missing. `made.json` comes last: without it the node is not made.
pub fn make(
    layout: &Layout,
    record: &Record,
    image: &Base,
    group: &Group,
    vm: &Vm,
    identity: &Identity,
) -> Result<()> {
    let node = &vm.name;
    let directory = layout.disks(node);
    make_dir(&directory, 0o711)?;
    let disk = layout.disk(node);
    if let Some(base) = image.disk.as_ref().filter(|_| !disk.exists()) {
        overlay(base, &disk, group.disk)?;
    }
    if image.disk.is_some() {
        give(&disk, record.slot)?;
    }
    tell(layout, record, node, identity, false)?;
    Made {
        image: image.id.clone(),
        disk: group.disk,
        definition: vm.clone(),
        identity: identity.digest.clone(),
    }
    .write(layout)
}

/// Writes the node's identity disk.
pub fn tell(
    layout: &Layout,
    record: &Record,
    node: &Name,
    identity: &Identity,
    running: bool,
) -> Result<()> {
    let path = layout.identity(node);
    identity.write(&path, running)?;
    // QEMU only reads it.
    if let Some((_, group)) = owner(record.slot) {
        chown(&path, None, Some(group)).map_err(Error::io(&path))?;
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(&path, mode).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// The identity that a running node has taken on is the one it has now.
pub fn remember(layout: &Layout, node: &Name, identity: &Identity) -> Result<()> {
    match Made::read(layout, node)? {
        Some(made) => Made {
            identity: identity.digest.clone(),
            ..made
        }
        .write(layout),
        None => Ok(()),
    }
}

fn give(path: &Path, slot: u16) -> Result<()> {
    match owner(slot) {
        Some((user, group)) => chown(path, Some(user), Some(group)).map_err(Error::io(path)),
        None => Ok(()),
    }
}

/// A qcow2 of the node's own over the image's disk.
fn overlay(base: &Path, disk: &Path, size: MiB) -> Result<()> {
    let mut half = disk.as_os_str().to_owned();
    half.push(".new");
    let half = Path::new(&half);
    // qemu-img writes into a file that is there without changing its mode: a node's disk holds its keys.
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(half)
        .map_err(Error::io(half))?;
    let mut command = Command::new("qemu-img");
    command
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(base)
        .arg(half)
        .arg(format!("{}M", size.0))
        .stdin(Stdio::null());
    let output = daemon::dies_with_us(&mut command)
        .output()
        .map_err(Error::start("qemu-img", "qemu-utils"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::program("qemu-img", said, disk));
    }
    fs::rename(half, disk).map_err(Error::io(disk))
}

/// Removes what `make` made.
pub fn unmake(layout: &Layout, node: &Name) -> Result<()> {
    let made = layout.made(node);
    match fs::remove_file(&made) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&made)(e)),
        _ => {}
    }
    remove_all(&layout.disks(node))
}

impl Head {
    /// A node that starts reports anew: what it said in an earlier life must not count.
    pub(crate) fn forget_reports(layout: &Layout, node: &Name) -> Result<()> {
        let path = layout.events(node);
        match fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
        {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(e)),
            _ => Ok(()),
        }
    }
}

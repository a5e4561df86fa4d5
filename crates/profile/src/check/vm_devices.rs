//! Disks and CDs of a VM, and the disk for cloud-init.

use super::twice;
use super::vm_values::{file_text, flag, path, size, word, word_of};
use crate::error::{Found, Span, quoted};
use crate::model::{Bus, CloudInit, Disk, DiskFormat, Medium};
use crate::raw::{self, At, Field};
use api::MiB;
use std::collections::HashMap;
use std::path::{Component, PathBuf};

const FORMATS: [(&str, DiskFormat); 4] = [
    ("raw", DiskFormat::Raw),
    ("qcow2", DiskFormat::Qcow2),
    ("vmdk", DiskFormat::Vmdk),
    ("vdi", DiskFormat::Vdi),
];
const BUSES: [(&str, Bus); 4] = [
    ("virtio", Bus::Virtio),
    ("scsi", Bus::Scsi),
    ("sata", Bus::Sata),
    ("ide", Bus::Ide),
];
const CD_BUSES: [(&str, Bus); 3] = [("sata", Bus::Sata), ("scsi", Bus::Scsi), ("ide", Bus::Ide)];

/// 1 PiB: a slip of the unit.
const MOST_DISK: MiB = MiB(1 << 30);
/// Disks, and NICs, of one VM: what fits on a PCI bus beside the rest.
pub(super) const MOST: usize = 24;
/// Two channels with two drives each.
const MOST_IDE: usize = 4;

pub(super) fn disks(vm: &raw::Vm, found: &mut Found<'_>) -> Option<Vec<Disk>> {
    if let Some(more) = vm.disks.get(MOST) {
        let message = format!("a VM has at most {MOST} disks, not {}", vm.disks.len());
        found.error(more.place.clone(), message);
        return None;
    }
    let mut disks = Some(Vec::new());
    let mut paths: HashMap<PathBuf, (Span, bool)> = HashMap::new();
    let mut ide = 0;
    for (at, raw) in vm.disks.iter().enumerate() {
        let Some(disk) = disk(raw, &format!("disk.{}", at + 1), found) else {
            disks = None;
            continue;
        };
        let place = raw.path.given().map_or(&raw.place, |at| &at.span);
        // `./a.raw` is `a.raw`; what `..` leads to, only the host can tell.
        let steps = disk.path.components();
        let same: PathBuf = steps.filter(|step| *step != Component::CurDir).collect();
        let shared = paths.insert(same, (place.clone(), disk.read_only));
        if let Some((first, read_only)) = shared
            && !(read_only && disk.read_only)
        {
            let message = format!(
                "two disks have the file {}",
                quoted(&disk.path.to_string_lossy())
            );
            let problem = twice(place, &first, message, found);
            problem.hint("only disks that are read only can share a file");
        }
        if disk.bus == Bus::Ide {
            ide += 1;
            if ide == MOST_IDE + 1 {
                let message = format!("a VM has at most {MOST_IDE} drives on IDE");
                let problem = found.error(place.clone(), message);
                problem.hint("write bus = \"virtio\" for some of them");
            }
        }
        if let Some(disks) = &mut disks {
            disks.push(disk);
        }
    }
    disks
}

fn disk(raw: &raw::Disk, key: &str, found: &mut Found<'_>) -> Option<Disk> {
    let cdrom = match &raw.cdrom {
        Field::Given(at) => Some(at.value),
        Field::Bad => None,
        Field::Absent => Some(false),
    };
    let file = match &raw.path {
        Field::Given(at) => path(at, "disk", found),
        Field::Bad => None,
        Field::Absent => {
            found
                .error(raw.place.clone(), "this disk has no path")
                .hint("write below it: path = \"web.qcow2\"")
                .doubtful();
            None
        }
    };
    let cdrom = cdrom?;
    let format = format(raw, cdrom, key, file.is_some(), found);
    let bus_key = format!("{key}.bus");
    let bus = match (&raw.bus, cdrom) {
        (Field::Given(at), true) if at.value == "virtio" => {
            let problem = found.error(at.span.clone(), "a CD drive cannot be on virtio");
            problem.hint("write bus = \"sata\", or leave it out");
            None
        }
        (bus, true) => word(bus, &bus_key, &CD_BUSES, "default of a CD drive", found),
        (bus, false) => word(bus, &bus_key, &BUSES, "default", found),
    };
    let read_only = match &raw.read_only {
        Field::Given(at) if cdrom && !at.value => {
            let problem = found.error(at.span.clone(), "a CD is always read only");
            problem.hint("leave it out");
            None
        }
        Field::Absent if cdrom => Some(true),
        field => flag(field, &format!("{key}.read-only"), false, found),
    };
    let size = match &raw.size {
        Field::Given(at) if cdrom => {
            let problem = found.error(at.span.clone(), "a CD is never made, and has no size");
            problem.hint("leave it out");
            None
        }
        Field::Given(at) => size(at, "disk", MOST_DISK, found).map(Some),
        Field::Bad => None,
        Field::Absent => Some(None),
    };
    Some(Disk {
        path: file?,
        format: format?,
        bus: bus?,
        medium: if cdrom { Medium::Cdrom } else { Medium::Disk },
        read_only: read_only?,
        size: size?,
    })
}

/// What is written, or follows from the file's name: never from its content, which the guest can write.
fn format(
    raw: &raw::Disk,
    cdrom: bool,
    key: &str,
    has_path: bool,
    found: &mut Found<'_>,
) -> Option<DiskFormat> {
    let key = format!("{key}.format");
    match &raw.format {
        Field::Given(at) => {
            let format = word_of(at, &key, &FORMATS, found)?;
            if cdrom && format != DiskFormat::Raw {
                let problem = found.error(at.span.clone(), "a CD is raw");
                problem.hint("write format = \"raw\", or leave it out");
                return None;
            }
            return Some(format);
        }
        Field::Bad => return None,
        Field::Absent if cdrom => {
            found.note(key, "raw", "a CD is raw");
            return Some(DiskFormat::Raw);
        }
        Field::Absent => {}
    }
    let at = raw.path.given()?;
    let ending = at.value.rsplit_once('.').map_or("", |(_, ending)| ending);
    let by_name = FORMATS.iter().find(|(word, _)| *word == ending);
    if let Some((word, format)) = by_name {
        found.note(key, word, "by the file's name");
        return Some(*format);
    }
    if has_path {
        found
            .error(at.span.clone(), "the format of this disk is not known")
            .hint("write below the path: format = \"raw\" or format = \"qcow2\"; it is never guessed from what is in the file");
    }
    None
}

/// First lines by which cloud-init knows what user data is; it passes over anything else in silence.
const USER_DATA: [&str; 8] = [
    "#cloud-config",
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "## template:",
    "Content-Type:",
    "MIME-Version:",
];

pub(super) fn cloud_init(raw: &raw::CloudInit, found: &mut Found<'_>) -> Option<CloudInit> {
    let user_data = match (&raw.user_data, &raw.ssh_keys) {
        (Field::Given(_), Field::Given(keys)) => {
            let message = "ssh keys go into user-data where both are given";
            let problem = found.error(keys.span.clone(), message);
            problem.hint("write in user-data: ssh_authorized_keys, with a list of keys");
            None
        }
        (Field::Given(at), _) => user_data(at, found),
        (Field::Absent, Field::Given(keys)) => ssh_keys(keys, found),
        (Field::Absent, Field::Absent) => {
            found
                .error(raw.place.clone(), "cloud-init is given no user-data")
                .hint("write below [cloud-init]: ssh-keys = [\"ssh-ed25519 AAAA…\"]")
                .doubtful();
            None
        }
        _ => None,
    };
    let network_config = match &raw.network_config {
        Field::Given(at) => file_text(at, "network-config", found).map(Some),
        Field::Bad => None,
        Field::Absent => Some(None),
    };
    Some(CloudInit {
        user_data: user_data?,
        network_config: network_config?,
    })
}

fn user_data(at: &At<String>, found: &mut Found<'_>) -> Option<String> {
    let text = file_text(at, "user-data", found)?;
    if !USER_DATA.iter().any(|first| text.starts_with(first)) {
        let message = "cloud-init would not know what this user-data is";
        let problem = found.error(at.span.clone(), message);
        problem.hint("its first line is #cloud-config, or that of a script, as in #!/bin/sh");
        return None;
    }
    Some(text)
}

/// User data that lets the owners of the keys in.
fn ssh_keys(keys: &At<Vec<At<String>>>, found: &mut Found<'_>) -> Option<String> {
    let mut text = "#cloud-config\nssh_authorized_keys:\n".to_owned();
    let mut good = !keys.value.is_empty();
    if !good {
        let problem = found.error(keys.span.clone(), "the list of ssh keys is empty");
        problem.hint("write ssh-keys = [\"ssh-ed25519 AAAA…\"]");
    }
    for key in &keys.value {
        let mut parts = key.value.split(' ');
        let kind = parts.next().unwrap_or_default();
        let known = ["ssh-", "ecdsa-", "sk-"]
            .iter()
            .any(|k| kind.starts_with(k));
        let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        let body = parts.next().unwrap_or_default();
        let plain = key
            .value
            .chars()
            .all(|c| !c.is_control() && !matches!(c, '"' | '\\'));
        if !known || body.len() < 16 || !body.chars().all(base64) || !plain {
            let message = format!("{} is not a public ssh key", quoted(&key.value));
            let problem = found.error(key.span.clone(), message);
            problem.hint("it is the line of a file like ~/.ssh/id_ed25519.pub");
            good = false;
        }
        text.push_str(&format!("  - \"{}\"\n", key.value));
    }
    if good {
        found.note("cloud-init.user-data", "#cloud-config", "with the ssh keys");
    }
    good.then_some(text)
}

//! Whom a VM's QEMU runs as where root starts it: never root.
//!
//! A VM whose writable disks belong to an ordinary user runs as that user: the disks stay as they are. Otherwise it runs
//! as an id of its own that no account has, and its disks, which v2m made or which are root's, are given to that id.

use crate::exit::{Code, Failure};
use anyhow::Result;
use files::Place;
use profile::{Boot, Vm};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The ids of VMs are above those of clusters (0x7000_0000 and the cluster's number, at most 4095).
const FIRST: u32 = 0x7000_0000 + 4096;

pub type Owner = (u32, u32);

/// The id of the VM with this number, where we may choose.
pub fn of_number(number: u32) -> Option<Owner> {
    let id = FIRST.checked_add(number)?;
    v3m_qemu::can_become(id).then_some((id, id))
}

/// Is this the id of a VM?
pub fn is_vms(id: u32) -> bool {
    v3m_qemu::is_no_accounts(id) && id >= FIRST
}

/// Is this the id of a cluster?
fn is_clusters(id: u32) -> bool {
    v3m_qemu::is_no_accounts(id) && id < FIRST
}

/// Whom the VM has to run as because its writable disks are somebody's; none: they are root's, a VM's, or not there yet.
pub fn of_disks(vm: &Vm) -> Result<Option<Owner>> {
    let mut found: Option<(u32, &Path)> = None;
    for disk in vm.disks.iter().filter(|disk| !disk.read_only) {
        let Ok(metadata) = looked_at(&disk.path) else {
            continue;
        };
        let user = metadata.uid();
        if metadata.is_file() && is_clusters(user) {
            let message = format!(
                "VM {} cannot have {}: it is a cluster's (user {user})",
                vm.name,
                disk.path.display()
            );
            let hint = "give the VM a disk of its own; if that cluster is gone: chown root it";
            return Err(Failure::new(Code::Usage, message).hint(hint).into());
        }
        // A device is opened with its group's rights or not at all; it is never given away.
        if !metadata.is_file() || user == 0 || is_vms(user) || !v3m_qemu::can_become(user) {
            continue;
        }
        match found {
            Some((other, path)) if other != user => {
                let message = format!(
                    "the disks of VM {} belong to different users: {} to {other}, {} to {user}",
                    vm.name,
                    path.display(),
                    disk.path.display(),
                );
                let hint = "give them to one user (chown), who will run the VM";
                return Err(Failure::new(Code::Usage, message).hint(hint).into());
            }
            _ => found = Some((user, &disk.path)),
        }
    }
    let Some((user, path)) = found else {
        return Ok(None);
    };
    // The file's group says who else may read it, and nothing about the user.
    match v3m_qemu::group_of(user) {
        0 => {
            let message = format!(
                "VM {} would run with group root, which is that of user {user}, to whom {} belongs",
                vm.name,
                path.display()
            );
            let hint = "give its disks to a user with a group of his own (chown)";
            Err(Failure::new(Code::Usage, message).hint(hint).into())
        }
        group => Ok(Some((user, group))),
    }
}

/// What a path leads to, by a way that root may go.
fn looked_at(path: &Path) -> std::io::Result<Metadata> {
    Place::found(path)?.handle()?.metadata()
}

/// Can this user reach the VM's files? It is said here in full, where QEMU would only say "Permission denied".
pub fn can_reach(vm: &Vm, owner: Owner) -> Result<()> {
    let mut files: Vec<(PathBuf, bool)> = Vec::new();
    for disk in &vm.disks {
        files.push((disk.path.clone(), disk.read_only));
        // What is wrong with it is told at the start, with all else.
        let below = v3m_qemu::disk::chain(&disk.path, disk.format).unwrap_or_default();
        files.extend(below.into_iter().map(|path| (path, true)));
    }
    if let Boot::Kernel { kernel, initrd, .. } = &vm.boot {
        files.push((kernel.clone(), true));
        files.extend(initrd.iter().map(|initrd| (initrd.clone(), true)));
    }
    for (file, read_only) in files {
        // Where its links lead; each directory counts on that way.
        let file = match Place::found(&file) {
            Ok(place) => place.path().to_owned(),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                let message = format!("VM {} cannot have {}: {e}", vm.name, file.display());
                return Err(Failure::new(Code::Usage, message).into());
            }
            // That it is missing is told at the start.
            Err(_) => file,
        };
        let closed = file.ancestors().skip(1).find(|directory| {
            std::fs::metadata(directory).is_ok_and(|metadata| !may(&metadata, owner, 1))
        });
        if let Some(directory) = closed {
            let message = format!(
                "VM {} will run as user {}, who cannot get to {}: {} is closed to others",
                vm.name,
                owner.0,
                file.display(),
                directory.display()
            );
            let hint = format!(
                "move the VM's files, to /var/lib/v2m/images for example, or: chmod o+x {}",
                directory.display()
            );
            return Err(Failure::new(Code::Unfit, message).hint(hint).into());
        }
        // Writable ones are its own, or will be.
        if read_only && std::fs::metadata(&file).is_ok_and(|m| m.is_file() && !may(&m, owner, 4)) {
            let message = format!(
                "VM {} will run as user {}, who may not read {}",
                vm.name,
                owner.0,
                file.display()
            );
            let hint = format!("chmod o+r {}", file.display());
            return Err(Failure::new(Code::Unfit, message).hint(hint).into());
        }
    }
    Ok(())
}

/// Has the user this right (4 read, 1 pass)? Access control lists are not looked at.
fn may(metadata: &Metadata, (uid, gid): Owner, right: u32) -> bool {
    let shift = match () {
        () if metadata.uid() == uid => 6,
        () if metadata.gid() == gid => 3,
        () => 0,
    };
    metadata.mode() >> shift & right != 0
}

/// A disk that was given to the VM with this id is root's again; one that is somebody's stays as it is.
pub fn give_back(path: &Path, id: u32) -> std::io::Result<()> {
    let place = Place::found(path)?;
    match place.handle()?.metadata()?.uid() == id {
        true => place.give((0, 0), |uid| uid == id),
        false => Ok(()),
    }
}

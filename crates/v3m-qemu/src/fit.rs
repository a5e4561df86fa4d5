//! Can this host run this VM? Looked at before QEMU is started, so that the answer names the thing and the cure, and all
//! of them at once. Whether the VM's description is right is another question, answered by crate `profile`.
//!
//! The format of an image is told, never probed: a guest can write any format's first bytes to its raw disk. The first
//! bytes are read only to refuse what contradicts what was told. Whether an image is in use is QEMU's to say, which
//! locks what it opens; see [`in_use`].

use crate::arguments::{Accelerator, DriverName, IDE_SLOTS, bus};
use crate::disk::header;
use files::Place;
use profile::{Boot, Bus, Disk, DiskFormat, Firmware, Medium, Vm};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// What stands against a start, each a sentence; empty: nothing was found. `root` is `/`, but in tests.
pub fn findings(vm: &Vm, accelerator: Accelerator, root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    for disk in &vm.disks {
        findings.extend(self::disk(disk).err());
    }
    let ide = vm.disks.iter().filter(|d| bus(d) == Bus::Ide).count();
    if ide > IDE_SLOTS {
        findings.push(format!(
            "{ide} drives are on IDE, which takes {IDE_SLOTS}; put some on another bus (CD drives: scsi or sata)"
        ));
    }
    if let Boot::Kernel { kernel, initrd, .. } = &vm.boot {
        for (what, path) in [("kernel", Some(kernel)), ("initrd", initrd.as_ref())] {
            let Some(path) = path else { continue };
            let shown = path.display();
            // Looked at before it is opened, since a FIFO would be waited for.
            match fs::metadata(path).map(|metadata| (metadata.is_dir(), metadata.is_file())) {
                Ok((true, _)) => findings.push(format!("{what} {shown} is a directory")),
                Ok((_, false)) => findings.push(format!("{what} {shown} is no file")),
                Ok(_) => {
                    let opened = Place::found(path).and_then(|place| place.open(false));
                    let failed = |e| format!("cannot read {what} {shown}: {e}");
                    findings.extend(opened.map_err(failed).err());
                }
                Err(e) => findings.push(format!("cannot read {what} {shown}: {e}")),
            }
        }
    }
    findings.extend(language(vm));
    findings.extend(of_host(vm, accelerator, root));
    findings
}

/// Of those, what is the host's to mend and not the VM's.
pub fn of_host(vm: &Vm, accelerator: Accelerator, root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    if vm.firmware == Firmware::Uefi && crate::firmware::find().is_none() {
        findings.push(crate::firmware::MISSING.to_owned());
    }
    if accelerator == Accelerator::Tcg && vm.cpu.model.as_deref() == Some("host") {
        findings.push(
            "CPU model host needs KVM; leave the model out, or say max, for translated guests"
                .to_owned(),
        );
    }
    findings.extend(memory(vm, root).err());
    for device in &vm.devices {
        findings.extend(self::device(device, root).err());
    }
    findings
}

/// Words of QEMU's own language that make it something else than a VM.
fn language(vm: &Vm) -> Vec<String> {
    let mut findings = Vec::new();
    let model = vm.cpu.model.as_deref();
    if let Some(model @ ("help" | "?")) = model.map(|model| model.split(',').next().unwrap_or("")) {
        findings.push(format!(
            "CPU model {model:?} is a question; `qemu-system-x86_64 -cpu help` lists the models"
        ));
    }
    for word in &vm.extra {
        // `--name` is the same to QEMU.
        let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        if let Some("daemonize" | "pidfile" | "h" | "help" | "version") = name {
            findings.push(format!(
                "the extra argument {word} is not possible: the VM is QEMU's process, which has to stay what it is"
            ));
        }
    }
    findings
}

fn disk(disk: &Disk) -> Result<(), String> {
    let shown = disk.path.display();
    let metadata = match fs::metadata(&disk.path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return match (disk.medium, disk.size) {
                (Medium::Disk, Some(_)) => Ok(()),
                (Medium::Disk, None) => Err(format!(
                    "there is no disk image {shown}: {e}; give it a size to have it made"
                )),
                (Medium::Cdrom, _) => Err(format!("there is no CD image {shown}: {e}")),
            };
        }
        Err(e) => return Err(format!("cannot use {shown}: {e}")),
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(format!("{shown} is a directory, and no image"));
    }
    let on_host = kind.is_block_device();
    if !kind.is_file() && !on_host {
        return Err(format!("{shown} is neither a file nor a disk"));
    }
    let read_only = disk.read_only || disk.medium == Medium::Cdrom;
    let open = || Place::found(&disk.path)?.open(!read_only);
    let file = open().map_err(|e| {
        let how = if read_only { "read" } else { "write" };
        let cure = if on_host {
            format!("; try: sudo setfacl -m u:$USER:rw {shown}")
        } else {
            String::new()
        };
        format!("cannot {how} {shown}: {e}{cure}")
    })?;
    let failed = |e: io::Error| format!("cannot read {shown}: {e}");
    if disk.medium == Medium::Cdrom {
        return match header::is_iso(&file) {
            _ if on_host => Ok(()),
            Ok(true) => Ok(()),
            Ok(false) => Err(format!(
                "{shown} is no CD image: it has no ISO 9660 or UDF file system"
            )),
            Err(e) => Err(failed(e)),
        };
    }
    let header = header::read(&file).map_err(failed)?;
    match (disk.format, header.format) {
        (told, Some(found)) if told != found => Err(format!(
            "{shown} is told to be {}, and begins as {} does; say format = \"{}\"",
            told.driver(),
            found.driver(),
            found.driver()
        )),
        (told, None) if told != DiskFormat::Raw => Err(format!(
            "{shown} is told to be {}, and does not begin as one; is it raw?",
            told.driver()
        )),
        (DiskFormat::Qcow2, _) if header.external => chain(disk),
        _ => Ok(()),
    }
}

/// What an overlay stands on: QEMU opens it too.
fn chain(disk: &Disk) -> Result<(), String> {
    let all = crate::disk::chain(&disk.path, disk.format).map_err(|e| e.to_string())?;
    for below in all {
        let opened = Place::found(&below).and_then(|place| place.open(false));
        opened.map_err(|e| {
            let (shown, below) = (disk.path.display(), below.display());
            format!("{shown} stands on {below}, which cannot be read: {e}")
        })?;
    }
    Ok(())
}

fn memory(vm: &Vm, root: &Path) -> Result<(), String> {
    // Where the kernel does not say, nothing can be refused.
    let Ok(text) = fs::read_to_string(root.join("proc/meminfo")) else {
        return Ok(());
    };
    let field = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
    };
    let needed = vm.memory.0;
    if vm.huge_pages {
        let size = field("Hugepagesize:").unwrap_or(2048).max(1);
        let free = field("HugePages_Free:").unwrap_or(0);
        let pages = (needed * 1024).div_ceil(size);
        if pages > free {
            return Err(format!(
                "{needed} MiB need {pages} huge pages, and {free} are free; try: sudo sysctl vm.nr_hugepages={}",
                field("HugePages_Total:").unwrap_or(0) + pages - free
            ));
        }
    } else if let Some(available) = field("MemAvailable:") {
        let free = (available + field("SwapFree:").unwrap_or(0)) / 1024;
        if needed > free {
            return Err(format!(
                "the VM needs {needed} MiB of memory, and the host has {free} MiB left; give the VM less, or stop another"
            ));
        }
    }
    Ok(())
}

/// A PCI device can be passed through when it is in a group of its own at the IOMMU and the driver `vfio-pci` has it.
fn device(address: &str, root: &Path) -> Result<(), String> {
    let device = root.join("sys/bus/pci/devices").join(address);
    if !device.exists() {
        return Err(format!(
            "there is no PCI device {address} on this host; `lspci -D` lists them"
        ));
    }
    let Ok(group) = fs::read_link(device.join("iommu_group")) else {
        return Err(format!(
            "PCI device {address} cannot be passed through: the host's IOMMU is off; switch it on in the firmware, and \
             boot the kernel with intel_iommu=on (Intel)"
        ));
    };
    let driver = fs::read_link(device.join("driver"));
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let driver = driver.ok().and_then(|path| name(&path));
    if driver.as_deref() != Some("vfio-pci") {
        return Err(format!(
            "PCI device {address} belongs to the driver {}; try: sudo driverctl set-override {address} vfio-pci",
            driver.as_deref().unwrap_or("of nobody")
        ));
    }
    let node = root.join("dev/vfio").join(name(&group).unwrap_or_default());
    File::options()
        .read(true)
        .write(true)
        .open(&node)
        .map(drop)
        .map_err(|e| {
            format!(
                "cannot use PCI device {address}: {}: {e}; try: sudo chown $USER {}",
                node.display(),
                node.display()
            )
        })
}

/// What QEMU says of an image that another process has locked, in words that name the cure.
pub fn in_use(said: &str) -> Option<String> {
    // `Failed to get "write" lock`, then on a line of its own `Is another process using the image [/path]?`
    let at = said.find("Is another process using the image [")?;
    let path = said[at..].split_once('[')?.1.split_once("]?")?.0;
    Some(is_in_use(&path))
}

pub fn is_in_use(path: &dyn std::fmt::Display) -> String {
    format!(
        "{path} is in use by another VM or program; stop that one first, or give this VM a disk of its own"
    )
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;

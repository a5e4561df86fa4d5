//! Each thing that a host may lack is told, with its cure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use super::*;
use api::{MiB, Name};
use profile::{Backend, BootDevice};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, start: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = vec![0; 40_000];
        bytes[..start.len()].copy_from_slice(start);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn findings(&self, vm: &Vm) -> Vec<String> {
        findings(vm, Accelerator::Tcg, self.0.path())
    }
}

fn vm(disks: Vec<Disk>) -> Vm {
    let order = vec![BootDevice::Disk];
    let boot = Boot::Firmware { order };
    Vm {
        disks,
        ..Vm::new(Name::new("a").unwrap(), Backend::Qemu, 1, MiB(64), boot)
    }
}

fn one(place: &Place, disk: Disk) -> String {
    let findings = place.findings(&vm(vec![disk]));
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings[0].clone()
}

#[test]
fn images_that_cannot_be_used() {
    let place = Place::new();
    let missing = place.0.path().join("missing.raw");
    let disk = |path: PathBuf| Disk::new(path, DiskFormat::Raw, false);
    assert!(one(&place, disk(missing.clone())).contains("give it a size"));
    let mut sized = disk(missing);
    sized.size = Some(MiB(8));
    assert!(place.findings(&vm(vec![sized.clone()])).is_empty());
    sized.medium = Medium::Cdrom;
    assert!(one(&place, sized).contains("there is no CD image"));
    assert!(one(&place, disk(place.0.path().into())).contains("is a directory"));
    assert!(one(&place, disk("/dev/null".into())).contains("neither a file nor a disk"));
}

/// Root may read everything.
#[test]
fn images_without_permission() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let path = place.file("disk.raw", b"");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let mut disk = Disk::new(path.clone(), DiskFormat::Raw, false);
    assert!(one(&place, disk.clone()).contains("cannot write"));
    disk.read_only = true;
    assert!(place.findings(&vm(vec![disk.clone()])).is_empty());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    assert!(one(&place, disk).contains("cannot read"));
}

#[test]
fn formats_other_than_told() {
    let place = Place::new();
    let mut vdi = [0; 68];
    vdi[64..].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
    let files = [
        (DiskFormat::Raw, place.file("raw", b"\xeb\x63")),
        (DiskFormat::Qcow2, place.file("qcow2", b"QFI\xfb\0\0\0\x03")),
        (DiskFormat::Vmdk, place.file("vmdk", b"KDMV")),
        (DiskFormat::Vdi, place.file("vdi", &vdi)),
    ];
    for (is, path) in &files {
        for (told, _) in &files {
            let disk = Disk::new(path.clone(), *told, false);
            if is == told {
                assert!(place.findings(&vm(vec![disk])).is_empty());
            } else {
                let finding = one(&place, disk);
                assert!(finding.contains(&format!("is told to be {}", told.driver())));
                if *is != DiskFormat::Raw {
                    assert!(finding.ends_with(&format!("say format = \"{}\"", is.driver())));
                }
            }
        }
    }
    // Shorter than any magic.
    let tiny = place.0.path().join("tiny");
    fs::write(&tiny, b"QF").unwrap();
    assert!(
        place
            .findings(&vm(vec![Disk::new(tiny, DiskFormat::Raw, false)]))
            .is_empty()
    );
}

#[test]
fn a_cd_image_that_is_none() {
    let place = Place::new();
    let mut disk = Disk::new(place.file("a.iso", b"<html>"), DiskFormat::Raw, true);
    disk.medium = Medium::Cdrom;
    assert!(one(&place, disk.clone()).contains("is no CD image"));
    let mut iso = vec![0; 40_000];
    iso[32_769..32_774].copy_from_slice(b"CD001");
    disk.path = place.file("b.iso", &iso);
    assert!(place.findings(&vm(vec![disk.clone()])).is_empty());
    disk.path = place.0.path().join("short.iso");
    fs::write(&disk.path, "short").unwrap();
    assert!(one(&place, disk).contains("is no CD image"));
}

#[test]
fn more_drives_than_ide_takes() {
    let place = Place::new();
    let mut disk = Disk::new(place.file("a", b""), DiskFormat::Raw, false);
    disk.bus = Bus::Ide;
    assert!(place.findings(&vm(vec![disk.clone(); 4])).is_empty());
    let findings = place.findings(&vm(vec![disk; 5]));
    assert!(findings[0].contains("5 drives are on IDE, which takes 4"));
}

#[test]
fn kernels_that_are_not_there() {
    let place = Place::new();
    let mut vm = vm(Vec::new());
    vm.boot = Boot::Kernel {
        kernel: place.0.path().join("vmlinuz"),
        initrd: Some(place.0.path().into()),
        arguments: String::new(),
    };
    let findings = place.findings(&vm);
    assert!(findings[0].contains("cannot read kernel") && findings[1].contains("is a directory"));
}

#[test]
fn too_little_memory() {
    let place = Place::new();
    let meminfo = b"MemAvailable:    10240 kB\nSwapFree:     1024 kB\nHugePages_Total:       8\n\
          HugePages_Free:        3\nHugepagesize:       2048 kB\n";
    let path = place.file("proc/meminfo", meminfo);
    fs::write(path, meminfo).unwrap();
    let mut vm = vm(Vec::new());
    vm.memory = MiB(11);
    assert!(place.findings(&vm).is_empty());
    vm.memory = MiB(12);
    assert!(place.findings(&vm)[0].contains("needs 12 MiB of memory, and the host has 11 MiB"));
    vm.huge_pages = true;
    let finding = place.findings(&vm).remove(0);
    assert!(
        finding.contains("need 6 huge pages, and 3 are free"),
        "{finding}"
    );
    assert!(finding.ends_with("vm.nr_hugepages=11"), "{finding}");
    vm.memory = MiB(5);
    assert!(place.findings(&vm).is_empty());
}

#[test]
fn the_hosts_own_cpu_needs_kvm() {
    let place = Place::new();
    let mut vm = vm(Vec::new());
    vm.cpu.model = Some("host".to_owned());
    assert!(place.findings(&vm)[0].contains("needs KVM"));
    assert!(findings(&vm, Accelerator::Kvm, place.0.path()).is_empty());
}

#[test]
fn devices_that_cannot_be_passed_through() {
    let place = Place::new();
    let address = "0000:3b:00.0";
    let mut vm = vm(Vec::new());
    vm.devices = vec![address.to_owned()];
    assert!(place.findings(&vm)[0].contains("there is no PCI device"));
    let device = place.0.path().join("sys/bus/pci/devices").join(address);
    fs::create_dir_all(&device).unwrap();
    assert!(place.findings(&vm)[0].contains("IOMMU is off"));
    symlink("/sys/kernel/iommu_groups/7", device.join("iommu_group")).unwrap();
    symlink("/sys/bus/pci/drivers/nvme", device.join("driver")).unwrap();
    assert!(place.findings(&vm)[0].contains("belongs to the driver nvme"));
    fs::remove_file(device.join("driver")).unwrap();
    symlink("/sys/bus/pci/drivers/vfio-pci", device.join("driver")).unwrap();
    assert!(place.findings(&vm)[0].contains("dev/vfio/7"));
    place.file("dev/vfio/7", b"");
    assert!(place.findings(&vm).is_empty());
}

#[test]
fn an_image_in_use_is_told_so() {
    let said = "-device virtio-blk-pci,drive=disk0: Failed to get \"write\" lock\nIs another process using the image [/a b.raw]?";
    assert!(
        in_use(said)
            .unwrap()
            .starts_with("/a b.raw is in use by another VM")
    );
    assert_eq!(in_use("something else"), None);
}

/// An overlay is no better than what it stands on.
#[test]
fn overlays_whose_base_is_missing_or_untold() {
    let place = Place::new();
    let path = |name: &str| place.0.path().join(name);
    let qemu_img = |words: &str| {
        let mut command = std::process::Command::new("qemu-img");
        command.current_dir(place.0.path()).args(words.split(' '));
        assert!(command.output().unwrap().status.success(), "{words}");
    };
    qemu_img("create -q -f raw base 1M");
    qemu_img("create -q -f qcow2 -b base -F raw over");
    let over = Disk::new(path("over"), DiskFormat::Qcow2, false);
    assert!(place.findings(&vm(vec![over.clone()])).is_empty());
    fs::rename(path("base"), path("away")).unwrap();
    let finding = one(&place, over.clone());
    assert!(
        finding.contains("no such file") && finding.contains("rebase -u"),
        "{finding}"
    );
    qemu_img("create -q -f qcow2 -u -b fifo -F raw over 1M");
    let made = std::process::Command::new("mkfifo")
        .arg(path("fifo"))
        .status();
    assert!(made.unwrap().success());
    assert!(one(&place, over).contains("neither a file nor a disk"));
}

#[test]
fn a_kernel_that_is_no_file_is_not_waited_for() {
    let place = Place::new();
    let kernel = place.0.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&kernel).status();
    assert!(made.unwrap().success());
    let mut vm = vm(Vec::new());
    vm.boot = Boot::Kernel {
        kernel,
        initrd: None,
        arguments: String::new(),
    };
    assert!(place.findings(&vm)[0].ends_with("fifo is no file"));
}

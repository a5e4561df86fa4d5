//! Guests of one boot sector, and a place for their VMs.
#![allow(dead_code, reason = "each test uses some of it")]

use api::{MiB, Name};
use profile::{Backend, Boot, Disk, DiskFormat, Vm};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use v3m_qemu::{Options, QemuDriver};

/// Writes a dot to the serial port at each of the firmware's timer ticks, 18 a second, for ever.
const DOTS: &[u8] = &[
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x7c, // mov sp, 0x7c00
    0xfb, // sti
    0xf4, // hlt
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, 0x2e, // mov al, '.'
    0xee, // out dx, al
    0xeb, 0xf7, // jmp to the hlt
];

/// Powers the machine off at once: ACPI sleep state 5 through PM1a_CNT, which SeaBIOS puts at 0x604.
const OFF: &[u8] = &[
    0xba, 0x04, 0x06, // mov dx, 0x604
    0xb8, 0x00, 0x20, // mov ax, 0x2000
    0xef, // out dx, ax
    0xf4, // hlt
    0xeb, 0xfd, // jmp to the hlt
];

#[derive(Clone, Copy)]
pub enum Guest {
    Dots,
    Off,
}

/// A directory for VMs; what runs in it when it is dropped is killed.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn vms(&self) -> PathBuf {
        self.dir.path().join("vms")
    }

    pub fn driver(&self) -> QemuDriver {
        QemuDriver::open(&self.vms(), Options::default()).unwrap()
    }

    pub fn vm(&self, name: &str, guest: Guest) -> Vm {
        let boot = Boot::Firmware {
            order: vec![profile::BootDevice::Disk],
        };
        let disk = disk(self.dir.path(), guest);
        Vm {
            disks: vec![Disk::new(disk, DiskFormat::Raw, true)],
            ..Vm::new(Name::new(name).unwrap(), Backend::Qemu, 1, MiB(16), boot)
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.vms()).into_iter().flatten().flatten() {
            let _ = daemon::kill(&entry.path().join("qemu.lock"), Duration::from_secs(10));
        }
    }
}

fn disk(dir: &Path, guest: Guest) -> PathBuf {
    let (name, code) = match guest {
        Guest::Dots => ("dots.raw", DOTS),
        Guest::Off => ("off.raw", OFF),
    };
    let path = dir.join(name);
    if !path.exists() {
        let mut bytes = vec![0; 1 << 20];
        bytes[..code.len()].copy_from_slice(code);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        fs::write(&path, bytes).unwrap();
    }
    path
}

/// Looks until it is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

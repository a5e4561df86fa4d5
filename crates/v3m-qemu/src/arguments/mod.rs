//! The command line of QEMU for a VM: an argument vector, and a pure function of what goes in.
//!
//! What is where and why:
//! * Machine `pc` without what no node needs: it takes a PCI device while it runs without bridges planned ahead, and
//!   boots faster under TCG than `q35` (figures: docs/performance.md).
//! * Disks are `-blockdev` with their format told, since a probed format lets a guest turn its raw disk into a qcow2
//!   that names a file of the host. Through the page cache (`cache.direct=off`), because all nodes of a cluster read
//!   the same base image: the first one reads it for all. That rules out `aio=native`; `threads` works on every file
//!   system and under the sandbox. Flushes reach the disk, so that a node survives what a real one survives.
//! * CD drives on virtio are IDE ones: no firmware and few guests know another. Disks on SATA have a controller of
//!   their own; machine `pc` has none.
//! * `discard=unmap`: what the guest frees, the host gets back.
//! * No `-no-reboot`: a guest that reboots is rebooted. A guest that panics ends its VM with a reason (`pvpanic-pci`).
//! * Sockets arrive as descriptors: they listen before QEMU runs, in a directory where QEMU may create nothing.

mod devices;
mod machine;

pub(crate) use devices::{Driver as DriverName, IDE_SLOTS, bus};
pub(crate) use machine::MACHINE;

use api::MiB;
use profile::{Backend, Display, Vm};
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How guest code is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    pub fn backend(self) -> Backend {
        match self {
            Self::Kvm => Backend::Kvm,
            Self::Tcg => Backend::Qemu,
        }
    }
}

/// The numbers that QEMU finds its open files under.
#[derive(Clone, Debug)]
pub struct Descriptors {
    pub qmp: RawFd,
    pub console: RawFd,
    /// One for each NIC; `None` where the link needs none (NAT, private, unplugged).
    pub taps: Vec<Option<RawFd>>,
}

/// Size of TCG's cache of translated code in MiB. Too small and a booting Linux is translated again and again; the
/// memory is touched only as it fills, but every VM may fill it.
const TB_SIZE: MiB = MiB(256);

/// What the host has to do with it.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The frequency of the host's time-stamp counter in kHz, where it is one that can be trusted.
    pub tsc_khz: Option<u32>,
    /// The code of the UEFI firmware, for VMs that have it.
    pub uefi: Option<PathBuf>,
    /// VMs with the same of these share private networks: the driver's directory.
    pub networks: PathBuf,
}

/// All arguments after the program's name. The VM's own extra ones come last, so that they have the last word.
pub fn arguments(
    vm: &Vm,
    accelerator: Accelerator,
    descriptors: &Descriptors,
    site: &Site,
) -> Vec<OsString> {
    let mut args = Arguments(Vec::new());
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.pair("-name", vm.name.as_str());
    if vm.display == Display::None {
        args.pair("-display", "none");
    }
    args.pair("-msg", "timestamp=on");
    args.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    args.machine(vm, site);
    match accelerator {
        Accelerator::Kvm => args.pair("-accel", "kvm"),
        Accelerator::Tcg => {
            args.pair("-accel", format!("tcg,thread=multi,tb-size={}", TB_SIZE.0));
        }
    }
    args.processors(vm.cpus, &vm.cpu, accelerator);
    args.memory(vm);
    args.monitors(descriptors);
    args.boot(&vm.boot, accelerator, site.tsc_khz);
    args.pair("-object", "rng-random,id=rng0,filename=/dev/urandom");
    args.pair("-device", "virtio-rng-pci,rng=rng0");
    args.pair("-device", "pvpanic-pci");
    args.disks(vm);
    args.nics(vm, descriptors, site);
    args.channels(vm);
    args.display(vm.display);
    args.host_devices(&vm.devices);
    // After all that a guest names by its place.
    args.pair("-device", crate::balloon::DEVICE);
    args.0.extend(vm.extra.iter().map(OsString::from));
    args.0
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    fn monitors(&mut self, descriptors: &Descriptors) {
        let Descriptors { qmp, console, .. } = descriptors;
        self.pair(
            "-chardev",
            format!("socket,id=qmp,fd={qmp},server=on,wait=off"),
        );
        self.pair("-mon", "chardev=qmp,mode=control");
        // Relative paths: QEMU's working directory is the VM's own.
        self.pair("-chardev", "pipe,id=journal,path=journal");
        self.pair("-mon", "chardev=journal,mode=control");
        self.pair(
            "-chardev",
            format!(
                "socket,id=console,fd={console},server=on,wait=off,logfile=console.log,logappend=on"
            ),
        );
        self.pair("-serial", "chardev:console");
    }
}

/// An option's value ends at a comma; a comma that belongs to it is doubled.
pub(crate) fn with_path(options: &str, path: &Path) -> OsString {
    let mut value = options.as_bytes().to_vec();
    for &byte in OsStr::as_bytes(path.as_os_str()) {
        value.push(byte);
        if byte == b',' {
            value.push(byte);
        }
    }
    OsString::from_vec(value)
}

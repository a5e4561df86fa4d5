//! The command line of QEMU for a VM: an argument vector, and a pure function of what goes in.
//!
//! What is where and why:
//! * Machine `pc` without what no node needs: it takes a PCI device while it runs without bridges planned ahead, and
//!   boots faster under TCG than `q35` (figures: docs/performance.md).
//! * Disks are `-blockdev` with their format told, since a probed format lets a guest turn its raw disk into a qcow2
//!   that names a file of the host. Through the page cache (`cache.direct=off`), because all nodes of a cluster read
//!   the same base image: the first one reads it for all. That rules out `aio=native`; `threads` works on every file
//!   system and under the sandbox. Flushes reach the disk, so that a node survives what a real one survives.
//! * `discard=unmap`: what the guest frees, the host gets back.
//! * No `-no-reboot`: a guest that reboots is rebooted. A guest that panics ends its VM with a reason (`pvpanic-pci`).
//! * Sockets arrive as descriptors: they listen before QEMU runs, in a directory where QEMU may create nothing.

use api::MiB;
use profile::{Backend, Boot, Disk, DiskFormat, Link, Vm};
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

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
    /// One for each NIC; `None` for user-mode NAT.
    pub taps: Vec<Option<RawFd>>,
}

/// Size of TCG's cache of translated code in MiB. Too small and a booting Linux is translated again and again; the
/// memory is touched only as it fills, but every VM may fill it.
const TB_SIZE: MiB = MiB(256);

pub(crate) const MACHINE: &str = "pc,hpet=off,vmport=off,smbus=off,usb=off,i8042=off,graphics=off";

/// All arguments after the program's name.
///
/// `tsc_khz` is the frequency of the host's time-stamp counter, where it is one that can be trusted.
pub fn arguments(
    vm: &Vm,
    accelerator: Accelerator,
    descriptors: &Descriptors,
    tsc_khz: Option<u32>,
) -> Vec<OsString> {
    let mut args = Arguments(Vec::new());
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.pair("-name", vm.name.as_str());
    args.pair("-display", "none");
    args.pair("-msg", "timestamp=on");
    args.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    args.pair("-machine", MACHINE);
    match accelerator {
        Accelerator::Kvm => {
            args.pair("-accel", "kvm");
            args.pair("-cpu", "host");
        }
        Accelerator::Tcg => {
            args.pair("-accel", format!("tcg,thread=multi,tb-size={}", TB_SIZE.0));
            args.pair("-cpu", TCG_CPU);
        }
    }
    args.pair("-smp", vm.cpus.to_string());
    args.pair("-m", format!("size={}M", vm.memory.0));
    args.monitors(descriptors);
    args.boot(&vm.boot, accelerator, tsc_khz);
    args.pair("-object", "rng-random,id=rng0,filename=/dev/urandom");
    args.pair("-device", "virtio-rng-pci,rng=rng0");
    args.pair("-device", "pvpanic-pci");
    for (number, disk) in vm.disks.iter().enumerate() {
        args.disk(
            number,
            disk,
            matches!(vm.boot, Boot::Firmware { .. }) && number == 0,
        );
    }
    for (number, nic) in vm.nics.iter().enumerate() {
        let tap = descriptors.taps.get(number).copied().flatten();
        match (&nic.link, tap) {
            (Link::Nat, _) => args.pair("-netdev", format!("user,id=net{number}")),
            (_, Some(fd)) => args.pair("-netdev", format!("tap,id=net{number},fd={fd}")),
            // A NIC whose cable is not plugged in: `launch` never leaves a network's port without its descriptor.
            (_, None) => {
                args.pair("-netdev", format!("hubport,id=net{number},hubid={number}"));
            }
        }
        // No boot ROM: nothing boots from the network here, and loading it costs time.
        args.pair(
            "-device",
            format!(
                "virtio-net-pci,id=nic{number},netdev=net{number},mac={},romfile=",
                nic.mac
            ),
        );
    }
    if !vm.channels.is_empty() {
        args.pair("-device", "virtio-serial-pci");
    }
    for (number, channel) in vm.channels.iter().enumerate() {
        args.pair(
            "-chardev",
            with_path(
                &format!("file,id=channel{number},append=on,path="),
                &channel.log,
            ),
        );
        args.pair(
            "-device",
            with_path(
                &format!("virtserialport,chardev=channel{number},name="),
                Path::new(&channel.name),
            ),
        );
    }
    args.0
}

/// Under TCG a feature that the guest uses and the translator makes slow is a loss. `erms` and `fsrm` advertise fast
/// `rep movsb`, which is translated into a byte at a time; `smap` makes every copy to or from a program switch between two
/// sets of translations; `mpx` and `pku` are more state to save at each change of the program; `la57` is a level of page
/// tables more. (Figures: docs/performance.md.)
const TCG_CPU: &str = "max,la57=off,erms=off,fsrm=off,smap=off,mpx=off,pku=off";

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

    fn boot(&mut self, boot: &Boot, accelerator: Accelerator, tsc_khz: Option<u32>) {
        match boot {
            Boot::Kernel {
                kernel,
                initrd,
                arguments,
            } => {
                self.pair("-kernel", kernel.as_os_str());
                if let Some(initrd) = initrd {
                    // Multiboot would take a list here; for Linux the value is one path, commas and all.
                    self.pair("-initrd", initrd.as_os_str());
                }
                let mut arguments = arguments.clone();
                if accelerator == Accelerator::Tcg && !arguments.contains("tsc") {
                    // See the module `tsc`. Another kernel than Linux passes over what it does not know.
                    match tsc_khz {
                        Some(khz) => arguments += &format!(" tsc=reliable tsc_early_khz={khz}"),
                        None => arguments += " tsc=unstable",
                    }
                }
                self.pair("-append", arguments);
            }
            Boot::Firmware { .. } => self.pair("-boot", "strict=on"),
        }
    }

    fn disk(&mut self, number: usize, disk: &Disk, boots: bool) {
        let driver = match disk.format {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Vmdk => "vmdk",
            DiskFormat::Vdi => "vdi",
        };
        let switch = if disk.read_only { "on" } else { "off" };
        let options = format!(
            "driver={driver},node-name=disk{number},read-only={switch},discard=unmap,cache.direct=off,\
             file.driver=file,file.aio=threads,file.discard=unmap,file.filename="
        );
        self.pair("-blockdev", with_path(&options, &disk.path));
        let boots = if boots { ",bootindex=0" } else { "" };
        self.pair(
            "-device",
            format!("virtio-blk-pci,id=virtio-disk{number},drive=disk{number}{boots}"),
        );
    }
}

/// An option's value ends at a comma; a comma that belongs to it is doubled.
fn with_path(options: &str, path: &Path) -> OsString {
    let mut value = options.as_bytes().to_vec();
    for &byte in OsStr::as_bytes(path.as_os_str()) {
        value.push(byte);
        if byte == b',' {
            value.push(byte);
        }
    }
    OsString::from_vec(value)
}

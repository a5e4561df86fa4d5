//! Disks, CD drives, NICs, display, and devices of the host.

use super::{Arguments, Descriptors, Site, with_path};
use profile::{Boot, BootDevice, Bus, Disk, DiskFormat, Display, Link, Medium, NicModel, Vm};
use std::path::Path;

/// IDE of machine `pc`: two channels of two. What a SATA controller has: six ports.
pub(crate) const IDE_SLOTS: usize = 4;
const SATA_PORTS: usize = 6;

/// The bus that a disk is really on. A virtio disk cannot be a CD drive; IDE's are seen by every guest and firmware.
pub(crate) fn bus(disk: &Disk) -> Bus {
    match (disk.bus, disk.medium) {
        (Bus::Virtio, Medium::Cdrom) => Bus::Ide,
        (bus, _) => bus,
    }
}

/// The place of each kind of device in the boot order, for the first of its kind.
struct Order<'a>(&'a [BootDevice]);

impl<'a> Order<'a> {
    fn of(boot: &'a Boot) -> Self {
        match boot {
            Boot::Firmware { order } => Self(order),
            Boot::Kernel { .. } => Self(&[]),
        }
    }

    fn index(&self, device: BootDevice) -> Option<usize> {
        self.0.iter().position(|d| *d == device)
    }
}

fn bootindex(index: Option<usize>) -> String {
    index.map_or(String::new(), |index| format!(",bootindex={index}"))
}

impl Arguments {
    pub(super) fn disks(&mut self, vm: &Vm) {
        let on = |wanted| vm.disks.iter().filter(|disk| bus(disk) == wanted).count();
        if on(Bus::Scsi) > 0 {
            self.pair("-device", "virtio-scsi-pci,id=scsi");
        }
        for controller in 0..on(Bus::Sata).div_ceil(SATA_PORTS) {
            self.pair("-device", format!("ich9-ahci,id=sata{controller}"));
        }
        let order = Order::of(&vm.boot);
        let first = |medium| vm.disks.iter().position(|disk| disk.medium == medium);
        let (first_disk, first_cd) = (first(Medium::Disk), first(Medium::Cdrom));
        let (mut ide, mut sata) = (0, 0);
        for (number, disk) in vm.disks.iter().enumerate() {
            let index = if Some(number) == first_disk {
                order.index(BootDevice::Disk)
            } else if Some(number) == first_cd {
                order.index(BootDevice::Cdrom)
            } else {
                None
            };
            self.node(number, disk);
            let kind = match disk.medium {
                Medium::Disk => "hd",
                Medium::Cdrom => "cd",
            };
            let device = match bus(disk) {
                Bus::Virtio => {
                    format!("virtio-blk-pci,id=virtio-disk{number},drive=disk{number}")
                }
                Bus::Scsi => {
                    format!("scsi-{kind},id=scsi-disk{number},bus=scsi.0,drive=disk{number}")
                }
                Bus::Sata => {
                    let (controller, port) = (sata / SATA_PORTS, sata % SATA_PORTS);
                    sata += 1;
                    format!(
                        "ide-{kind},id=sata-disk{number},bus=sata{controller}.{port},drive=disk{number}"
                    )
                }
                Bus::Ide => {
                    let (channel, unit) = (ide / 2, ide % 2);
                    ide += 1;
                    format!(
                        "ide-{kind},id=ide-disk{number},bus=ide.{channel},unit={unit},drive=disk{number}"
                    )
                }
            };
            self.pair("-device", device + &bootindex(index));
        }
        if vm.cloud_init.is_some() {
            // Last, so that it moves no disk's name in the guest.
            let number = vm.disks.len();
            let disk = Disk::new(crate::cloud::FILE.into(), DiskFormat::Raw, true);
            self.node(number, &disk);
            let device = format!("virtio-blk-pci,id=virtio-disk{number},drive=disk{number}");
            self.pair("-device", device);
        }
    }

    fn node(&mut self, number: usize, disk: &Disk) {
        let driver = disk.format.driver();
        let read_only = disk.read_only || disk.medium == Medium::Cdrom;
        let switch = if read_only { "on" } else { "off" };
        let options = format!(
            "driver={driver},node-name=disk{number},read-only={switch},discard=unmap,cache.direct=off,\
             file.driver={},file.aio=threads,file.discard=unmap,file.filename=",
            protocol(disk)
        );
        self.pair("-blockdev", with_path(&options, &disk.path));
    }

    pub(super) fn nics(&mut self, vm: &Vm, descriptors: &Descriptors, site: &Site) {
        let network_boots = Order::of(&vm.boot).index(BootDevice::Network);
        for (number, nic) in vm.nics.iter().enumerate() {
            let tap = descriptors.taps.get(number).copied().flatten();
            let netdev = match (&nic.link, tap) {
                (Link::Nat, _) => format!("user,id=net{number}"),
                (Link::Private { network }, _) => {
                    let group = crate::link::group(&site.networks, network);
                    format!("socket,id=net{number},mcast={group},localaddr=127.0.0.1")
                }
                (_, Some(fd)) => format!("tap,id=net{number},fd={fd}"),
                // A NIC whose cable is not plugged in: `launch` never leaves another without its descriptor.
                (_, None) => format!("hubport,id=net{number},hubid={number}"),
            };
            self.pair("-netdev", netdev);
            let index = network_boots.filter(|_| number == 0);
            // Without its boot ROM, which takes time to load, where nothing boots from it.
            let rom = if index.is_some() { "" } else { ",romfile=" };
            let model = match nic.model {
                NicModel::Virtio => "virtio-net-pci",
                NicModel::E1000 => "e1000",
            };
            let device = format!("{model},id=nic{number},netdev=net{number},mac={}", nic.mac);
            self.pair("-device", device + rom + &bootindex(index));
        }
    }

    pub(super) fn channels(&mut self, vm: &Vm) {
        if !vm.channels.is_empty() {
            self.pair("-device", "virtio-serial-pci");
        }
        for (number, channel) in vm.channels.iter().enumerate() {
            self.pair(
                "-chardev",
                with_path(
                    &format!("file,id=channel{number},append=on,path="),
                    &channel.log,
                ),
            );
            self.pair(
                "-device",
                with_path(
                    &format!("virtserialport,chardev=channel{number},name="),
                    Path::new(&channel.name),
                ),
            );
        }
    }

    /// VNC listens on a unix socket, in a directory that is all that QEMU may write in: it makes the socket itself.
    pub(super) fn display(&mut self, display: Display) {
        match display {
            Display::None => {}
            Display::Vnc => {
                self.pair("-device", "VGA");
                self.pair("-vnc", "unix:vnc/vnc.sock");
            }
        }
    }

    pub(super) fn host_devices(&mut self, devices: &[String]) {
        for (number, address) in devices.iter().enumerate() {
            self.pair(
                "-device",
                with_path(
                    &format!("vfio-pci,id=host{number},host="),
                    Path::new(address),
                ),
            );
        }
    }
}

/// A disk or a drive of the host's is no file to QEMU.
fn protocol(disk: &Disk) -> &'static str {
    let on_host = disk.path.starts_with("/dev") && !disk.path.starts_with("/dev/shm");
    match (on_host, disk.medium) {
        (false, _) => "file",
        (true, Medium::Disk) => "host_device",
        (true, Medium::Cdrom) => "host_cdrom",
    }
}

/// The name of a format as QEMU's programs have it.
pub(crate) trait Driver {
    fn driver(self) -> &'static str;
}

impl Driver for DiskFormat {
    fn driver(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
        }
    }
}

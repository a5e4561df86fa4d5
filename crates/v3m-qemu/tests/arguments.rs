//! The command lines, as they are.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use api::{MiB, Name};
use profile::{Backend, Boot, BootDevice, Channel, Disk, DiskFormat, Firmware, Link, Nic, Vm};
use v3m_qemu::arguments::{Accelerator, Descriptors, Site, arguments};

fn text(vm: &Vm, accelerator: Accelerator) -> String {
    let descriptors = Descriptors {
        qmp: 7,
        console: 8,
        taps: vec![Some(9), None],
    };
    let mut text = String::new();
    let site = Site {
        tsc_khz: Some(2_793_436),
        uefi: Some("/usr/share/OVMF/OVMF_CODE_4M.fd".into()),
        networks: "/state/vms".into(),
    };
    for argument in arguments(vm, accelerator, &descriptors, &site) {
        let argument = argument.into_string().unwrap();
        text.push_str(if argument.starts_with('-') { "\n" } else { " " });
        text.push_str(&argument);
    }
    text.push('\n');
    text
}

fn node() -> Vm {
    let nic = |mac: &str, link| Nic {
        mac: mac.parse().unwrap(),
        model: profile::NicModel::Virtio,
        link,
    };
    let disk = |path: &str, format, read_only| Disk::new(path.into(), format, read_only);
    let boot = Boot::Kernel {
        kernel: "/images/a,b/kernel".into(),
        initrd: Some("/images/a,b/initrd".into()),
        arguments: "root=/dev/vda rw console=ttyS0".to_owned(),
    };
    let name = Name::new("compute1").unwrap();
    Vm {
        disks: vec![
            disk("/nodes/compute1/disk.qcow2", DiskFormat::Qcow2, false),
            disk("/nodes/compute1/identity,1.img", DiskFormat::Raw, true),
        ],
        nics: vec![
            nic(
                "52:54:00:00:00:01",
                Link::Network {
                    directory: "/net".into(),
                    port: "compute1".to_owned(),
                },
            ),
            nic("52:54:00:00:00:02", Link::Nat),
        ],
        channels: vec![Channel {
            name: "org.oscarv.events".to_owned(),
            log: "/nodes/compute1/events.log".into(),
        }],
        ..Vm::new(name, Backend::Auto, 4, MiB(2048), boot)
    }
}

/// Set `BLESS=1` to accept what is.
fn golden(file: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{file}");
}

#[test]
fn a_node_under_tcg() {
    golden("node-tcg.txt", &text(&node(), Accelerator::Tcg));
}

#[test]
fn a_node_under_kvm() {
    golden("node-kvm.txt", &text(&node(), Accelerator::Kvm));
}

#[test]
fn a_disk_that_boots_itself() {
    let mut vm = node();
    vm.boot = Boot::Firmware {
        order: vec![profile::BootDevice::Disk],
    };
    vm.nics.clear();
    vm.channels.clear();
    golden("disk-tcg.txt", &text(&vm, Accelerator::Tcg));
}

/// All that a profile can say, at once.
#[test]
fn a_machine_with_everything() {
    let mut vm = node();
    vm.boot = Boot::Firmware {
        order: vec![BootDevice::Cdrom, BootDevice::Disk, BootDevice::Network],
    };
    vm.firmware = Firmware::Uefi;
    vm.cpu.model = Some("EPYC,-svm".to_owned());
    vm.cpu.topology = Some(profile::Topology {
        sockets: 1,
        cores: 2,
        threads: 2,
    });
    vm.huge_pages = true;
    let numa = |cpus: &[u16]| profile::NumaNode {
        cpus: cpus.to_vec(),
        memory: MiB(1024),
    };
    vm.numa = vec![numa(&[0, 1]), numa(&[2, 3])];
    let disk = |path: &str, format, bus, medium| Disk {
        bus,
        medium,
        ..Disk::new(path.into(), format, false)
    };
    use profile::{Bus, Medium};
    vm.disks = vec![
        disk("/d/v.raw", DiskFormat::Raw, Bus::Virtio, Medium::Disk),
        disk("/d/s.qcow2", DiskFormat::Qcow2, Bus::Scsi, Medium::Disk),
        disk("/d/a.vmdk", DiskFormat::Vmdk, Bus::Sata, Medium::Disk),
        disk("/d/i.vdi", DiskFormat::Vdi, Bus::Ide, Medium::Disk),
        disk("/d/virtio.iso", DiskFormat::Raw, Bus::Virtio, Medium::Cdrom),
        disk("/d/scsi.iso", DiskFormat::Raw, Bus::Scsi, Medium::Cdrom),
        disk("/d/sata.iso", DiskFormat::Raw, Bus::Sata, Medium::Cdrom),
        disk("/dev/sr0", DiskFormat::Raw, Bus::Ide, Medium::Cdrom),
        disk("/dev/sdb", DiskFormat::Raw, Bus::Virtio, Medium::Disk),
    ];
    let nic = |last: u8, model, link| Nic {
        mac: format!("52:54:00:00:00:{last:02x}").parse().unwrap(),
        model,
        link,
    };
    let named = || "lab".to_owned();
    use profile::NicModel::{E1000, Virtio};
    vm.nics = vec![
        nic(1, Virtio, Link::Bridged { bridge: named() }),
        nic(2, E1000, Link::Nat),
        nic(3, Virtio, Link::Private { network: named() }),
        nic(4, Virtio, Link::Unplugged),
    ];
    vm.display = profile::Display::Vnc;
    vm.cloud_init = Some(profile::CloudInit {
        user_data: "#cloud-config".to_owned(),
        network_config: None,
    });
    vm.devices = vec!["0000:3b:00.0".to_owned()];
    vm.extra = vec!["-device".to_owned(), "edu,dma_mask=1".to_owned()];
    golden("everything-kvm.txt", &text(&vm, Accelerator::Kvm));
}

#[test]
fn huge_pages_without_numa() {
    let mut vm = node();
    vm.huge_pages = true;
    let text = text(&vm, Accelerator::Tcg);
    assert!(text.contains(",memory-backend=ram\n"), "{text}");
    assert!(
        text.contains("memory-backend-memfd,id=ram,size=2048M,hugetlb=on"),
        "{text}"
    );
}

#[test]
fn seven_sata_disks_have_two_controllers() {
    let mut vm = node();
    let mut disk = vm.disks[0].clone();
    disk.bus = profile::Bus::Sata;
    vm.disks = vec![disk; 7];
    let text = text(&vm, Accelerator::Tcg);
    assert_eq!(text.matches("ich9-ahci").count(), 2);
    assert!(text.contains("bus=sata0.5,drive=disk5"), "{text}");
    assert!(text.contains("bus=sata1.0,drive=disk6"), "{text}");
}

#[test]
fn what_is_given_cannot_become_an_option() {
    let mut vm = node();
    vm.channels[0].name = "a,chardev=qmp".to_owned();
    vm.disks[0].path = "/a,file.filename=/etc/shadow".into();
    let text = text(&vm, Accelerator::Tcg);
    assert!(text.contains("name=a,,chardev=qmp"));
    assert!(text.contains("file.filename=/a,,file.filename=/etc/shadow"));
}

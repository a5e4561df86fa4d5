//! The command lines, as they are.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use api::{MiB, Name};
use profile::{Backend, Boot, Channel, Disk, DiskFormat, Link, Nic, Vm};
use v3m_qemu::arguments::{Accelerator, Descriptors, arguments};

fn text(vm: &Vm, accelerator: Accelerator) -> String {
    let descriptors = Descriptors {
        qmp: 7,
        console: 8,
        taps: vec![Some(9), None],
    };
    let mut text = String::new();
    for argument in arguments(vm, accelerator, &descriptors, Some(2_793_436)) {
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

#[test]
fn what_is_given_cannot_become_an_option() {
    let mut vm = node();
    vm.channels[0].name = "a,chardev=qmp".to_owned();
    vm.disks[0].path = "/a,file.filename=/etc/shadow".into();
    let text = text(&vm, Accelerator::Tcg);
    assert!(text.contains("name=a,,chardev=qmp"));
    assert!(text.contains("file.filename=/a,,file.filename=/etc/shadow"));
}

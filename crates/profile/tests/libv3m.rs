//! Profiles of libv3m: what they mean here, and what is said of it.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use api::{MiB, Name};
use profile::{Backend, Bus, Checked, DiskFormat, Link, Medium, NicModel, Vm, vm, vms};
use std::path::Path;

fn good(text: &str) -> Checked<Vm> {
    vm(text, "good").unwrap_or_else(|e| panic!("{e}"))
}

fn notes<T>(checked: &Checked<T>) -> Vec<String> {
    checked.notes.iter().map(ToString::to_string).collect()
}

/// What is said of a wrong file.
fn wrong(text: &str) -> String {
    match vms(text, "x") {
        Ok(checked) => panic!("taken: {:#?}", checked.value),
        Err(errors) => errors.to_string(),
    }
}

/// The example of the original slides: no type, a NIC with a MAC only, a DOCTYPE.
const SLIDES: &str = r#"<?xml version="1.0"?>
<!DOCTYPE profile PUBLIC "" "xen_vm.dtd">
<profile>
        <name>test</name>
        <image size="500">/home/gvallee/vms/test.img</image>
        <nic1>
                <mac>00:02:03:04:05:06</mac>
        </nic1>
</profile>
"#;

#[test]
fn the_example_of_the_slides() {
    let checked = good(SLIDES);
    let vm = &checked.value;
    assert_eq!(
        (vm.name.clone(), vm.cpus, vm.memory),
        (Name::new("test").unwrap(), 1, MiB(128))
    );
    let disk = &vm.disks[0];
    assert_eq!(disk.path, Path::new("/home/gvallee/vms/test.img"));
    assert_eq!(
        (disk.size, disk.format, disk.bus),
        (Some(MiB(500)), DiskFormat::Raw, Bus::Ide)
    );
    assert_eq!(vm.nics[0].mac.to_string(), "00:02:03:04:05:06");
    assert_eq!(
        (vm.nics[0].model, &vm.nics[0].link),
        (NicModel::E1000, &Link::Nat)
    );
    assert_eq!(
        notes(&checked),
        [
            "nic.1.model = e1000 (guests of libv3m's time have no virtio)",
            "nic.1.kind = nat (the NIC has no type)",
            "disk.1.bus = ide (as libv3m had it: the first disk)",
            "disk.1.format = raw (libv3m had no other, and the name says no other)",
            "type = auto (default: the best that works on the host)",
            "cpus = 1 (default)",
            "memory = 128M (the default of libv3m)",
            "huge-pages = false (default)",
            "firmware = bios (default)",
            "display = none (default: the serial console is all there is)",
            "disk.1.read-only = false (default)",
            "boot.order = disk (default: the disks, then the CDs)",
        ]
    );
}

/// libv3m 1.0, with everything and in an order of its own.
#[test]
fn libv3m_with_everything() {
    let text = r#"<!DOCTYPE profile PUBLIC "" "/etc/v3m/v3m_profile.dtd">
<profile>
  <nic2><mac>02:00:00:00:00:02</mac><type option="br7">BRIDGED_TAP</type></nic2>
  <nic1><type>TUN/TAP+NAT</type></nic1>
  <cdrom>/dev/cdrom</cdrom>
  <virtual_disks>
    <virtual_disk id="sdb">/vm/data.vmdk</virtual_disk>
    <virtual_disk id="hdb">file:///vm/swap.img</virtual_disk>
  </virtual_disks>
  <image size="2000">file:///vm/test.qcow2</image>
  <memory> 256 </memory>
  <cpu>2</cpu>
  <type>Kvm</type>
  <name>test</name>
</profile>"#;
    let checked = good(text);
    let vm = &checked.value;
    assert_eq!(
        (vm.backend, vm.cpus, vm.memory),
        (Backend::Kvm, 2, MiB(256))
    );
    let disks: Vec<_> = vm
        .disks
        .iter()
        .map(|d| (d.path.to_str().unwrap(), d.format, d.bus, d.medium))
        .collect();
    assert_eq!(
        disks,
        [
            ("/vm/test.qcow2", DiskFormat::Qcow2, Bus::Ide, Medium::Disk),
            ("/vm/swap.img", DiskFormat::Raw, Bus::Ide, Medium::Disk),
            ("/vm/data.vmdk", DiskFormat::Vmdk, Bus::Scsi, Medium::Disk),
            ("/dev/cdrom", DiskFormat::Raw, Bus::Ide, Medium::Cdrom),
        ]
    );
    assert_eq!(vm.nics[0].link, Link::Nat);
    assert_eq!(
        vm.nics[1].link,
        Link::Bridged {
            bridge: "br7".into()
        }
    );
    assert!(
        notes(&checked)
            .iter()
            .any(|note| note.starts_with("disk = in the order of their ids"))
    );
}

#[test]
fn every_nic_type_of_libv3m() {
    let net = || "v3m".to_owned();
    for (kind, link) in [
        ("", Link::Nat),
        ("N/A", Link::Nat),
        ("TUN/TAP", Link::HostOnly { network: net() }),
        ("TUN/TAP+NAT", Link::Nat),
        ("VLAN", Link::Private { network: net() }),
        (
            "BRIDGED_TAP",
            Link::Bridged {
                bridge: "br0".into(),
            },
        ),
        ("NAT", Link::Nat),
        ("HOST_ONLY", Link::HostOnly { network: net() }),
    ] {
        let text = format!(
            "<profile><name>a</name><image>/a.img</image><nic1><type>{kind}</type></nic1></profile>"
        );
        let checked = good(&text);
        assert_eq!(checked.value.nics[0].link, link, "{kind:?}");
        assert!(
            notes(&checked)
                .iter()
                .any(|note| note.starts_with("nic.1.kind = "))
        );
    }
}

#[test]
fn every_type_of_libv3m() {
    let text = |kind: &str| {
        format!("<profile><type>{kind}</type><name>a</name><image>/a.img</image></profile>")
    };
    assert_eq!(good(&text("Qemu")).value.backend, Backend::Qemu);
    assert_eq!(good(&text("Kvm")).value.backend, Backend::Kvm);
    for kind in ["Xen", "XenHVM", "VMWare"] {
        assert!(wrong(&text(kind)).starts_with(&format!(
            "x:1:16: error: type {kind:?}: no driver here yet\n"
        )));
    }
    for kind in ["Lguest", "VMM-HPC"] {
        assert!(wrong(&text(kind)).contains("that hypervisor is no longer developed"));
    }
    assert!(wrong(&text("kvm")).contains("hint: did you mean \"Kvm\"? Capitals count"));
}

#[test]
fn what_is_ambiguous_in_libv3m_is_refused() {
    let profile = |inner: &str| format!("<profile><name>a</name>{inner}</profile>");
    for (inner, said) in [
        (
            "<image>/a</image><image>/b</image>",
            "x:1:42: error: \"image\" is given twice",
        ),
        ("<image>file://host/a</image>", "names another machine"),
        ("<image>http://host/a</image>", "is an address, not a path"),
        (
            "<image size=\"2G\">/a</image>",
            "\"2G\" is not a size in MB",
        ),
        (
            "<image>/a</image><memory>1G</memory>",
            "\"1G\" is not a memory in MB",
        ),
        (
            "<image>/a</image><memory>-1</memory>",
            "\"-1\" is not a memory in MB",
        ),
        (
            "<image>/a</image><memory>0</memory>",
            "\"0\" is not a memory in MB",
        ),
        (
            "<image>/a</image><cpu>0</cpu>",
            "cpus is a number from 1 to 255, not 0",
        ),
        (
            "<image>/a</image><cpu>two</cpu>",
            "\"two\" is not a number of CPUs",
        ),
        (
            "<image>/a</image><nic3/>",
            "unknown element \"nic3\" in <profile>",
        ),
        ("", "the profile has no image"),
        ("<image></image>", "the path of the disk is empty"),
        (
            "<image>/a</image><virtual_disks><virtual_disk id=\"hda\">/b</virtual_disk></virtual_disks>",
            "the disk hda is the image's",
        ),
        (
            "<image>/a</image><virtual_disks><virtual_disk>/b</virtual_disk></virtual_disks>",
            "this virtual disk has no id",
        ),
        (
            "<image>/a</image><virtual_disks><virtual_disk id=\"hdb\">/a</virtual_disk></virtual_disks>",
            "two disks have the file \"/a\"",
        ),
        (
            "<image>/a</image><nic1><type option=\"eth0\">VLAN</type></nic1>",
            "only NICs of the types BRIDGED_TAP and TUN/TAP+NAT have an option",
        ),
        (
            "<image>/a</image><nic1><type>TAP</type></nic1>",
            "\"TAP\" is not a type of a NIC",
        ),
        (
            "<image>/a</image><nic1><mac>02:00:00:00:00:01</mac></nic1><nic2><mac>02:00:00:00:00:01</mac></nic2>",
            "two NICs have the MAC 02:00:00:00:00:01",
        ),
    ] {
        let told = wrong(&profile(inner));
        assert!(told.contains(said), "{inner}: {told}");
    }
}

#[test]
fn several_profiles_in_one_file() {
    let text = "<profiles>\n<profile><name>a</name><image>/a</image></profile>\n<profile><image>/b</image><name>b</name><memory>64</memory></profile>\n</profiles>";
    let checked = vms(text, "x").unwrap();
    let names: Vec<_> = checked.value.iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let notes = notes(&checked);
    assert!(
        notes.contains(&"a.memory = 128M (the default of libv3m)".to_owned()),
        "{notes:?}"
    );
    assert!(!notes.iter().any(|note| note.starts_with("b.memory")));
    assert!(
        vm(text, "x")
            .unwrap_err()
            .to_string()
            .contains("the file has 2 profiles, and one is wanted")
    );
    assert_eq!(vms("<profiles/>", "x").unwrap().value, []);
    let twins = text.replace("<name>b<", "<name>a<");
    assert!(wrong(&twins).contains("two VMs have the name \"a\""));
}

/// Programs with forms to fill in wrote all elements, and `N/A` where nothing had been filled in: as a MAC that was
/// refused, and the drive of a CD was of the file `N/A`.
#[test]
fn a_profile_with_nothing_filled_in() {
    let text = r#"<?xml version="1.0"?>
<profile xmlns="">
  <name>test</name>
  <type>Qemu</type>
  <image size="N/A">/vms/test.img</image>
  <cdrom>N/A</cdrom>
  <nic1><type option="N/A">TUN/TAP</type><mac>N/A</mac></nic1>
  <nic2><type>N/A</type><mac>N/A</mac></nic2>
</profile>"#;
    let checked = good(text);
    let vm = &checked.value;
    assert_eq!(vm.disks.len(), 1);
    assert_eq!(vm.disks[0].size, None);
    let network = "v3m".to_owned();
    let links: Vec<_> = vm.nics.iter().map(|nic| nic.link.clone()).collect();
    assert_eq!(links, [Link::HostOnly { network }]);
    let notes = notes(&checked);
    for note in [
        "cdrom = none (the profile says N/A)",
        "nic.2 = none (the type says nothing, and the MAC is N/A)",
    ] {
        assert!(notes.contains(&note.to_owned()), "{notes:#?}");
    }
    assert!(
        notes
            .iter()
            .any(|note| note.starts_with("nic.1.mac = ") && note.contains("the VM's name")),
        "{notes:#?}"
    );
    let without = text.replace("TUN/TAP", "N/A");
    assert_eq!(good(&without).value.nics, []);
    // A MAC without a type is a NIC, as in the example of the slides.
    let one = text.replace(
        "<mac>N/A</mac></nic2>",
        "<mac>00:02:03:04:05:06</mac></nic2>",
    );
    assert_eq!(good(&one).value.nics[1].link, Link::Nat);
    assert!(
        wrong(&text.replace("/vms/test.img", "N/A")).contains("the profile has no image"),
        "nothing to boot from"
    );
}

/// libv3m's option of a NIC with NAT was the interface to the outside; it was refused.
#[test]
fn nat_through_an_interface_of_the_host() {
    for kind in ["TUN/TAP+NAT", "NAT"] {
        let text = format!(
            "<profile><name>a</name><image>/a.img</image><nic1><type option=\"eth1\">{kind}</type></nic1></profile>"
        );
        let checked = good(&text);
        assert_eq!(checked.value.nics[0].link, Link::Nat);
        let note = "nic.1.option = eth1 (not needed: NAT goes out where the host does)";
        assert!(notes(&checked).contains(&note.to_owned()));
    }
}

/// As OSCAR-V made them for its virtual nodes: a CD to boot the installation from, a NIC with a type only.
#[test]
fn a_node_of_the_first_oscarv() {
    let text = |kind: &str| {
        format!(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE profile PUBLIC \"\" \"/etc/v3m/v3m_profile.dtd\">\n<profile>\n\t<name>oscarnode1</name>\n\t<type>{kind}</type>\n\t<image size=\"2000\">/vms/oscarnode1.img</image>\n\t<cdrom>/vms/boot_cd.img</cdrom>\n\t<nic1>\n\t\t<type>TUN/TAP</type>\n\t</nic1>\n</profile>\n"
        )
    };
    let vm = good(&text("Kvm")).value;
    let disks: Vec<_> = vm
        .disks
        .iter()
        .map(|disk| (disk.size, disk.format, disk.medium))
        .collect();
    assert_eq!(
        disks,
        [
            (Some(MiB(2000)), DiskFormat::Raw, Medium::Disk),
            (None, DiskFormat::Raw, Medium::Cdrom)
        ]
    );
    assert!(matches!(vm.nics[0].link, Link::HostOnly { .. }));
    let told = wrong(&text("XenHVM"));
    assert!(told.starts_with("x:5:8: error: type \"XenHVM\": no driver here yet\n    <type>XenHVM</type>\n          ^^^^^^\nhint: "), "{told}");
}

/// A file may bring its DTD with it. Nothing of it is needed, and nothing of it is used.
#[test]
fn a_profile_with_its_dtd() {
    let text = r#"<!DOCTYPE profile [
  <!ELEMENT profile (name, image)>
  <!ELEMENT name (#PCDATA)> <!-- "it's" <name> -->
  <!ELEMENT image (#PCDATA)>
  <!ATTLIST image size CDATA "700">
]>
<profile><name>a</name><image>/a.img</image></profile>"#;
    assert_eq!(good(text).value.disks[0].size, None);
}

/// A million profiles took gigabytes, each with its defaults.
#[test]
fn very_many_profiles() {
    let file = |count| {
        let one = |n| format!("<profile><name>a{n}</name><image>/{n}</image></profile>");
        let all: String = (0..count).map(one).collect();
        format!("<profiles>{all}</profiles>")
    };
    assert_eq!(vms(&file(1000), "x").unwrap().value.len(), 1000);
    assert!(wrong(&file(1001)).contains("a file has at most 1000 profiles"));
}

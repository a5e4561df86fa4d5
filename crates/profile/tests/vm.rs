//! VM profiles: what TOML, XML and libv3m's XML mean, and what is filled in.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use api::{MiB, Name};
use profile::{
    Backend, Boot, BootDevice, Bus, Checked, DiskFormat, Display, Firmware, Link, Medium, NicModel,
    Topology, Vm, vm, vms,
};
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

const SIX_LINES: &str = r#"
name = "web"
memory = "1G"
[[disk]]
path = "debian-12.qcow2"
[cloud-init]
ssh-keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample me@here"]
"#;

#[test]
fn six_lines_are_enough_for_a_cloud_image() {
    let checked = good(SIX_LINES);
    let vm = &checked.value;
    assert_eq!(
        (vm.name.as_str(), vm.backend, vm.cpus),
        ("web", Backend::Auto, 1)
    );
    assert_eq!((vm.memory, vm.firmware), (MiB(1024), Firmware::Bios));
    let disk = &vm.disks[0];
    assert_eq!(disk.path, Path::new("debian-12.qcow2"));
    assert_eq!(
        (disk.format, disk.bus, disk.medium),
        (DiskFormat::Qcow2, Bus::Virtio, Medium::Disk)
    );
    assert_eq!(vm.nics[0].link, Link::Nat);
    let order = vec![BootDevice::Disk];
    assert_eq!(vm.boot, Boot::Firmware { order });
    assert_eq!(
        vm.cloud_init.as_ref().unwrap().user_data,
        "#cloud-config\nssh_authorized_keys:\n  - \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample me@here\"\n"
    );
    let mac = vm.nics[0].mac;
    assert_eq!(
        mac.bytes()[0] & 3,
        2,
        "{mac} is locally administered and unicast"
    );
    assert_eq!(
        notes(&checked),
        [
            "type = auto (default: the best that works on the host)".to_owned(),
            "cpus = 1 (default)".to_owned(),
            "huge-pages = false (default)".to_owned(),
            "firmware = bios (default)".to_owned(),
            "display = none (default: the serial console is all there is)".to_owned(),
            "disk.1.format = qcow2 (by the file's name)".to_owned(),
            "disk.1.bus = virtio (default)".to_owned(),
            "disk.1.read-only = false (default)".to_owned(),
            "nic.1.kind = nat (default: out, not in)".to_owned(),
            "nic.1.model = virtio (default)".to_owned(),
            format!("nic.1.mac = {mac} (follows from the VM's name)"),
            "boot.order = disk (default: the disks, then the CDs)".to_owned(),
            "cloud-init.user-data = #cloud-config (with the ssh keys)".to_owned(),
        ]
    );
    assert_eq!(good(SIX_LINES).value.nics[0].mac, mac, "it stays");
    let other = good(&SIX_LINES.replace("web", "db")).value;
    assert_ne!(other.nics[0].mac, mac);
}

/// One VM with everything, in both forms.
#[test]
fn toml_and_xml_say_the_same() {
    let toml = good(include_str!("vm/full.toml"));
    let xml = good(include_str!("vm/full.xml"));
    assert_eq!(toml.value, xml.value);
    assert_eq!(notes(&toml), notes(&xml));
    let vm = toml.value;
    let topology = Topology {
        sockets: 1,
        cores: 4,
        threads: 2,
    };
    assert_eq!(vm.cpu.topology, Some(topology));
    assert_eq!(vm.numa.len(), 2);
    assert_eq!(vm.numa[0].cpus, [0, 1, 2, 3]);
    assert!(vm.huge_pages);
    assert_eq!((vm.firmware, vm.display), (Firmware::Uefi, Display::Vnc));
    let links: Vec<_> = vm.nics.iter().map(|nic| nic.link.clone()).collect();
    assert_eq!(
        links,
        [
            Link::Nat,
            Link::Bridged {
                bridge: "br0".into()
            },
            Link::Private {
                network: "lab".into()
            },
            Link::HostOnly {
                network: "here".into()
            },
            Link::Vlan {
                bridge: "br1".into(),
                tag: 12
            },
            Link::Unplugged,
        ]
    );
    assert_eq!(vm.devices, ["0000:3b:00.0"]);
    assert_eq!(vm.extra, ["-device", "virtio-rng-pci"]);
    let order = vec![BootDevice::Cdrom, BootDevice::Disk, BootDevice::Network];
    assert_eq!(vm.boot, Boot::Firmware { order });
    assert_eq!(vm.disks[2].size, Some(MiB(20 << 10)));
    let data = vm.cloud_init.unwrap();
    assert!(
        data.user_data
            .starts_with("#cloud-config\nhostname: a<b&c\n"),
        "{data:?}"
    );
}

#[test]
fn direct_kernel_boot() {
    let text = r#"
name = "k"
nic = []
[boot]
kernel = "vmlinuz"
initrd = "initrd.img"
arguments = "console=ttyS0 quiet"
"#;
    let vm = good(text).value;
    assert_eq!(vm.nics, []);
    assert_eq!(
        vm.boot,
        Boot::Kernel {
            kernel: "vmlinuz".into(),
            initrd: Some("initrd.img".into()),
            arguments: "console=ttyS0 quiet".into()
        }
    );
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
            "only a NIC of type BRIDGED_TAP has an option",
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

#[test]
fn a_cluster_in_xml() {
    let xml = r#"<cluster name="mpi">
  <image><packages>hpcc</packages><opkgs>base</opkgs><opkgs>slurm</opkgs></image>
  <network nat="false"/>
  <group name="head"/>
  <group><name>compute</name><count>3</count><memory>1G</memory>
    <node/><node name="special" address="10.77.0.50"/></group>
</cluster>"#;
    let toml = "name = \"mpi\"\n[image]\npackages = [\"hpcc\"]\nopkgs = [\"base\", \"slurm\"]\n[network]\nnat = false\n[[group]]\nname = \"head\"\n[[group]]\nname = \"compute\"\ncount = 3\nmemory = \"1G\"\n[[group.node]]\n[[group.node]]\nname = \"special\"\naddress = \"10.77.0.50\"";
    let (xml, toml) = (
        profile::cluster(xml, "x").unwrap(),
        profile::cluster(toml, "x").unwrap(),
    );
    assert_eq!(xml, toml);
    let errors =
        profile::cluster("<cluster><name>mpi</name><goup/></cluster>", "x.xml").unwrap_err();
    assert_eq!(
        errors.to_string(),
        "x.xml:1:27: error: unknown element or attribute \"goup\" in the file\n    <cluster><name>mpi</name><goup/></cluster>\n                              ^^^^\nhint: did you mean \"group\"?"
    );
}

/// The VM's memory was to be the sum, and the check of the nodes was left out: the file was refused without a word.
#[test]
fn a_numa_node_without_memory_is_told() {
    let text = "name = \"a\"\n[[disk]]\npath = \"a.raw\"\n[[numa]]\ncpus = \"0\"\n";
    assert!(wrong(text).contains("x:4:1: error: this NUMA node has no memory"));
    assert!(wrong(&format!("{text}memory = \"1\"")).contains("is not a memory size"));
}

/// Each node was small enough, and their sum was not looked at: what was written of it could not be read.
#[test]
fn numa_nodes_together_have_too_much_memory() {
    let node = |cpu| format!("[[numa]]\ncpus = \"{cpu}\"\nmemory = \"64T\"\n");
    let text = format!(
        "name = \"a\"\ncpus = 2\n[[disk]]\npath = \"a.raw\"\n{}{}",
        node(0),
        node(1)
    );
    assert!(wrong(&text).contains("128T of memory is too much"));
}

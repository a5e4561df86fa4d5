//! VM profiles in TOML and XML: what they mean, and what is filled in. Those of libv3m: tests/libv3m.rs.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use api::MiB;
use profile::{
    Backend, Boot, BootDevice, Bus, Checked, DiskFormat, Display, Firmware, Link, Medium, Topology,
    Vm, vm, vms,
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

#[test]
fn words_of_others_and_other_files() {
    let disk = "[[disk]]\nfile = \"a.raw\"\nsize = 8\ncpus = 2\n";
    let told = wrong(&format!("name = \"a\"\n{disk}[[nic]]\ntype = \"nat\"\n"));
    let said: Vec<&str> = told.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(
        said,
        [
            "x:3:1: error: unknown key \"file\" in [[disk]]",
            "hint: did you mean \"path\"?",
            "",
            "x:4:8: error: \"size\" must be a text, not a number",
            "hint: write size = \"8M\" or size = \"8G\"",
            "",
            "x:5:1: error: unknown key \"cpus\" in [[disk]]",
            "hint: \"cpus\" is written at the top of the file, before the first [section], or below a [[numa]]",
            "",
            "x:7:1: error: unknown key \"type\" in [[nic]]",
            "hint: did you mean \"kind\"?",
        ]
    );
    let cluster = "name = \"mpi\"\n[[group]]\nname = \"head\"\n";
    assert!(wrong(cluster).starts_with("x:2:3: error: this is a cluster, not a VM\n"));
    let inner = "<vm><name>a</name><disk path='a.raw' cpus='2'/></vm>";
    assert!(wrong(inner).contains(
        "hint: \"cpus\" is written directly in the element that holds all others, or below a <numa>"
    ));
    for (text, hint) in [
        ("<vm name=a/>", "attributes are written as in name=\"web\""),
        ("<vm/><vm/>", "is there anything after it?"),
        ("<domain/>", "domains of libvirt's are not read"),
        (
            "<vm name='a' name='b'/>",
            "not XML: attribute 'name' is already defined",
        ),
    ] {
        assert!(wrong(text).contains(hint), "{}", wrong(text));
    }
}

/// What a VM boots was not looked at where a disk was wrong, or where a kernel stood beside an order.
#[test]
fn the_form_of_libv3m_is_told() {
    let toml = "name = \"a\"\n[[disk]]\npath = \"a.raw\"\n\
                [cloud-init]\nuser-data = '''#cloud-config # </profile>'''\n";
    assert!(!good(toml).original);
    let old = std::fs::read_to_string("../../examples/libv3m.xml");
    let xml = old.expect("the example");
    assert!(good(&xml).original);
    let inner = xml.find("<profile").expect("a root");
    let several = format!("<profiles>{}</profiles>", &xml[inner..]);
    let checked = profile::vms(&several, "a.xml").unwrap_or_else(|e| panic!("{e}"));
    assert!(checked.original);
}

#[test]
fn a_size_of_nothing_is_not_advised() {
    for memory in ["0", "-5", "0x0"] {
        let said = wrong(&format!("name = \"a\"\nmemory = {memory}\n"));
        assert!(!said.contains(&format!("\"{memory}M\"")), "{said}");
        assert!(said.contains("write memory = \""), "{said}");
    }
    let said = wrong("name = \"a\"\nmemory = 10\n");
    assert!(said.contains("\"10M\" or memory = \"10G\""), "{said}");
}

#[test]
fn a_control_character_in_a_text_is_to_be_removed() {
    let said = wrong("name = \"a\0b\"\n");
    assert!(
        said.contains("hint: remove the control character"),
        "{said}"
    );
    let said = wrong("name = \"a\nmemory = \"1G\"\n");
    assert!(!said.contains("control character"), "{said}");
}

#[test]
fn a_file_in_other_words_is_the_same_file() {
    let disks = |one: &str, two: &str| {
        format!("name = \"a\"\n[[disk]]\npath = \"{one}\"\n[[disk]]\npath = \"{two}\"\n")
    };
    for (one, two) in [("a.raw", "./a.raw"), ("d/./a.raw", "d//a.raw")] {
        let said = wrong(&disks(one, two));
        assert!(said.contains("two disks have the file"), "{said}");
    }
    // A link may lead elsewhere.
    good(&disks("a.raw", "d/../a.raw"));
}

#[test]
fn one_error_does_not_hide_another() {
    let disk = "[[disk]]\npath = \"http://host/a.raw\"\n";
    let told = wrong(&format!("name = \"a\"\n[boot]\norder = [\"hd\"]\n{disk}"));
    assert!(
        told.contains("x:3:10: error: \"hd\" is not a boot device"),
        "{told}"
    );
    assert!(told.contains("is an address, not a path"), "{told}");
    let both = "name = \"a\"\nfirmware = \"uefi\"\n[boot]\nkernel = \"\"\norder = [\"disk\"]\n";
    let told = wrong(both);
    for said in [
        "x:2:12: error: a kernel is",
        "x:4:10: error: the path",
        "x:5:9: error: the VM boots",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
}

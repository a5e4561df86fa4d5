//! What a profile can say, on real VMs: each bus, both firmwares, disks that are made, displays, links.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod guests;

use api::MiB;
use guests::{Guest, Place, eventually, length};
use profile::{
    Bus, Disk, DiskFormat, Display, Firmware, Link, Medium, Nic, NicModel, Topology, Vm,
};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use v3m::{Driver, Error, State};
use v3m_qemu::disk;

const NOW: Duration = Duration::ZERO;

/// Starts it, waits until its guest speaks, and ends it.
async fn speaks(place: &Place, vm: &Vm) {
    let driver = place.driver();
    driver.define(vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let log = driver.console(&vm.name).await.unwrap().log;
    let before = length(&log);
    eventually("the guest speaks", || length(&log) > before + 3);
    driver.stop(&vm.name, NOW).await.unwrap();
    driver.undefine(&vm.name).await.unwrap();
    assert!(!place.vms().join(&vm.name).exists());
}

#[tokio::test]
async fn boots_from_every_bus_and_format() {
    let place = Place::new();
    let raw = place.vm("a", Guest::Dots).disks[0].path.clone();
    let cases = [
        (Bus::Virtio, DiskFormat::Raw),
        (Bus::Scsi, DiskFormat::Qcow2),
        (Bus::Sata, DiskFormat::Vmdk),
        (Bus::Ide, DiskFormat::Vdi),
    ];
    for (bus, format) in cases {
        let path = place.dir.path().join(format!("{bus:?},{format:?}"));
        disk::convert(&raw, DiskFormat::Raw, &path, format, &mut |_| {}).unwrap();
        let mut vm = place.vm("a", Guest::Dots);
        vm.disks[0] = Disk {
            bus,
            ..Disk::new(path, format, false)
        };
        speaks(&place, &vm).await;
    }
}

#[tokio::test]
async fn processors_memory_and_devices_as_told() {
    let place = Place::new();
    let mut vm = place.vm("a", Guest::Dots);
    vm.cpus = 4;
    vm.memory = MiB(64);
    vm.cpu.model = Some("qemu64".to_owned());
    vm.cpu.topology = Some(Topology {
        sockets: 1,
        cores: 2,
        threads: 2,
    });
    let numa = |cpus: &[u16]| profile::NumaNode {
        cpus: cpus.to_vec(),
        memory: MiB(32),
    };
    vm.numa = vec![numa(&[0, 1]), numa(&[2, 3])];
    vm.display = Display::Vnc;
    vm.cloud_init = Some(profile::CloudInit {
        user_data: "#cloud-config\n".to_owned(),
        network_config: None,
    });
    let nic = |last: u8, model, link| Nic {
        mac: format!("52:54:00:00:00:{last:02x}").parse().unwrap(),
        model,
        link,
    };
    let network = "lab".to_owned();
    vm.nics = vec![
        nic(1, NicModel::E1000, Link::Nat),
        nic(2, NicModel::Virtio, Link::Private { network }),
        nic(3, NicModel::Virtio, Link::Unplugged),
    ];
    let driver = place.driver();
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let vnc = place.vms().join("a/vnc/vnc.sock");
    let mut stream = v3m::connect(&vnc).unwrap();
    let mut hello = [0; 4];
    std::io::Read::read_exact(&mut stream, &mut hello).unwrap();
    assert_eq!(&hello, b"RFB ");
    driver.stop(&vm.name, NOW).await.unwrap();
    driver.undefine(&vm.name).await.unwrap();
    assert!(!place.vms().join("a").exists());
}

/// A disk with a size and no file is made, at the start, and is no part of what `undefine` removes.
#[tokio::test]
async fn disks_that_are_missing_are_made() {
    let place = Place::new();
    let mut vm = place.vm("a", Guest::Dots);
    let path = place.dir.path().join("new.qcow2");
    vm.disks.push(Disk {
        size: Some(MiB(64)),
        ..Disk::new(path.clone(), DiskFormat::Qcow2, false)
    });
    speaks(&place, &vm).await;
    assert_eq!(
        disk::info(&path, DiskFormat::Qcow2).unwrap().virtual_size,
        64 << 20
    );
    let inode = fs::metadata(&path).unwrap().ino();
    speaks(&place, &vm).await;
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
}

/// All findings at once, before anything is started; and the VM stays as it was.
#[tokio::test]
async fn what_the_host_lacks_is_told_before_the_start() {
    let place = Place::new();
    let mut vm = place.vm("a", Guest::Dots);
    let disk = |path: &str| Disk::new(place.dir.path().join(path), DiskFormat::Raw, false);
    vm.disks = vec![disk("none.raw"), disk(".")];
    vm.memory = MiB(1 << 40);
    let driver = place.driver();
    assert_eq!(driver.findings(&vm).await.unwrap().len(), 3);
    driver.define(&vm).await.unwrap();
    let error = driver.start(&vm.name).await.unwrap_err().to_string();
    for part in ["none.raw", "is a directory", "MiB of memory"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Defined);
}

#[tokio::test]
async fn a_disk_in_use_is_told_so_and_its_user_runs_on() {
    let place = Place::new();
    let driver = place.driver();
    let (mut a, mut b) = (place.vm("a", Guest::Dots), place.vm("b", Guest::Dots));
    for vm in [&mut a, &mut b] {
        vm.disks[0].read_only = false;
        driver.define(vm).await.unwrap();
    }
    driver.start(&a.name).await.unwrap();
    let error = driver.start(&b.name).await.unwrap_err();
    assert!(
        matches!(&error, Error::StartFailed { reason, .. } if reason.contains("dots.raw is in use by another VM")),
        "{error}"
    );
    let error = disk::resize(&a.disks[0].path, DiskFormat::Raw, MiB(2), false).unwrap_err();
    assert!(
        error.to_string().contains("in use by another VM"),
        "{error}"
    );
    assert_eq!(driver.status(&a.name).await.unwrap().state, State::Running);
    driver.stop(&a.name, NOW).await.unwrap();
}

/// With Debian's package ovmf; `lab/install tests` brings it.
#[tokio::test]
async fn uefi_speaks_on_the_console_and_keeps_its_variables() {
    let place = Place::new();
    let mut vm = place.vm("a", Guest::Dots);
    vm.firmware = Firmware::Uefi;
    vm.memory = MiB(128);
    let driver = place.driver();
    driver.define(&vm).await.unwrap();
    if !PathBuf::from("/usr/share/OVMF/OVMF_CODE_4M.fd").exists() {
        let error = driver.start(&vm.name).await.unwrap_err().to_string();
        assert!(error.contains("apt-get install ovmf"), "{error}");
        return;
    }
    driver.start(&vm.name).await.unwrap();
    let log = driver.console(&vm.name).await.unwrap().log;
    eventually("the firmware looks for something to boot", || {
        String::from_utf8_lossy(&fs::read(&log).unwrap()).contains("BdsDxe")
    });
    driver.stop(&vm.name, NOW).await.unwrap();
    let variables = place.vms().join("a/uefi-vars.fd");
    let kept = fs::read(&variables).unwrap();
    assert!(kept != fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd").unwrap());
    driver.start(&vm.name).await.unwrap();
    driver.stop(&vm.name, NOW).await.unwrap();
    driver.undefine(&vm.name).await.unwrap();
    assert!(!place.vms().join("a").exists());
}

#[tokio::test]
async fn a_cd_boots_first_when_told() {
    let place = Place::new();
    let mut vm = place.vm("a", Guest::Dots);
    // El Torito (no emulation): a boot record that names the catalogue in sector 17, which names one sector in 18.
    let code = fs::read(&vm.disks[0].path).unwrap();
    let mut iso = vec![0; 64 * 2048];
    iso[16 * 2048..16 * 2048 + 7].copy_from_slice(b"\x01CD001\x01");
    let record = 17 * 2048;
    iso[record..record + 7].copy_from_slice(b"\0CD001\x01");
    iso[record + 7..record + 30].copy_from_slice(b"EL TORITO SPECIFICATION");
    iso[record + 71..record + 75].copy_from_slice(&18_u32.to_le_bytes());
    let catalogue = 18 * 2048;
    iso[catalogue] = 1;
    iso[catalogue + 28..catalogue + 32].copy_from_slice(&[0xaa, 0x55, 0x55, 0xaa]);
    iso[catalogue + 32] = 0x88;
    iso[catalogue + 38] = 4;
    iso[catalogue + 40] = 20;
    iso[20 * 2048..20 * 2048 + 512].copy_from_slice(&code[..512]);
    for bus in [Bus::Virtio, Bus::Scsi, Bus::Sata] {
        let path = place.dir.path().join("install.iso");
        fs::write(&path, &iso).unwrap();
        vm.disks = vec![
            Disk {
                size: Some(MiB(16)),
                ..Disk::new(
                    place.dir.path().join("empty.qcow2"),
                    DiskFormat::Qcow2,
                    false,
                )
            },
            Disk {
                bus,
                medium: Medium::Cdrom,
                ..Disk::new(path, DiskFormat::Raw, true)
            },
        ];
        vm.boot = profile::Boot::Firmware {
            order: vec![profile::BootDevice::Disk, profile::BootDevice::Cdrom],
        };
        speaks(&place, &vm).await;
    }
}

/// Two VMs on a private network: a frame of one comes to the other. The guests are QEMU's own NICs only, so the test
/// itself is the third member, and sees the frame that a network boot sends.
#[tokio::test]
async fn private_networks_carry_frames() {
    let place = Place::new();
    let mut vm = place.vm("a", Guest::Dots);
    vm.disks.clear();
    vm.boot = profile::Boot::Firmware {
        order: vec![profile::BootDevice::Network],
    };
    let mac = "52:54:00:0a:0b:0c";
    vm.nics = vec![Nic {
        mac: mac.parse().unwrap(),
        model: NicModel::Virtio,
        link: Link::Private {
            network: "lab".to_owned(),
        },
    }];
    let driver = place.driver();
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let pid = driver.status(&vm.name).await.unwrap().pid.unwrap();
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let line = String::from_utf8(line).unwrap();
    let group = line
        .split("mcast=")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let (group, port) = group.split_once(':').unwrap();
    let socket = member(group.parse().unwrap(), port.parse().unwrap());
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut frame = [0; 2048];
    // The source of an Ethernet frame follows its destination.
    let length = socket.recv(&mut frame).unwrap();
    assert!(length >= 60, "{length}");
    assert_eq!(frame[6..12], [0x52, 0x54, 0, 0x0a, 0x0b, 0x0c]);
    driver.stop(&vm.name, NOW).await.unwrap();
}

/// A socket in a multicast group on the loopback interface, beside QEMU's on the same port.
fn member(group: std::net::Ipv4Addr, port: u16) -> std::net::UdpSocket {
    use rustix::net::{AddressFamily, SocketAddrV4, SocketType, bind, socket, sockopt};
    let fd = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&fd, true).unwrap();
    bind(&fd, &SocketAddrV4::new(group, port)).unwrap();
    let socket = std::net::UdpSocket::from(fd);
    socket
        .join_multicast_v4(&group, &std::net::Ipv4Addr::LOCALHOST)
        .unwrap();
    socket
}

/// As root only: the tap is on the bridge while the VM lives, in its VLAN, and gone with it however it ends.
#[tokio::test]
async fn taps_come_and_go_with_their_vm() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bridge = format!("t{}", std::process::id());
    let ip = |arguments: &[&str]| {
        let output = std::process::Command::new("ip").args(arguments).output();
        output.unwrap().status.success()
    };
    struct Gone(String);
    impl Drop for Gone {
        fn drop(&mut self) {
            let link = ["link", "del", &self.0];
            let _ = std::process::Command::new("ip").args(link).status();
        }
    }
    assert!(ip(&["link", "add", &bridge, "type", "bridge"]));
    let _gone = Gone(bridge.clone());
    assert!(ip(&["link", "set", &bridge, "up"]));
    // Not every kernel is built with it.
    let vlans = ip(&[
        "link",
        "set",
        &bridge,
        "type",
        "bridge",
        "vlan_filtering",
        "1",
    ]);
    let ports = |bridge: &str| {
        let entries = fs::read_dir(format!("/sys/class/net/{bridge}/brif"));
        entries.map_or(0, Iterator::count)
    };
    let place = Place::new();
    let mut vm = place.vm("a", Guest::Dots);
    let nic = |last: u8, link| Nic {
        mac: format!("52:54:00:00:00:{last:02x}").parse().unwrap(),
        model: NicModel::Virtio,
        link,
    };
    let network = "lab".to_owned();
    let tagged = Link::Vlan {
        bridge: bridge.clone(),
        tag: 77,
    };
    let plain = Link::Bridged {
        bridge: bridge.clone(),
    };
    vm.nics = vec![
        nic(1, plain),
        nic(2, tagged),
        nic(3, Link::HostOnly { network }),
    ];
    let driver = place.driver();
    driver.define(&vm).await.unwrap();
    if !vlans {
        let error = driver.start(&vm.name).await.unwrap_err().to_string();
        assert!(error.contains("does not tell VLANs apart"), "{error}");
        assert_eq!(ports(&bridge), 0);
        driver.undefine(&vm.name).await.unwrap();
        vm.nics.remove(1);
        driver.define(&vm).await.unwrap();
    }
    driver.start(&vm.name).await.unwrap();
    assert_eq!(ports(&bridge), 1 + usize::from(vlans));
    if vlans {
        let shown = std::process::Command::new("bridge")
            .args(["-j", "vlan", "show"])
            .output();
        let shown: serde_json::Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap();
        let tagged = |port: &&serde_json::Value| {
            let vlans = port["vlans"].as_array();
            vlans.is_some_and(|v| v.len() == 1 && v[0]["vlan"] == 77)
        };
        let ports = shown.as_array().unwrap().iter().filter(tagged);
        assert_eq!(ports.count(), 1, "{shown}");
    }
    let usage = driver.stats().unwrap().usage().await.unwrap().remove(0);
    assert!(
        usage.net_sent.is_some() && usage.net_received.is_some(),
        "{usage:?}"
    );
    daemon::kill(&place.vms().join("a/qemu.lock"), Duration::from_secs(10)).unwrap();
    eventually("the ports are gone", || ports(&bridge) == 0);
    let ours = || {
        let all = fs::read_dir("/sys/class/net").unwrap().flatten();
        let name = |e: fs::DirEntry| e.file_name().into_string().unwrap();
        all.map(name)
            .filter(|n| n.starts_with("v3m") && n.len() == 11)
            .count()
    };
    assert!(ours() > 0, "the host-only network's bridge");
    driver.undefine(&vm.name).await.unwrap();
    assert_eq!(ours(), 0);
}

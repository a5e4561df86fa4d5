//! Each kind of NIC, with real frames and no guest: a VM that boots from the network asks for an address, and its firmware
//! says which one it got.
//!
//! Each test runs itself again in a network namespace of its own, an ordinary user's in a user namespace as well, in which he
//! is root: bridges, names and addresses are the test's alone.

#![allow(clippy::unwrap_used)]

#[path = "kit/inside.rs"]
mod inside;
mod kit;

use kit::{Home, until};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// True inside, in namespaces where all networks are the test's own.
fn inside(test: &str) -> bool {
    let namespaces = [
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    let inside = inside::inside(test, &namespaces);
    if inside {
        // What is in /sys is of the namespace in which it was mounted.
        run("mount", &["-t", "sysfs", "none", "/sys"]);
        run("ip", &["link", "set", "lo", "up"]);
    }
    inside
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    assert!(tried(program, arguments), "{program} {arguments:?}");
}

fn tried(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A server of addresses on an interface, and what it says.
struct Dhcp(Child);

impl Dhcp {
    /// Gives out .10 to .20 of the network whose first three numbers are told; its own is .1.
    fn new(home: &Home, interface: &str, network: &str) -> Self {
        run(
            "ip",
            &["addr", "add", &format!("{network}.1/24"), "dev", interface],
        );
        run("ip", &["link", "set", interface, "up"]);
        let log = std::fs::File::create(home.path(&format!("{interface}.log"))).unwrap();
        let server = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
            ])
            .args(["--log-facility=-", "--log-dhcp", "--port=0", "--no-ping"])
            .args([
                "--user=root",
                "--group=",
                "--bind-interfaces",
                "--dhcp-authoritative",
            ])
            .arg(format!(
                "--dhcp-leasefile={}",
                home.path(&format!("{interface}.leases")).display()
            ))
            .arg(format!("--interface={interface}"))
            .arg(format!("--dhcp-range={network}.10,{network}.20"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        Self(server.unwrap())
    }

    /// Waits until the machine with this address of its NIC has taken what it was offered: frames went both ways.
    #[track_caller]
    fn gave(&self, home: &Home, interface: &str, mac: &str) {
        let log = home.path(&format!("{interface}.log"));
        until(&format!("{mac} takes an address on {interface}"), || {
            let text = std::fs::read_to_string(&log).ok()?;
            let acknowledged = |line: &str| line.contains("DHCPACK") && line.contains(mac);
            text.lines().any(acknowledged).then_some(())
        });
    }
}

impl Drop for Dhcp {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes `NAME.toml`: a VM that boots from the network, on this NIC.
fn vm(home: &Home, name: &str, mac: &str, nic: &str) -> String {
    let file = format!("{name}.toml");
    home.file(
        &file,
        format!(
            "name = \"{name}\"\ntype = \"qemu\"\nmemory = \"32M\"\n[boot]\norder = [\"network\"]\n\
             [[nic]]\nmac = \"{mac}\"\n{nic}\n"
        ),
    );
    file
}

/// Bridge `br9` whose one port is a cable; the name of the cable's other end.
fn bridge() -> &'static str {
    run("ip", &["link", "add", "br9", "type", "bridge"]);
    run(
        "ip",
        &["link", "add", "near", "type", "veth", "peer", "name", "far"],
    );
    run("ip", &["link", "set", "near", "master", "br9"]);
    for interface in ["br9", "near", "far"] {
        run("ip", &["link", "set", interface, "up"]);
    }
    "far"
}

fn ports() -> usize {
    std::fs::read_dir("/sys/class/net/br9/brif")
        .unwrap()
        .count()
}

#[test]
fn bridged() {
    if !inside("bridged") {
        return;
    }
    let home = Home::new();
    let mac = "52:54:00:0a:00:01";
    let file = vm(&home, "web", mac, "kind = \"bridged\"\nbridge = \"br9\"");
    home.run(&["start", &file])
        .is(3)
        .says("ip link add br9 type bridge");
    let far = bridge();
    let server = Dhcp::new(&home, far, "10.9.0");
    home.ok(&["start", "web"]);
    server.gave(&home, far, mac);
    // The host counts what went over the tap.
    let usage = home.json(&["top", "--once"])["vms"][0].clone();
    for counter in ["net_received", "net_sent"] {
        assert!(usage[counter].as_u64().unwrap() > 500, "{usage}");
    }
    home.ok(&["top", "--once", "--prometheus", "v2m.prom"]);
    let metrics = std::fs::read_to_string(home.path("v2m.prom")).unwrap();
    assert!(metrics.contains("v2m_net_sent_bytes_total{vm=\"web\"} "));
    assert_eq!(ports(), 2);
    home.ok(&["destroy", "web", "--yes"]);
    until("the port goes with its VM", || (ports() == 1).then_some(()));
}

/// The VM's frames leave the bridge with their tag, and those with the tag reach it; with another they do not.
#[test]
fn vlan() {
    if !inside("vlan") {
        return;
    }
    let home = Home::new();
    let mac = "52:54:00:0a:00:02";
    let file = vm(
        &home,
        "web",
        mac,
        "kind = \"vlan\"\nbridge = \"br9\"\ntag = 77",
    );
    let far = bridge();
    home.run(&["start", &file]).is(3).says("vlan_filtering 1");
    assert_eq!(ports(), 1);
    let type_of = [
        "link",
        "set",
        "br9",
        "type",
        "bridge",
        "vlan_filtering",
        "1",
    ];
    let tagged = [
        "link", "add", "link", far, "name", "far.77", "type", "vlan", "id", "77",
    ];
    if !tried("ip", &type_of) || !tried("ip", &tagged) {
        eprintln!("skipped: this kernel has no VLANs");
        return;
    }
    run(
        "ip",
        &[
            "link", "add", "link", far, "name", "far.78", "type", "vlan", "id", "78",
        ],
    );
    run("bridge", &["vlan", "add", "dev", "near", "vid", "77-78"]);
    let other = Dhcp::new(&home, "far.78", "10.78.0");
    let untagged = Dhcp::new(&home, far, "10.1.0");
    let server = Dhcp::new(&home, "far.77", "10.77.0");
    home.ok(&["start", "web"]);
    server.gave(&home, "far.77", mac);
    drop((other, untagged));
    for interface in ["far.78", far] {
        let text = std::fs::read_to_string(home.path(&format!("{interface}.log"))).unwrap();
        assert!(!text.contains(mac), "{interface}: {text}");
    }
    home.ok(&["destroy", "web", "--yes"]);
    until("the port goes with its VM", || (ports() == 1).then_some(()));
}

#[test]
fn host_only() {
    if !inside("host_only") {
        return;
    }
    let home = Home::new();
    let nic = "kind = \"host-only\"\nnetwork = \"lab\"";
    let macs = ["52:54:00:0a:00:03", "52:54:00:0a:00:04"];
    let files = [
        vm(&home, "one", macs[0], nic),
        vm(&home, "two", macs[1], nic),
    ];
    home.ok(&["start", &files[0], &files[1]]);
    let bridges = || {
        let all = std::fs::read_dir("/sys/class/net").unwrap().flatten();
        let bridges = all.filter(|entry| entry.path().join("bridge").is_dir());
        bridges
            .map(|e| e.file_name().into_string().unwrap())
            .collect::<Vec<_>>()
    };
    let [bridge] = bridges().try_into().unwrap();
    let server = Dhcp::new(&home, &bridge, "10.5.0");
    for mac in macs {
        server.gave(&home, &bridge, mac);
    }
    drop(server);
    home.ok(&["destroy", "one", "--yes"]);
    assert_eq!(bridges().len(), 1, "the other is on it");
    home.ok(&["destroy", "two", "--yes"]);
    assert_eq!(bridges(), Vec::<String>::new());
}

#[test]
fn nat() {
    if !inside("nat") {
        return;
    }
    let home = Home::new();
    let file = vm(&home, "web", "52:54:00:0a:00:05", "kind = \"nat\"");
    // The network behind it is QEMU's own, and the same for each VM.
    home.ok(&[
        "start",
        &file,
        "--wait-ready=10.0.2.15",
        "--time-limit",
        "60s",
    ]);
    home.ok(&["destroy", "web", "--yes"]);
}

/// A network's frames come to its members and to nobody else's. The test is one of them.
#[test]
fn private() {
    if !inside("private") {
        return;
    }
    let home = Home::new();
    let nic = |network| format!("kind = \"private\"\nnetwork = \"{network}\"");
    let macs = [
        "52:54:00:0a:00:06",
        "52:54:00:0a:00:07",
        "52:54:00:0a:00:08",
    ];
    let files = [
        vm(&home, "one", macs[0], &nic("lab")),
        vm(&home, "two", macs[1], &nic("lab")),
        vm(&home, "three", macs[2], &nic("other")),
    ];
    home.ok(&["start", &files[0], &files[1], &files[2]]);
    let group = |name: &str| {
        let pid = &home.json(&["status", name])["pid"];
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let group = line.split("mcast=").nth(1).unwrap();
        group.split(',').next().unwrap().to_owned()
    };
    assert_eq!(group("one"), group("two"));
    assert_ne!(group("one"), group("three"));
    let (address, port) = (group("one"), group("one"));
    let address = address.split(':').next().unwrap().parse().unwrap();
    let port = port.split(':').nth(1).unwrap().parse().unwrap();
    let socket = member(address, port);
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut frame = [0; 2048];
    while !macs[..2].iter().all(|mac| seen.contains(*mac)) {
        let length = socket.recv(&mut frame).unwrap();
        assert!(length >= 14, "{length}");
        // The source of an Ethernet frame follows its destination.
        let source = frame[6..12].iter().map(|b| format!("{b:02x}"));
        seen.insert(source.collect::<Vec<_>>().join(":"));
    }
    assert!(!seen.contains(macs[2]), "{seen:?}");
    home.ok(&["destroy", "one", "two", "three", "--yes"]);
}

/// A socket in a multicast group on the loopback interface, beside QEMU's on the same port.
fn member(group: Ipv4Addr, port: u16) -> UdpSocket {
    use rustix::net::{AddressFamily, SocketAddrV4, SocketType, bind, socket, sockopt};
    let fd = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&fd, true).unwrap();
    bind(&fd, &SocketAddrV4::new(group, port)).unwrap();
    let socket = UdpSocket::from(fd);
    socket
        .join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)
        .unwrap();
    socket
}

/// What only root can do is refused to others with the way there; before anything is made.
#[test]
fn an_ordinary_users_nics() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: this is root");
        return;
    }
    let home = Home::new();
    let mac = "52:54:00:0a:00:09";
    let file = vm(&home, "one", mac, "kind = \"host-only\"\nnetwork = \"lab\"");
    home.run(&["start", &file]).is(3).says("use `private`");
    let file = vm(
        &home,
        "two",
        mac,
        "kind = \"bridged\"\nbridge = \"nobridge9\"",
    );
    home.run(&["start", &file])
        .is(3)
        .says("there is no bridge nobridge9");
    for name in ["one", "two"] {
        assert_eq!(home.state_of(name), "defined");
    }
}

/// A device of the host's is refused for what stands against it, with the way there; the VM stays as it was.
#[test]
fn pci_devices() {
    let home = Home::new();
    let device = |address: &str| {
        let text = format!(
            "name = \"web\"\ntype = \"qemu\"\nmemory = \"32M\"\ndevices = [\"{address}\"]\n\
             [boot]\norder = [\"network\"]\n"
        );
        home.file("web.toml", text);
        home.ok(&["create", "--replace", "web.toml"]);
        let said = home.run(&["start", "web"]).is(3).err;
        assert_eq!(home.state_of("web"), "defined");
        said
    };
    assert!(device("ffff:00:1f.7").contains("`lspci -D` lists them"));
    let devices = std::fs::read_dir("/sys/bus/pci/devices")
        .into_iter()
        .flatten()
        .flatten();
    for entry in devices.take(2) {
        let address = entry.file_name().into_string().unwrap();
        let said = device(&address);
        // Nobody has given one to vfio-pci for this test.
        let wanted = match Path::new(&entry.path()).join("iommu_group").exists() {
            true => "driverctl set-override",
            false => "the host's IOMMU is off",
        };
        assert!(said.contains(wanted) && said.contains(&address), "{said}");
    }
}

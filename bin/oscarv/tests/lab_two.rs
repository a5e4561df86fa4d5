//! Two real clusters with the same addresses, kills during a real start, and a network that dies under its nodes.

#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use kit::lab::{LIMIT, UP, tiny};
use kit::{Home, is_root, skip, until};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

const SAME: &str = "[network]\nsubnet = \"10.78.0.0/24\"\n";
const HEAD: &str = "10.78.0.2";
const PORT: u16 = 7777;

#[test]
fn two_clusters_with_the_same_addresses() {
    let Some((home, _one)) = kit::lab::home() else {
        return;
    };
    let one = home.file("twinone", &tiny("twinone", SAME));
    let two = home.file("twintwo", &tiny("twintwo", SAME));
    // The image is built once, whoever is first.
    let first = home.spawn(&["up", &one, "--yes", "--time-limit", UP]);
    let second = home.spawn(&["up", &two, "--yes", "--time-limit", UP]);
    first.wait().is(0);
    second.wait().is(0);
    for cluster in ["twinone", "twintwo"] {
        let head = home.node(cluster, "head");
        assert_eq!(head["address"], HEAD, "{head}");
    }
    apart(&home);
    way_out(&home);
    holder_killed(&home, &one);
    another_subnet(&home);
    more_memory(&home);

    let things = [home.things("twinone"), home.things("twintwo")];
    things.iter().for_each(|t| t.are_there(1));
    home.ok(&["down", "twinone", "--yes"]);
    things[0].are_gone();
    home.is_clean("twinone");
    assert_eq!(on(&home, "twintwo", "hostname"), Some("head\n".to_owned()));
    home.ok(&["down", "twintwo", "--yes"]);
    things[1].are_gone();
    home.is_clean("twintwo");
}

/// What a shell on a head says, if it ends well.
fn on(home: &Home, cluster: &str, script: &str) -> Option<String> {
    let target = format!("{cluster}:head");
    let answer = home.run(&["exec", &target, "-l", "root", "--", "bash", "-c", script]);
    (answer.code == 0).then_some(answer.out)
}

fn connects(home: &Home, cluster: &str, address: &str, port: u16) -> bool {
    let script = format!("timeout 5 bash -c '</dev/tcp/{address}/{port}'");
    on(home, cluster, &script).is_some()
}

/// The same address is another machine in each, and none is reached from the other.
fn apart(home: &Home) {
    let key = "cat /etc/ssh/ssh_host_ed25519_key.pub /etc/machine-id";
    let (one, two) = (on(home, "twinone", key), on(home, "twintwo", key));
    assert!(one.is_some() && two.is_some());
    assert_ne!(one, two, "both are the same machine");

    // A door that only one of them has.
    let door = format!("/usr/sbin/sshd -p {PORT} -o PidFile=none");
    assert!(on(home, "twintwo", &door).is_some());
    assert!(connects(home, "twintwo", HEAD, PORT));
    assert!(!connects(home, "twinone", HEAD, PORT));

    // The address that the other has towards the host, and the host's end of it.
    for entry in home.entries("twintwo") {
        let Some(slot) = entry.strip_prefix("slot/") else {
            continue;
        };
        let base = Ipv4Addr::new(169, 254, 0, 0).to_bits() + slot.parse::<u32>().unwrap() * 4;
        for uplink in [base + 1, base + 2].map(Ipv4Addr::from_bits) {
            let uplink = uplink.to_string();
            assert!(!connects(home, "twinone", &uplink, 22), "{uplink}");
            let ping = format!("ping -c 1 -W 2 {uplink}");
            assert!(on(home, "twinone", &ping).is_none(), "{uplink} answers");
        }
    }
}

/// Both get out: to an address of this machine, as far as the rules let them (as root: to its resolver's port only).
fn way_out(home: &Home) {
    let names = on(home, "twinone", "getent hosts head.cluster");
    assert!(names.is_some_and(|n| n.contains(HEAD)));
    // No packet is sent by this: it asks which of our addresses is the one towards the world.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    if socket.connect(("198.51.100.1", 9)).is_err() {
        return skip("this machine has no way out itself");
    }
    let IpAddr::V4(own) = socket.local_addr().unwrap().ip() else {
        return skip("this machine has no IPv4 address");
    };
    let port = if is_root() { 53 } else { 0 };
    let listener = match TcpListener::bind((own, port)) {
        Ok(listener) => listener,
        Err(e) => return skip(&format!("the way out: {own} port {port}: {e}")),
    };
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        return;
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = writeln!(stream.unwrap(), "hello from outside");
        }
    });
    for cluster in ["twinone", "twintwo"] {
        let script = format!("timeout 10 head -n 1 < /dev/tcp/{}/{}", own, address.port());
        let said = on(home, cluster, &script);
        assert_eq!(said.as_deref(), Some("hello from outside\n"), "{cluster}");
    }
}

/// The network comes back under running nodes.
fn holder_killed(home: &Home, file: &str) {
    let before = home.boot_id("twinone:head");
    let lock = home.cluster("twinone").join("net/holder.lock");
    let pid: i32 = std::fs::read_to_string(&lock)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(LIMIT, "the network is seen to be down", || {
        (home.status("twinone")["network"]["up"] == false).then_some(())
    });
    home.ok(&["up", file, "--time-limit", UP]);
    assert_eq!(home.status("twinone")["network"]["up"], true);
    assert_eq!(home.boot_id("twinone:head"), before, "it was restarted");
    assert_eq!(on(home, "twintwo", "hostname"), Some("head\n".to_owned()));
}

/// It was refused after the record had the new addresses: nobody could reach the nodes any more.
fn another_subnet(home: &Home) {
    let other = SAME.replace("10.78", "10.79");
    let file = home.file("twinone", &tiny("twinone", &other));
    for arguments in [&["up", &file, "--dry-run"][..], &["up", &file, "--yes"]] {
        home.run(arguments).is(1).says(&[
            "the subnet of cluster twinone cannot change from 10.78.0.0/24 to 10.79.0.0/24",
        ]);
    }
    assert_eq!(on(home, "twinone", "hostname"), Some("head\n".to_owned()));
}

/// A node that is restarted ends by itself: what it had written and not yet on its disk is there afterwards. It was
/// waited for 30 s and then cut off.
fn more_memory(home: &Home) {
    let before = home.boot_id("twintwo:head");
    assert!(on(home, "twintwo", "echo kept > /root/kept").is_some());
    let larger = tiny("twintwo", SAME) + "memory = \"400M\"\n";
    let file = home.file("twintwo", &larger);
    let plan = home.json(&["up", &file, "--dry-run"]);
    assert_eq!(plan["summary"]["restart"], 1, "{plan}");
    home.ok(&["up", &file, "--yes", "--time-limit", UP]);
    assert_ne!(home.boot_id("twintwo:head"), before);
    let kept = on(home, "twintwo", "cat /root/kept");
    assert_eq!(kept, Some("kept\n".to_owned()));
    // The file system of a machine that is cut off is recovered at its next start.
    let kernel = on(
        home,
        "twintwo",
        "journalctl --no-pager -q -k | grep EXT4-fs",
    )
    .unwrap();
    assert!(kernel.contains("mounted filesystem"), "{kernel}");
    assert!(!kernel.contains("recovery complete"), "{kernel}");
}

/// `kill -9` of the command at moments of a real start.
#[test]
fn a_start_that_is_cut_off() {
    let Some((home, _one)) = kit::lab::home() else {
        return;
    };
    let file = home.file("twincut", &tiny("twincut", ""));
    // Not the image's build: that has tests of its own.
    home.ok(&["image", "build", &file]);
    let up = ["up", &file, "--yes", "--time-limit", UP];
    for (n, moment) in [50, 100, 200, 300, 500, 800, 1500, 5000]
        .into_iter()
        .enumerate()
    {
        home.killed(&up, Duration::from_millis(moment));
        let things = home.things("twincut");
        if n % 4 == 3 {
            let answer = home.run(&up);
            assert_eq!(answer.code, 0, "after {moment} ms: {}", answer.err);
            assert_eq!(home.status("twincut")["health"], "ready", "{moment} ms");
            assert_eq!(on(&home, "twincut", "hostname"), Some("head\n".to_owned()));
        }
        let answer = home.run(&["down", "twincut", "--yes"]);
        assert_eq!(answer.code, 0, "after {moment} ms: {}", answer.err);
        things.are_gone();
        home.is_clean("twincut");
    }
}

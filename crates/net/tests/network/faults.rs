//! What must hold when processes are killed, things are taken, or programs are missing.

use crate::guest::holder;
use crate::kit::{GATEWAY, Guest, Net, Rest, eventually, is_root, kill_marked, mac, sh, world};
use net::Status;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// As OpenSSH receives it.
pub fn a_descriptor_over_stdout() {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(&holder()[0])
        .args(["act", "fd"])
        .stdout(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [9];
    let mut buffer = [std::io::IoSliceMut::new(&mut byte)];
    assert_eq!(
        recvmsg(&ours, &mut buffer, &mut control, RecvFlags::empty())
            .unwrap()
            .bytes,
        1
    );
    let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() else {
        panic!()
    };
    let mut text = String::new();
    File::from(fds.next().unwrap())
        .read_to_string(&mut text)
        .unwrap();
    assert!(!text.is_empty());
    assert!(child.wait().unwrap().success());
}

pub fn two_at_once() {
    let net = Net::new("a", 1911);
    let mut children: Vec<_> = (0..4).map(|_| net.up_elsewhere()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| net.ensure().unwrap());
        }
    });
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    net.settle();
    let mut guest = net.guest(1);
    assert_eq!(guest.dhcp(), format!("10.77.0.1 {GATEWAY} {GATEWAY}"));
    drop(guest);
    // And the other way.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| net::down(&net.dir).unwrap());
        }
    });
    assert!(!net.dir.exists());
    // Up and down in any order: whoever is last decides, and down after that leaves nothing.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| net.ensure().unwrap());
            scope.spawn(|| net::down(&net.dir).unwrap());
        }
    });
    net.down();
}

pub fn down_of_anything() {
    let net = Net::new("a", 1912);
    net::down(&net.dir).unwrap();
    net::down(&net.dir).unwrap();
    for (name, content) in [
        ("spec.json", "{"),
        ("space.json", "{"),
        ("holder.lock", "1"),
        ("net.sock", ""),
        ("status.json", "x"),
    ] {
        std::fs::create_dir_all(&net.dir).unwrap();
        std::fs::write(net.dir.join(name), content).unwrap();
        assert!(
            !matches!(net::status(&net.dir), Status::Up { .. }),
            "{name}"
        );
        net.down();
    }
    // Half of it is no reason not to come up, either.
    std::fs::create_dir_all(&net.dir).unwrap();
    std::fs::write(net.dir.join("spec.json"), "{").unwrap();
    std::fs::write(net.dir.join("net.sock"), "").unwrap();
    net.ensure().unwrap();
    net.down();
}

pub fn up_killed_anywhere() {
    let before = Rest::look();
    let net = Net::new("a", 1913);
    for step in 0..60u64 {
        let mut child = net.up_elsewhere();
        std::thread::sleep(Duration::from_micros(step * 500));
        child.kill().unwrap();
        child.wait().unwrap();
        if step % 3 == 0 {
            net.ensure().unwrap();
            drop(net::tap(&net.dir, "n1").unwrap());
        }
        net.down();
        assert_eq!(
            Rest::look(),
            before,
            "killed after {step} half milliseconds"
        );
    }
}

pub fn holder_killed_anywhere() {
    let before = Rest::look();
    let net = Net::new("a", 1914);
    for step in 0..40u64 {
        let mut child = net.up_elsewhere();
        eventually("the holder starts", || {
            daemon::running(&net.dir.join("holder.lock")).is_ok_and(|p| p.is_some())
        });
        std::thread::sleep(Duration::from_millis(step));
        net.kill_holder();
        child.wait().unwrap();
        if step % 2 == 0 {
            net.ensure().unwrap();
            net.settle();
        }
        net.down();
        assert_eq!(Rest::look(), before, "killed after {step} milliseconds");
    }
}

pub fn holder_killed_under_running_guests() {
    let net = Net::up("a", 1915);
    let other = Net::up("b", 1916);
    let mut elsewhere = other.configured(1);
    let (mut n1, mut n2) = (net.configured(1), net.configured(2));
    n2.ask("listen 80 n2");
    for _ in 0..3 {
        net.settle();
        net.kill_holder();
        assert!(matches!(net::status(&net.dir), Status::Broken { .. }));
        assert_eq!(n1.ask("tcp 10.77.0.2:80"), "n2");
        net.ensure().unwrap();
        net.settle();
        assert!(net::is_current(&net.dir, &net.spec));
        assert_eq!(n1.ask("tcp 10.77.0.2:80"), "n2");
        assert_eq!(n1.dns("n2"), "10.77.0.2");
        let seen = n1.ask(&format!("tcp {}", world().unwrap()));
        assert!(seen.starts_with("seen "), "{seen}");
        // The same network and not another one that looks like it: a new node meets the old ones.
        let mut n3 = net.configured(3);
        assert_eq!(n3.ask("tcp 10.77.0.2:80"), "n2");
        assert_eq!(
            net::tap(&net.dir, "n1").unwrap_err().kind(),
            std::io::ErrorKind::ResourceBusy
        );
    }
    // An address that the running nodes do not have cannot be had this way.
    net.kill_holder();
    let mut changed = net.spec.clone();
    changed.gateway = std::net::Ipv4Addr::new(10, 77, 0, 253);
    let error = net::up(&net.dir, &changed, &holder())
        .unwrap_err()
        .to_string();
    assert!(error.contains("another gateway"), "{error}");
    net.ensure().unwrap();
    assert_eq!(n1.dns("n2"), "10.77.0.2");
    assert_eq!(elsewhere.dns("n2.b.test"), "10.77.0.2");
    drop((n1, n2, elsewhere));
    net.down();
    other.down();
}

pub fn services_killed() {
    let net = Net::up("a", 1917);
    net.settle();
    let mut guest = net.configured(1);
    for program in ["dnsmasq", "pasta"] {
        if kill_marked(program) == 0 {
            continue;
        }
        eventually("it is missed", || {
            !net::settled(&net.dir, Duration::from_secs(5))
                .unwrap()
                .is_empty()
        });
        eventually("it comes back", || {
            net::settled(&net.dir, Duration::from_secs(5))
                .unwrap()
                .is_empty()
        });
        assert_eq!(guest.dns("n2"), "10.77.0.2");
        assert!(
            guest
                .ask(&format!("tcp {}", world().unwrap()))
                .starts_with("seen ")
        );
    }
    // Without its keeper the holder ends, for the next `up` to begin anew.
    daemon::kill(&net.dir.join("services.lock"), Duration::from_secs(5)).unwrap();
    assert!(daemon::wait(&net.dir.join("holder.lock"), Duration::from_secs(5)).unwrap());
    assert!(matches!(net::status(&net.dir), Status::Broken { .. }));
    net.ensure().unwrap();
    net.settle();
    assert_eq!(guest.dns("n2"), "10.77.0.2");
    drop(guest);
    net.down();
}

pub fn a_slot_in_use() {
    if !is_root() {
        // Only root's links share a name space.
        return;
    }
    let (first, second) = (Net::up("a", 1918), Net::new("b", 1918));
    let error = second.ensure().unwrap_err().to_string();
    assert!(
        error.contains("slot 1918 is in use by") && error.contains("take that cluster down"),
        "{error}"
    );
    second.down();
    let mut guest = first.configured(1);
    first.settle();
    assert_eq!(
        guest.ask(&format!("tcp {}", world().unwrap())),
        "seen 198.51.100.2"
    );
    drop(guest);
    first.down();
    sh("ip", "link add ov1918 type veth peer name peer1918");
    sh("ip", "link set ov1918 up");
    let error = second.ensure().unwrap_err().to_string();
    assert!(error.contains("which we have not made"), "{error}");
    second.down();
    sh("ip", "link del ov1918");
}

pub fn forwarding_is_given_back() {
    if !is_root() {
        return;
    }
    let switch = "/proc/sys/net/ipv4/ip_forward";
    let now = || std::fs::read_to_string(switch).unwrap().trim().to_owned();
    assert_eq!(now(), "0");
    let (a, b) = (Net::up("a", 1919), Net::up("b", 1920));
    a.settle();
    b.settle();
    assert_eq!(now(), "1");
    a.down();
    assert_eq!(now(), "1", "the other one needs it");
    b.down();
    assert_eq!(now(), "0");
    // It was on before: it stays on.
    std::fs::write(switch, "1").unwrap();
    a.ensure().unwrap();
    a.settle();
    a.down();
    assert_eq!(now(), "1");
    std::fs::write(switch, "0").unwrap();
}

pub fn missing_dnsmasq() {
    if !is_root() {
        // Programs can be hidden only in a mount namespace of one's own.
        return;
    }
    let net = Net::new("a", 1921);
    sh("mount", "--bind /dev/null /usr/sbin/dnsmasq");
    let error = net.ensure().unwrap_err().to_string();
    let missing = net::check();
    sh("umount", "/usr/sbin/dnsmasq");
    assert_eq!(
        error,
        "dnsmasq is not installed; run: sudo apt-get install dnsmasq-base"
    );
    assert_eq!(
        missing[0].remedy.as_deref(),
        Some("sudo apt-get install dnsmasq-base")
    );
    assert_eq!(net::status(&net.dir), Status::Absent);
    net.ensure().unwrap();
    let begun = Instant::now();
    let mut guest = Guest::start(&net.dir, "n1", mac(1));
    assert_eq!(guest.read(), "ready");
    assert_eq!(guest.dhcp(), format!("10.77.0.1 {GATEWAY} {GATEWAY}"));
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(guest);
    net.down();
}

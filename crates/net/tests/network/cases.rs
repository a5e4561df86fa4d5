//! What must hold.

use crate::faults;
use crate::kit::{Case, GATEWAY, Net, eventually, host, is_root, mac, read_all, sh, world};
use net::Status;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub const ALL: &[Case] = &[
    ("this_machine_is_fit", this_machine_is_fit),
    (
        "a_guest_gets_address_names_and_the_world",
        a_guest_gets_address_names_and_the_world,
    ),
    (
        "clusters_with_the_same_addresses",
        clusters_with_the_same_addresses,
    ),
    (
        "a_guest_does_not_reach_the_host",
        a_guest_does_not_reach_the_host,
    ),
    (
        "without_nat_there_is_no_way_out",
        without_nat_there_is_no_way_out,
    ),
    ("hosts_come_and_go", hosts_come_and_go),
    ("a_port_is_used_once", a_port_is_used_once),
    ("dial_says_what_is_wrong", dial_says_what_is_wrong),
    ("what_cannot_change", what_cannot_change),
    ("quick", quick),
    ("a_descriptor_over_stdout", faults::a_descriptor_over_stdout),
    ("two_at_once", faults::two_at_once),
    ("down_of_anything", faults::down_of_anything),
    ("up_killed_anywhere", faults::up_killed_anywhere),
    ("holder_killed_anywhere", faults::holder_killed_anywhere),
    (
        "holder_killed_under_running_guests",
        faults::holder_killed_under_running_guests,
    ),
    ("services_killed", faults::services_killed),
    ("a_slot_in_use", faults::a_slot_in_use),
    ("forwarding_is_given_back", faults::forwarding_is_given_back),
    ("missing_dnsmasq", faults::missing_dnsmasq),
];

fn this_machine_is_fit() {
    assert_eq!(net::check(), []);
}

fn a_guest_gets_address_names_and_the_world() {
    let net = Net::up("a", 1901);
    assert!(matches!(net::status(&net.dir), Status::Up { .. }));
    assert!(net::is_current(&net.dir, &net.spec));
    let mut guest = net.guest(2);
    assert_eq!(
        guest.dhcp(),
        format!("10.77.0.2 {GATEWAY} {GATEWAY}"),
        "{}",
        net.logs()
    );
    guest.ask(&format!("use 10.77.0.2/24 {GATEWAY}"));
    for name in ["n1", "n1.a.test", "alias1", "alias1.a.test"] {
        assert_eq!(guest.dns(name), "10.77.0.1", "{name}");
    }
    assert_eq!(guest.dns("n9.a.test"), "none");
    net.settle();
    let server = world().unwrap();
    let seen = guest.ask(&format!("tcp {server}"));
    if is_root() {
        assert_eq!(seen, "seen 198.51.100.2");
        assert_eq!(guest.dns("www.example.org"), "192.0.2.77");
    } else {
        assert_eq!(seen, format!("seen {}", server.ip()));
    }
    guest.ask("listen 22 n2");
    let node = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 2), 22);
    let stream = net::dial(&net.dir, node, Duration::from_secs(5)).unwrap();
    assert_eq!(read_all(stream), "n2");
    drop(guest);
    net.down();
}

fn clusters_with_the_same_addresses() {
    let (a, b) = (Net::up("a", 1901), Net::up("b", 1902));
    let (mut a1, mut a2) = (a.configured(1), a.configured(2));
    let (mut b1, mut b2) = (b.configured(1), b.configured(2));
    a2.ask("listen 80 a2");
    b2.ask("listen 80 b2");
    assert_eq!(a1.ask("tcp 10.77.0.2:80"), "a2");
    assert_eq!(b1.ask("tcp 10.77.0.2:80"), "b2");
    assert_eq!(a1.dns("n2.a.test"), "10.77.0.2");
    assert_eq!(
        a1.dns("n2.b.test"),
        if is_root() { "192.0.2.77" } else { "none" }
    );
    // Who is only in the other one is not there.
    drop(a2);
    let answer = a1.ask("tcp 10.77.0.2:80");
    assert!(answer.starts_with("error"), "{answer}");
    assert_eq!(b1.ask("tcp 10.77.0.2:80"), "b2");
    let mut a3 = a.configured(3);
    a3.ask("listen 80 a3");
    assert_eq!(a1.ask("tcp 10.77.0.3:80"), "a3");
    let answer = b1.ask("tcp 10.77.0.3:80");
    assert!(answer.starts_with("error"), "{answer}");
    // The end of one is nothing to the other, which still has the world.
    drop((a1, a3));
    a.down();
    assert_eq!(b1.ask("tcp 10.77.0.2:80"), "b2");
    b.settle();
    let seen = b1.ask(&format!("tcp {}", world().unwrap()));
    assert!(seen.starts_with("seen "), "{seen}");
    drop((b1, b2));
    b.down();
}

fn a_guest_does_not_reach_the_host() {
    let net = Net::up("a", 1903);
    let mut guest = net.configured(1);
    net.settle();
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = loopback.local_addr().unwrap().port();
    let link = Ipv4Addr::from_bits(Ipv4Addr::new(169, 254, 0, 0).to_bits() + 1903 * 4 + 1);
    let mut forbidden = vec![
        format!("{link}:{port}"),
        format!("{GATEWAY}:{port}"),
        "169.254.169.254:80".to_owned(),
    ];
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let open = everywhere.local_addr().unwrap().port();
    forbidden.push(format!("{link}:{open}"));
    if is_root() {
        forbidden.push(format!("198.51.100.2:{open}"));
    }
    for to in forbidden {
        let answer = guest.ask(&format!("tcp {to}"));
        assert!(answer.starts_with("error"), "{to}: {answer}");
    }
    if is_root() {
        // Nor the host's neighbours the guest, even if they knew the way.
        guest.ask("listen 80 n1");
        sh(
            "ip",
            &format!(
                "route add 10.77.0.0/24 via {}",
                Ipv4Addr::from_bits(link.to_bits() + 1)
            ),
        );
        let node = "10.77.0.1:80".parse().unwrap();
        assert!(TcpStream::connect_timeout(&node, Duration::from_millis(500)).is_err());
    }
    drop(guest);
    net.down();
}

fn without_nat_there_is_no_way_out() {
    let mut net = Net::new("a", 1904);
    net.spec.nat = false;
    net.ensure().unwrap();
    net.settle();
    let server = world().unwrap();
    let mut guest = net.guest(1);
    assert_eq!(guest.dhcp(), format!("10.77.0.1 - {GATEWAY}"));
    guest.ask(&format!("use 10.77.0.1/24 {GATEWAY}"));
    assert_eq!(guest.dns("n2"), "10.77.0.2");
    assert_eq!(guest.dns("www.example.org"), "none");
    let reaches =
        |guest: &mut crate::kit::Guest| guest.ask(&format!("tcp {server}")).starts_with("seen ");
    assert!(!reaches(&mut guest));
    // It can be had and taken away under running guests.
    net.spec.nat = true;
    net.ensure().unwrap();
    net.settle();
    assert!(reaches(&mut guest));
    net.spec.nat = false;
    net.ensure().unwrap();
    net.settle();
    assert!(!reaches(&mut guest));
    drop(guest);
    net.down();
}

fn hosts_come_and_go() {
    let mut net = Net::up("a", 1905);
    let Status::Up { pid, .. } = net::status(&net.dir) else {
        panic!()
    };
    let mut first = net.guest(1);
    assert_eq!(first.dhcp(), format!("10.77.0.1 {GATEWAY} {GATEWAY}"));
    first.ask(&format!("use 10.77.0.1/24 {GATEWAY}"));
    let mut second = net.guest(2);
    assert_eq!(second.dhcp(), format!("10.77.0.2 {GATEWAY} {GATEWAY}"));
    drop(second);
    net.settle();
    net.spec.hosts.extend((4..=103).map(host));
    net.ensure().unwrap();
    assert!(net::is_current(&net.dir, &net.spec));
    eventually("the new names are known", || {
        first.dns("n103") == "10.77.0.103"
    });
    let mut last = net.guest(103);
    assert_eq!(last.dhcp(), format!("10.77.0.103 {GATEWAY} {GATEWAY}"));
    // A node that was made again has another MAC and must have its address; the old lease has no end.
    net.spec.hosts[1].mac = mac(203);
    net.spec.hosts.truncate(3);
    net.ensure().unwrap();
    let mut again = crate::kit::Guest::start(&net.dir, "n2", mac(203));
    assert_eq!(again.read(), "ready");
    assert_eq!(
        again.dhcp(),
        format!("10.77.0.2 {GATEWAY} {GATEWAY}"),
        "{}",
        net.logs()
    );
    eventually("old names are forgotten", || {
        first.dns("n103.a.test") == "none"
    });
    assert!(matches!(net::status(&net.dir), Status::Up { pid: now, .. } if now == pid));
    drop((first, last, again));
    net.down();
}

fn a_port_is_used_once() {
    let net = Net::up("a", 1906);
    let guest = net.guest(1);
    let error = net::tap(&net.dir, "n1").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("port n1 is in use"), "{error}");
    drop(guest);
    for _ in 0..20 {
        net::tap(&net.dir, "n1").unwrap();
    }
    let long = "a-node-with-a-name-as-long-as-names-of-nodes-may-be-which-is-63";
    let taps = [
        net::tap(&net.dir, long).unwrap(),
        net::tap(&net.dir, &long[..62]).unwrap(),
    ];
    for bad in ["", "a b", "../x", "n\n1"] {
        assert_eq!(
            net::tap(&net.dir, bad).unwrap_err().kind(),
            std::io::ErrorKind::InvalidInput,
            "{bad:?}"
        );
    }
    drop(taps);
    net.down();
}

fn dial_says_what_is_wrong() {
    let net = Net::new("a", 1907);
    let node = |port| SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), port);
    let kind = |limit| {
        net::dial(&net.dir, node(22), Duration::from_millis(limit))
            .unwrap_err()
            .kind()
    };
    assert_eq!(kind(10), std::io::ErrorKind::NotConnected);
    net.ensure().unwrap();
    let begun = Instant::now();
    assert_eq!(kind(200), std::io::ErrorKind::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(2));
    let guest = net.configured(1);
    assert_eq!(kind(5000), std::io::ErrorKind::ConnectionRefused);
    drop(guest);
    net.down();
}

fn what_cannot_change() {
    let mut net = Net::up("a", 1908);
    let good = net.spec.clone();
    net.spec.gateway = Ipv4Addr::new(10, 77, 0, 253);
    let error = net.ensure().unwrap_err().to_string();
    assert!(
        error.contains("another gateway; take the cluster down first"),
        "{error}"
    );
    net.spec.hosts[0].address = Ipv4Addr::new(10, 78, 0, 1);
    assert!(matches!(net.ensure(), Err(net::Error::Spec { .. })));
    assert!(net::is_current(&net.dir, &good));
    net.spec = good;
    net.ensure().unwrap();
    net.down();
}

/// Not a promise that a busy machine could break, but a loud one if it is far off. `--nocapture` is the default.
fn quick() {
    let mut times = Vec::new();
    let mut looks = Vec::new();
    for _ in 0..15 {
        let net = Net::new("a", 1909);
        let begun = Instant::now();
        net.ensure().unwrap();
        let tap = net::tap(&net.dir, "n1").unwrap();
        times.push(begun.elapsed());
        let begun = Instant::now();
        assert!(matches!(net::status(&net.dir), Status::Up { .. }));
        looks.push(begun.elapsed());
        drop(tap);
        net.down();
    }
    times.sort();
    looks.sort();
    println!(
        "up to the first tap: median {:?}, worst {:?}; status: median {:?}",
        times[7], times[14], looks[7]
    );
    assert!(times[7] < Duration::from_millis(100) && looks[7] < Duration::from_millis(1));
}

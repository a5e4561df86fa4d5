//! What must hold.

use crate::kit::{Case, GATEWAY, Net, eventually, host, is_root, read_all, world};
use net::Status;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

pub const ALL: &[Case] = &[(
    "a_guest_gets_address_names_and_the_world",
    a_guest_gets_address_names_and_the_world,
)];

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

//! The figures of a NIC in a cluster's network: its tap is in another network namespace.
//!
//! This program is also the holder of that network, which has to be a process without threads: it has no test harness.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod guests;

use guests::{Guest, Place, eventually};
use profile::{Boot, BootDevice, Link, Nic, NicModel};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use v3m::Driver;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["net-holder", directory] => return net::holder_main(Path::new(directory)),
        ["--list", ..] => {}
        _ => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(counted());
        }
    }
    ExitCode::SUCCESS
}

/// A network that ends with the test.
struct Network(PathBuf);

impl Drop for Network {
    fn drop(&mut self) {
        let _ = net::down(&self.0);
    }
}

/// A VM that boots from the network asks for its address, and gets it: both directions are counted.
async fn counted() {
    let place = Place::new();
    let directory = place.dir.path().join("net");
    let mac: api::Mac = "52:54:00:0c:00:01".parse().unwrap();
    // Above the slots that clusters are given first.
    let slot = (1..=net::MAX_SLOT)
        .rev()
        .find(|slot| !net::is_slot_taken(*slot));
    let spec = net::Spec {
        cluster: api::Name::new("figures").unwrap(),
        slot: slot.unwrap(),
        address: [10, 214, 7, 0].into(),
        prefix: 24,
        gateway: [10, 214, 7, 1].into(),
        domain: "cluster".to_owned(),
        nat: false,
        hosts: vec![net::Host {
            name: api::Name::new("a").unwrap(),
            mac,
            address: [10, 214, 7, 2].into(),
            aliases: Vec::new(),
        }],
    };
    let holder = [
        std::env::current_exe().unwrap().into_os_string(),
        OsString::from("net-holder"),
    ];
    if let Err(e) = net::up(&directory, &spec, &holder) {
        assert!(!rustix::process::geteuid().is_root(), "{e}");
        eprintln!("skipped: {e}");
        return;
    }
    let _network = Network(directory.clone());
    let mut vm = place.vm("a", Guest::Dots);
    vm.disks.clear();
    vm.boot = Boot::Firmware {
        order: vec![BootDevice::Network],
    };
    vm.nics = vec![Nic {
        mac,
        model: NicModel::Virtio,
        link: Link::Network {
            directory,
            port: "a".to_owned(),
        },
    }];
    let driver = place.driver();
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let log = driver.console(&vm.name).await.unwrap().log;
    eventually("the firmware has the address of its node", || {
        let said = std::fs::read(&log).unwrap_or_default();
        String::from_utf8_lossy(&said).contains("10.214.7.2")
    });
    let usage = driver.stats().unwrap().usage().await.unwrap().remove(0);
    // Two questions and their answers: a DHCP message has at least 300 bytes (RFC 1542).
    assert!(usage.net_sent.is_some_and(|bytes| bytes > 600), "{usage:?}");
    assert!(
        usage.net_received.is_some_and(|bytes| bytes > 600),
        "{usage:?}"
    );
    driver.stop(&vm.name, Duration::ZERO).await.unwrap();
    driver.undefine(&vm.name).await.unwrap();
    println!("figures of a cluster's NIC: ok");
}

//! Several sources: hosts that have it give it to others, and go on when the source is gone.

#![allow(clippy::unwrap_used)]

use spread::limit::Limit;
use spread::receive::{self, Options};
use spread::send::{self, Host, Plan, State};
use spread::sign::Signer;
use spread::source::{self, From, Source};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

struct Place {
    dir: TempDir,
    signer: Arc<Signer>,
    bytes: Vec<u8>,
}

impl Place {
    /// With a file of so many MiB that do not compress.
    fn new(mib: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"anything");
        let mut bytes = vec![0; mib << 20];
        hasher.finalize_xof().fill(&mut bytes);
        std::fs::write(dir.path().join("source"), &bytes).unwrap();
        Self {
            dir,
            signer: Arc::new(Signer::new().unwrap()),
            bytes,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn source(&self) -> Source {
        let (file, memory) = (self.path("source"), self.path("memory"));
        let opened = source::open(
            &file,
            "disk.raw",
            self.signer.clone(),
            &memory,
            2,
            From::Nothing,
        );
        opened.unwrap().unwrap()
    }

    async fn receiver_at(&self, name: &str, address: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let address = listener.local_addr().unwrap();
        let options = Options {
            into: self.path(name),
            keys: vec![self.signer.key()],
            replace: false,
            tls: None,
        };
        let task = tokio::spawn(async move {
            receive::receive(listener, options, |_| {}).await.unwrap();
        });
        (address, task)
    }

    async fn receiver(&self, name: &str) -> (String, SocketAddr) {
        let any = "127.0.0.1:0".parse().unwrap();
        (name.to_owned(), self.receiver_at(name, any).await.0)
    }

    fn options(hosts: &[(String, SocketAddr)], limit: Option<u64>) -> send::Options {
        send::Options {
            hosts: hosts.to_vec(),
            chains: 1,
            patience: Duration::from_millis(300),
            limit: limit.map(Limit::new),
            tls: None,
        }
    }

    async fn send(&self, hosts: &[(String, SocketAddr)], plan: Plan) -> Vec<Host> {
        let source = self.source();
        let options = Self::options(hosts, None);
        let sent = send::send_by(source.transfer.clone(), options, plan, |_| {});
        sent.await.unwrap()
    }

    fn has(&self, host: &str) -> bool {
        std::fs::read(self.path(host).join("disk.raw")).is_ok_and(|there| there == self.bytes)
    }
}

fn from(hosts: &[(String, SocketAddr)]) -> Plan {
    Plan {
        from: hosts.to_vec(),
        topology: None,
    }
}

/// A source that gives next to nothing does not matter, where another host has it; and it may die.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_it_gives_it_to_others_also_when_the_source_is_gone() {
    let place = Place::new(24);
    let a = [place.receiver("a").await];
    assert_eq!(place.send(&a, Plan::default()).await[0].state, State::Done);
    let b = [place.receiver("b").await, place.receiver("c").await];
    let source = place.source();
    let (frames, mut some) = tokio::sync::watch::channel([0; 2]);
    let options = Place::options(&b, Some(2 << 20));
    let sent = send::send_by(source.transfer.clone(), options, from(&a), move |hosts| {
        frames.send_replace([hosts[0].frames, hosts[1].frames]);
    });
    let sent = tokio::spawn(sent);
    // One of them gets it from the source, the other one from the host that has it.
    some.wait_for(|frames| frames.iter().all(|frames| *frames > 0))
        .await
        .unwrap();
    sent.abort();
    assert!(sent.await.unwrap_err().is_cancelled());
    drop(source);
    let both = async {
        while !(place.has("b") && place.has("c")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .unwrap();
}

/// The source gives 2 MiB a second: 24 MiB would take 12 s from it.
#[tokio::test(flavor = "multi_thread")]
async fn who_gets_it_slowly_from_the_source_gets_it_from_who_has_it() {
    let place = Place::new(24);
    let a = [place.receiver("a").await];
    assert_eq!(place.send(&a, Plan::default()).await[0].state, State::Done);
    let hosts = [
        a[0].clone(),
        place.receiver("b").await,
        place.receiver("c").await,
    ];
    let source = place.source();
    let options = Place::options(&hosts, Some(2 << 20));
    let report = send::send(source.transfer.clone(), options, |_| {})
        .await
        .unwrap();
    assert!(report.iter().all(|host| host.state == State::Done));
    let last = report
        .iter()
        .filter_map(|host| host.seconds)
        .fold(0.0, f64::max);
    assert!(last < 6.0, "{report:?}");
    assert!(report[0].received == 0 && report[0].seconds.unwrap() < 1.0);
    assert!(place.has("b") && place.has("c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_said_to_have_it_and_does_not_gets_nothing_and_is_named() {
    let place = Place::new(3);
    let (a, b) = ([place.receiver("a").await], [place.receiver("b").await]);
    let report = place.send(&a, from(&b)).await;
    assert_eq!(report[0].state, State::Done);
    assert_eq!(report[1].state, State::Refused, "{report:?}");
    assert!(
        report[1].notes[0].contains("does not have it"),
        "{report:?}"
    );
    assert!(!place.path("b").exists());
}

/// What goes over the network is kept as long as the receiver runs: one that was started anew has the file, and is no
/// source.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_was_started_anew_is_no_source_and_stands_in_nobodys_way() {
    let place = Place::new(3);
    let any = "127.0.0.1:0".parse().unwrap();
    let (address, first) = place.receiver_at("a", any).await;
    let a = ("a".to_owned(), address);
    assert_eq!(
        place.send(std::slice::from_ref(&a), Plan::default()).await[0].state,
        State::Done
    );
    first.abort();
    let _ = first.await;
    place.receiver_at("a", address).await;
    let hosts = [a, place.receiver("b").await];
    let report = place.send(&hosts, Plan::default()).await;
    assert!(report.iter().all(|host| host.state == State::Done));
    assert_eq!(report[1].parent, None, "{report:?}");
    let lost = report[1].notes.iter().any(|note| note.contains("left"));
    assert!(!lost, "{report:?}");
}

//! A source and receivers in one process, over loopback.

#![allow(clippy::unwrap_used)]

use spread::receive::{self, Options};
use spread::send::{self, Host, State};
use spread::sign::Signer;
use spread::source;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

struct Place {
    dir: TempDir,
    signer: Arc<Signer>,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            signer: Arc::new(Signer::new().unwrap()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file with bytes that do not compress, some that do, and nothing.
    fn file(&self, name: &str, mib: usize) -> PathBuf {
        let mut state = 88172645463325252_u64;
        let mut bytes = Vec::with_capacity(mib << 20);
        for block in 0..mib << 8 {
            for word in 0..512_u64 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let word = match block >> 8 & 3 {
                    0 | 1 => state,
                    2 => word % 7,
                    _ => 0,
                };
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes.extend(b"the end");
        std::fs::write(self.path(name), &bytes).unwrap();
        self.path(name)
    }

    async fn receiver(&self, name: &str) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = Options {
            into: self.path(name),
            keys: vec![self.signer.key()],
            replace: false,
        };
        let task = tokio::spawn(async move {
            receive::receive(listener, options, |event| eprintln!("{event:?}"))
                .await
                .unwrap();
        });
        (address, task)
    }

    async fn send(&self, file: &Path, hosts: Vec<(String, SocketAddr)>) -> Vec<Host> {
        let spool = self.path("spool");
        let transfer = source::open(file, "disk.raw", self.signer.clone(), &spool, 2).unwrap();
        let options = send::Options {
            hosts,
            chains: 1,
            patience: Duration::from_millis(300),
            limit: None,
        };
        send::send(transfer, options, |_| {}).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hosts_have_it() {
    let place = Place::new();
    let file = place.file("source", 40);
    let mut hosts = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let (address, _task) = place.receiver(name).await;
        hosts.push((name.to_owned(), address));
    }
    let report = place.send(&file, hosts).await;
    let original = std::fs::read(&file).unwrap();
    for host in report {
        assert_eq!(host.state, State::Done, "{host:?}");
        let there = place.path(&host.name);
        assert!(std::fs::read(there.join("disk.raw")).unwrap() == original);
        assert!(!there.join(".spread/disk.raw.part").exists());
        assert!(there.join(".spread/disk.raw.manifest.minisig").exists());
    }
}

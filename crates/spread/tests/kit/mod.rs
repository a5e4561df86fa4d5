//! What the tests share: a directory with a key, files of bytes that are known, receivers and sources in this process.

#![allow(dead_code, reason = "each of the tests uses some of it")]

pub mod peer;

use spread::limit::Limit;
use spread::receive;
use spread::send::{self, Host, State};
use spread::sign::Signer;
use spread::source::{self, From, Source};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Nothing here takes that long, on whatever machine.
pub const LONG: Duration = Duration::from_secs(180);

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// A directory of a source and of receivers, and the key that they trust.
pub struct Place {
    dir: TempDir,
    pub signer: Arc<Signer>,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Arc::new(Signer::load_or_make(&dir.path().join("key")).unwrap());
        Self { dir, signer }
    }

    /// Another directory, with the same key.
    pub fn elsewhere(&self) -> Self {
        let signer = self.signer.clone();
        let dir = tempfile::tempdir().unwrap();
        Self { dir, signer }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file with bytes that do not compress, some that do, and nothing.
    pub fn file(&self, name: &str, mib: usize) -> PathBuf {
        self.file_of(name, mib, |block| block >> 8 & 3)
    }

    /// `kind`: of each block of 4 KiB; 0 and 1 are random, 2 compresses, 3 is zeros.
    pub fn file_of(&self, name: &str, mib: usize, kind: impl Fn(usize) -> usize) -> PathBuf {
        let mut bytes = noise(name.len() as u64, mib << 20);
        for (number, block) in bytes.chunks_mut(4096).enumerate() {
            match kind(number) {
                0 | 1 => {}
                2 => {
                    for (at, word) in block.chunks_mut(8).enumerate() {
                        let small = at as u64 % 7 * u64::from(word[0]);
                        word.copy_from_slice(&small.to_le_bytes());
                    }
                }
                _ => block.fill(0),
            }
        }
        bytes.extend(b"the end");
        self.write(name, &bytes)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// What is sent of this file, all of it, as `disk.raw`.
    pub fn source(&self, file: &Path) -> Source {
        self.open(file, "disk.raw", From::Nothing).unwrap()
    }

    /// What is sent of this file or tree; nothing if there is no version before that it could be made from.
    pub fn open(&self, file: &Path, name: &str, from: From) -> Option<Source> {
        let memory = self.path("memory");
        source::open(file, name, self.signer.clone(), &memory, 2, from).unwrap()
    }

    /// Of a receiver that puts files into the directory of this name.
    pub fn options(&self, name: &str) -> receive::Options {
        receive::Options {
            into: self.path(name),
            keys: vec![self.signer.key()],
            replace: false,
            in_place: false,
            tls: None,
        }
    }

    /// A receiver in this process.
    pub async fn receiver(&self, name: &str) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (address, self.receive_on(listener, name))
    }

    /// One that replaces what did not come from here, until the test ends.
    pub async fn receiver_that_replaces(&self, name: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let replace = true;
        self.receive_with(
            listener,
            receive::Options {
                replace,
                ..self.options(name)
            },
        );
        address
    }

    /// One that changes trees where they are, until the test ends.
    pub async fn receiver_that_changes_in_place(&self, name: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = receive::Options {
            in_place: true,
            ..self.options(name)
        };
        self.receive_with(listener, options);
        address
    }

    pub fn receive_on(&self, listener: TcpListener, name: &str) -> JoinHandle<()> {
        self.receive_with(listener, self.options(name))
    }

    fn receive_with(&self, listener: TcpListener, options: receive::Options) -> JoinHandle<()> {
        tokio::spawn(async move {
            let told = |event| eprintln!("{event:?}");
            receive::receive(listener, options, told).await.unwrap();
        })
    }

    /// One that was stopped listens there again.
    pub async fn receive_again(&self, address: SocketAddr, name: &str) {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        };
        self.receive_on(listener, name);
    }

    /// Receivers that run as long as the test; their names and addresses, as a source wants them.
    pub async fn receivers<const N: usize>(&self, names: [&str; N]) -> [(String, SocketAddr); N] {
        let any = "127.0.0.1:0".parse().unwrap();
        let mut hosts = names.map(|name| (name.to_owned(), any));
        for (name, address) in &mut hosts {
            *address = self.receiver(name).await.0;
        }
        hosts
    }

    /// Sends all of this file to these hosts.
    pub async fn send(&self, file: &Path, hosts: &[(String, SocketAddr)]) -> Vec<Host> {
        let source = self.source(file);
        let sent = send::send(source.transfer.clone(), options(hosts, None), |_| {});
        timeout(LONG, sent).await.unwrap().unwrap()
    }

    /// Sends to a receiver that is killed when it has some of it, and comes back at once. Returns what is said of it, and
    /// how many frames it had then. `meanwhile`: looks at what is there before.
    pub async fn send_and_kill(&self, source: &Source, meanwhile: impl FnOnce()) -> (Host, u32) {
        let (address, first) = self.receiver("a").await;
        let mut options = options(&[("a", address)], Some(10 << 20));
        options.patience = Duration::from_secs(20);
        let (frames, mut some) = tokio::sync::watch::channel(0);
        let sent = tokio::spawn(send::send(source.transfer.clone(), options, move |hosts| {
            frames.send_replace(hosts[0].frames);
        }));
        some.wait_for(|frames| *frames > 12).await.unwrap();
        meanwhile();
        first.abort();
        let _ = first.await;
        self.receive_again(address, "a").await;
        let report = sent.await.unwrap().unwrap().remove(0);
        assert_eq!(report.state, State::Done, "{report:?}");
        let joined = report.notes.iter().find(|n| n.contains("joined with"));
        let words = joined.unwrap().split("joined with ").nth(1).unwrap();
        let had = words.split(' ').next().unwrap().parse().unwrap();
        (report, had)
    }

    /// Is there what was sent, all of it?
    pub fn has(&self, host: &str, file: &Path) -> bool {
        let there = std::fs::read(self.path(host).join("disk.raw"));
        there.is_ok_and(|there| there == std::fs::read(file).unwrap())
    }
}

/// Of a source. `limit`: bytes a second.
pub fn options(hosts: &[(impl ToString, SocketAddr)], limit: Option<u64>) -> send::Options {
    let hosts = hosts.iter().map(|(name, at)| (name.to_string(), *at));
    send::Options {
        hosts: hosts.collect(),
        chains: 1,
        patience: Duration::from_secs(5),
        limit: limit.map(Limit::new),
        tls: None,
    }
}

pub fn says(host: &Host, words: &str) -> bool {
    host.notes.iter().any(|note| note.contains(words))
}

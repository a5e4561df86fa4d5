//! Clocks that are wrong, and what was right once and is said again: by a source and parents that are played here.

#![allow(clippy::unwrap_used)]

use spread::manifest::{Header, Id};
use spread::receive::{self, Options};
use spread::send::{self, State};
use spread::sign::Signer;
use spread::source::{self, From};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

struct Place {
    dir: TempDir,
    signer: Arc<Signer>,
}

/// A connection for control, and the lines that came.
struct Control(BufReader<TcpStream>);

impl Control {
    async fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.0.get_mut().write_all(line.as_bytes()).await.unwrap();
    }

    /// The next line that has these words.
    async fn hear(&mut self, words: &str) -> String {
        let heard = async {
            loop {
                let mut line = String::new();
                let count = self.0.read_line(&mut line).await.unwrap();
                assert!(count > 0, "it closed without {words:?}");
                if line.contains(words) {
                    return line;
                }
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(10), heard).await;
        heard.unwrap_or_else(|_| panic!("nothing with {words:?}"))
    }
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

    async fn receiver(&self, name: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = Options {
            into: self.path(name),
            keys: vec![self.signer.key()],
            replace: false,
            tls: None,
        };
        tokio::spawn(receive::receive(listener, options, |_| {}));
        address
    }

    /// Sends a file of bytes that do not compress; returns the transfer's header and its signature.
    async fn send(&self, seed: u64, mib: usize, to: SocketAddr) -> (Header, String, String) {
        let mut state = seed;
        let words = (0..mib << 17).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let file = self.path("source");
        std::fs::write(&file, words.collect::<Vec<u8>>()).unwrap();
        let (signer, memory) = (self.signer.clone(), self.path("memory"));
        let source = source::open(&file, "disk.raw", signer, &memory, 2, From::Nothing);
        let source = source.unwrap().unwrap();
        let options = send::Options {
            hosts: vec![("a".to_owned(), to)],
            chains: 1,
            patience: Duration::from_secs(3),
            limit: None,
            tls: None,
        };
        let transfer = source.transfer.clone();
        let report = send::send(transfer.clone(), options, |_| {}).await.unwrap();
        assert_eq!(report[0].state, State::Done, "{report:?}");
        let (line, proof) = (transfer.line.clone(), transfer.proof.clone());
        (transfer.header.clone(), line, proof)
    }

    /// A header that was made at this time, by the source's clock.
    fn header(&self, created: u64) -> (String, String) {
        let id = Id(std::array::from_fn(|at| {
            (created >> (at % 8)) as u8 ^ at as u8
        }));
        let header = Header::new(id, "disk.raw", 1 << 20, created, None).unwrap();
        let line = header.line().unwrap();
        let proof = self.signer.sign(line.as_bytes(), "oscarv spread: header");
        (line, proof.unwrap())
    }

    async fn offer(&self, to: SocketAddr, line: &str, proof: &str) -> Control {
        let stream = TcpStream::connect(to).await.unwrap();
        let mut control = Control(BufReader::new(stream));
        let offer = serde_json::json!({ "offer": { "header": line, "signature": proof } });
        control.say(&offer.to_string()).await;
        control
    }
}

/// Only versions of one name are compared, and only with each other: to a receiver whose clock is years off it is all the
/// same, as is a source whose clock was never set.
#[tokio::test(flavor = "multi_thread")]
async fn no_clock_has_to_be_right() {
    let place = Place::new();
    for (name, created) in [("early", 1), ("late", u64::MAX)] {
        let receiver = place.receiver(name).await;
        let (line, proof) = place.header(created);
        let mut control = place.offer(receiver, &line, &proof).await;
        control.hear("\"accept\"").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_offered_before_does_not_replace_what_is_newer() {
    let place = Place::new();
    let receiver = place.receiver("a").await;
    let (old, line, proof) = place.send(7, 2, receiver).await;
    let (new, ..) = place.send(8, 2, receiver).await;
    assert!(new.created > old.created);
    let there = std::fs::read(place.path("a/disk.raw")).unwrap();
    let mut control = place.offer(receiver, &line, &proof).await;
    let said = control.hear("\"refuse\"").await;
    assert!(said.contains("what is here is newer: made 20"), "{said}");
    // With a time that nobody signed.
    let later = line.replace(&old.created.to_string(), &u64::MAX.to_string());
    let mut control = place.offer(receiver, &later, &proof).await;
    let said = control.hear("\"refuse\"").await;
    assert!(said.contains("none of the keys"), "{said}");
    // While something newer is coming.
    let (line_of_newest, proof_of_newest) = place.header(new.created + 10);
    let mut coming = place
        .offer(receiver, &line_of_newest, &proof_of_newest)
        .await;
    coming.hear("\"accept\"").await;
    let (between, proof) = place.header(new.created + 5);
    let mut control = place.offer(receiver, &between, &proof).await;
    let said = control.hear("\"refuse\"").await;
    assert!(said.contains("what is coming is newer"), "{said}");
    assert!(std::fs::read(place.path("a/disk.raw")).unwrap() == there);
}

/// A parent that has pages and frames of another transfer, rightly signed by the same key, gives those.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_another_transfer_are_refused() {
    let place = Place::new();
    let other = place.receiver("other").await;
    let (header, ..) = place.send(7, 1, other).await;
    let mut child = TcpStream::connect(other).await.unwrap();
    let id = header.id;
    let want =
        format!(r#"{{"want":{{"id":"{id}","frame":0,"offset":0,"pages":0,"single":false}}}}"#);
    child
        .write_all(format!("{want}\n").as_bytes())
        .await
        .unwrap();
    let mut recorded = Vec::new();
    child.read_to_end(&mut recorded).await.unwrap();
    assert!(recorded.len() > 1 << 20, "{}", recorded.len());
    let hostile = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let parent = hostile.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (child, _) = hostile.accept().await.unwrap();
            let (reader, mut writer) = child.into_split();
            let mut want = String::new();
            let _ = BufReader::new(reader).read_line(&mut want).await;
            let _ = writer.write_all(&recorded).await;
        }
    });
    let receiver = place.receiver("a").await;
    let (line, proof) = place.header(header.created + 1);
    let mut control = place.offer(receiver, &line, &proof).await;
    control.hear("\"accept\"").await;
    control.say(&format!(r#"{{"parents":["{parent}"]}}"#)).await;
    let lost = control.hear("\"lost\"").await;
    assert!(lost.contains("does not keep to the protocol"), "{lost}");
    assert!(lost.contains("another transfer"), "{lost}");
    assert!(!place.path("a/disk.raw").exists());
}

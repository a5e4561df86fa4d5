//! A source and receivers in one process, over loopback.

#![allow(clippy::unwrap_used)]

use spread::limit::Limit;
use spread::receive::{self, Options};
use spread::send::{self, Host, State};
use spread::sign::Signer;
use spread::source::{self, From, Source};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
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

    /// What is sent of this file.
    fn source(&self, file: &Path, from: From) -> Source {
        let memory = self.path("memory");
        let opened = source::open(file, "disk.raw", self.signer.clone(), &memory, 2, from);
        opened.unwrap().unwrap()
    }

    fn options(&self, name: &str) -> Options {
        Options {
            into: self.path(name),
            keys: vec![self.signer.key()],
            replace: false,
            tls: None,
        }
    }

    async fn receiver(&self, name: &str) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = self.options(name);
        let task = tokio::spawn(async move {
            receive::receive(listener, options, |event| eprintln!("{event:?}"))
                .await
                .unwrap();
        });
        (address, task)
    }

    async fn send(&self, file: &Path, hosts: Vec<(String, SocketAddr)>) -> Vec<Host> {
        let source = self.source(file, From::Nothing);
        let options = send::Options {
            hosts,
            chains: 1,
            patience: Duration::from_millis(300),
            limit: None,
            tls: None,
        };
        send::send(source.transfer.clone(), options, |_| {})
            .await
            .unwrap()
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

/// A message of data, in the protocol.
const DATA: u8 = 3;

/// Stands before a receiver; what it does to the data that goes through is told by `spoil`: each message of data that
/// comes from the receiver, and how many bytes came before it. `false`: nothing goes through any more.
async fn before(
    receiver: SocketAddr,
    spoil: impl Fn(&mut [u8], u64) -> bool + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let spoil = Arc::new(spoil);
    tokio::spawn(async move {
        loop {
            let (mut child, _) = listener.accept().await.unwrap();
            let spoil = spoil.clone();
            tokio::spawn(async move {
                let mut hello = vec![0; 1 << 16];
                let count = child.read(&mut hello).await.unwrap();
                let data = hello.starts_with(b"{\"want\"");
                let mut parent = TcpStream::connect(receiver).await.unwrap();
                parent.write_all(&hello[..count]).await.unwrap();
                if !data {
                    let _ = tokio::io::copy_bidirectional(&mut child, &mut parent).await;
                    return;
                }
                let (mut head, mut before) = ([0; 4], 0);
                while parent.read_exact(&mut head).await.is_ok() {
                    let len = u32::from_le_bytes([head[0], head[1], head[2], 0]);
                    let mut body = vec![0; len as usize];
                    parent.read_exact(&mut body).await.unwrap();
                    if head[3] == DATA && !spoil(&mut body, before) {
                        // Neither data nor an end: silence.
                        std::future::pending::<()>().await;
                    }
                    before += u64::from(len);
                    let sent = child.write_all(&head).await;
                    if sent.is_err() || child.write_all(&body).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

impl Place {
    /// Sends to these hosts in this order, `b` behind its own kind of link, and looks at what they have.
    async fn spread(
        &self,
        spoil: impl Fn(&mut [u8], u64) -> bool + Send + Sync + 'static,
    ) -> Vec<Host> {
        let file = self.file("source", 40);
        let mut hosts = Vec::new();
        for name in ["a", "b", "c", "d"] {
            let (address, _task) = self.receiver(name).await;
            hosts.push((name.to_owned(), address));
        }
        hosts[1].1 = before(hosts[1].1, spoil).await;
        let report = self.send(&file, hosts).await;
        let original = std::fs::read(&file).unwrap();
        for host in &report {
            assert_eq!(host.state, State::Done, "{report:#?}");
            let there = self.path(&host.name).join("disk.raw");
            assert!(std::fs::read(there).unwrap() == original);
        }
        report
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_spoilt_is_found_by_the_next_host_and_fetched_again() {
    let place = Place::new();
    let done = AtomicBool::new(false);
    let report = place
        .spread(move |piece, before| {
            if before > 5 << 20 && !done.swap(true, Ordering::Relaxed) {
                let middle = piece.len() / 2;
                piece[middle] ^= 1;
            }
            true
        })
        .await;
    let has = |host: usize, words: &str| report[host].notes.iter().any(|n| n.contains(words));
    assert!(has(1, ": spoilt frame"), "{report:#?}");
    for innocent in [0, 2, 3] {
        assert!(!has(innocent, ": spoilt frame"), "{report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_falls_silent_is_left() {
    let place = Place::new();
    let begin = Instant::now();
    let report = place.spread(|_, before| before < 5 << 20).await;
    let mut notes = report.iter().flat_map(|host| &host.notes);
    let left = notes.any(|note| note.contains("left b: it has said nothing"));
    // Before they notice it themselves, the source may have put those behind it elsewhere, because they got less.
    let moved = report
        .iter()
        .all(|host| host.parent.as_deref() != Some("b"));
    assert!(left || moved, "{report:#?}");
    assert!(begin.elapsed() < Duration::from_secs(20));
}

/// What was sent before is known again: nothing is computed, and nothing is sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_time_hosts_have_it() {
    let place = Place::new();
    let file = place.file("source", 9);
    let (address, _task) = place.receiver("a").await;
    let hosts = vec![("a".to_owned(), address)];
    let first = place.send(&file, hosts.clone()).await;
    assert!(first[0].received > 5 << 20, "{first:?}");
    let again = place.send(&file, hosts.clone()).await;
    assert_eq!((again[0].state, again[0].received), (State::Done, 0));
    // Another file is another version.
    let file = place.file("source", 7);
    let other = place.send(&file, hosts).await;
    assert_eq!(other[0].state, State::Done, "{other:?}");
    let there = std::fs::read(place.path("a/disk.raw")).unwrap();
    assert!(there == std::fs::read(&file).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_trusted_is_refused() {
    let place = Place::new();
    let file = place.file("source", 1);
    let (address, _task) = place.receiver("a").await;
    let stranger = Place::new();
    let report = stranger.send(&file, vec![("a".to_owned(), address)]).await;
    assert_eq!(report[0].state, State::Refused);
    assert!(
        report[0].notes[0].contains("none of the keys"),
        "{report:?}"
    );
    assert!(!place.path("a").exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_somebody_else_is_not_replaced() {
    let place = Place::new();
    let file = place.file("source", 1);
    std::fs::create_dir(place.path("a")).unwrap();
    std::fs::write(place.path("a/disk.raw"), "mine").unwrap();
    let (address, _task) = place.receiver("a").await;
    let report = place.send(&file, vec![("a".to_owned(), address)]).await;
    assert_eq!(report[0].state, State::Refused);
    assert!(report[0].notes[0].contains("--replace"), "{report:?}");
    let there = std::fs::read_to_string(place.path("a/disk.raw")).unwrap();
    assert_eq!(there, "mine");
}

/// An offer that was right once is no longer, when something newer of the same name is there: whoever has recorded it
/// cannot bring the old version back.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_never_replaces_a_newer_one() {
    let place = Place::new();
    let old = place.file("old", 2);
    let new = place.file("new", 3);
    let (address, _task) = place.receiver("a").await;
    let hosts = vec![("a".to_owned(), address)];
    assert_eq!(place.send(&old, hosts.clone()).await[0].state, State::Done);
    assert_eq!(place.send(&new, hosts.clone()).await[0].state, State::Done);
    let report = place.send(&old, hosts).await;
    assert_eq!(report[0].state, State::Refused);
    assert!(report[0].notes[0].contains("newer"), "{report:?}");
    let there = std::fs::read(place.path("a/disk.raw")).unwrap();
    assert!(there == std::fs::read(&new).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_comes_back_goes_on_where_it_was() {
    let place = Place::new();
    let file = place.file("source", 40);
    let (address, first) = place.receiver("a").await;
    let source = place.source(&file, From::Nothing);
    let options = send::Options {
        hosts: vec![("a".to_owned(), address)],
        chains: 1,
        patience: Duration::from_secs(20),
        limit: Some(Limit::new(10 << 20)),
        tls: None,
    };
    let (frames, mut some) = tokio::sync::watch::channel(0);
    let sent = tokio::spawn(send::send(source.transfer.clone(), options, move |hosts| {
        frames.send_replace(hosts[0].frames);
    }));
    some.wait_for(|frames| *frames > 12).await.unwrap();
    first.abort();
    let _ = first.await;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let options = place.options("a");
    tokio::spawn(receive::receive(listener, options, |_| {}));
    let report = sent.await.unwrap().unwrap();
    assert_eq!(report[0].state, State::Done, "{report:?}");
    let joined = report[0].notes.iter().find(|n| n.contains("joined with"));
    let words = joined.unwrap().split("joined with ").nth(1).unwrap();
    let had: u32 = words.split(' ').next().unwrap().parse().unwrap();
    assert!(had > 8, "{report:?}");
    let there = std::fs::read(place.path("a/disk.raw")).unwrap();
    assert!(there == std::fs::read(&file).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_meanwhile_is_not_sent() {
    let place = Place::new();
    let file = place.file("source", 100);
    let (address, _task) = place.receiver("a").await;
    let source = place.source(&file, From::Nothing);
    let options = send::Options {
        hosts: vec![("a".to_owned(), address)],
        chains: 1,
        patience: Duration::from_millis(300),
        limit: Some(Limit::new(20 << 20)),
        tls: None,
    };
    let mut written = false;
    let report = send::send(source.transfer.clone(), options, |hosts| {
        if hosts[0].frames > 1 && !written {
            written = true;
            use std::os::unix::fs::FileExt;
            let source = std::fs::File::options().write(true).open(&file).unwrap();
            source.write_all_at(b"changed", 90 << 20).unwrap();
        }
    })
    .await
    .unwrap();
    assert_eq!(report[0].state, State::Failed, "{report:?}");
    let said = report[0]
        .notes
        .iter()
        .any(|note| note.contains("was changed while it was sent"));
    assert!(said, "{report:?}");
    assert!(!place.path("a/disk.raw").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_stranger_says_a_receiver_goes_on() {
    let place = Place::new();
    let (address, _task) = place.receiver("a").await;
    let long = vec![b'x'; 1 << 20];
    let want = br#"{"want":{"id":"00000000000000000000000000000000","frame":4294967295,"offset":1,"pages":9,"single":true}}"#;
    let offer = br#"{"offer":{"header":"{}","signature":"untrusted comment: x"}}"#;
    for hello in [
        &b"\n"[..],
        b"GET / HTTP/1.1\r\n",
        b"{}\n",
        b"\0\0\0\0\n",
        want,
        offer,
        &long,
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may hang up before it has all.
        let _ = stream.write_all(hello).await;
        let _ = stream.write_all(b"\n").await;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(4), stream.read_to_end(&mut answer));
        assert!(
            ended.await.is_ok(),
            "{:?}",
            String::from_utf8_lossy(&hello[..hello.len().min(80)])
        );
    }
    let file = place.file("source", 1);
    let report = place.send(&file, vec![("a".to_owned(), address)]).await;
    assert_eq!(report[0].state, State::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_and_one_of_zeros() {
    let place = Place::new();
    let (address, _task) = place.receiver("a").await;
    let hosts = vec![("a".to_owned(), address)];
    for size in [0, 1, 5 << 20] {
        let file = place.path("source");
        std::fs::File::create(&file).unwrap().set_len(size).unwrap();
        let report = place.send(&file, hosts.clone()).await;
        assert_eq!(report[0].state, State::Done, "{report:?}");
        assert!(report[0].received < 100);
        use std::os::unix::fs::MetadataExt;
        let there = std::fs::metadata(place.path("a/disk.raw")).unwrap();
        assert_eq!((there.size(), there.blocks()), (size, 0));
    }
}

/// A version that has little new is little to send; hosts that do not have the one before get the whole.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_version_is_made_from_the_one_before() {
    let place = Place::new();
    let file = place.file("source", 40);
    let (a, _task) = place.receiver("a").await;
    let (b, _task) = place.receiver("b").await;
    let a = ("a".to_owned(), a);
    place.send(&file, vec![a.clone()]).await;
    // Some new blocks, some that have moved, some that are gone, and an end that is further.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[5 << 20..][..5000].fill(7);
    bytes.copy_within(8 << 20..9 << 20, (20 << 20) + 4096);
    bytes[30 << 20..32 << 20].fill(0);
    bytes.extend([9; 100_000]);
    std::fs::write(&file, &bytes).unwrap();
    let options = |hosts| send::Options {
        hosts,
        chains: 1,
        patience: Duration::from_millis(300),
        limit: None,
        tls: None,
    };
    let source = place.source(&file, From::Version);
    let hosts = vec![a.clone(), ("b".to_owned(), b)];
    let report = send::send(source.transfer.clone(), options(hosts), |_| {})
        .await
        .unwrap();
    drop(source);
    assert_eq!(report[0].state, State::Done, "{report:?}");
    assert!(report[0].received < 200_000, "{report:?}");
    assert_eq!(report[1].state, State::NoBase, "{report:?}");
    assert!(std::fs::read(place.path("a/disk.raw")).unwrap() == bytes);
    assert!(!place.path("b/disk.raw").exists());
    // Once more: it is remembered.
    let source = place.source(&file, From::Version);
    let again = send::send(source.transfer.clone(), options(vec![a]), |_| {})
        .await
        .unwrap();
    assert_eq!((again[0].state, again[0].received), (State::Done, 0));
}

/// What changes at a parent is not what a child waits for that is further than it: such a child was not told that its
/// parent was there, and left it again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_further_than_its_parent_hears_from_it() {
    let place = Place::new();
    let file = place.file("source", 40);
    let (a, _task) = place.receiver("a").await;
    let source = place.source(&file, From::Nothing);
    let id = source.transfer.header.id;
    let options = send::Options {
        hosts: vec![("a".to_owned(), a)],
        chains: 1,
        patience: Duration::from_millis(300),
        limit: Some(Limit::new(10 << 20)),
        tls: None,
    };
    let (frames, mut some) = tokio::sync::watch::channel(0);
    let sent = tokio::spawn(send::send(source.transfer.clone(), options, move |hosts| {
        frames.send_replace(hosts[0].frames);
    }));
    some.wait_for(|frames| *frames > 1).await.unwrap();
    let mut child = TcpStream::connect(a).await.unwrap();
    let want =
        format!(r#"{{"want":{{"id":"{id}","frame":39,"offset":0,"pages":0,"single":false}}}}"#);
    child
        .write_all(format!("{want}\n").as_bytes())
        .await
        .unwrap();
    let mut heard = [0; 4];
    for _ in 0..3 {
        let read = child.read_exact(&mut heard);
        tokio::time::timeout(Duration::from_millis(390), read)
            .await
            .unwrap()
            .unwrap();
        // Pages come first.
        let mut rest = vec![0; u32::from_le_bytes([heard[0], heard[1], heard[2], 0]) as usize];
        child.read_exact(&mut rest).await.unwrap();
    }
    assert_eq!(sent.await.unwrap().unwrap()[0].state, State::Done);
}

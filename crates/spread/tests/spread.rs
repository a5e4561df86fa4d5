//! A source and receivers in one process, over loopback.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::peer::{DATA, before, first_line, hear, message, want};
use kit::{Place, options, says};
use spread::send::{self, State};
use spread::source::From;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn four_hosts_have_it() {
    let place = Place::new();
    let file = place.file("source", 40);
    let hosts = place.receivers(["a", "b", "c", "d"]).await;
    for host in place.send(&file, &hosts).await {
        assert_eq!(host.state, State::Done, "{host:?}");
        assert!(place.has(&host.name, &file));
        let there = place.path(&host.name);
        assert!(!there.join(".spread/disk.raw.part").exists());
        assert!(there.join(".spread/disk.raw.manifest.minisig").exists());
    }
}

/// Stands before a receiver: of the data that its children get, a bit of each piece is another, until it is `enough`.
/// What goes by itself is as it was.
async fn spoiler(receiver: SocketAddr, enough: Arc<AtomicBool>) -> SocketAddr {
    before(receiver, move |mut child, mut parent| {
        let enough = enough.clone();
        async move {
            let hello = first_line(&mut child).await.unwrap();
            parent.write_all(hello.as_bytes()).await.unwrap();
            if !hello.contains("\"single\":false") {
                let _ = tokio::io::copy_bidirectional(&mut child, &mut parent).await;
                return;
            }
            while let Ok((kind, mut what)) = hear(&mut parent).await {
                if kind == DATA && !enough.load(Ordering::Relaxed) {
                    let middle = what.len() / 2;
                    what[middle] ^= 1;
                }
                if child.write_all(&message(kind, &what)).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// So slowly that nobody has trouble to keep up: all stay as they are listed, and `b` is the parent of `c`.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_spoilt_is_found_by_the_next_host_and_fetched_again() {
    let place = Place::new();
    let file = place.file("source", 24);
    let mut hosts = place.receivers(["a", "b", "c", "d"]).await;
    let enough = Arc::new(AtomicBool::new(false));
    hosts[1].1 = spoiler(hosts[1].1, enough.clone()).await;
    let spoilt = ": spoilt frame";
    let source = place.source(&file);
    let options = options(&hosts, Some(6 << 20));
    let sent = send::send(source.transfer.clone(), options, |hosts| {
        enough.fetch_or(says(&hosts[1], spoilt), Ordering::Relaxed);
    });
    let report = sent.await.unwrap();
    for host in &report {
        assert_eq!(host.state, State::Done, "{report:#?}");
        assert!(place.has(&host.name, &file));
    }
    assert!(says(&report[1], spoilt), "{report:#?}");
    for innocent in [0, 2, 3] {
        assert!(!says(&report[innocent], spoilt), "{report:#?}");
    }
}

/// What was sent before is known again: nothing is computed, and nothing is sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_time_hosts_have_it() {
    let place = Place::new();
    let file = place.file("source", 9);
    let hosts = place.receivers(["a"]).await;
    let first = place.send(&file, &hosts).await;
    assert!(first[0].received > 5 << 20, "{first:?}");
    let again = place.send(&file, &hosts).await;
    assert_eq!((again[0].state, again[0].received), (State::Done, 0));
    // Another file is another version.
    let file = place.file("source", 7);
    let other = place.send(&file, &hosts).await;
    assert_eq!(other[0].state, State::Done, "{other:?}");
    assert!(place.has("a", &file));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_trusted_is_refused() {
    let place = Place::new();
    let file = place.file("source", 1);
    let hosts = place.receivers(["a"]).await;
    let stranger = Place::new();
    let report = stranger.send(&file, &hosts).await;
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
    let hosts = place.receivers(["a"]).await;
    let report = place.send(&file, &hosts).await;
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
    let hosts = place.receivers(["a"]).await;
    assert_eq!(place.send(&old, &hosts).await[0].state, State::Done);
    assert_eq!(place.send(&new, &hosts).await[0].state, State::Done);
    let report = place.send(&old, &hosts).await;
    assert_eq!(report[0].state, State::Refused);
    assert!(report[0].notes[0].contains("newer"), "{report:?}");
    assert!(place.has("a", &new));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_comes_back_goes_on_where_it_was() {
    let place = Place::new();
    let file = place.file("source", 40);
    let source = place.source(&file);
    let (report, had) = place.send_and_kill(&source, || {}).await;
    assert!(had > 8, "{report:?}");
    assert!(place.has("a", &file));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_meanwhile_is_not_sent() {
    let place = Place::new();
    let file = place.file("source", 100);
    let hosts = place.receivers(["a"]).await;
    let source = place.source(&file);
    let options = options(&hosts, Some(20 << 20));
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
    let changed = "was changed while it was sent";
    assert!(says(&report[0], changed), "{report:?}");
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
    let report = place.send(&file, &[("a".to_owned(), address)]).await;
    assert_eq!(report[0].state, State::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_and_one_of_zeros() {
    let place = Place::new();
    let hosts = place.receivers(["a"]).await;
    for size in [0, 1, 5 << 20] {
        let file = place.path("source");
        std::fs::File::create(&file).unwrap().set_len(size).unwrap();
        let report = place.send(&file, &hosts).await;
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
    let hosts = place.receivers(["a", "b"]).await;
    place.send(&file, &hosts[..1]).await;
    // Some new blocks, some that have moved, some that are gone, and an end that is further.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[5 << 20..][..5000].fill(7);
    bytes.copy_within(8 << 20..9 << 20, (20 << 20) + 4096);
    bytes[30 << 20..32 << 20].fill(0);
    bytes.extend([9; 100_000]);
    std::fs::write(&file, &bytes).unwrap();
    let source = place.open(&file, "disk.raw", From::Version).unwrap();
    let report = send::send(source.transfer.clone(), options(&hosts, None), |_| {})
        .await
        .unwrap();
    drop(source);
    assert_eq!(report[0].state, State::Done, "{report:?}");
    assert!(report[0].received < 200_000, "{report:?}");
    assert_eq!(report[1].state, State::NoBase, "{report:?}");
    assert!(std::fs::read(place.path("a/disk.raw")).unwrap() == bytes);
    assert!(!place.path("b/disk.raw").exists());
    // Once more: it is remembered.
    let source = place.open(&file, "disk.raw", From::Version).unwrap();
    let again = send::send(source.transfer.clone(), options(&hosts[..1], None), |_| {})
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
    let source = place.source(&file);
    let id = source.transfer.header.id;
    let options = options(&[("a", a)], Some(10 << 20));
    let (frames, mut some) = tokio::sync::watch::channel(0);
    let sent = tokio::spawn(send::send(source.transfer.clone(), options, move |hosts| {
        frames.send_replace(hosts[0].frames);
    }));
    some.wait_for(|frames| *frames > 1).await.unwrap();
    let mut child = TcpStream::connect(a).await.unwrap();
    child.write_all(&want(id, 39, 0)).await.unwrap();
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

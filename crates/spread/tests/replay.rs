//! Clocks that are wrong, and what was right once and is said again: by a source and parents that are played here.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::peer::{Control, parent, want};
use kit::{Place, noise, options};
use serde_json::json;
use spread::manifest::{Header, Id};
use spread::receive;
use spread::send::{self, State};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

impl Place {
    /// Sends a file of bytes that do not compress; returns the transfer's header and its signature.
    async fn sent(&self, seed: u64, mib: usize, to: SocketAddr) -> (Header, String, String) {
        let file = self.write("source", &noise(seed, mib << 20));
        let source = self.source(&file);
        let options = options(&[("a", to)], None);
        let sent = send::send(source.transfer.clone(), options, |_| {});
        let report = sent.await.unwrap();
        assert_eq!(report[0].state, State::Done, "{report:?}");
        let (line, proof) = (source.transfer.line.clone(), source.transfer.proof.clone());
        (source.transfer.header.clone(), line, proof)
    }

    /// A header that was made at this time, by the source's clock.
    fn header(&self, created: u64) -> (String, String) {
        let id = Id(std::array::from_fn(|at| {
            (created >> (at % 8)) as u8 ^ at as u8
        }));
        let header = Header::new(id, "disk.raw", 1 << 20, created, None).unwrap();
        let line = header.line().unwrap();
        let proof = self.signer.sign(line.as_bytes(), "oscarv spread: header");
        (line, proof)
    }
}

/// Only versions of one name are compared, and only with each other: to a receiver whose clock is years off it is all the
/// same, as is a source whose clock was never set.
#[tokio::test(flavor = "multi_thread")]
async fn no_clock_has_to_be_right() {
    let place = Place::new();
    for (name, created) in [("early", 1), ("late", u64::MAX)] {
        let receiver = place.receiver(name).await.0;
        let (line, proof) = place.header(created);
        let mut control = Control::offer(receiver, &line, &proof).await;
        control.hear("\"accept\"").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_offered_before_does_not_replace_what_is_newer() {
    let place = Place::new();
    let receiver = place.receiver("a").await.0;
    let (old, line, proof) = place.sent(7, 2, receiver).await;
    let (new, ..) = place.sent(8, 2, receiver).await;
    assert!(new.created > old.created);
    let there = std::fs::read(place.path("a/disk.raw")).unwrap();
    let mut control = Control::offer(receiver, &line, &proof).await;
    let said = control.hear("\"refuse\"").await;
    assert!(said.contains("what is here is newer: made 20"), "{said}");
    // With a time that nobody signed.
    let later = line.replace(&old.created.to_string(), &u64::MAX.to_string());
    let mut control = Control::offer(receiver, &later, &proof).await;
    let said = control.hear("\"refuse\"").await;
    assert!(said.contains("none of the keys"), "{said}");
    // While something newer is coming.
    let (line_of_newest, proof_of_newest) = place.header(new.created + 10);
    let mut coming = Control::offer(receiver, &line_of_newest, &proof_of_newest).await;
    coming.hear("\"accept\"").await;
    let (between, proof) = place.header(new.created + 5);
    let mut control = Control::offer(receiver, &between, &proof).await;
    let said = control.hear("\"refuse\"").await;
    assert!(said.contains("what is coming is newer"), "{said}");
    assert!(std::fs::read(place.path("a/disk.raw")).unwrap() == there);
}

/// With `--replace`, for a file that somebody has touched or removed, nobody looked which version was the newer one.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_touched_or_removed_is_not_replaced_by_what_is_older() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let receiver = listener.local_addr().unwrap();
    let replacing = receive::Options {
        replace: true,
        in_place: false,
        ..place.options("a")
    };
    let receives = tokio::spawn(receive::receive(listener, replacing, |_| {}));
    let (_, line, proof) = place.sent(7, 1, receiver).await;
    place.sent(8, 1, receiver).await;
    let there = place.path("a/disk.raw");
    for touched in [true, false] {
        match touched {
            true => std::fs::write(&there, b"touched").unwrap(),
            false => std::fs::remove_file(&there).unwrap(),
        }
        let mut control = Control::offer(receiver, &line, &proof).await;
        let said = control.hear("\"refuse\"").await;
        assert!(said.contains("what came here last is newer"), "{said}");
    }
    // Something newer may come.
    place.sent(9, 1, receiver).await;
    receives.abort();
}

/// A parent that has pages and frames of another transfer, rightly signed by the same key, gives those.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_another_transfer_are_refused() {
    let place = Place::new();
    let other = place.receiver("other").await.0;
    let (header, ..) = place.sent(7, 1, other).await;
    let mut child = TcpStream::connect(other).await.unwrap();
    let id = header.id;
    child.write_all(&want(id, 0, 0)).await.unwrap();
    let mut recorded = Vec::new();
    child.read_to_end(&mut recorded).await.unwrap();
    assert!(recorded.len() > 1 << 20, "{}", recorded.len());
    let hostile = parent(move |mut child, _| {
        let recorded = recorded.clone();
        async move {
            let _ = child.write_all(&recorded).await;
        }
    })
    .await;
    let receiver = place.receiver("a").await.0;
    let (line, proof) = place.header(header.created + 1);
    let mut control = Control::offer(receiver, &line, &proof).await;
    control.hear("\"accept\"").await;
    control.say(&json!({ "parents": [hostile] })).await;
    let lost = control.hear("\"lost\"").await;
    assert!(lost.contains("does not keep to the protocol"), "{lost}");
    assert!(lost.contains("another transfer"), "{lost}");
    assert!(!place.path("a/disk.raw").exists());
}

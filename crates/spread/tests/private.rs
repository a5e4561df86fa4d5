//! A source and receivers in one process, over loopback, with TLS.

#![allow(clippy::unwrap_used)]

mod kit;
mod private {
    pub mod cluster;
    pub mod rogue;
}

use kit::peer::before;
use private::cluster::{Cluster, DAY, SECRET};
use private::rogue::rogue;
use spread::authority::Authority;
use spread::limit::Limit;
use spread::send::State;
use spread::tls::Tls;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Stands before a receiver and looks for the secret in all that passes.
async fn listen_in(receiver: SocketAddr, seen: Arc<AtomicUsize>) -> SocketAddr {
    before(receiver, move |child, parent| {
        let seen = seen.clone();
        async move {
            let (child_in, child_out) = child.into_split();
            let (parent_in, parent_out) = parent.into_split();
            for (mut from, mut to) in [(child_in, parent_out), (parent_in, child_out)] {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut bytes = vec![0; 1 << 18];
                    let mut last = Vec::new();
                    while let Ok(count @ 1..) = from.read(&mut bytes).await {
                        last.extend_from_slice(&bytes[..count]);
                        let words = last.windows(SECRET.len());
                        let found = words.filter(|words| *words == SECRET).count();
                        seen.fetch_add(found, Ordering::SeqCst);
                        // What it may begin with at the end of these.
                        last.drain(..last.len().saturating_sub(SECRET.len() - 1));
                        if to.write_all(&bytes[..count]).await.is_err() {
                            break;
                        }
                    }
                    drop(to);
                });
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hosts_have_it_and_nobody_between_them_can_read_it() {
    for private in [false, true] {
        let place = Cluster::new();
        place.secret(12);
        let tls = |host| private.then(|| place.tls(host));
        let (seen, mut hosts) = (Arc::new(AtomicUsize::new(0)), Vec::new());
        for name in ["a", "b", "c"] {
            let receiver = place.receive(name, tls(name)).await;
            hosts.push((name, listen_in(receiver.address, seen.clone()).await));
        }
        // Slow enough that each has it from the one before.
        let limit = Some(Limit::new(10 << 20));
        let report = place.send_to(&hosts, tls("source"), limit, |_| {}).await;
        for host in &report {
            assert_eq!(host.state, State::Done, "{report:#?}");
            assert!(host.received >= 12 << 20, "{report:#?}");
            place.assert_has(&host.name);
        }
        if private {
            assert_eq!(seen.load(Ordering::SeqCst), 0);
        } else {
            // Else this test would find nothing whatever passed.
            assert!(seen.load(Ordering::SeqCst) > 0, "{report:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_the_middle_is_killed_and_the_others_have_it() {
    let place = Cluster::new();
    place.secret(40);
    let mut receivers = Vec::new();
    for name in ["a", "b", "c"] {
        receivers.push(place.receive(name, Some(place.tls(name))).await);
    }
    let hosts = [
        ("a", receivers[0].address),
        ("b", receivers[1].address),
        ("c", receivers[2].address),
    ];
    let limit = Some(Limit::new(20 << 20));
    let begin = Instant::now();
    let mut killed = None;
    let report = place
        .send_to(&hosts, Some(place.tls("source")), limit, |hosts| {
            // Whoever came in time to be somebody's parent.
            let child = hosts
                .iter()
                .find(|host| host.frames > 4 && host.parent.is_some());
            if let (Some(child), None) = (child, killed) {
                let parent = hosts
                    .iter()
                    .position(|host| child.parent == Some(host.name.clone()));
                receivers[parent.unwrap()].task.abort();
                killed = parent;
            }
        })
        .await;
    let killed = killed.unwrap();
    for (index, host) in report.iter().enumerate() {
        if index == killed {
            assert_eq!(host.state, State::Failed, "{report:#?}");
        } else {
            assert_eq!(host.state, State::Done, "{report:#?}");
            place.assert_has(&host.name);
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{report:#?}");
}

/// Stands before a receiver. The source's connection, the first, passes; children hear nothing more after 8 MiB, which
/// is counted.
async fn silent(receiver: SocketAddr, fallen: Arc<AtomicU32>) -> SocketAddr {
    let count = AtomicU32::new(0);
    before(receiver, move |mut child, mut parent| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let fallen = fallen.clone();
        async move {
            if number == 0 {
                let _ = tokio::io::copy_bidirectional(&mut child, &mut parent).await;
                return;
            }
            let (mut child_in, mut child_out) = child.into_split();
            let (parent_in, mut parent_out) = parent.into_split();
            let up = tokio::io::copy(&mut child_in, &mut parent_out);
            let down = async {
                let copied = tokio::io::copy(&mut parent_in.take(8 << 20), &mut child_out).await;
                fallen.fetch_add(u32::from(copied.ok() == Some(8 << 20)), Ordering::SeqCst);
                std::future::pending::<()>().await;
            };
            let _ = tokio::join!(up, down);
        }
    })
    .await
}

/// A parent that falls silent in the middle is left, by whoever notices it first: its child, or the source, which sees
/// that one gets less. What had come of it is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_parent_is_left_in_time() {
    for private in [false, true] {
        let place = Cluster::new();
        let begin = Instant::now();
        place.secret(40);
        let tls = |host| private.then(|| place.tls(host));
        let (fallen, mut hosts) = (Arc::new(AtomicU32::new(0)), Vec::new());
        for name in ["a", "b", "c"] {
            let receiver = place.receive(name, tls(name)).await;
            hosts.push((name, silent(receiver.address, fallen.clone()).await));
        }
        let report = place.send_to(&hosts, tls("source"), None, |_| {}).await;
        for host in &report {
            assert_eq!(host.state, State::Done, "{report:#?}");
            place.assert_has(&host.name);
            assert!(host.received < 42 << 20, "{report:#?}");
        }
        assert!(fallen.load(Ordering::SeqCst) > 0, "{report:#?}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{report:#?}");
    }
}

/// These words are in it.
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "without {word:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ca_is_refused_by_both() {
    let (place, other) = (Cluster::new(), Cluster::new());
    let (here, there) = place
        .refused(Some(place.tls("a")), Some(other.tls("source")))
        .await;
    assert_says(
        &here,
        &["the certificate of a is not by the CA", "source.bundle"],
    );
    assert_says(
        &there,
        &[
            "127.0.0.1 does not take the certificate in",
            "a.bundle",
            "another CA",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ran_out_by_the_receivers_clock() {
    let place = Cluster::new();
    let ahead = || SystemTime::now() + DAY * 3650;
    let receiver = place.tls_for("a", 1, 9999, ahead);
    let source = place.tls_for("source", 1, 30, SystemTime::now);
    let (here, there) = place.refused(Some(receiver), Some(source)).await;
    // The receiver says both times; the source says its own.
    assert_says(
        &there,
        &[
            "the certificate of 127.0.0.1 was valid until 20",
            "by the clock here it is 20",
        ],
    );
    assert_says(
        &here,
        &[
            "a does not take the certificate in",
            "source.bundle",
            "compare the clocks",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_yet_valid_by_the_sources_clock() {
    let place = Cluster::new();
    let behind = || SystemTime::now() - DAY * 3650;
    let receiver = place.tls_for("a", 1, 30, SystemTime::now);
    let source = place.tls_for("source", 9999, 30, behind);
    let (here, there) = place.refused(Some(receiver), Some(source)).await;
    assert_says(
        &here,
        &[
            "the certificate of a is valid only from 20",
            "by the clock here it is 20",
        ],
    );
    assert_says(&there, &["compare the clocks"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_another_hosts_bundle_is_refused() {
    let place = Cluster::new();
    let (here, there) = place
        .refused(Some(place.tls("b")), Some(place.tls("source")))
        .await;
    assert_says(
        &here,
        &["is of another host", "\"b\"", "`oscarv spread bundle a`"],
    );
    assert_says(&there, &["does not take the certificate in"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_was_replaced_or_revoked_is_refused() {
    let place = Cluster::new();
    let old = place.tls("a");
    place.ca.bundle("a", 1).unwrap();
    let bundle = place.ca.bundle("source", 1).unwrap();
    let file = place.keep("source", &bundle);
    let source = Tls::load(&file).unwrap();
    let source = source.only_newest(&place.path("ca")).unwrap();
    let (here, there) = place.refused(Some(old), Some(Arc::new(source))).await;
    assert_says(&here, &["revoked, or a newer bundle was made"]);
    assert_says(&there, &["revoked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_and_private_do_not_mix() {
    let place = Cluster::new();
    let (here, there) = place.refused(Some(place.tls("a")), None).await;
    assert_says(&here, &["only what is sent with --private"]);
    assert_says(&there, &["without TLS"]);
    let (here, there) = place.refused(None, Some(place.tls("source"))).await;
    assert_says(&here, &["a does not speak TLS", "--private"]);
    assert_says(&there, &["comes with TLS"]);
}

#[tokio::test]
async fn bundles_that_are_not_right_are_not_loaded() {
    let place = Cluster::new();
    let bundle = place.ca.bundle("a", 1).unwrap();
    let file = place.keep("a", &bundle);
    assert!(Tls::load(&file).is_ok());
    let why = |file: &PathBuf| Tls::load(file).err().unwrap().to_string();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(why(&file).contains("chmod 600"), "{}", why(&file));
    assert!(why(&file).contains("0644") && why(&file).contains("a.bundle"));
    let secret = bundle.find("-----BEGIN PRIVATE KEY-----").unwrap();
    let file = place.keep("a", &bundle[..secret]);
    assert!(why(&file).contains("it is no bundle"), "{}", why(&file));
    // The certificate of one CA with another's.
    let other = Cluster::new().ca.bundle("a", 1).unwrap();
    let end = other.rfind("-----BEGIN CERTIFICATE-----").unwrap();
    let cut = bundle.rfind("-----BEGIN CERTIFICATE-----").unwrap();
    let file = place.keep("a", &(bundle[..cut].to_owned() + &other[end..]));
    assert!(why(&file).contains("it is no bundle"), "{}", why(&file));
    let now = SystemTime::now();
    let old = place.ca.bundle_for("a", now - DAY * 9..now - DAY * 2);
    let file = place.keep("a", &old.unwrap());
    assert!(
        why(&file).contains("this host's certificate was valid until"),
        "{}",
        why(&file)
    );
    let early = place.ca.bundle_for("a", now + DAY..now + DAY * 2);
    let file = place.keep("a", &early.unwrap());
    assert!(why(&file).contains("valid only from"), "{}", why(&file));
}

/// Who belongs to the cluster, but is not on the list, does not know what to ask for; who has no certificate of the CA
/// is not asked what he wants.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_their_offers_are_turned_away() {
    let place = Cluster::new();
    place.secret(2);
    let a = place.receive("a", Some(place.tls("a"))).await;
    // TLS does not replace the signature.
    let mut stranger = Cluster::new();
    stranger.secret(1);
    stranger.ca = Authority::load_or_make(&place.path("ca")).unwrap();
    let report = stranger
        .send_to(&[("a", a.address)], Some(stranger.tls("x")), None, |_| {})
        .await;
    assert_eq!(report[0].state, State::Refused, "{report:?}");
    assert!(
        report[0].notes[0].contains("none of the keys"),
        "{report:?}"
    );
    // Without a certificate, and with one of another CA.
    let other = Cluster::new().ca.bundle("source", 1).unwrap();
    for (bundle, why) in [(None, "has no certificate"), (Some(other), "not by the CA")] {
        let mut stream = rogue(a.address, bundle).await;
        stream.write_all(b"{\"want\":").await.unwrap();
        let mut answer = Vec::new();
        assert!(stream.read_to_end(&mut answer).await.is_err());
        assert_eq!(answer, b"");
        drop(stream);
        while !a.refusal().await.contains(why) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // Bytes that are no TLS, in both guises.
    for hello in [
        &b"\x16\x03\x01\xff\xffrubbish"[..],
        b"\x16",
        b"GET / HTTP/1.1\r\n",
    ] {
        let mut stream = TcpStream::connect(a.address).await.unwrap();
        stream.write_all(hello).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let ended = tokio::time::timeout(Duration::from_secs(4), ended).await;
        assert!(ended.is_ok());
    }
    let tls = place.tls("source");
    let report = place
        .send_to(&[("a", a.address)], Some(tls), None, |_| {})
        .await;
    assert_eq!(report[0].state, State::Done, "{report:?}");
    place.assert_has("a");
}

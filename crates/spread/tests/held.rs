//! What a receiver and a source hold, for whom and for how long: disk space, places, connections, time.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::peer::{Control, FAILED, Fake, answer, parent};
use kit::{LONG, Place, noise, options, says};
use serde_json::json;
use spread::manifest::{Entry, FRAME, Id};
use spread::send::{self, Host, State};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Bytes on the disk of all files below this directory that this process has open, with name or without.
fn held(dir: &Path) -> u64 {
    let mut files = BTreeMap::new();
    for fd in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = std::fs::read_link(fd.path()) else {
            continue;
        };
        if let (true, Ok(data)) = (target.starts_with(dir), std::fs::metadata(fd.path())) {
            files.insert(data.ino(), data.blocks() * 512);
        }
    }
    files.values().sum()
}

/// Returns when this is so.
async fn until(what: &str, is: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Versions that were replaced were on the disk as long as the receiver ran, up to eight of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_takes_no_room() {
    let place = Place::new();
    let hosts = place.receivers(["a"]).await;
    for version in 0..3 {
        let file = place.write("source", &noise(version, 3 << 20));
        let report = place.send(&file, &hosts).await;
        assert_eq!(report[0].state, State::Done, "{report:?}");
    }
    let dir = place.path("a");
    until("the last version is held, and nothing else", || {
        held(&dir) < 4 << 20
    })
    .await;
    // It can still be had from there.
    assert!(held(&dir) > 2 << 20);
}

/// What had failed kept its blocks, even when its file was removed: a disk that was full stayed full.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_not_held() {
    let place = Place::new();
    let receiver = place.receiver("a").await.0;
    let frame = *blake3::hash(&[7; FRAME as usize]).as_bytes();
    let fake = Fake::new(&place.signer, "disk.raw", vec![Entry::raw(FRAME, frame)]);
    let mut control = fake.offer(receiver, &[]).await;
    let dir = place.path("a");
    let open = || {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        links.filter(|link| link.starts_with(&dir)).count()
    };
    assert!(open() > 0);
    control.say(&json!("bye")).await;
    until("nothing is held", || open() == 0).await;
}

/// Whoever asked for a frame that there is not, or that has no bytes, had a place for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_there_is_not_is_not_waited_for() {
    let place = Place::new();
    let hosts = place.receivers(["a"]).await;
    let file = place.write("source", &[noise(1, 1 << 20), vec![0; 2 << 20]].concat());
    let source = place.source(&file);
    let id = source.transfer.header.id;
    let sent = send::send(source.transfer.clone(), options(&hosts, None), |_| {});
    let report = timeout(LONG, sent).await.unwrap().unwrap();
    assert_eq!(report[0].state, State::Done, "{report:?}");
    for frame in [1, 2, 3, u32::MAX] {
        let said = single(hosts[0].1, id, frame).await;
        assert_eq!(said.get(3), Some(&FAILED), "frame {frame}: {said:?}");
    }
    assert!(single(hosts[0].1, id, 0).await.len() > 1 << 20);
}

/// All that is said to whoever asks for one frame.
async fn single(at: std::net::SocketAddr, id: Id, frame: u32) -> Vec<u8> {
    let want = json!({"want": {"id": id, "frame": frame, "offset": 0, "pages": 0, "single": true}});
    answer(at, &want).await
}

/// The source listened on IPv4 only, and told hosts its address of the other kind.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_may_have_addresses_of_either_kind() {
    let place = Place::new();
    let mut hosts = Vec::new();
    for (name, at) in [("a", "[::1]:0"), ("b", "127.0.0.1:0"), ("c", "[::1]:0")] {
        match TcpListener::bind(at).await {
            Ok(listener) => {
                hosts.push((name, listener.local_addr().unwrap()));
                place.receive_on(listener, name);
            }
            Err(e) => println!("not tested, because there is no {at} here: {e}"),
        }
    }
    let file = place.file("source", 3);
    let source = place.source(&file);
    // Each has it from the source alone, too.
    for some in hosts.chunks(1).chain([&hosts[..]]) {
        let sent = send::send(source.transfer.clone(), options(some, None), |_| {});
        let report = timeout(LONG, sent).await.unwrap().unwrap();
        let done = report.iter().all(|host| host.state == State::Done);
        assert!(done, "{report:#?}");
    }
}

/// An offer that was recorded, said again and again: each connection was kept.
#[tokio::test(flavor = "multi_thread")]
async fn offers_that_are_repeated_do_not_pile_up() {
    let place = Place::new();
    let hosts = place.receivers(["a"]).await;
    let file = place.file("source", 1);
    let source = place.source(&file);
    let sent = send::send(source.transfer.clone(), options(&hosts, None), |_| {});
    assert_eq!(sent.await.unwrap()[0].state, State::Done);
    let (line, proof) = (&source.transfer.line, &source.transfer.proof);
    let offer = json!({"offer": {"header": line, "signature": proof}});
    let words = format!("{offer}\n");
    let mut repeated = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(hosts[0].1).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        repeated.push(stream);
    }
    let begin = Instant::now();
    let is_closed = |stream: &TcpStream| loop {
        match stream.try_read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    while !repeated.is_empty() {
        repeated.retain(|stream| !is_closed(stream));
        if repeated.len() <= 64 {
            break;
        }
        let long = begin.elapsed() > Duration::from_secs(20);
        assert!(!long, "{} are kept", repeated.len());
        sleep(Duration::from_millis(20)).await;
    }
    let file = place.file("another", 2);
    let report = place.send(&file, &hosts).await;
    assert_eq!(report[0].state, State::Done, "{report:?}");
}

/// Anybody could say of anybody else that it spoils frames, and that was in the report.
#[tokio::test(flavor = "multi_thread")]
async fn only_its_parents_can_be_accused_by_a_host() {
    let place = Place::new();
    let honest = place.receiver("honest").await.0;
    let evil = parent(move |stream, line| async move {
        let mut control = Control::new(stream);
        if !line.starts_with("{\"offer\"") {
            // A child: it leaves before long.
            return control.drain().await;
        }
        control.say(&json!({"accept": {"frames": 0}})).await;
        control.hear("parents").await;
        for frame in 0..3 {
            let said = json!({"spoilt": {"parent": honest, "frame": frame}});
            control.say(&said).await;
        }
        control.say(&json!({"failed": {"reason": "no more"}})).await;
        control.drain().await;
    })
    .await;
    let file = place.file("source", 3);
    let hosts = [("evil".to_owned(), evil), ("honest".to_owned(), honest)];
    let report = place.send(&file, &hosts).await;
    assert_eq!(report[1].state, State::Done, "{report:#?}");
    assert!(says(&report[0], "was spoilt by honest"), "{report:#?}");
    assert!(!says(&report[1], "spoilt"), "{report:#?}");
}

/// Whoever said more than the source could hear kept it from everything else. Here they talk until it has looked at its
/// hosts for some times.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_host_that_never_stops_talking_is_not_all_that_is_heard() {
    let place = Place::new();
    let honest = place.receiver("honest").await.0;
    let mut hosts = vec![("honest".to_owned(), honest)];
    // About somebody who is there: it is looked for.
    let lost = json!({"lost": {"parent": honest, "why": "x"}});
    let many = format!("{lost}\n").repeat(500);
    let looks = Arc::new(AtomicU32::new(0));
    for number in 0..6 {
        let (many, looks) = (many.clone(), looks.clone());
        let talker = parent(move |mut stream, _| {
            let (many, looks) = (many.clone(), looks.clone());
            async move {
                let accept = json!({"accept": {"frames": 0}});
                let _ = stream.write_all(format!("{accept}\n").as_bytes()).await;
                let begin = Instant::now();
                let mut why = "it has looked";
                while looks.load(Ordering::Relaxed) < 30 {
                    if begin.elapsed() > LONG / 4 {
                        why = "it does not look";
                        break;
                    }
                    if stream.write_all(many.as_bytes()).await.is_err() {
                        return;
                    }
                }
                let failed = json!({"failed": {"reason": why}});
                let _ = stream.write_all(format!("{failed}\n").as_bytes()).await;
                Control::new(stream).drain().await;
            }
        });
        hosts.push((format!("talker{number}"), talker.await));
    }
    let file = place.file("source", 3);
    let source = place.source(&file);
    let told = |_: &[Host]| {
        looks.fetch_add(1, Ordering::Relaxed);
    };
    let sent = send::send(source.transfer.clone(), options(&hosts, None), told);
    let report = timeout(LONG, sent).await.unwrap().unwrap();
    assert_eq!(report[0].state, State::Done, "{report:#?}");
    let silent = report.iter().any(|host| says(host, "it does not look"));
    assert!(!silent, "{report:#?}");
}

/// What came in one piece with the offer was lost: whoever named parents at once waited for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_right_after_the_offer_is_heard() {
    let place = Place::new();
    let receiver = place.receiver("a").await.0;
    let frame = *blake3::hash(&[7; FRAME as usize]).as_bytes();
    let fake = Fake::new(&place.signer, "disk.raw", vec![Entry::raw(FRAME, frame)]);
    let (line, proof) = fake.offered();
    let offer = json!({"offer": {"header": line, "signature": proof}});
    let words = format!("{offer}\n\"bye\"\n");
    let mut stream = TcpStream::connect(receiver).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let ends = timeout(Duration::from_secs(5), stream.read_to_end(&mut said)).await;
    ends.expect("the source has ended it").unwrap();
}

/// With a limit of less than a frame in 0.4 s a host heard nothing while it waited, left, and had to wait again: next to
/// nothing came.
#[tokio::test(flavor = "multi_thread")]
async fn one_host_has_it_at_a_low_limit() {
    let place = Place::new();
    let hosts = place.receivers(["a"]).await;
    let file = place.write("source", &noise(3, 2 << 20));
    let source = place.source(&file);
    let slow = options(&hosts, Some(1 << 20));
    let sent = send::send(source.transfer.clone(), slow, |_| {});
    let report = timeout(LONG, sent).await.unwrap().unwrap();
    assert_eq!(report[0].state, State::Done, "{report:#?}");
    assert!(!says(&report[0], "left the source"), "{report:#?}");
}

/// An address of this host alone was given to the others as their parent's.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_cannot_reach_is_refused() {
    let place = Place::new();
    let hosts = place.receivers(["here"]).await;
    // Nobody is there; that it is elsewhere is enough.
    let elsewhere = ("there".to_owned(), "192.0.2.7:7117".parse().unwrap());
    let file = place.file("source", 1);
    let source = place.source(&file);
    let hosts = [hosts[0].clone(), elsewhere];
    let mut options = options(&hosts, None);
    options.patience = Duration::from_millis(100);
    let sent = send::send(source.transfer.clone(), options, |_| {});
    let report = timeout(LONG, sent).await.unwrap().unwrap();
    assert_eq!(report[0].state, State::Refused, "{report:#?}");
    let why = "127.0.0.1 is an address of this host alone";
    assert!(says(&report[0], why), "{report:#?}");
}

//! Hosts of one run beside each other: those that take the places of others, and honest ones, which accuse nobody.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::peer::{Control, answer, idle, want};
use kit::{LONG, Place, options, says};
use serde_json::json;
use spread::manifest::Id;
use spread::send::{self, State};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// More than anybody has places for.
const MANY: usize = 300;

/// So many children from this address that want all of it, and take a byte now and then.
async fn dribbling(from: &str, at: SocketAddr, id: Id, many: usize) -> JoinHandle<()> {
    let from = format!("{from}:0").parse().unwrap();
    let mut children = Vec::new();
    for _ in 0..many {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind(from).unwrap();
        let mut child = socket.connect(at).await.unwrap();
        child.write_all(&want(id, 0, 0)).await.unwrap();
        children.push(child);
    }
    tokio::spawn(async move {
        loop {
            for child in &children {
                let _ = child.try_read(&mut [0]);
            }
            sleep(Duration::from_millis(200)).await;
        }
    })
}

/// One of two hosts opens three hundred connections to the source and reads next to nothing: the other one found no place,
/// and failed.
async fn two_of_which_one_is_greedy(from: &str) {
    let place = Place::new();
    let file = place.file_of("source", 40, |_| 0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = listener.local_addr().unwrap();
    let (evil, mut found) = idle().await;
    let source = place.source(&file);
    let id = source.transfer.header.id;
    let (hosts, mut seen) = tokio::sync::watch::channel(Vec::new());
    let options = options(&[("evil", evil), ("good", good)], None);
    let sent = send::send(source.transfer.clone(), options, move |now| {
        hosts.send_replace(now.to_vec());
    });
    let taken = async {
        let at = *found.wait_for(Option::is_some).await.unwrap();
        let children = dribbling(from, at.unwrap(), id, MANY).await;
        // Now the other one answers.
        place.receive_on(listener, "good");
        let is_done = |hosts: &Vec<send::Host>| {
            hosts
                .get(1)
                .is_some_and(|h| h.state != State::Receiving && h.state != State::Away)
        };
        let hosts = timeout(LONG, seen.wait_for(is_done))
            .await
            .unwrap()
            .unwrap();
        let good = hosts[1].clone();
        children.abort();
        good
    };
    let good = tokio::select! {
        report = sent => panic!("{report:?}"),
        good = taken => good,
    };
    assert_eq!(good.state, State::Done, "{good:?}");
    assert!(!says(&good, "left the source"), "{good:?}");
    assert!(place.has("good", &file));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_takes_all_places_of_a_source_starves_nobody() {
    two_of_which_one_is_greedy("127.0.0.2").await;
}

/// Behind one address, whoever comes later gets a place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_it_starve_who_shares_its_address() {
    two_of_which_one_is_greedy("127.0.0.1").await;
}

/// A receiver that has 40 MiB, and their id.
async fn receiver_that_has_it(place: &Place) -> (SocketAddr, Id, u32) {
    let file = place.file_of("source", 40, |_| 0);
    let hosts = place.receivers(["a"]).await;
    let source = place.source(&file);
    let header = source.transfer.header.clone();
    let sent = send::send(source.transfer.clone(), options(&hosts, None), |_| {});
    let report = timeout(LONG, sent).await.unwrap().unwrap();
    assert_eq!(report[0].state, State::Done, "{report:?}");
    (hosts[0].1, header.id, header.frames())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_takes_all_places_of_a_receiver_starves_nobody() {
    let place = Place::new();
    let (a, id, _) = receiver_that_has_it(&place).await;
    let children = dribbling("127.0.0.2", a, id, MANY).await;
    for frame in [0, 20, 39] {
        let mut child = TcpStream::connect(a).await.unwrap();
        child.write_all(&want(id, frame, 0)).await.unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut came = 0;
        while came < (40 - frame as usize) << 20 {
            let read = timeout(LONG, child.read(&mut buffer)).await.unwrap();
            let count = read.unwrap();
            assert!(count > 0, "closed after {came} bytes");
            came += count;
        }
    }
    children.abort();
}

/// Whoever said that it was behind the end, or had more pages than there are, heard for ever that there was nothing yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_want_that_cannot_be_holds_no_place() {
    let place = Place::new();
    let (a, id, frames) = receiver_that_has_it(&place).await;
    for (frame, offset, pages) in [
        (u32::MAX, 0, 0),
        (frames + 1, 0, 0),
        (frames, 8, 0),
        (0, (1 << 20) + 1, 0),
        (0, 0, frames + 1),
        (frames, 0, u32::MAX),
        // So many there might be, and are not.
        (frames, 0, frames),
    ] {
        let want = json!({"want": {
            "id": id, "frame": frame, "offset": offset, "pages": pages, "single": false,
        }});
        let said = answer(a, &want).await;
        assert!(said.len() < 100, "{want}: {} bytes", said.len());
    }
}

/// Says to two receivers in turn that one has it from the other one, until both have all; returns what they say but how far
/// they are.
async fn in_turn(place: &Place, limit: Option<u64>, pause: Duration) -> Vec<String> {
    let file = place.file_of("source", 30, |_| 0);
    let [(_, a), (_, b)] = place.receivers(["a", "b"]).await;
    let source = place.source(&file);
    let (host, mut found) = idle().await;
    let options = options(&[("idle", host)], limit);
    let sent = send::send(source.transfer.clone(), options, |_| {});
    let turns = async {
        let at = found.wait_for(Option::is_some).await.unwrap().unwrap();
        let (line, proof) = (&source.transfer.line, &source.transfer.proof);
        let mut first = Control::offer(a, line, proof).await;
        let mut second = Control::offer(b, line, proof).await;
        // Before, there is nothing to be had from them.
        first.hear("accept").await;
        second.hear("accept").await;
        let (mut said, mut done, mut turn) = (Vec::new(), [false; 2], false);
        while done != [true; 2] {
            turn = !turn;
            let (one, other) = match turn {
                true => (vec![at], vec![a, at]),
                false => (vec![b, at], vec![at]),
            };
            first.say(&json!({"parents": one})).await;
            second.say(&json!({"parents": other})).await;
            let end = sleep(pause);
            tokio::pin!(end);
            loop {
                let (host, line) = tokio::select! {
                    () = &mut end => break,
                    line = first.hear(""), if !done[0] => (0, line),
                    line = second.hear(""), if !done[1] => (1, line),
                };
                done[host] |= line.contains("\"done\"");
                if !line.contains("\"report\"") {
                    said.push(line);
                }
            }
        }
        said
    };
    tokio::select! {
        report = sent => panic!("{report:?}"),
        said = timeout(LONG, turns) => said.unwrap(),
    }
}

/// However often they change places, also at the very end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_and_children_in_turn_accuse_nobody() {
    for (pause, limit) in [(7, None), (40, Some(20 << 20)), (90, Some(20 << 20))] {
        let place = Place::new();
        let said = in_turn(&place, limit, Duration::from_millis(pause)).await;
        assert_eq!(said, ["\"done\"\n"; 2], "{pause} ms, {limit:?}");
    }
}

/// `SPREAD_RUNS`: how many times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_honest_hosts_never_say_that_one_does_not_keep_to_the_protocol() {
    let runs = std::env::var("SPREAD_RUNS").map_or(2, |runs| runs.parse().unwrap());
    for run in 0..runs {
        let place = Place::new();
        let file = place.file_of("source", 30, |_| 0);
        let hosts = place
            .receivers(["a", "b", "c", "d", "e", "f", "g", "h"])
            .await;
        let source = place.source(&file);
        let limit = [None, Some(10 << 20), Some(20 << 20)][run % 3];
        let sent = send::send(source.transfer.clone(), options(&hosts, limit), |_| {});
        let report = timeout(LONG, sent).await.unwrap().unwrap();
        for host in &report {
            assert_eq!(host.state, State::Done, "{report:#?}");
            for words in ["protocol", "spoilt", "closed the connection"] {
                assert!(!says(host, words), "{report:#?}");
            }
            if !host.notes.is_empty() {
                println!("{run}: {:?}", host.notes);
            }
        }
    }
}

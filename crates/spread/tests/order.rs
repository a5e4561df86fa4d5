//! Several sources: hosts that have it give it to others, and go on when the source is gone.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::{Place, options, says};
use spread::send::{self, Host, Plan, State};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A file of so many MiB that do not compress.
fn place(mib: usize) -> (Place, PathBuf) {
    let place = Place::new();
    let file = place.file_of("source", mib, |_| 0);
    (place, file)
}

async fn send(place: &Place, hosts: &[(String, SocketAddr)], plan: Plan) -> Vec<Host> {
    let source = place.source(&place.path("source"));
    let options = options(hosts, None);
    let sent = send::send_by(source.transfer.clone(), options, plan, |_| {});
    sent.await.unwrap()
}

fn from(hosts: &[(String, SocketAddr)]) -> Plan {
    Plan {
        from: hosts.to_vec(),
        ..Plan::default()
    }
}

/// A source that gives next to nothing does not matter, where another host has it; and it may die.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_it_gives_it_to_others_also_when_the_source_is_gone() {
    let (place, file) = place(24);
    let a = place.receivers(["a"]).await;
    assert_eq!(
        send(&place, &a, Plan::default()).await[0].state,
        State::Done
    );
    let b = place.receivers(["b", "c"]).await;
    let source = place.source(&file);
    let (received, mut some) = tokio::sync::watch::channel([0; 2]);
    let options = options(&b, Some(2 << 20));
    let sent = send::send_by(source.transfer.clone(), options, from(&a), move |hosts| {
        received.send_replace([hosts[0].received, hosts[1].received]);
    });
    let sent = tokio::spawn(sent);
    // One of them gets it from the source, the other one from the host that has it. Until a whole frame is there the slow
    // one has another parent, and all is over.
    some.wait_for(|received| received.iter().all(|bytes| *bytes > 0))
        .await
        .unwrap();
    sent.abort();
    assert!(sent.await.unwrap_err().is_cancelled());
    drop(source);
    let both = async {
        while !(place.has("b", &file) && place.has("c", &file)) {
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
    let (place, file) = place(24);
    let a = place.receivers(["a"]).await;
    assert_eq!(
        send(&place, &a, Plan::default()).await[0].state,
        State::Done
    );
    let [b, c] = place.receivers(["b", "c"]).await;
    let hosts = [a[0].clone(), b, c];
    let source = place.source(&file);
    let options = options(&hosts, Some(2 << 20));
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
    assert!(place.has("b", &file) && place.has("c", &file));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_said_to_have_it_and_does_not_gets_nothing_and_is_named() {
    let (place, _file) = place(3);
    let (a, b) = (place.receivers(["a"]).await, place.receivers(["b"]).await);
    let report = send(&place, &a, from(&b)).await;
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
    let (place, _file) = place(3);
    let (address, first) = place.receiver("a").await;
    let a = ("a".to_owned(), address);
    assert_eq!(
        send(&place, std::slice::from_ref(&a), Plan::default()).await[0].state,
        State::Done
    );
    first.abort();
    let _ = first.await;
    place.receive_again(address, "a").await;
    let [b] = place.receivers(["b"]).await;
    let hosts = [a, b];
    let report = send(&place, &hosts, Plan::default()).await;
    assert!(report.iter().all(|host| host.state == State::Done));
    assert_eq!(report[1].parent, None, "{report:?}");
    assert!(!says(&report[1], "left"), "{report:?}");
}

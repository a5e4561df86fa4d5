//! Two hosts that cannot reach each other, while everybody else can reach both.

use super::net::{Net, SOURCE};
use crate::kit::{LONG, Place, options, says};
use spread::send::{self, State};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::timeout;

/// Each was put behind the other one in turn, and each time had to find out that it was not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_cannot_reach_each_other_try_it_once() {
    let place = Place::new();
    let file = place.file("source", 16);
    let net = Arc::new(Net::default());
    net.wall(2, 3);
    let mut hosts = place.receivers(["a", "b", "c"]).await;
    let targets = hosts.clone().map(|(_, target)| target);
    for (to, target) in (1..).zip(targets) {
        for from in (0..=hosts.len()).filter(|from| *from != to) {
            let door = net.door(from, to, target);
            if from == SOURCE {
                hosts[to - 1].1 = door;
            }
        }
    }
    let source = place.source(&file);
    let sent = send::send(
        source.transfer.clone(),
        options(&hosts, Some(8 << 20)),
        |_| {},
    );
    let report = timeout(LONG, sent).await.unwrap().unwrap();
    for host in &report {
        assert_eq!(host.state, State::Done, "{report:#?}");
        assert!(place.has(&host.name, &file));
    }
    let tried = report.iter().any(|host| says(host, "it cannot be reached"));
    assert!(tried, "{report:#?}");
    let times = net.unreached.load(Ordering::Relaxed);
    assert!(times <= 2, "{times} times: {report:#?}");
}

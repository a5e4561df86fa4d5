//! Networks that fail in whatever way and come back: everybody ends up with it.

use super::net::{Net, SOURCE};
use crate::kit::{LONG, Place, options};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use spread::send::{self, Host, State};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

const HOSTS: usize = 4;
const NAMES: [&str; HOSTS] = ["a", "b", "c", "d"];

/// What happens to the network. Nodes: 0 is the source.
#[derive(Clone, Debug)]
enum Fault {
    /// These are cut off from all others.
    Apart(Vec<usize>),
    /// One link, one way, falls silent.
    Silent(usize, usize),
    Slow(usize, usize, u64),
    Late(usize, usize, u64),
    Reset(usize, usize),
    /// All is well again.
    Heal,
}

fn fault() -> impl Strategy<Value = Fault> {
    let node = || 0..=HOSTS;
    prop_oneof![
        prop::collection::btree_set(node(), 1..HOSTS)
            .prop_map(|nodes| Fault::Apart(nodes.into_iter().collect())),
        (node(), node()).prop_map(|(a, b)| Fault::Silent(a, b)),
        (node(), node(), 1_u64..8).prop_map(|(a, b, rate)| Fault::Slow(a, b, rate << 18)),
        (node(), node(), 1_u64..200).prop_map(|(a, b, ms)| Fault::Late(a, b, ms)),
        (node(), node()).prop_map(|(a, b)| Fault::Reset(a, b)),
        Just(Fault::Heal),
    ]
}

fn apply(net: &Net, fault: &Fault) {
    match fault {
        Fault::Apart(nodes) => {
            let others: Vec<usize> = (0..=HOSTS).filter(|n| !nodes.contains(n)).collect();
            for link in net.between(nodes, &others) {
                link.set_silent(true);
            }
        }
        Fault::Silent(from, to) => net.link(*from, *to).set_silent(true),
        Fault::Slow(from, to, rate) => net.link(*from, *to).set_rate(*rate),
        Fault::Late(from, to, ms) => net.link(*from, *to).set_delay(*ms),
        Fault::Reset(from, to) => net.link(*from, *to).reset(),
        Fault::Heal => {
            let all: Vec<usize> = (0..=HOSTS).collect();
            for link in net.between(&all, &all) {
                link.set_silent(false);
                link.set_rate(0);
                link.set_delay(0);
            }
        }
    }
}

/// Sends a file over a network to which this happens, each at its time in ms, and after which all is well. Looks whether
/// everybody has it in the end.
async fn over(faults: Vec<(u64, Fault)>) -> Result<Vec<Host>, String> {
    let lab = Place::new();
    let file = lab.file("source", 16);
    let net = Arc::new(Net::default());
    let mut targets: Vec<SocketAddr> = Vec::new();
    let mut receivers = Vec::new();
    for name in NAMES {
        let (address, task) = lab.receiver(name).await;
        targets.push(address);
        receivers.push(task);
    }
    let mut hosts = Vec::new();
    for (to, target) in (1..).zip(&targets) {
        for from in (0..=HOSTS).filter(|from| *from != to) {
            let door = net.door(from, to, *target);
            if from == SOURCE {
                hosts.push((NAMES[to - 1], door));
            }
        }
    }
    let source = lab.source(&file);
    let mut options = options(&hosts, Some(8 << 20));
    // What is cut off may be away until all is well again, and somewhat longer.
    options.patience = Duration::from_secs(20);
    let begin = Instant::now();
    let happens = {
        let (net, faults) = (net.clone(), faults.clone());
        tokio::spawn(async move {
            for (at, fault) in faults {
                sleep_until(begin + Duration::from_millis(at)).await;
                apply(&net, &fault);
            }
            sleep_until(begin + Duration::from_secs(3)).await;
            apply(&net, &Fault::Heal);
        })
    };
    let report = timeout(LONG, send::send(source.transfer.clone(), options, |_| {})).await;
    let report = report.map_err(|_| "it does not end".to_owned())?.unwrap();
    happens.await.unwrap();
    for (host, name) in report.iter().zip(NAMES) {
        if host.state != State::Done || !lab.has(name, &file) {
            return Err(format!("{report:#?}"));
        }
    }
    receivers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(report)
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// So many seeds are run at once: most of a case is waiting.
const AT_ONCE: u32 = 4;

/// `SPREAD_SEEDS`: how many seeds (4), from `SPREAD_SEED` on (0). `SPREAD_CASES`: how many cases of each (3).
#[test]
fn whatever_the_network_does_everybody_has_it_in_the_end() {
    let number = |name: &str, usual: u32| match std::env::var(name) {
        Ok(number) => number.parse().unwrap(),
        Err(_) => usual,
    };
    let cases = number("SPREAD_CASES", 3);
    let first = number("SPREAD_SEED", 0);
    let end = first + number("SPREAD_SEEDS", AT_ONCE);
    let next = AtomicU32::new(first);
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    networks_of(seed, cases);
                }
            });
        }
    });
}

fn networks_of(seed: u32, cases: u32) {
    let config = Config {
        cases,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    };
    let bytes = *blake3::hash(&seed.to_le_bytes()).as_bytes();
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, random);
    let schedules = prop::collection::vec((0_u64..2500, fault()), 1..8);
    let runtime = runtime();
    let tested = runner.run(&schedules, |mut faults| {
        faults.sort_by_key(|(at, _)| *at);
        runtime
            .block_on(over(faults))
            .map_err(TestCaseError::fail)?;
        Ok(())
    });
    if let Err(e) = tested {
        panic!("SPREAD_SEED={seed}: {e}");
    }
}

/// Half of the hosts hear nothing of the others and of the source for a while.
#[test]
fn a_network_that_falls_apart_and_comes_together() {
    let apart = |ms: u64| {
        let half = Fault::Apart(vec![3, 4]);
        over(vec![(300, half), (300 + ms, Fault::Heal)])
    };
    let both = async { tokio::join!(apart(1000), apart(2200)) };
    let (short, long) = runtime().block_on(both);
    short.unwrap();
    long.unwrap();
}

/// The hosts in the middle cannot hear each other, but everybody hears the source.
#[test]
fn hosts_that_cannot_hear_each_other_have_it_from_others() {
    let faults = vec![(200, Fault::Silent(2, 1)), (200, Fault::Silent(1, 2))];
    runtime().block_on(over(faults)).unwrap();
}

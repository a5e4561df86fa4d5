//! What the simulator says is what was measured, with namespaces and shaped links, of the same faults at the same moments:
//! `bench/spread-points.json`, which `bench/spread --points` writes.

#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use spread::simulate::{Host, Scenario};
use std::collections::BTreeMap;

/// The part of an Ethernet link that TCP's payload gets, as in `bench/spread`.
const WIRE: f64 = 0.9565;

/// Simulated and measured (the median) may be so far apart, whatever befalls whom. Rounds of one row are up to 6 % apart
/// where two cores carry nine machines; what the simulator leaves out is that a processor has to do anything at all.
const APART: f64 = 0.04;

#[derive(Deserialize)]
struct Points {
    points: Vec<Point>,
}

/// One run of `bench/spread`.
#[derive(Deserialize)]
struct Point {
    hosts: usize,
    /// Bits a second.
    rate: f64,
    /// Bytes that a link carries at once when it was idle.
    burst: f64,
    bytes: f64,
    /// Of the rows in which something befalls a host.
    faults: BTreeMap<String, Fault>,
    seconds: BTreeMap<String, Vec<f64>>,
}

/// What befalls a host, which counts from 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    host: usize,
    /// Seconds.
    killed: Option<f64>,
    cut: Option<f64>,
    late: Option<f64>,
    /// Part of the rate.
    slow: Option<f64>,
}

/// Seconds that this row shows: until the last host has it to which nothing was done; of one that is late, too, and
/// from when it comes.
fn simulated(point: &Point, fault: Option<&Fault>) -> f64 {
    let mut scenario = Scenario::new(point.hosts, point.bytes, point.rate * WIRE / 8.0);
    scenario.begin = Scenario::BEGIN;
    scenario.burst = point.burst * WIRE;
    // Links of namespaces have no speed that Linux knows.
    scenario.source_knows = false;
    let (mut but, mut late) = (None, 0.0);
    if let Some(fault) = fault {
        let part = fault.slow.unwrap_or(1.0);
        scenario.hosts[fault.host - 1] = Host {
            up: part,
            down: part,
            from: fault.late.unwrap_or(0.0),
            killed: fault.killed,
            cut: fault.cut,
            whole: false,
        };
        late = fault.late.unwrap_or(0.0);
        but = fault.late.is_none().then_some(fault.host - 1);
    }
    let times = scenario.run().into_iter().enumerate();
    let times = times.filter(|(host, _)| Some(*host) != but);
    times.map(|(_, time)| time.unwrap()).fold(0.0, f64::max) - late
}

#[test]
fn the_simulator_says_what_was_measured() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../bench/spread-points.json"
    );
    let points: Points = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let (mut compared, mut wrong) = (0, Vec::new());
    for point in &points.points {
        for (row, seconds) in &point.seconds {
            let fault = point.faults.get(row);
            assert!(fault.is_some() || row == "oscarv", "{row}: of what?");
            let simulated = simulated(point, fault);
            let mut seconds = seconds.clone();
            seconds.sort_by(f64::total_cmp);
            let measured = seconds[seconds.len() / 2];
            let off = simulated / measured - 1.0;
            let said = format!(
                "{} hosts, {} Mb/s, {row}: {measured:.2} s measured, {simulated:.2} s simulated, {:+.1} %",
                point.hosts,
                point.rate / 1e6,
                100.0 * off
            );
            println!("{said}");
            compared += 1;
            if off.abs() > APART {
                wrong.push(said);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared >= 7, "{compared}");
}

//! What the simulator says is what was measured, with namespaces and shaped links: `bench/spread-points.json`.

#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use spread::simulate::Scenario;
use std::collections::BTreeMap;

/// The part of an Ethernet link that TCP's payload gets, as in `bench/spread`.
const WIRE: f64 = 0.9565;

#[derive(Deserialize)]
struct Points {
    points: Vec<Point>,
}

/// One run of `bench/spread --json`.
#[derive(Deserialize)]
struct Point {
    hosts: usize,
    /// Others had the machine's cores at the same time.
    busy: bool,
    /// Bits a second.
    rate: f64,
    bytes: f64,
    seconds: BTreeMap<String, Vec<f64>>,
}

/// What that method of `bench/spread` does, here; what it shows is compared: without the host that something befalls,
/// and from when all are there.
fn simulated(point: &Point, method: &str) -> Option<f64> {
    let mut scenario = Scenario::new(point.hosts, point.bytes, point.rate * WIRE / 8.0);
    scenario.begin = Scenario::BEGIN;
    scenario.source_knows = false;
    let middle = point.hosts.div_ceil(2) - 1;
    let victim = &mut scenario.hosts[middle];
    let (mut but, mut late) = (Some(middle), 0.0);
    match method {
        "oscarv" => but = None,
        "oscarv-killed" => victim.killed = Some(2.0),
        "oscarv-cut" => victim.cut = Some(2.0),
        "oscarv-slow" => (victim.up, victim.down) = (0.5, 0.5),
        // The source tries again every 0.25 s.
        "oscarv-late" => (victim.from, but, late) = (3.25, None, 3.0),
        _ => return None,
    }
    let times = scenario.run().into_iter().enumerate();
    let times = times.filter(|(host, _)| Some(*host) != but);
    Some(times.map(|(_, time)| time.unwrap()).fold(0.0, f64::max) - late)
}

#[test]
fn the_simulator_says_what_was_measured() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../bench/spread-points.json"
    );
    let points: Points = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut compared = 0;
    for point in &points.points {
        for (method, seconds) in &point.seconds {
            let Some(simulated) = simulated(point, method) else {
                continue;
            };
            let mut seconds = seconds.clone();
            seconds.sort_by(f64::total_cmp);
            let measured = seconds[seconds.len() / 2];
            let off = simulated / measured - 1.0;
            println!(
                "{} hosts, {} Mb/s, {method}: {measured:.2} s measured, {simulated:.2} s simulated, {:+.1} %",
                point.hosts,
                point.rate / 1e6,
                100.0 * off
            );
            // On a busy machine all takes longer; of a fault it also matters how it falls between reports.
            let most = match (method.as_str(), point.busy) {
                ("oscarv", false) => 0.02,
                ("oscarv", true) => 0.04,
                _ => 0.09,
            };
            assert!(off.abs() < most, "{method} of {} hosts", point.hosts);
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared}");
}

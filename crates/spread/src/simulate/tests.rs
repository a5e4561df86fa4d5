//! What the decisions are worth, on links that are numbers.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const MB: f64 = 1e6;

fn ratios(scenario: &Scenario) -> Vec<f64> {
    let floor = scenario.floor();
    let times = scenario.run();
    times.iter().flatten().map(|time| time / floor).collect()
}

fn worst_of_others(scenario: &Scenario, except: &[usize]) -> f64 {
    let times = scenario.run();
    let others = times
        .iter()
        .enumerate()
        .filter(|(h, _)| !except.contains(h));
    others
        .map(|(h, time)| time.unwrap_or_else(|| panic!("{h} never")) / scenario.floor())
        .fold(0.0, f64::max)
}

#[test]
fn a_thousand_hosts_take_the_time_of_one() {
    let scenario = Scenario::new(1000, 1000.0 * MB, 119.0 * MB);
    let ratios = ratios(&scenario);
    assert_eq!(ratios.len(), 1000);
    assert!(ratios.iter().all(|r| *r < 1.15), "{:?}", ratios.last());
}

#[test]
fn a_host_that_is_killed_costs_the_others_little() {
    let mut scenario = Scenario::new(8, 1000.0 * MB, 119.0 * MB);
    scenario.hosts[3].killed = Some(2.0);
    let added = (worst_of_others(&scenario, &[3]) - 1.0) * scenario.floor();
    assert!(added < 0.1, "{added}");
}

#[test]
fn a_link_that_is_cut_costs_the_others_half_a_second() {
    let mut scenario = Scenario::new(8, 1000.0 * MB, 119.0 * MB);
    scenario.hosts[3].cut = Some(2.0);
    let added = (worst_of_others(&scenario, &[3]) - 1.0) * scenario.floor();
    assert!(added < 0.7, "{added}");
}

#[test]
fn a_slow_host_slows_nobody_wherever_it_stands() {
    for slow in 0..8 {
        for part in [0.5, 0.1] {
            for (up, down) in [(part, part), (part, 1.0), (1.0, part)] {
                let mut scenario = Scenario::new(8, 1200.0 * MB, 119.0 * MB);
                scenario.hosts[slow].up = up;
                scenario.hosts[slow].down = down;
                let worst = worst_of_others(&scenario, &[slow]);
                assert!(
                    worst < if part < 0.5 { 1.15 } else { 1.1 },
                    "host {slow}, up {up}, down {down}: {worst}"
                );
            }
        }
    }
}

#[test]
fn a_late_host_costs_nobody_anything() {
    let mut scenario = Scenario::new(8, 1000.0 * MB, 119.0 * MB);
    scenario.hosts[5].from = 3.0;
    let times = scenario.run();
    assert!(times[5].unwrap() < 3.0 + 1.05 * scenario.floor());
    assert!(worst_of_others(&scenario, &[5]) < 1.02);
}

#[test]
fn chains_share_a_source_that_is_faster() {
    let mut scenario = Scenario::new(100, 1000.0 * MB, 119.0 * MB);
    scenario.chains = 4;
    scenario.source_rate = 4.0 * scenario.rate;
    assert!(worst_of_others(&scenario, &[]) < 1.02);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Whatever befalls the others, whoever lives gets it.
    #[test]
    fn whoever_lives_gets_it(hosts in prop::collection::vec(
        (0.05_f64..1.0, 0.05_f64..1.0, prop::option::of(0.0_f64..4.0), prop::option::weighted(0.2, 0.0_f64..4.0), prop::option::weighted(0.2, 0.0_f64..4.0)),
        1..12,
    )) {
        let mut scenario = Scenario::new(hosts.len(), 100.0 * MB, 50.0 * MB);
        for (host, (up, down, from, killed, cut)) in scenario.hosts.iter_mut().zip(hosts) {
            *host = Host { up, down, from: from.unwrap_or(0.0), killed, cut, whole: false };
        }
        let times = scenario.run();
        for (host, time) in scenario.hosts.iter().zip(&times) {
            prop_assert!(time.is_some() || host.killed.is_some() || host.cut.is_some(), "{times:?}");
        }
    }
}

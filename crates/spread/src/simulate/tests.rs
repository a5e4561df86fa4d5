//! What the decisions are worth, on links that are numbers.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::chain::Chains;
use proptest::prelude::*;
use std::collections::HashMap;

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

/// Seconds that the others lose when these hosts have only this part of the rate, of 10.
fn lost(hosts: usize, slow: &[usize], up: f64, down: f64) -> f64 {
    let mut scenario = Scenario::new(hosts, 1190.0 * MB, 119.0 * MB);
    for host in slow {
        scenario.hosts[*host].up = up;
        scenario.hosts[*host].down = down;
    }
    (worst_of_others(&scenario, slow) - 1.0) * scenario.floor()
}

#[test]
fn a_slow_host_slows_nobody_wherever_it_stands() {
    for slow in 0..8 {
        for part in [0.5, 0.1] {
            for (up, down) in [(part, part), (part, 1.0), (1.0, part)] {
                let lost = lost(8, &[slow], up, down);
                assert!(lost < 0.7, "host {slow}, up {up}, down {down}: {lost}");
            }
        }
    }
}

#[test]
fn several_slow_hosts_cost_half_a_second_each_wherever_they_stand() {
    let places: [&[usize]; 8] = [
        &[0, 1],
        &[0, 1, 2],
        &[2, 3],
        &[2, 5],
        &[6, 7],
        &[4, 5, 6],
        &[5, 10, 15, 20],
        &[0, 7, 8, 30, 31],
    ];
    for slow in places {
        for part in [0.5, 0.1] {
            let lost = lost(32, slow, part, part);
            let most = 0.1 + 0.5 * slow.len() as f64;
            assert!(lost < most, "{slow:?} at {part}: {lost}");
        }
    }
}

/// Alone in its chain it was put behind another one, then before that, and stayed there.
#[test]
fn a_slow_host_in_a_chain_of_its_own_slows_nobody() {
    for slow in 0..8 {
        let mut scenario = Scenario::new(8, 1190.0 * MB, 119.0 * MB);
        scenario.chains = 8;
        scenario.source_rate *= 10.0;
        scenario.hosts[slow].up = 0.5;
        scenario.hosts[slow].down = 0.5;
        let worst = worst_of_others(&scenario, &[slow]);
        assert!(worst < 1.1, "host {slow}: {worst}");
    }
}

#[test]
fn a_slow_host_that_has_it_already_is_no_source_for_long() {
    let mut scenario = Scenario::new(9, 1190.0 * MB, 119.0 * MB);
    scenario.hosts[8].whole = true;
    scenario.hosts[8].up = 0.1;
    assert!(worst_of_others(&scenario, &[]) < 1.2);
}

#[test]
fn hosts_that_have_it_are_enough_when_the_source_dies() {
    let mut scenario = Scenario::new(100, 1190.0 * MB, 119.0 * MB);
    scenario.hosts[40].whole = true;
    scenario.hosts[80].whole = true;
    let times = scenario.run();
    assert_eq!((times[40], times[80]), (Some(0.0), Some(0.0)));
    let worst = worst_of_others(&scenario, &[]);
    assert!(worst < 1.03, "{worst}");
    scenario.source_killed = Some(2.0);
    let worst = worst_of_others(&scenario, &[]);
    assert!(worst < 1.03, "{worst}");
    // Without them it is over.
    scenario.hosts[40].whole = false;
    scenario.hosts[80].whole = false;
    assert!(scenario.run().iter().all(Option::is_none));
}

/// Hosts of racks, rows of racks below one switch, listed in disorder.
fn racks(dice: &mut Dice, hosts: usize) -> Layout {
    let mut path = || {
        let row = (dice.throw() * 3.0) as u32;
        vec![0, 1 + row, 10 + row * 10 + (dice.throw() * 4.0) as u32]
    };
    let paths = (0..hosts).map(|_| path()).collect();
    Layout::new(paths, path())
}

fn crossings(layout: &Layout, links: &[(Parent, usize)]) -> usize {
    let from = |parent: &Parent| match parent {
        Parent::Source => None,
        Parent::Host(host) => Some(*host),
    };
    layout.crossings(links.iter().map(|(parent, host)| (from(parent), *host)))
}

#[test]
fn each_link_between_switches_is_crossed_once_each_way() {
    for seed in 0..20 {
        let mut dice = Dice(seed);
        let mut scenario = Scenario::new(64, 400.0 * MB, 119.0 * MB);
        let layout = racks(&mut dice, 64);
        scenario.layout = Some(layout.clone());
        // At the beginning, and when it is known that the first host is not slow.
        for at in [0.1, 2.5] {
            let (times, links) = scenario.run_and_look(at);
            assert_eq!(links.len(), 64);
            assert_eq!(crossings(&layout, &links), 1, "seed {seed} at {at}");
            assert!(times.iter().flatten().all(|t| *t < 1.05 * scenario.floor()));
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

/// It is tried every 0.25 s.
#[test]
fn who_comes_late_is_found_when_it_is_tried_again() {
    let mut scenario = Scenario::new(1, 119.0 * MB, 119.0 * MB);
    for (comes, found) in [(0.0, 0.0), (0.25, 0.25), (0.3, 0.5), (0.5, 0.5)] {
        scenario.hosts[0].from = comes;
        let took = scenario.run()[0].unwrap() - scenario.floor();
        assert!((took - found).abs() < 0.011, "{comes}: {took}");
    }
}

/// A shaper lets a reserve go at once, so that it takes less than the floor.
#[test]
fn what_a_link_carries_at_once_is_sooner_there() {
    let mut scenario = Scenario::new(3, 119.0 * MB, 119.0 * MB);
    scenario.burst = 11.9 * MB;
    let ratios = ratios(&scenario);
    assert!(ratios.iter().all(|r| (0.9..0.92).contains(r)), "{ratios:?}");
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

    /// Who is killed costs the others nothing that shows, whose link is cut 0.8 s, at most, also
    /// when it is moved to the end as one that is slow and somebody else comes behind it there.
    #[test]
    fn survivors_lose_little(seed: u64, killed in 0_usize..6, cut in 0_usize..3) {
        let mut dice = Dice(seed);
        let mut scenario = Scenario::new(24, 1190.0 * MB, 119.0 * MB);
        let gone = dice.choose(killed + cut, 24);
        for (number, host) in gone.iter().enumerate() {
            let at = Some(dice.throw() * 9.5);
            match number < killed {
                true => scenario.hosts[*host].killed = at,
                false => scenario.hosts[*host].cut = at,
            }
        }
        let lost = (worst_of_others(&scenario, &gone) - 1.0) * scenario.floor();
        let most = 0.2 + 0.8 * cut as f64;
        prop_assert!(lost < most, "{lost} of {most}: {gone:?}");
    }

    /// Whatever comes, goes, complains and is slow: from each host one comes to the source, or to one that has all.
    #[test]
    fn nobody_is_its_own_ancestor(
        seed: u64,
        steps in prop::collection::vec((0_u8..8, 0_usize..12, 0_usize..12), 1..200),
    ) {
        let layout = racks(&mut Dice(seed), 12);
        let mut chains = Chains::ordered(layout, 12, 1 + (seed % 3) as usize);
        let mut whole = [false; 12];
        let mut now = 0.0;
        for (what, host, other) in steps {
            now += 0.05;
            chains.time(now);
            match what {
                0 | 1 => { chains.join(host); whole[host] = false; }
                2 => { chains.leave(host); whole[host] = false; }
                3 => { chains.whole(host); whole[host] = true; }
                4 => chains.done(host),
                5 => chains.complain(host, other),
                6 => (0..12).for_each(|h| chains.report(h, (now * 1e8) as u64 / (1 + (h * other) as u64 % 5))),
                _ => chains.look(),
            }
            let links = chains.links();
            let parent: HashMap<usize, Parent> = links.iter().map(|(parent, host)| (*host, *parent)).collect();
            prop_assert_eq!(parent.len(), links.len(), "somebody stands in two places");
            for (_, host) in &links {
                let (mut at, mut far) = (*host, 0);
                while let Some(Parent::Host(above)) = parent.get(&at) {
                    at = *above;
                    far += 1;
                    prop_assert!(far <= 12, "{links:?}");
                }
                prop_assert!(parent.contains_key(&at) || whole[at], "{at} is not there: {links:?}");
                prop_assert_eq!(chains.parents(*host).first().copied(), parent.get(host).copied());
            }
        }
    }
}

/// Where bytes come only after 0.3 s, whoever had the first ones was taken for faster than its child, and both were moved.
#[test]
fn in_a_long_chain_nobody_is_slow_for_being_far_down() {
    let mut scenario = Scenario::new(2500, 500.0 * MB, 119.0 * MB);
    scenario.hop_seconds = 0.001;
    let (times, links) = scenario.run_and_look(2.9);
    let order: Vec<usize> = links.iter().map(|(_, host)| *host).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert!(times.iter().all(Option::is_some));
}

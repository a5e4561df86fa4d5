//! What the chain would do on hosts that are not there: the same decisions as the real thing, on links that are numbers.
//!
//! A link carries so many bytes a second up and down; a parent's upward link is shared by its children; a hop is behind
//! the one before it by a constant number of bytes and seconds. Time goes in steps. Given the same scenario it gives the
//! same result.

use crate::chain::{Chains, Parent};

/// Seconds of a step.
const STEP: f64 = 0.005;

/// Seconds between looks and reports, as in `send` and `receive`.
const LOOK: f64 = 0.1;

/// Seconds after which silence is noticed, as in `wire`.
const SILENCE: f64 = 0.4;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub bytes: f64,
    /// Bytes a second of a host's link, each way.
    pub rate: f64,
    /// That of the source.
    pub source_rate: f64,
    pub chains: usize,
    /// Bytes that a host is behind its parent.
    pub hop_bytes: f64,
    /// Seconds that a hop takes besides.
    pub hop_seconds: f64,
    pub hosts: Vec<Host>,
    /// Seconds after which the simulation ends in any case.
    pub most: f64,
}

/// One host, and what befalls it.
#[derive(Clone, Debug)]
pub struct Host {
    /// Part of the rate that its link has, to it and from it.
    pub down: f64,
    pub up: f64,
    /// Seconds at which it comes.
    pub from: f64,
    /// Seconds at which it is killed: its connections break.
    pub killed: Option<f64>,
    /// Seconds at which its link is cut: nothing breaks, nothing comes.
    pub cut: Option<f64>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            down: 1.0,
            up: 1.0,
            from: 0.0,
            killed: None,
            cut: None,
        }
    }
}

impl Scenario {
    /// So many equal hosts, all there, on links that carry `rate` bytes a second.
    pub fn new(hosts: usize, bytes: f64, rate: f64) -> Self {
        Self {
            bytes,
            rate,
            source_rate: rate,
            chains: 1,
            hop_bytes: 4096.0,
            hop_seconds: 0.0005,
            hosts: vec![Host::default(); hosts],
            most: 1000.0 + 20.0 * bytes / rate,
        }
    }

    /// What no way of sending can beat, in seconds.
    pub fn floor(&self) -> f64 {
        self.bytes / self.rate.min(self.source_rate)
    }

    /// Seconds at which each host has all of it; none: never.
    pub fn run(&self) -> Vec<Option<f64>> {
        Run::new(self).run()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Life {
    NotYet,
    Alive,
    Cut,
    Dead,
}

struct One {
    life: Life,
    bytes: f64,
    parents: Vec<Parent>,
    /// Which of these it asks.
    asks: usize,
    /// Since when nothing comes from it.
    silent: f64,
    /// Until when a new connection needs.
    connecting: f64,
    done: Option<f64>,
}

struct Run<'a> {
    scenario: &'a Scenario,
    chains: Chains,
    hosts: Vec<One>,
    now: f64,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let one = |_| One {
            life: Life::NotYet,
            bytes: 0.0,
            parents: vec![Parent::Source],
            asks: 0,
            silent: 0.0,
            connecting: 0.0,
            done: None,
        };
        Self {
            scenario,
            chains: Chains::new(scenario.hosts.len(), scenario.chains),
            hosts: scenario.hosts.iter().map(one).collect(),
            now: 0.0,
        }
    }

    fn run(mut self) -> Vec<Option<f64>> {
        let mut look = 0.0;
        while self.now < self.scenario.most {
            self.chains.time(self.now);
            self.befall();
            if self.now >= look {
                look = self.now + LOOK;
                self.look();
            }
            self.tell();
            self.flow();
            let open = |(host, one): (&Host, &One)| {
                one.done.is_none() && host.killed.is_none() && host.cut.is_none()
            };
            if !self.scenario.hosts.iter().zip(&self.hosts).any(open) {
                break;
            }
            self.now += STEP;
        }
        self.hosts.into_iter().map(|one| one.done).collect()
    }

    fn befall(&mut self) {
        for (index, host) in self.scenario.hosts.iter().enumerate() {
            let life = self.hosts[index].life;
            if life == Life::NotYet && self.now >= host.from {
                self.hosts[index].life = Life::Alive;
                self.hosts[index].silent = self.now;
                self.chains.join(index);
            }
            if life == Life::Alive && host.killed.is_some_and(|at| self.now >= at) {
                self.hosts[index].life = Life::Dead;
                self.chains.leave(index);
            }
            if life == Life::Alive && host.cut.is_some_and(|at| self.now >= at) {
                self.hosts[index].life = Life::Cut;
            }
        }
    }

    fn look(&mut self) {
        for (index, one) in self.hosts.iter().enumerate() {
            if one.life == Life::Alive {
                self.chains.report(index, one.bytes as u64);
            }
        }
        self.chains.look();
    }

    /// New parents come to those who can hear.
    fn tell(&mut self) {
        for index in self.chains.changes() {
            let parents = self.chains.parents(index);
            let one = &mut self.hosts[index];
            if one.life != Life::Alive {
                continue;
            }
            let same = one.parents.get(one.asks) == parents.first();
            one.parents = parents;
            one.asks = 0;
            if !same {
                one.silent = self.now;
                one.connecting = self.now + 2.0 * self.scenario.hop_seconds;
            }
        }
    }

    /// One step of all links.
    fn flow(&mut self) {
        let (mut children, mut source_children) = (vec![0_u32; self.hosts.len()], 0_u32);
        let order: Vec<usize> = {
            let mut order: Vec<usize> = self.chains.order().iter().flatten().copied().collect();
            let mut there = vec![false; self.hosts.len()];
            order.iter().for_each(|host| there[*host] = true);
            order.extend((0..self.hosts.len()).filter(|host| !there[*host]));
            order
        };
        let wants = |run: &Self, index: usize| {
            let one = &run.hosts[index];
            one.life == Life::Alive && one.done.is_none() && run.now >= one.connecting
        };
        for index in &order {
            if wants(self, *index) {
                match self.parent(*index) {
                    Parent::Source => source_children += 1,
                    Parent::Host(parent) if self.hosts[parent].bytes > self.hosts[*index].bytes => {
                        children[parent] += 1;
                    }
                    Parent::Host(_) => {}
                }
            }
        }
        for index in order {
            if !wants(self, index) {
                continue;
            }
            let scenario = self.scenario;
            let down = scenario.rate * scenario.hosts[index].down;
            let (there, up) = match self.parent(index) {
                Parent::Source => (
                    scenario.bytes,
                    scenario.source_rate / f64::from(source_children.max(1)),
                ),
                Parent::Host(parent) => {
                    let one = &self.hosts[parent];
                    match one.life {
                        Life::Dead | Life::NotYet => {
                            self.next_parent(index);
                            continue;
                        }
                        Life::Cut => {
                            if self.now - self.hosts[index].silent > SILENCE {
                                self.chains.leave(parent);
                                self.next_parent(index);
                            }
                            continue;
                        }
                        Life::Alive => {}
                    }
                    let behind = scenario.hop_bytes + scenario.hop_seconds * scenario.rate;
                    let there = match one.done {
                        Some(_) => one.bytes,
                        None => one.bytes - behind,
                    };
                    let up = scenario.rate * scenario.hosts[parent].up;
                    (there, up / f64::from(children[parent].max(1)))
                }
            };
            let one = &mut self.hosts[index];
            one.silent = self.now;
            let more = (down.min(up) * STEP).min(there - one.bytes).max(0.0);
            one.bytes += more;
            if one.bytes >= scenario.bytes {
                one.done = Some(self.now + STEP);
                self.chains.done(index);
            }
        }
    }

    fn parent(&self, index: usize) -> Parent {
        let one = &self.hosts[index];
        let parent = one.parents.get(one.asks % one.parents.len().max(1));
        parent.copied().unwrap_or(Parent::Source)
    }

    fn next_parent(&mut self, index: usize) {
        let one = &mut self.hosts[index];
        one.asks += 1;
        one.silent = self.now;
        one.connecting = self.now + 2.0 * self.scenario.hop_seconds;
    }
}

#[cfg(test)]
mod tests {
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
                *host = Host { up, down, from: from.unwrap_or(0.0), killed, cut };
            }
            let times = scenario.run();
            for (host, time) in scenario.hosts.iter().zip(&times) {
                prop_assert!(time.is_some() || host.killed.is_some() || host.cut.is_some(), "{times:?}");
            }
        }
    }
}

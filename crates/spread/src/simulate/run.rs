//! A scenario on its way, step by step: what befalls hosts, what the chain decides, what flows.

use super::{Host, Scenario};
use crate::chain::{Chains, Parent};
use crate::layout::Layout;

/// Seconds of a step; of more hosts than `MANY` the steps are longer.
const STEP: f64 = 0.005;
const LONG_STEP: f64 = 0.01;
const MANY: usize = 2000;

/// Seconds between looks and reports, as in `send` and `receive`. What a host reports waits for the next look.
const LOOK: f64 = 0.1;

/// Seconds after which a host that was not there is tried again, as in `send`.
const RETRY: f64 = 0.25;

/// Seconds after which silence is noticed, as in `wire`.
const SILENCE: f64 = 0.4;

/// Seconds without a byte after which hosts give up, as in `receive`.
const ORPHAN: f64 = 10.0;

#[derive(Clone, Copy, PartialEq)]
enum Life {
    NotYet,
    Alive,
    Cut,
    Dead,
}

/// A host, as it stands.
pub(super) struct One {
    life: Life,
    bytes: f64,
    parents: Vec<Parent>,
    /// Which of these it asks.
    asks: usize,
    /// Since when nothing comes from it.
    silent: f64,
    /// Until when a new connection needs.
    connecting: f64,
    /// When it says next how far it is.
    report: f64,
    /// What its link still carries at once, to it.
    reserve: f64,
    pub(super) done: Option<f64>,
}

pub(super) struct Run<'a> {
    scenario: &'a Scenario,
    step: f64,
    chains: Chains,
    pub(super) hosts: Vec<One>,
    now: f64,
    /// What befalls hosts, the last first.
    events: Vec<(f64, usize, Life)>,
    /// Parents before their children, and the version of the chains that this is of.
    order: Vec<usize>,
    version: Option<u64>,
    /// How many children a host gives to at the moment, and the source.
    children: Vec<u32>,
    source_children: u32,
    progress: f64,
    pub(super) look_at: Option<f64>,
    pub(super) looked: Vec<(Parent, usize)>,
}

impl<'a> Run<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let one = |host: &Host| One {
            life: Life::NotYet,
            bytes: if host.whole { scenario.bytes } else { 0.0 },
            parents: vec![Parent::Source],
            asks: 0,
            silent: 0.0,
            connecting: 0.0,
            report: 0.0,
            reserve: scenario.burst,
            done: None,
        };
        let count = scenario.hosts.len();
        let layout = scenario.layout.clone();
        let mut events = Vec::new();
        for (index, host) in scenario.hosts.iter().enumerate() {
            // It is found when it is tried for the next time.
            let tries = ((host.from - scenario.begin) / RETRY).ceil().max(0.0);
            events.push((scenario.begin + tries * RETRY, index, Life::Alive));
            events.extend(host.killed.map(|at| (at, index, Life::Dead)));
            events.extend(host.cut.map(|at| (at, index, Life::Cut)));
        }
        let layout = layout.unwrap_or_else(|| Layout::flat(count));
        let mut chains = Chains::ordered(layout, count, scenario.chains);
        if scenario.source_knows {
            chains.expect(scenario.source_rate);
        }
        events.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        Self {
            scenario,
            step: if count > MANY { LONG_STEP } else { STEP },
            chains,
            hosts: scenario.hosts.iter().map(one).collect(),
            now: 0.0,
            events,
            order: Vec::new(),
            version: None,
            children: vec![0; count],
            source_children: 0,
            progress: 0.0,
            look_at: None,
            looked: Vec::new(),
        }
    }

    /// Until nobody is left who may get it.
    pub(super) fn run(&mut self) {
        let mut look = self.scenario.begin;
        while self.now < self.scenario.most {
            let leads = self.source_lives();
            if leads {
                self.chains.time(self.now - self.scenario.begin);
            }
            self.befall();
            if leads {
                if self.now >= look {
                    look += LOOK;
                    self.look();
                    if !self.is_open() {
                        break;
                    }
                }
                self.hear();
                self.tell();
            } else if !self.is_open() || self.now - self.progress > ORPHAN {
                break;
            }
            if self.look_at.is_some_and(|at| self.now >= at) {
                self.look_at = None;
                self.looked = self.chains.links();
            }
            self.flow();
            self.now += self.step;
        }
    }

    fn source_lives(&self) -> bool {
        let killed = self.scenario.source_killed;
        killed.is_none_or(|at| self.now < at)
    }

    /// Is there anybody who may still get it?
    fn is_open(&self) -> bool {
        let open = |one: &One| one.done.is_none() && matches!(one.life, Life::NotYet | Life::Alive);
        self.hosts.iter().any(open)
    }

    fn befall(&mut self) {
        while let Some((_, index, life)) = self.events.pop_if(|(at, ..)| *at <= self.now) {
            let before = std::mem::replace(&mut self.hosts[index].life, life);
            match (before, life) {
                (Life::NotYet, Life::Alive) => {
                    self.hosts[index].silent = self.now;
                    self.hosts[index].report = self.now;
                    self.progress = self.now;
                    match self.scenario.hosts[index].whole {
                        true => {
                            self.hosts[index].done = Some(self.now);
                            self.chains.whole(index);
                        }
                        false => self.chains.join(index),
                    }
                }
                (Life::Alive, Life::Dead) => self.chains.leave(index),
                (Life::Alive, Life::Cut) => {}
                // What is gone stays so; what was not there is not lost.
                _ => self.hosts[index].life = if life == Life::Alive { before } else { life },
            }
        }
    }

    /// What hosts say of themselves.
    fn hear(&mut self) {
        for (index, one) in self.hosts.iter_mut().enumerate() {
            let says = one.life == Life::Alive && one.done.is_none();
            if says && self.now >= one.report {
                one.report += LOOK;
                self.chains.report(index, one.bytes as u64);
            }
        }
    }

    fn look(&mut self) {
        let furthest = self.hosts.iter().map(|one| one.bytes).fold(0.0, f64::max);
        let bytes = self.scenario.bytes;
        self.chains.progress(furthest / bytes, bytes - furthest);
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

    fn wants(&self, index: usize) -> bool {
        let one = &self.hosts[index];
        one.life == Life::Alive && one.done.is_none() && self.now >= one.connecting
    }

    /// One step of all links.
    fn flow(&mut self) {
        if self.version != Some(self.chains.version()) {
            self.order.clear();
            self.order
                .extend(self.chains.links().into_iter().map(|(_, host)| host));
            let mut there = vec![false; self.hosts.len()];
            self.order.iter().for_each(|host| there[*host] = true);
            self.order
                .extend((0..self.hosts.len()).filter(|host| !there[*host]));
            self.version = Some(self.chains.version());
        }
        self.children.fill(0);
        self.source_children = 0;
        for index in &self.order {
            if self.wants(*index) {
                match self.parent(*index) {
                    Parent::Source => self.source_children += 1,
                    Parent::Host(parent) if self.hosts[parent].bytes > self.hosts[*index].bytes => {
                        self.children[parent] += 1;
                    }
                    Parent::Host(_) => {}
                }
            }
        }
        for at in 0..self.order.len() {
            let index = self.order[at];
            if self.wants(index) {
                self.step_of(index);
            }
        }
    }

    /// One step of the link to a host.
    fn step_of(&mut self, index: usize) {
        let scenario = self.scenario;
        let down = scenario.rate * scenario.hosts[index].down;
        let (there, up) = match self.parent(index) {
            Parent::Source if !self.source_lives() => {
                self.next_parent(index);
                return;
            }
            Parent::Source => (
                scenario.bytes,
                scenario.source_rate / f64::from(self.source_children.max(1)),
            ),
            Parent::Host(parent) => {
                let one = &self.hosts[parent];
                match one.life {
                    Life::Dead | Life::NotYet => {
                        self.next_parent(index);
                        return;
                    }
                    Life::Cut => {
                        if self.now - self.hosts[index].silent > SILENCE {
                            if self.source_lives() {
                                self.chains.leave(parent);
                            }
                            self.next_parent(index);
                        }
                        return;
                    }
                    Life::Alive => {}
                }
                let behind = scenario.hop_bytes + scenario.hop_seconds * scenario.rate;
                let there = match one.done {
                    Some(_) => one.bytes,
                    None => one.bytes - behind,
                };
                let up = scenario.rate * scenario.hosts[parent].up;
                (there, up / f64::from(self.children[parent].max(1)))
            }
        };
        let one = &mut self.hosts[index];
        one.silent = self.now;
        let carries = down.min(up) * self.step;
        let more = (carries + one.reserve).min(there - one.bytes).max(0.0);
        one.reserve = (one.reserve + carries - more).min(scenario.burst);
        one.bytes += more;
        if more > 0.0 {
            self.progress = self.now;
        }
        if one.bytes >= scenario.bytes {
            one.done = Some(self.now + self.step);
            let bytes = one.bytes as u64;
            if self.source_lives() {
                self.chains.report(index, bytes);
            }
            self.chains.done(index);
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

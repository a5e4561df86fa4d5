//! Who has it from whom: decisions only. No network, no clock, no randomness; the simulator runs the same code.
//!
//! Hosts stand in chains; each is the child of the one before it, the first is the source's. A host that comes late, or
//! comes back, goes to the end. One that is gone is left out. The pair of a link that is slow goes to the end as well,
//! where it slows nobody; there it is found out which of the two it was.

use std::collections::{BTreeSet, VecDeque};

/// Seconds of reports that a rate is taken from.
const SPAN: f64 = 0.4;

/// A link that has less than this part of the rate before it is slow.
const SLOW: f64 = 0.7;

/// For so many seconds.
const SLOW_FOR: f64 = 0.1;

/// A new link is left alone for so many seconds.
const SETTLE: f64 = 0.5;

/// For so many seconds hosts that come stand in the order in which they are listed: neighbours are neighbours.
const START: f64 = 1.0;

/// Names of parents that a host is given.
const PARENTS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    Source,
    Host(usize),
}

#[derive(Debug, Default)]
struct Host {
    place: Option<usize>,
    done: bool,
    /// Seconds and bytes of its reports.
    samples: VecDeque<(f64, u64)>,
    /// When it got its parent.
    since: f64,
    slow_since: Option<f64>,
    /// Parents from which little came, and children to whom little went.
    slow_from: BTreeSet<Option<usize>>,
    slow_to: BTreeSet<usize>,
    /// It was first, and was put last to see whether the next one is faster.
    led: bool,
    /// It is known to be slow: it stays last.
    settled: bool,
}

impl Host {
    fn position(&self) -> u64 {
        self.samples.back().map_or(0, |(_, bytes)| *bytes)
    }

    /// Bytes a second, if there are reports of long enough.
    fn rate(&self) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let span = last.0 - first.0;
        (span >= SPAN * 0.7).then(|| (last.1 - first.1) as f64 / span)
    }
}

#[derive(Debug)]
pub struct Chains {
    hosts: Vec<Host>,
    chains: Vec<Vec<usize>>,
    changed: Vec<usize>,
    now: f64,
    /// The best rate that any host has had.
    best: f64,
    /// Of each chain: what is known of its first host.
    firsts: Vec<First>,
}

/// The source has all, so nothing shows whether the first host of a chain is slow but trying another one.
#[derive(Clone, Copy, Debug)]
enum First {
    Untried,
    /// Another one is first now, instead of this host, which had this rate.
    Trying(usize, f64),
    Tried,
}

impl Chains {
    /// For so many hosts, none of which is there yet, in so many chains.
    pub fn new(hosts: usize, chains: usize) -> Self {
        Self {
            hosts: (0..hosts).map(|_| Host::default()).collect(),
            chains: vec![Vec::new(); chains.max(1)],
            changed: Vec::new(),
            now: 0.0,
            best: 0.0,
            firsts: vec![First::Untried; chains.max(1)],
        }
    }

    /// Seconds since the beginning; never goes back.
    pub fn time(&mut self, now: f64) {
        self.now = self.now.max(now);
    }

    /// A host is there, or is back.
    pub fn join(&mut self, host: usize) {
        self.leave(host);
        let shortest = (0..self.chains.len()).min_by_key(|chain| self.chains[*chain].len());
        let chain = shortest.unwrap_or(0);
        // Those that are slow stay last.
        let settled = |host: &usize| self.hosts[*host].settled;
        let slow = self.chains[chain]
            .iter()
            .rev()
            .take_while(|h| settled(h))
            .count();
        let end = self.chains[chain].len() - slow;
        let before = self.chains[chain].iter().take(end);
        let at = match self.now < START {
            true => before.take_while(|other| **other < host).count(),
            false => end,
        };
        self.chains[chain].insert(at, host);
        self.renew(chain, at);
    }

    /// A host is there after all.
    pub fn stay(&mut self, host: usize) {
        if self.hosts[host].place.is_none() {
            self.join(host);
        }
    }

    /// A host is there no more.
    pub fn leave(&mut self, host: usize) {
        if let Some(chain) = self.hosts[host].place.take() {
            let at = self.chains[chain].iter().position(|h| *h == host);
            if let Some(at) = at {
                self.chains[chain].remove(at);
                self.renew(chain, at);
            }
        }
        self.hosts[host].samples.clear();
    }

    /// A host has all of it. It still is a parent.
    pub fn done(&mut self, host: usize) {
        self.hosts[host].done = true;
    }

    /// How many bytes a host has.
    pub fn report(&mut self, host: usize, bytes: u64) {
        let now = self.now;
        let samples = &mut self.hosts[host].samples;
        if samples.back().is_some_and(|(_, before)| *before > bytes) {
            samples.clear();
        }
        samples.push_back((now, bytes));
        while samples.len() > 2 && samples.get(1).is_some_and(|(at, _)| now - at > SPAN) {
            samples.pop_front();
        }
    }

    /// Whom a host should ask, the best first. The source is always among them.
    pub fn parents(&self, host: usize) -> Vec<Parent> {
        let mut parents = Vec::new();
        if let Some(chain) = self.hosts[host].place
            && let Some(at) = self.chains[chain].iter().position(|h| *h == host)
        {
            let before = self.chains[chain][..at].iter().rev().take(PARENTS);
            parents.extend(before.map(|h| Parent::Host(*h)));
        }
        parents.push(Parent::Source);
        parents
    }

    /// Hosts whose parents are others than before, since this was asked last.
    pub fn changes(&mut self) -> Vec<usize> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed.retain(|host| self.hosts[*host].place.is_some());
        changed
    }

    /// The chains as they are.
    pub fn order(&self) -> &[Vec<usize>] {
        &self.chains
    }

    /// A child says that it gets nothing from a parent which is alive otherwise.
    pub fn complain(&mut self, child: usize, parent: usize) {
        let (Some(chain), Some(other)) = (self.hosts[child].place, self.hosts[parent].place) else {
            return;
        };
        if chain == other && !self.hosts[parent].done {
            self.put_last(chain, &[parent]);
        }
    }

    /// Looks for links that are slow, and acts on the first. To be called some ten times a second.
    pub fn look(&mut self) {
        let rates = self.hosts.iter().filter(|host| !host.done);
        self.best = rates.filter_map(Host::rate).fold(self.best, f64::max);
        for chain in 0..self.chains.len() {
            self.look_at(chain);
        }
    }

    fn look_at(&mut self, chain: usize) {
        if self.look_at_first(chain) {
            return;
        }
        let order = self.chains[chain].clone();
        for (at, child) in order.iter().copied().enumerate() {
            let parent = at.checked_sub(1).map(|before| order[before]);
            if !self.is_slow(child, parent) {
                self.hosts[child].slow_since = None;
                continue;
            }
            let since = *self.hosts[child].slow_since.get_or_insert(self.now);
            if self.now - since < SLOW_FOR {
                continue;
            }
            self.hosts[child].slow_since = None;
            self.mend(chain, child, parent);
            return;
        }
    }

    /// Puts the first host last, once, to see whether it was slow; and again when it gets less than others once had.
    fn look_at_first(&mut self, chain: usize) -> bool {
        let [first, _, ..] = *self.chains[chain] else {
            return false;
        };
        let host = &self.hosts[first];
        let Some(rate) = host.rate().filter(|_| self.now - host.since >= SETTLE) else {
            return false;
        };
        if host.done {
            return false;
        }
        let again = match self.firsts[chain] {
            First::Untried => true,
            First::Trying(before, its) => {
                self.firsts[chain] = First::Tried;
                let better = rate > its / SLOW;
                if better {
                    self.settle(chain, before);
                }
                better
            }
            First::Tried => rate < SLOW * self.best,
        };
        if !again || self.hosts[first].led {
            return false;
        }
        self.firsts[chain] = First::Trying(first, rate);
        self.hosts[first].led = true;
        self.put_last(chain, &[first]);
        true
    }

    /// Does this host get much less than its parent, and stand behind it?
    fn is_slow(&self, child: usize, parent: Option<usize>) -> bool {
        let host = &self.hosts[child];
        if host.done || host.settled || self.now - host.since < SETTLE {
            return false;
        }
        let Some(rate) = host.rate() else {
            return false;
        };
        let Some(parent) = parent else {
            return false;
        };
        let before = &self.hosts[parent];
        // A parent that has all gives what the line carries: that of the best who still gets something.
        let best = match before.done {
            true => self
                .hosts
                .iter()
                .filter(|h| !h.done)
                .filter_map(Host::rate)
                .fold(0.0, f64::max),
            false if self.now - before.since < SETTLE => return false,
            false => match before.rate() {
                Some(rate) => rate,
                None => return false,
            },
        };
        let behind = before.position().saturating_sub(host.position()) as f64;
        rate < SLOW * best && (before.done || behind > 0.15 * best)
    }

    /// A link is slow. Which of its two hosts is it? Whoever was slow with somebody else, too. While that is not known
    /// both go to the end, where they slow nobody; the child first, so that it shows how it does with another parent.
    fn mend(&mut self, chain: usize, child: usize, parent: Option<usize>) {
        self.hosts[child].slow_from.insert(parent);
        if let Some(parent) = parent {
            self.hosts[parent].slow_to.insert(child);
        }
        match parent {
            Some(parent) if self.hosts[child].slow_from.len() < 2 => {
                if self.hosts[parent].slow_to.len() < 2 {
                    self.put_last(chain, &[child, parent]);
                } else {
                    self.settle(chain, parent);
                }
            }
            _ => self.settle(chain, child),
        }
    }

    /// A host is slow: it goes last, and stays there.
    fn settle(&mut self, chain: usize, host: usize) {
        self.put_last(chain, &[host]);
        self.hosts[host].settled = true;
    }

    /// Puts hosts at the end of their chain, in this order; before those that are settled.
    fn put_last(&mut self, chain: usize, hosts: &[usize]) {
        let order = &mut self.chains[chain];
        let first = order.iter().position(|h| hosts.contains(h)).unwrap_or(0);
        order.retain(|h| !hosts.contains(h));
        let slow = order
            .iter()
            .rev()
            .take_while(|h| self.hosts[**h].settled)
            .count();
        let at = order.len() - slow;
        for (offset, host) in hosts.iter().enumerate() {
            order.insert(at + offset, *host);
        }
        self.renew(chain, first.min(at));
    }

    /// From this place on parents may be others.
    fn renew(&mut self, chain: usize, from: usize) {
        let order = &self.chains[chain];
        for (at, host) in order.iter().copied().enumerate().skip(from) {
            let one = &mut self.hosts[host];
            one.place = Some(chain);
            // Only the next ones have another parent; further ones have other names for the case of a loss.
            if at <= from + PARENTS {
                self.changed.push(host);
            }
        }
        for at in [from, from + 1] {
            if let Some(host) = order.get(at) {
                self.hosts[*host].since = self.now;
                self.hosts[*host].slow_since = None;
            }
        }
        // Those that were put at the end have new parents, too.
        for host in order.iter().rev().take(PARENTS) {
            self.changed.push(*host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(hosts: usize) -> Chains {
        let mut chains = Chains::new(hosts, 1);
        (0..hosts).for_each(|host| chains.join(host));
        chains.changes();
        chains
    }

    #[test]
    fn hosts_stand_as_they_are_listed_and_the_late_ones_at_the_end() {
        let mut chains = Chains::new(4, 1);
        chains.join(3);
        chains.join(1);
        chains.join(0);
        assert_eq!(chains.order(), [[0, 1, 3]]);
        chains.time(5.0);
        chains.join(2);
        assert_eq!(chains.order(), [[0, 1, 3, 2]]);
        assert_eq!(chains.parents(0), [Parent::Source]);
        assert_eq!(
            chains.parents(3),
            [Parent::Host(1), Parent::Host(0), Parent::Source]
        );
    }

    #[test]
    fn who_is_gone_is_left_out_and_only_those_after_it_hear_of_it() {
        let mut chains = chain(20);
        chains.leave(4);
        let changed = chains.changes();
        assert!(changed.contains(&5) && !changed.contains(&3), "{changed:?}");
        assert_eq!(chains.parents(5)[0], Parent::Host(3));
        assert!(!chains.order()[0].contains(&4));
    }

    #[test]
    fn a_parent_that_one_child_cannot_hear_goes_to_the_end() {
        let mut chains = chain(5);
        chains.complain(2, 1);
        assert_eq!(chains.order(), [[0, 2, 3, 4, 1]]);
        assert_eq!(chains.parents(2)[0], Parent::Host(0));
    }

    #[test]
    fn several_chains_are_equally_long() {
        let mut chains = Chains::new(10, 3);
        (0..10).for_each(|host| chains.join(host));
        let mut lengths: Vec<usize> = chains.order().iter().map(Vec::len).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [3, 3, 4]);
    }
}

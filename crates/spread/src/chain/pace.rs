//! How fast hosts are, and what is done about it.
//!
//! Rates come from reports. A link that gives its child much less than its parent gets is slow; both of its hosts go to
//! the end, where it is found out which of the two it was.

use super::{Chains, Parent};
use std::collections::{BTreeSet, VecDeque};

/// Seconds of reports that are kept, and that a rate is taken from at least.
const SPAN: f64 = 0.4;
const LEAST: f64 = 0.27;

/// A link that has less than this part of the rate before it is slow,
const SLOW: f64 = 0.7;

/// for so many seconds.
const SLOW_FOR: f64 = 0.09;

/// One that has even less is slow at once.
const VERY_SLOW: f64 = 0.35;
const VERY_LEAST: f64 = 0.27;

/// The best rate is that of so many seconds: links let through more at their beginning than they carry.
const STEADY: f64 = 0.38;

/// It is behind its parent by what comes in so many seconds.
const BEHIND: f64 = 0.12;

/// A new link is left alone for so many seconds.
const SETTLE: f64 = 0.2;

/// So many hosts in a row are tried as the first one and are no better than those before them: if the source could give
/// more than the first one gets, and if it is not known what it could.
const TRIES: u32 = 3;
const FEW_TRIES: u32 = 1;

/// To try another one takes up to a fifth of a second. Without a reason for it that is not worth while if no more seconds
/// than these are left.
const WORTH: f64 = 10.0;

/// What is known of a host's pace.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Seconds and bytes of its reports.
    samples: VecDeque<(f64, u64)>,
    /// When it got its parent, and how many bytes it had then, as far as its rate before shows.
    since: f64,
    had: Option<f64>,
    slow_since: Option<f64>,
    /// Parents from which little came, and children to whom little went.
    slow_from: BTreeSet<Option<usize>>,
    slow_to: BTreeSet<usize>,
    /// It was first, and was put last to see whether the next one is faster.
    led: bool,
    /// It is known to be slow: it stays last.
    settled: bool,
}

impl Pace {
    /// It has another parent from now on.
    pub(super) fn begin(&mut self, now: f64) {
        if let Some((at, bytes)) = self.samples.back().copied() {
            match self.rate(0.0) {
                Some(rate) => self.had = Some(bytes as f64 + rate * (now - at)),
                // Nothing was heard since it got the one before: it may have had more than it is known to have had then.
                None if at < self.since => {}
                None => self.had = None,
            }
        }
        self.since = now;
        self.slow_since = None;
        // What it got from another one says nothing of this one.
        self.samples.drain(..self.samples.len().saturating_sub(1));
    }

    pub(super) fn forget(&mut self) {
        self.samples.clear();
        self.had = None;
    }

    /// It is known to be slow.
    pub(super) fn is_slow(&self) -> bool {
        self.settled
    }

    /// Bytes that it has had.
    pub(super) fn position(&self) -> u64 {
        self.samples.back().map_or(0, |(_, bytes)| *bytes)
    }

    /// Its rate, if next to nothing came to it before its last report but one.
    fn begins(&self) -> Option<f64> {
        let mut last = self.samples.iter().rev();
        let (now, before, first) = (last.next()?, last.next()?, last.next()?);
        let (new, old) = (now.1 - before.1, before.1 - first.1);
        (old < new / 20).then(|| new as f64 / (now.0 - before.0).max(0.001))
    }

    /// Bytes a second, of at least so many seconds of reports.
    fn rate(&self, least: f64) -> Option<f64> {
        let last = self.samples.back()?;
        let long = |(at, _): &&(f64, u64)| last.0 > *at && last.0 - at >= least;
        let (at, bytes) = *self.samples.iter().rev().find(long)?;
        // Of the time from its last report to its new parent the rate is that of the old one.
        let (at, bytes) = match self.had.filter(|_| at < self.since) {
            Some(had) if last.0 > self.since => (self.since, had),
            _ => (at, bytes as f64),
        };
        Some((last.1 as f64 - bytes).max(0.0) / (last.0 - at))
    }

    /// Bytes a second, at least, of one that has all now, perhaps before its rate could be taken.
    fn rate_until_done(&self) -> f64 {
        let ends = self.samples.front().zip(self.samples.back());
        ends.map_or(0.0, |(first, last)| {
            (last.1 - first.1) as f64 / (last.0 - first.0).max(LEAST)
        })
    }
}

/// The root has all, so nothing shows whether the first host of a chain is slow but trying other ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Trial {
    /// Who was first, and the rate then.
    tried: Vec<(usize, f64)>,
    /// So many in a row were not better.
    equal: u32,
    over: bool,
}

impl Chains {
    /// A host has all. How fast it came counts, however soon that was: whoever has less elsewhere can have it from there.
    pub(super) fn note_rate_of_done(&mut self, host: usize) {
        self.best = self.best.max(self.hosts[host].pace.rate_until_done());
    }

    /// How many bytes a host has.
    pub fn report(&mut self, host: usize, bytes: u64) {
        let now = self.now;
        let samples = &mut self.hosts[host].pace.samples;
        if samples.back().is_some_and(|(_, before)| *before > bytes) {
            samples.clear();
        }
        samples.push_back((now, bytes));
        while samples.len() > 2 && samples.get(1).is_some_and(|(at, _)| now - at > SPAN) {
            samples.pop_front();
        }
    }

    /// Looks for links that are slow, and acts on them. To be called some ten times a second.
    pub fn look(&mut self) {
        self.arrange();
        let best = |least| {
            let open = self.hosts.iter().filter(|host| !host.done);
            let rates = open.filter_map(|host| host.pace.rate(least));
            rates.fold(0.0, f64::max)
        };
        self.best = self.best.max(best(STEADY));
        let best = best(LEAST);
        for chain in 0..self.chains.len() {
            if self.look_at_first(chain) {
                continue;
            }
            let mut slow = Vec::new();
            for at in 1..self.chains[chain].hosts.len() {
                let hosts = &self.chains[chain].hosts;
                let (parent, child) = (hosts[at - 1], hosts[at]);
                if self.is_slow(child, parent, best) {
                    slow.push((child, parent));
                }
            }
            for (child, parent) in slow {
                self.mend(chain, child, parent);
            }
        }
    }

    /// Puts the first host last, to see whether the next one is better: at the beginning, and when it gets less than
    /// others once had.
    fn look_at_first(&mut self, chain: usize) -> bool {
        let Some(first) = self.chains[chain].hosts.first().copied() else {
            return false;
        };
        let host = &self.hosts[first];
        let Some(rate) = host.pace.rate(LEAST).filter(|_| !host.done) else {
            return false;
        };
        let root = self.chains[chain].root;
        let less = rate < SLOW * self.best;
        if self.chains[chain].hosts.len() == 1 {
            // Nobody can be tried instead, but somebody who has all may have his upward link free by now.
            if less && self.hosts[first].pace.slow_from.insert(None) {
                let alone = std::mem::take(&mut self.chains[chain].hosts);
                self.attach(alone);
            }
            return false;
        }
        if self.chains[chain].first.over {
            if !less {
                return false;
            }
            if host.pace.led {
                // It is not the first host: the root is slow.
                if let Parent::Host(root) = root {
                    self.hosts[root].pace.settled = true;
                    self.uproot(root);
                }
                return false;
            }
            self.chains[chain].first = Trial::default();
        }
        let tries = match self.expected.filter(|_| root == Parent::Source) {
            None if !less && self.left.min(self.bytes_left / rate) < WORTH => 0,
            None => FEW_TRIES,
            Some(most) if rate >= SLOW * most / self.from_source as f64 => 0,
            Some(_) => TRIES,
        };
        let trial = &mut self.chains[chain].first;
        let worse = |(_, its): &(usize, f64)| *its < SLOW * rate;
        let (slow, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut trial.tried)
            .into_iter()
            .partition(worse);
        trial.equal = match slow.is_empty() {
            true => trial.equal + 1,
            false => 1,
        };
        trial.over = trial.equal > tries || host.pace.led;
        let over = trial.over;
        if !over {
            trial.tried.clone_from(&rest);
            trial.tried.push((first, rate));
        }
        for (host, _) in slow {
            self.settle(chain, host);
        }
        match over {
            true => {
                let rest: Vec<usize> = rest.into_iter().map(|(host, _)| host).collect();
                self.put_back(chain, &rest);
            }
            false => {
                self.hosts[first].pace.led = true;
                self.put_last(chain, &[first]);
            }
        }
        true
    }

    /// Does this host get much less than its parent, and stand behind it, and for how long?
    fn is_slow(&mut self, child: usize, parent: usize, best: f64) -> bool {
        let much = self.gets_less(child, parent, best, VERY_SLOW, VERY_LEAST);
        let less = much || self.gets_less(child, parent, best, SLOW, LEAST);
        let pace = &mut self.hosts[child].pace;
        if !less {
            pace.slow_since = None;
            return false;
        }
        let since = *pace.slow_since.get_or_insert(self.now);
        // Whoever is suspected already needs no second proof.
        much || !pace.slow_from.is_empty() || self.now - since >= SLOW_FOR
    }

    fn gets_less(&self, child: usize, parent: usize, best: f64, part: f64, least: f64) -> bool {
        let (host, before) = (&self.hosts[child], &self.hosts[parent]);
        let settled = |since: f64| self.now - since >= SETTLE;
        if host.done || host.pace.settled || !settled(host.pace.since) {
            return false;
        }
        let Some(rate) = host.pace.rate(least) else {
            return false;
        };
        // A parent that has all gives what the line carries: that of the best who still gets something.
        if before.done {
            return rate < part * best;
        }
        let Some(its) = before.pace.rate(least) else {
            return false;
        };
        let behind = before.pace.position().saturating_sub(host.pace.position()) as f64;
        // To whom only now the first bytes have come, far down a long chain, is ahead of a child that they have not reached.
        let now = before.pace.begins().unwrap_or(its);
        settled(before.pace.since) && rate < part * its && behind > BEHIND * now
    }

    /// A link is slow. Which of its two hosts is it? Whoever was slow with somebody else, too. While that is not known
    /// both go to the end, where they slow nobody; the child first, so that it shows how it does with another parent.
    fn mend(&mut self, chain: usize, child: usize, parent: usize) {
        self.hosts[child].pace.slow_from.insert(Some(parent));
        self.hosts[parent].pace.slow_to.insert(child);
        if self.hosts[child].pace.slow_from.len() >= 2 {
            self.settle(chain, child);
        } else if self.hosts[parent].pace.slow_to.len() < 2 {
            self.put_last(chain, &[child, parent]);
        } else {
            self.settle(chain, parent);
        }
    }

    /// A host is slow: it goes last, and stays there.
    fn settle(&mut self, chain: usize, host: usize) {
        self.put_last(chain, &[host]);
        self.hosts[host].pace.settled = true;
    }
}

//! Who has it from whom: decisions only. No network, no clock, no randomness; the simulator runs the same code.
//!
//! Hosts stand in chains; each is the child of the one before it, and the first is the child of the chain's root: the
//! source, or a host that has all of it already. Hosts of a switch stand together. A host that comes late, or comes
//! back, goes where an upward link is free, as near as there is one: to a host that has all, or to the end of a chain.
//! One that is gone is left out. The pair of a link that is slow goes to the end, where it slows nobody (`pace`).

mod apart;
mod order;
mod pace;

use crate::layout::Layout;
use pace::{Pace, Trial};
use std::collections::BTreeSet;

/// For so many seconds hosts that come are put in order: neighbours are neighbours.
const START: f64 = 1.0;

/// Names of parents that a host is given, besides the root and what else has all.
const PARENTS: usize = 4;

/// Hosts that have all and are named besides.
const OTHERS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    Source,
    Host(usize),
}

impl Parent {
    /// As `layout` wants it.
    fn host(self) -> Option<usize> {
        match self {
            Self::Source => None,
            Self::Host(host) => Some(host),
        }
    }
}

#[derive(Debug, Default)]
struct Host {
    /// Its chain, and its place there.
    place: Option<(usize, usize)>,
    done: bool,
    /// Whom it was told to ask first.
    parent: Option<Parent>,
    pace: Pace,
}

/// A chain that nobody stands in has its place still, so that numbers of chains stay.
#[derive(Debug)]
struct Chain {
    root: Parent,
    hosts: Vec<usize>,
    /// What is known of its first host.
    first: Trial,
}

#[derive(Debug)]
pub struct Chains {
    layout: Layout,
    hosts: Vec<Host>,
    /// The first ones go out from the source, so many as were asked for.
    chains: Vec<Chain>,
    from_source: usize,
    changed: BTreeSet<usize>,
    /// Changes with every change of the chains.
    version: u64,
    /// Those that had all of it when they came.
    whole: BTreeSet<usize>,
    /// Pairs that cannot reach each other, the lower number first.
    apart: BTreeSet<(usize, usize)>,
    now: f64,
    /// The best rate that any host has had.
    best: f64,
    /// Bytes a second that can leave the source, if that is known.
    expected: Option<f64>,
    /// How many more seconds it takes, and how many more bytes at most, as far as is known.
    left: f64,
    bytes_left: f64,
    /// Somebody has come or gone, and all are to be put in order again.
    disordered: bool,
    /// Who is slow has been moved, or it is too late to put all in order again.
    fixed: bool,
}

impl Chains {
    /// For so many hosts, none of which is there yet, in so many chains, as they are listed.
    pub fn new(hosts: usize, chains: usize) -> Self {
        Self::ordered(Layout::flat(hosts), hosts, chains)
    }

    /// For so many hosts that stand as `layout` says. `chains`: how many go out from the source.
    pub fn ordered(layout: Layout, hosts: usize, chains: usize) -> Self {
        let mut all = Self {
            layout,
            hosts: (0..hosts).map(|_| Host::default()).collect(),
            chains: Vec::new(),
            from_source: chains.max(1),
            changed: BTreeSet::new(),
            version: 0,
            whole: BTreeSet::new(),
            apart: BTreeSet::new(),
            now: 0.0,
            best: 0.0,
            expected: None,
            left: f64::INFINITY,
            bytes_left: f64::INFINITY,
            disordered: false,
            fixed: false,
        };
        (0..chains.max(1)).for_each(|_| all.chain(Parent::Source, Vec::new()));
        all
    }

    /// Bytes a second that can leave the source, at most. A chain that has them begins with a host that is not slow.
    pub fn expect(&mut self, rate: f64) {
        self.expected = Some(rate);
    }

    /// So far are those that are furthest: a part from 0 to 1, and the bytes that they lack at most.
    pub fn progress(&mut self, part: f64, bytes_left: f64) {
        if part > 0.0 {
            self.left = self.now * (1.0 - part) / part;
        }
        self.bytes_left = bytes_left;
    }

    /// Seconds since the beginning; never goes back.
    pub fn time(&mut self, now: f64) {
        self.now = self.now.max(now);
        if self.now >= START && !self.fixed {
            self.arrange();
            self.fixed = true;
        }
    }

    /// A host is there, or is back.
    pub fn join(&mut self, host: usize) {
        self.leave(host);
        self.hosts[host].done = false;
        match self.fixed {
            true => self.attach(vec![host]),
            false => {
                // It has its place when all are put in order.
                self.hosts[host].place = Some((0, self.chains[0].hosts.len()));
                self.chains[0].hosts.push(host);
                self.disordered = true;
            }
        }
    }

    /// A host is there that has all of it, and gives it to others.
    pub fn whole(&mut self, host: usize) {
        self.leave(host);
        self.whole.insert(host);
        self.hosts[host].done = true;
        self.disordered |= !self.fixed;
    }

    /// A host is there after all.
    pub fn stay(&mut self, host: usize) {
        if !self.is_there(host) {
            self.join(host);
        }
    }

    /// A host is there no more.
    pub fn leave(&mut self, host: usize) {
        self.disordered |= self.whole.remove(&host) && !self.fixed;
        self.forget_apart(host);
        let one = &mut self.hosts[host];
        one.pace.forget();
        one.parent = None;
        if let Some((chain, at)) = one.place.take() {
            self.chains[chain].hosts.remove(at);
            self.renew(chain, at);
        }
        self.uproot(host);
    }

    /// A host has all of it. It still is a parent.
    pub fn done(&mut self, host: usize) {
        if !std::mem::replace(&mut self.hosts[host].done, true) {
            self.note_rate_of_done(host);
        }
    }

    fn is_there(&self, host: usize) -> bool {
        self.whole.contains(&host) || self.hosts[host].place.is_some()
    }

    /// Whom a host should ask, the best first. The source is always among them.
    pub fn parents(&self, host: usize) -> Vec<Parent> {
        let mut parents = Vec::new();
        let mut root = Parent::Source;
        if let Some((chain, at)) = self.hosts[host].place {
            let chain = &self.chains[chain];
            let before = chain.hosts[..at].iter().rev().map(|h| Parent::Host(*h));
            parents.extend(before.filter(|h| !self.are_apart(*h, host)).take(PARENTS));
            root = chain.root;
        }
        if !self.are_apart(root, host) {
            parents.push(root);
        }
        // If the root is lost, and with it the source, it goes on with these. Ends of chains have their upward link
        // free; only of those that do not begin at the source, so that no two wait for each other.
        if root == Parent::Source {
            let others = self.chains.iter().filter(|chain| chain.root != root);
            let ends = others.filter_map(|chain| chain.hosts.last().copied());
            let ends = ends.filter(|end| !self.are_apart(Parent::Host(*end), host));
            let near = ends.min_by_key(|end| self.layout.distance(Some(host), Some(*end)));
            parents.extend(near.map(Parent::Host));
        }
        let other = |h: &usize| {
            let parent = Parent::Host(*h);
            *h != host && !parents.contains(&parent) && !self.are_apart(parent, host)
        };
        let mut others: Vec<usize> = self.whole.iter().copied().filter(other).collect();
        others.sort_by_key(|h| self.layout.distance(Some(host), Some(*h)));
        parents.extend(others.into_iter().take(OTHERS).map(Parent::Host));
        if root != Parent::Source {
            parents.push(Parent::Source);
        }
        parents
    }

    /// Hosts whose parents are others than before, since this was asked last.
    pub fn changes(&mut self) -> Vec<usize> {
        self.arrange();
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .filter(|host| self.hosts[*host].place.is_some())
            .collect()
    }

    /// The chains as they are; some may be empty.
    pub fn order(&mut self) -> Vec<&[usize]> {
        self.arrange();
        self.chains.iter().map(|chain| &*chain.hosts).collect()
    }

    /// Another number whenever the chains are others than before.
    pub fn version(&mut self) -> u64 {
        self.arrange();
        self.version
    }

    /// Each host that stands in a chain, and whom it has it from.
    pub fn links(&mut self) -> Vec<(Parent, usize)> {
        self.arrange();
        let mut links = Vec::new();
        for chain in &self.chains {
            let mut before = chain.root;
            for host in &chain.hosts {
                links.push((std::mem::replace(&mut before, Parent::Host(*host)), *host));
            }
        }
        links
    }

    /// A child says that it gets nothing from a parent which is alive otherwise.
    pub fn complain(&mut self, child: usize, parent: usize) {
        self.arrange();
        let (Some((chain, _)), Some((other, _))) =
            (self.hosts[child].place, self.hosts[parent].place)
        else {
            return;
        };
        if chain == other && !self.hosts[parent].done {
            self.put_last(chain, &[parent]);
        }
    }

    /// Where those begin that are known to be slow, and stay last.
    fn end(&self, chain: usize) -> usize {
        let order = &self.chains[chain].hosts;
        let slow = |host: &&usize| self.hosts[**host].pace.is_slow();
        order.len() - order.iter().rev().take_while(slow).count()
    }

    /// Puts hosts at the end of their chain, in this order; before those that are known to be slow.
    fn put_last(&mut self, chain: usize, hosts: &[usize]) {
        self.fixed = true;
        let order = &mut self.chains[chain].hosts;
        let Some(first) = order.iter().position(|h| hosts.contains(h)) else {
            return;
        };
        let here = |host: &usize| self.hosts[*host].place.is_some_and(|(c, _)| c == chain);
        let last: Vec<usize> = hosts.iter().copied().filter(here).collect();
        order.retain(|h| !hosts.contains(h));
        let at = self.end(chain);
        self.chains[chain].hosts.splice(at..at, last);
        self.renew(chain, first.min(at));
    }

    /// From this place on parents may be others.
    fn renew(&mut self, chain: usize, from: usize) {
        // Whose parent is another, and the next ones, who get other names for the case of a loss.
        let from = self.part(chain, from);
        let mut news = 0;
        self.version += 1;
        let Chain { root, hosts, .. } = &self.chains[chain];
        for at in from..hosts.len() {
            let host = hosts[at];
            let parent = at.checked_sub(1).map(|before| Parent::Host(hosts[before]));
            let parent = parent.unwrap_or(*root);
            let one = &mut self.hosts[host];
            one.place = Some((chain, at));
            if one.parent != Some(parent) {
                one.parent = Some(parent);
                one.pace.begin(self.now);
                news = PARENTS + 1;
            }
            if news > 0 {
                news -= 1;
                self.changed.insert(host);
            }
        }
        // Where the source's children go without it.
        if *root != Parent::Source {
            let of_source = self
                .chains
                .iter()
                .filter(|chain| chain.root == Parent::Source);
            let first = of_source.flat_map(|chain| chain.hosts.iter().take(PARENTS));
            self.changed.extend(first);
        }
    }
}

#[cfg(test)]
mod tests;

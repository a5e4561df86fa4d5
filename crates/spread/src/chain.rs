//! Who has it from whom: decisions only. No network, no clock, no randomness; the simulator runs the same code.
//!
//! Hosts stand in chains; each is the child of the one before it, and the first is the child of the chain's root: the
//! source, or a host that has all of it already. Hosts of a switch stand together. A host that comes late, or comes
//! back, goes where an upward link is free, as near as there is one: to a host that has all, or to the end of a chain.
//! One that is gone is left out. The pair of a link that is slow goes to the end, where it slows nobody (`pace`).

mod pace;

use crate::layout::Layout;
use pace::{Pace, Trial};
use std::collections::{BTreeMap, BTreeSet};

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
    now: f64,
    /// The best rate that any host has had.
    best: f64,
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
            now: 0.0,
            best: 0.0,
            disordered: false,
            fixed: false,
        };
        (0..chains.max(1)).for_each(|_| all.chain(Parent::Source, Vec::new()));
        all
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
        self.hosts[host].done = true;
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
            let before = chain.hosts[..at].iter().rev().take(PARENTS);
            parents.extend(before.map(|h| Parent::Host(*h)));
            root = chain.root;
        }
        parents.push(root);
        // If the root is lost, and with it the source, it goes on with these.
        let other = |h: &usize| *h != host && !parents.contains(&Parent::Host(*h));
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

    /// Puts all in order, if somebody has come or gone since: at the beginning, when it costs nothing.
    fn arrange(&mut self) {
        if !std::mem::take(&mut self.disordered) || self.fixed {
            return;
        }
        let mut needy: Vec<usize> = (0..self.hosts.len())
            .filter(|host| self.hosts[*host].place.is_some())
            .collect();
        self.layout.sort(None, &mut needy);
        let mut roots = vec![Parent::Source; self.from_source];
        let mut whole: Vec<usize> = self.whole.iter().copied().collect();
        whole.sort_by_key(|host| self.layout.rank(*host));
        roots.extend(whole.into_iter().map(Parent::Host));
        let parts = self.divide(&needy, &roots);
        self.chains.truncate(self.from_source);
        for (index, (root, mut hosts)) in roots.into_iter().zip(parts).enumerate() {
            self.layout.sort(root.host(), &mut hosts);
            match index < self.from_source {
                true => self.chains[index].hosts = hosts,
                false if hosts.is_empty() => continue,
                false => self.chain(root, hosts),
            }
        }
        (0..self.chains.len()).for_each(|chain| self.renew(chain, 0));
    }

    /// Who is in whose chain: in that of the nearest root; where several are as near, equally many in each, and the
    /// hosts of a switch in one, unless the roots are there, too.
    fn divide(&self, hosts: &[usize], roots: &[Parent]) -> Vec<Vec<usize>> {
        let mut parts = vec![Vec::new(); roots.len()];
        let mut groups: BTreeMap<Vec<usize>, Vec<Vec<usize>>> = BTreeMap::new();
        let mut rest = hosts;
        while let Some((first, _)) = rest.split_first() {
            let same = |h: &&usize| *h == first || self.layout.same_switch(*first, **h);
            let (unit, after) = rest.split_at(rest.iter().take_while(same).count());
            rest = after;
            let far = |root: &Parent| self.layout.distance(Some(*first), root.host());
            let least = roots.iter().map(far).min().unwrap_or(0);
            let near = (0..roots.len()).filter(|root| far(&roots[*root]) == least);
            let units = groups.entry(near.collect()).or_default();
            match least {
                0 => units.extend(unit.iter().map(|host| vec![*host])),
                _ => units.push(unit.to_vec()),
            }
        }
        for (near, units) in groups {
            let all: usize = units.iter().map(Vec::len).sum();
            let mut before = 0;
            for unit in units {
                // Where the middle of it falls, if all is cut into equal pieces.
                let share = (2 * before + unit.len()) * near.len() / (2 * all);
                before += unit.len();
                parts[near[share.min(near.len() - 1)]].extend(unit);
            }
        }
        parts
    }

    /// A chain, in a place that is free.
    fn chain(&mut self, root: Parent, hosts: Vec<usize>) {
        let free = |chain: &Chain| chain.hosts.is_empty() && chain.root != Parent::Source;
        let free = self.chains.iter().position(free);
        let chain = Chain {
            root,
            hosts,
            first: Trial::default(),
        };
        let index = match free {
            Some(index) => {
                self.chains[index] = chain;
                index
            }
            None => {
                self.chains.push(chain);
                self.chains.len() - 1
            }
        };
        self.renew(index, 0);
    }

    /// Puts hosts that have nobody, in this order, where an upward link is free: as near as there is one; best at a
    /// host that has all, and at the source only if nobody else is as near.
    fn attach(&mut self, hosts: Vec<usize>) {
        let Some(first) = hosts.first().copied() else {
            return;
        };
        let mut busy = vec![false; self.hosts.len()];
        let mut source_is_busy = 0;
        let mut candidates = Vec::new();
        for (index, chain) in self.chains.iter().enumerate() {
            let mut before = chain.root;
            for host in &chain.hosts {
                if !self.hosts[*host].done {
                    match before {
                        Parent::Source => source_is_busy += 1,
                        Parent::Host(parent) => busy[parent] = true,
                    }
                }
                before = Parent::Host(*host);
            }
            let at = self.end(index);
            match at.checked_sub(1).map(|last| chain.hosts[last]) {
                Some(last) => candidates.push((1, Parent::Host(last), index, at)),
                // All that stand here are slow.
                None if !chain.hosts.is_empty() => candidates.push((1, chain.root, index, 0)),
                None => {}
            }
        }
        if source_is_busy < self.from_source {
            candidates.push((2, Parent::Source, usize::MAX, 0));
        }
        for (host, one) in self.hosts.iter().enumerate() {
            let gives = one.done && !one.pace.is_slow() && self.is_there(host);
            if gives && !busy[host] && !hosts.contains(&host) {
                candidates.push((0, Parent::Host(host), usize::MAX, 0));
            }
        }
        let rank = self.layout.rank(first);
        let best = candidates.into_iter().min_by_key(|(class, parent, _, at)| {
            let far = self.layout.distance(Some(first), parent.host());
            let apart = parent.host().map(|h| self.layout.rank(h).abs_diff(rank));
            // Whoever comes late to a chain that still runs is best off behind the shortest.
            let apart = if *class == 1 { Some(*at) } else { apart };
            (far, *class, apart)
        });
        match best {
            Some((_, _, chain, at)) if chain != usize::MAX => {
                self.chains[chain].hosts.splice(at..at, hosts);
                self.renew(chain, at);
            }
            Some((_, Parent::Host(root), _, _)) => self.chain(Parent::Host(root), hosts),
            _ => {
                let empty = |chain: &Chain| chain.root == Parent::Source && chain.hosts.is_empty();
                match self.chains.iter().position(empty) {
                    Some(chain) => {
                        self.chains[chain].hosts = hosts;
                        self.renew(chain, 0);
                    }
                    None => self.chain(Parent::Source, hosts),
                }
            }
        }
    }

    /// A host is no root any more: who had it from there gets it from somebody else.
    fn uproot(&mut self, root: usize) {
        for chain in 0..self.chains.len() {
            if self.chains[chain].root == Parent::Host(root) {
                let hosts = std::mem::take(&mut self.chains[chain].hosts);
                self.attach(hosts);
            }
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
        let first = order.iter().position(|h| hosts.contains(h)).unwrap_or(0);
        order.retain(|h| !hosts.contains(h));
        let at = self.end(chain);
        self.chains[chain]
            .hosts
            .splice(at..at, hosts.iter().copied());
        self.renew(chain, first.min(at));
    }

    /// Puts a host that is last for no fault of its own behind those of its switch again.
    fn put_back(&mut self, chain: usize, host: usize) {
        let order = &mut self.chains[chain].hosts;
        let Some(at) = order.iter().position(|h| *h == host) else {
            return;
        };
        let near = |h: &usize| *h != host && self.layout.same_switch(*h, host);
        if let Some(last) = order.iter().rposition(near).filter(|last| last + 1 < at) {
            order.remove(at);
            order.insert(last + 1, host);
            self.renew(chain, last + 1);
        }
    }

    /// From this place on parents may be others.
    fn renew(&mut self, chain: usize, from: usize) {
        // Whose parent is another, and the next ones, who get other names for the case of a loss.
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
        let mut lengths: Vec<usize> = chains.order().iter().map(|chain| chain.len()).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [3, 3, 4]);
    }

    /// Racks of so many hosts each, below one switch; the source is in the first.
    fn racks(racks: u32, hosts: u32, chains: usize) -> Chains {
        let path = |host: u32| vec![0, 1 + host % racks];
        let count = (racks * hosts) as usize;
        let layout = Layout::new((0..racks * hosts).map(path).collect(), vec![0, 1]);
        Chains::ordered(layout, count, chains)
    }

    #[test]
    fn hosts_of_a_rack_stand_together_however_they_are_listed() {
        let mut chains = racks(3, 3, 1);
        (0..9).rev().for_each(|host| chains.join(host));
        assert_eq!(chains.order(), [[0, 3, 6, 1, 4, 7, 2, 5, 8]]);
    }

    #[test]
    fn hosts_that_have_it_already_are_sources_for_their_rack() {
        let mut chains = racks(3, 3, 1);
        (0..9).filter(|h| *h != 4).for_each(|h| chains.join(h));
        chains.whole(4);
        assert_eq!(chains.order(), [&[0, 3, 6][..], &[1, 7, 2, 5, 8]]);
        assert_eq!(chains.parents(1)[0], Parent::Host(4));
        assert_eq!(chains.parents(1).last(), Some(&Parent::Source));
        assert_eq!(chains.parents(0), [Parent::Source, Parent::Host(4)]);
        assert!(!chains.changes().contains(&4), "it needs nothing");
        // It goes: who had it from there stands behind the others.
        chains.time(3.0);
        chains.leave(4);
        assert_eq!(chains.order()[0], [0, 3, 6, 1, 7, 2, 5, 8]);
        assert_eq!(chains.changes(), [1, 2, 5, 7, 8]);
    }

    #[test]
    fn several_sources_share_hosts_of_which_nothing_is_known() {
        let mut chains = Chains::new(11, 1);
        (0..11).for_each(|host| chains.join(host));
        chains.whole(3);
        chains.whole(10);
        assert_eq!(chains.order(), [[0, 1, 2], [4, 5, 6], [7, 8, 9]]);
    }

    #[test]
    fn who_comes_late_gets_a_host_near_it_that_has_all() {
        let mut chains = racks(2, 4, 1);
        (0..6).for_each(|host| chains.join(host));
        assert_eq!(chains.order(), [[0, 2, 4, 1, 3, 5]]);
        chains.time(9.0);
        (0..5).for_each(|host| chains.done(host));
        chains.join(6);
        // 2 and 4 stand in 6's rack and give nobody anything; 4 is listed nearer.
        assert_eq!(chains.parents(6)[0], Parent::Host(4));
        chains.join(7);
        assert_eq!(chains.parents(7)[0], Parent::Host(1), "3 still gives to 5");
        assert_eq!(chains.parents(0)[0], Parent::Source);
    }
}

//! Where hosts are put: all at the beginning, the late ones, and those that have lost their root.

use super::pace::Trial;
use super::{Chain, Chains, Parent};
use std::collections::BTreeMap;

impl Chains {
    /// Puts all in order, if somebody has come or gone since: at the beginning, when it costs nothing.
    pub(super) fn arrange(&mut self) {
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
    pub(super) fn chain(&mut self, root: Parent, hosts: Vec<usize>) {
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
    pub(super) fn attach(&mut self, hosts: Vec<usize>) {
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
        candidates.retain(|(_, parent, ..)| !self.hangs_on(*parent, &hosts));
        let best = candidates.into_iter().min_by_key(|(class, parent, _, at)| {
            let unreached = self.are_apart(*parent, first);
            let far = self.layout.distance(Some(first), parent.host());
            let apart = parent.host().map(|h| self.layout.rank(h).abs_diff(rank));
            // Whoever comes late to a chain that still runs is best off behind the shortest.
            let apart = if *class == 1 { Some(*at) } else { apart };
            (unreached, far, *class, apart)
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

    /// Does this one have it from any of these hosts, over whatever roots?
    fn hangs_on(&self, parent: Parent, hosts: &[usize]) -> bool {
        let mut at = parent;
        while let Parent::Host(host) = at {
            if hosts.contains(&host) {
                return true;
            }
            match self.hosts[host].place {
                Some((chain, _)) if !self.whole.contains(&host) => at = self.chains[chain].root,
                _ => return false,
            }
        }
        false
    }

    /// A host is no root any more: who had it from there gets it from somebody else.
    pub(super) fn uproot(&mut self, root: usize) {
        for chain in 0..self.chains.len() {
            if self.chains[chain].root == Parent::Host(root) {
                let hosts = std::mem::take(&mut self.chains[chain].hosts);
                self.attach(hosts);
            }
        }
    }

    /// Puts hosts that are last for no fault of theirs where the fewest links between switches are crossed for them.
    pub(super) fn put_back(&mut self, chain: usize, hosts: &[usize]) {
        let order = &mut self.chains[chain].hosts;
        let (back, rest) = order
            .drain(..)
            .partition::<Vec<_>, _>(|h| hosts.contains(h));
        *order = rest;
        for host in back {
            let Chain { root, hosts, .. } = &self.chains[chain];
            let far = |other: Option<usize>| self.layout.distance(other, Some(host));
            let detour = |place: &usize| {
                let before = place
                    .checked_sub(1)
                    .map_or(root.host(), |at| Some(hosts[at]));
                match hosts.get(*place).copied().map(Some) {
                    None => far(before),
                    Some(after) => far(before) + far(after) - self.layout.distance(before, after),
                }
            };
            let to = (0..=self.end(chain)).rev().min_by_key(detour).unwrap_or(0);
            self.chains[chain].hosts.insert(to, host);
        }
        self.renew(chain, 0);
    }
}

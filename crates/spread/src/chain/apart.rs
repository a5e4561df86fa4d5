//! Pairs of hosts that cannot reach each other, as when there is a firewall between just these two: they do not stand one
//! behind the other, as long as there are others to stand between them.

use super::{Chains, Parent};

/// Somebody is put before a host only if it is not behind it by more than comes in so many seconds.
const BEHIND: f64 = 0.5;

impl Chains {
    /// A child could not be connected to a parent that is alive otherwise. It is not sent there again, nor the other way
    /// round, until one of them has left.
    pub fn keep_apart(&mut self, child: usize, parent: usize) {
        self.arrange();
        if child == parent || !self.is_there(child) || !self.is_there(parent) {
            return;
        }
        self.apart.insert((child.min(parent), child.max(parent)));
        // They have other names for the case of a loss, wherever they stand.
        self.changed.extend([child, parent]);
        if let Some((chain, at)) = self.hosts[child].place {
            self.renew(chain, at);
        }
    }

    pub(super) fn forget_apart(&mut self, host: usize) {
        self.apart.retain(|(a, b)| *a != host && *b != host);
    }

    pub(super) fn are_apart(&self, parent: Parent, host: usize) -> bool {
        let pair = |parent: usize| (parent.min(host), parent.max(host));
        parent
            .host()
            .is_some_and(|parent| self.apart.contains(&pair(parent)))
    }

    /// Puts somebody between those of a chain who cannot reach each other: the next one behind them; or the parent goes
    /// before the one that it stands behind. Where neither is possible the child has another name first on its list.
    /// From which place on the chain is another: at most `from`.
    pub(super) fn part(&mut self, chain: usize, mut from: usize) -> usize {
        if self.apart.is_empty() {
            return from;
        }
        for at in 0..self.chains[chain].hosts.len() {
            let hosts = &self.chains[chain].hosts;
            let child = hosts[at];
            let before = self.before(chain, at);
            if !self.are_apart(before, child) {
                continue;
            }
            let fits = |next: &usize| {
                let other = hosts[*next];
                let slow = self.hosts[other].pace.is_slow() && !self.hosts[child].pace.is_slow();
                !slow
                    && self.keeps_up(other, child)
                    && !self.are_apart(before, other)
                    && !self.are_apart(Parent::Host(other), child)
            };
            if let Some(next) = (at + 1..hosts.len()).find(fits) {
                self.chains[chain].hosts[at..=next].rotate_right(1);
                from = from.min(at);
            } else if at >= 2 && self.swaps(chain, at) {
                self.chains[chain].hosts.swap(at - 2, at - 1);
                from = from.min(at - 2);
            }
        }
        from
    }

    /// Who stands before this place.
    fn before(&self, chain: usize, at: usize) -> Parent {
        let chain = &self.chains[chain];
        let before = at.checked_sub(1).map(|at| Parent::Host(chain.hosts[at]));
        before.unwrap_or(chain.root)
    }

    /// Would `other` not have to wait for this one?
    fn keeps_up(&self, host: usize, other: usize) -> bool {
        let position = |host: usize| self.hosts[host].pace.position() as f64;
        self.hosts[host].done || position(host) + BEHIND * self.best >= position(other)
    }

    /// Could the two before this place stand the other way round?
    fn swaps(&self, chain: usize, at: usize) -> bool {
        let hosts = &self.chains[chain].hosts;
        let (first, second, child) = (hosts[at - 2], hosts[at - 1], hosts[at]);
        self.keeps_up(second, first)
            && !self.are_apart(self.before(chain, at - 2), second)
            && !self.are_apart(Parent::Host(second), first)
            && !self.are_apart(Parent::Host(first), child)
    }
}

//! Places for those who are served: so many in all, and so many for each address, so that no host takes those of others.
//!
//! Who comes from an address that has all its places gets that of the first one from there: it may have gone without a
//! word, and if not, whoever it is takes nothing but its own. When all places are taken, the address that has most of them
//! gives one up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Places of a host: the flow, two frames by themselves, and a flow that it has left a moment ago.
const OF_HOST: usize = 4;

/// Places of an address at a source, at least: there may be hosts behind it that are listed elsewhere, and one that fetches
/// frame after frame must not lose its flow because the frames before are still in their places.
const OF_ADDRESS: usize = 4 * OF_HOST;

/// Places at a source beside those of the hosts that are to get it.
const BESIDES: usize = 64;

/// Who is served now, in the order in which they came.
type Taken = Vec<(IpAddr, Arc<Notify>)>;

pub struct Places {
    all: usize,
    each: usize,
    /// Places of the hosts of each address, where they are known.
    known: HashMap<IpAddr, usize>,
    taken: Mutex<Taken>,
}

/// A place, until this is dropped or somebody else gets it.
pub struct Place {
    places: Arc<Places>,
    lost: Arc<Notify>,
}

impl Places {
    /// `each`: how many of all one address may have.
    pub fn new(all: usize, each: usize) -> Self {
        Self {
            all,
            each,
            known: HashMap::new(),
            taken: Mutex::default(),
        }
    }

    /// At a source, for these hosts.
    pub fn of_hosts(hosts: impl Iterator<Item = SocketAddr>) -> Self {
        let mut places = Self::new(BESIDES, OF_ADDRESS);
        for host in hosts {
            places.all += OF_HOST;
            *places.known.entry(host.ip().to_canonical()).or_default() += OF_HOST;
        }
        places
    }

    /// A place for somebody from there. None: all are taken, and no address has more of them than this one would have.
    pub fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let from = from.to_canonical();
        let mut taken = self.taken();
        let has = |address: IpAddr| taken.iter().filter(|(one, _)| *one == address).count();
        let own = has(from);
        let known = self.known.get(&from).copied().unwrap_or(0);
        let loser = if own >= self.each.max(known) {
            Some(from)
        } else if taken.len() >= self.all {
            let most = taken.iter().map(|(one, _)| (has(*one), *one)).max()?;
            let greedy = if most.0 > own { most.1 } else { from };
            (most.0 > 1 || own > 0).then_some(greedy)
        } else {
            None
        };
        let first = loser.and_then(|loser| taken.iter().position(|(one, _)| *one == loser));
        match first {
            Some(first) => taken.remove(first).1.notify_one(),
            None if taken.len() >= self.all => return None,
            None => {}
        }
        let lost = Arc::new(Notify::new());
        taken.push((from, lost.clone()));
        drop(taken);
        let places = self.clone();
        Some(Place { places, lost })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Does this as long as the place is not another's; nothing, if it became one.
    pub async fn hold<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = what => Some(done),
            () = self.lost.notified() => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.retain(|(_, lost)| !Arc::ptr_eq(lost, &self.lost));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    async fn is_lost(place: &Place) -> bool {
        let some = place.hold(tokio::task::yield_now()).await;
        some.is_none()
    }

    #[tokio::test]
    async fn the_newest_of_an_address_gets_the_place_of_its_first() {
        let places = Arc::new(Places::new(10, 2));
        let other = places.enter(at(1)).unwrap();
        let first = places.enter(at(2)).unwrap();
        let second = places.enter(at(2)).unwrap();
        // However it comes, it is the same host.
        let third = places.enter("::ffff:10.0.0.2".parse().unwrap()).unwrap();
        assert!(first.hold(std::future::pending::<()>()).await.is_none());
        assert!(!is_lost(&second).await && !is_lost(&third).await && !is_lost(&other).await);
        // What has lost its place gives none back.
        drop(first);
        assert_eq!(places.taken().len(), 3);
        drop((second, third, other));
        assert_eq!(places.taken().len(), 0);
    }

    #[tokio::test]
    async fn who_has_most_gives_one_up_when_all_are_taken() {
        let places = Arc::new(Places::new(4, 3));
        let greedy = [2, 2, 2].map(|last| places.enter(at(last)).unwrap());
        let one = places.enter(at(1)).unwrap();
        let two = places.enter(at(3)).unwrap();
        assert!(greedy[0].hold(std::future::pending::<()>()).await.is_none());
        assert!(!is_lost(&greedy[1]).await && !is_lost(&greedy[2]).await);
        let three = places.enter(at(4)).unwrap();
        assert!(greedy[1].hold(std::future::pending::<()>()).await.is_none());
        // Each has one: nobody loses it to somebody else.
        assert!(places.enter(at(5)).is_none());
        assert!(places.enter(at(4)).is_some());
        assert!(!is_lost(&one).await && !is_lost(&two).await);
        assert!(three.hold(std::future::pending::<()>()).await.is_none());
        assert!(Arc::new(Places::new(0, 0)).enter(at(1)).is_none());
    }

    #[tokio::test]
    async fn hosts_behind_one_address_have_as_many_as_elsewhere() {
        let behind = (7001..7007).map(|port| SocketAddr::new(at(1), port));
        let hosts = behind.chain([SocketAddr::new(at(2), 7001)]);
        let places = Arc::new(Places::of_hosts(hosts));
        for (last, most) in [(1, 24), (2, 16), (3, 16)] {
            let mut taken = Vec::new();
            for _ in 0..most + 1 {
                taken.push(places.enter(at(last)).unwrap());
            }
            assert_eq!(places.taken().len(), most);
            assert!(!is_lost(&taken[1]).await);
        }
    }
}

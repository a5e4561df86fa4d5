//! Who may come in. Whatever strangers do, connections stay few: memory and file descriptors are for those who have to do
//! with a transfer.

use crate::places::{Place, Places};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Connections that have not said yet what they are for; with one more the oldest of them is closed.
const WAITING: usize = 256;

/// What was sent, and is not taken for so long, will not be: its receiver is gone, or does not read.
const TAKEN: Duration = Duration::from_secs(10);

/// A connection on which nothing happens is looked at after so long, and thrice more every so often.
const ALIVE: Duration = Duration::from_secs(10);

pub struct Gate {
    waiting: Arc<Mutex<VecDeque<Arc<Notify>>>>,
    room: Arc<Semaphore>,
    inside: Arc<Places>,
}

/// A connection that has not said what it is for.
pub struct Guest {
    waiting: Arc<Mutex<VecDeque<Arc<Notify>>>>,
    inside: Arc<Places>,
    shown_out: Arc<Notify>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// `inside`: for children that are served.
    pub fn new(inside: Places) -> Self {
        Self::with(WAITING, inside)
    }

    /// `waiting`: with one more the oldest has to go.
    pub fn with(waiting: usize, inside: Places) -> Self {
        Self {
            waiting: Arc::default(),
            room: Arc::new(Semaphore::new(waiting)),
            inside: Arc::new(inside),
        }
    }

    /// Room for one more; for it the oldest who waits may have to go.
    pub async fn guest(&self) -> Guest {
        let room = match self.room.clone().try_acquire_owned() {
            Ok(room) => Some(room),
            Err(_) => {
                let oldest = self.waiting().pop_front();
                if let Some(oldest) = oldest {
                    oldest.notify_one();
                }
                self.room.clone().acquire_owned().await.ok()
            }
        };
        let shown_out = Arc::new(Notify::new());
        self.waiting().push_back(shown_out.clone());
        Guest {
            waiting: self.waiting.clone(),
            inside: self.inside.clone(),
            shown_out,
            _room: room,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Waits for what it says first; nothing, if too many others came in the meantime.
    pub async fn says<T>(&self, hello: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            said = hello => Some(said),
            () = self.shown_out.notified() => None,
        }
    }

    /// A place to be served, for somebody from there, if there is one.
    pub fn enter(self, from: IpAddr) -> Option<Place> {
        self.inside.enter(from)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|one| !Arc::ptr_eq(one, &self.shown_out));
    }
}

/// The kernel ends connections whose other side is gone, or takes nothing.
pub fn watch_over(stream: &TcpStream) {
    use rustix::net::sockopt;
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_tcp_user_timeout(stream, TAKEN.as_millis() as u32);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, ALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, ALIVE / 3);
    let _ = sockopt::set_tcp_keepcnt(stream, 3);
}

/// As many open files as this process may have: a source has two connections to each of its hosts.
pub fn allow_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_oldest_who_says_nothing_goes_first() {
        let gate = Gate::new(Places::new(1, 1));
        let first = gate.guest().await;
        let mut others = Vec::new();
        for _ in 1..WAITING {
            others.push(gate.guest().await);
        }
        let gone = async {
            let said = first.says(std::future::pending::<()>()).await;
            drop(first);
            said
        };
        let (one_more, gone) = tokio::join!(gate.guest(), gone);
        assert!(gone.is_none());
        assert!(others[0].says(async {}).await.is_some());
        drop(one_more);
        drop(others);
        assert!(gate.waiting.lock().unwrap().is_empty());
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let inside = gate.guest().await.enter(one);
        assert!(inside.is_some() && gate.guest().await.enter(other).is_none());
        drop(inside);
        assert!(gate.guest().await.enter(other).is_some());
    }
}

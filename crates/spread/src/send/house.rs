//! Where a source is reached by those who have it from there: one port for all transfers of a run.

use super::GONE;
use crate::gate::{self, Gate};
use crate::limit::Limit;
use crate::manifest::Id;
use crate::places::Places;
use crate::port;
use crate::serve;
use crate::stream::Door;
use crate::transfer::Transfer;
use crate::wire::{self, Hello};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

/// What is to be had here.
#[derive(Clone, Default)]
struct Stocks(Arc<Mutex<Vec<Arc<Transfer>>>>);

impl Stocks {
    fn find(&self, id: Id) -> Option<Arc<Transfer>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|one| one.header.id == id).cloned()
    }
}

/// A port that is listened on, until this is dropped.
pub(super) struct House {
    pub port: u16,
    pub door: Door,
    /// Bytes a second that leave it at most.
    pub rate: Option<f64>,
    stocks: Stocks,
    _guests: JoinSet<()>,
}

impl House {
    /// `address`: where to listen; none: on all addresses, and any port. `places`: for children.
    ///
    /// Errors: the address cannot be listened on.
    pub async fn open(
        address: Option<SocketAddr>,
        limit: Option<Limit>,
        door: Door,
        places: Places,
    ) -> io::Result<Self> {
        gate::allow_files();
        let listener = match address {
            Some(address) => port::listen(address)?,
            None => port::listen_everywhere(0)?,
        };
        let port = listener.local_addr()?.port();
        let rate = limit.as_ref().map(Limit::rate);
        let (stocks, limit) = (Stocks::default(), limit.map(Arc::new));
        let mut guests = JoinSet::new();
        guests.spawn(serve_all(
            listener,
            stocks.clone(),
            limit,
            door.clone(),
            places,
        ));
        Ok(Self {
            port,
            door,
            rate,
            stocks,
            _guests: guests,
        })
    }

    /// From now on this is to be had here, too.
    pub fn give(&self, transfer: &Arc<Transfer>) {
        let mut all = self.stocks.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(transfer.clone());
    }
}

/// Whoever asks for a frame by itself has had it as it should not be; it may be so here.
fn look(transfer: &Transfer, frame: u32) {
    if let Some(remembered) = &transfer.remembered {
        remembered.look(transfer, frame);
    }
}

/// A disk that does not give back what was put there: hosts would come for it again and again.
fn unreadable(transfer: &Transfer, why: &io::Error) {
    if why.raw_os_error() == Some(libc::EIO)
        && let Some(remembered) = &transfer.remembered
    {
        remembered.forget(transfer, &why.to_string());
    }
}

async fn serve_all(
    listener: TcpListener,
    stocks: Stocks,
    limit: Option<Arc<Limit>>,
    door: Door,
    places: Places,
) {
    let gate = Gate::new(places);
    let mut children = JoinSet::new();
    loop {
        tokio::select! {
            child = port::accept(&listener) => {
                let Ok((stream, from)) = child else {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let (stocks, limit, door) = (stocks.clone(), limit.clone(), door.clone());
                let guest = gate.guest().await;
                children.spawn(async move {
                    gate::watch_over(&stream);
                    let who = from.ip().to_string();
                    let accepted = timeout(GONE, door.accept(stream, &who));
                    let Some(Ok(Ok(mut stream))) = guest.says(accepted).await else {
                        return;
                    };
                    let hello = {
                        let mut reader = BufReader::with_capacity(1 << 10, &mut stream);
                        guest.says(timeout(GONE, wire::read_line::<Hello>(&mut reader))).await
                    };
                    if let Some(Ok(Ok(Some(Hello::Want(want))))) = hello
                        && let Some(transfer) = stocks.find(want.id)
                        && let Some(place) = guest.enter(from.ip())
                    {
                        if want.single {
                            let transfer = transfer.clone();
                            let looks = move || look(&transfer, want.frame);
                            let _ = spawn_blocking(looks).await;
                        }
                        let served = serve::serve(&mut stream, &transfer, want, limit.as_deref());
                        if let Some(Err(why)) = place.hold(served).await {
                            unreadable(&transfer, &why);
                        }
                    }
                });
            }
            Some(_) = children.join_next() => {}
        }
    }
}

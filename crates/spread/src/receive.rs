//! A host that takes what sources offer, and passes it on: its connections, and what comes and is here.

mod flow;
mod offer;
mod session;

use crate::gate::{self, Gate, Guest};
use crate::manifest::{Header, Id};
use crate::place;
use crate::places::Places;
use crate::port;
use crate::serve;
use crate::sign::Key;
use crate::stream::{Door, Stream};
use crate::tls::{self, Tls};
use crate::transfer::Transfer;
use crate::wire::{self, FromReceiver, Hello};
use std::collections::HashMap;
use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, Chain, ReadHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

/// A first line that takes longer is none.
const HELLO: Duration = Duration::from_secs(5);

/// So often the source is told how far it is.
const REPORT: Duration = Duration::from_millis(100);

/// What the source does not take in this time, it will not.
const SAY: Duration = Duration::from_secs(2);

/// Children that are served at once; and those that come from one address, behind which there may be many hosts.
const CHILDREN: usize = 192;
const OF_ADDRESS: usize = 32;

/// Offers that are looked at, or whose sources have heard that all is here. With one more, the oldest of these is closed.
const OFFERS: usize = 64;

/// Transfers that are whole and can still be had from here.
const KEPT: usize = 8;

pub struct Options {
    /// Where files go.
    pub into: PathBuf,
    /// Whose transfers are taken.
    pub keys: Vec<Key>,
    /// May a file that did not come from a source be replaced?
    pub replace: bool,
    /// A tree of which the version before is here is changed where it is, and not replaced as a whole.
    pub in_place: bool,
    /// All connections are private; none: all are plain.
    pub tls: Option<Arc<Tls>>,
}

/// What happens, for whoever shows it.
#[derive(Debug)]
pub enum Event {
    Begun {
        header: Header,
        from: SocketAddr,
        /// How far it is.
        transfer: Arc<Transfer>,
    },
    Done {
        header: Header,
    },
    Failed {
        header: Header,
        why: String,
    },
    /// `name`: of what was offered, if that was looked at.
    Refused {
        name: Option<String>,
        from: SocketAddr,
        why: String,
    },
}

struct Hub {
    options: Options,
    told: Box<dyn Fn(Event) + Send + Sync>,
    transfers: Mutex<Vec<(Id, Arc<Transfer>)>>,
    coming: Mutex<HashMap<String, Comes>>,
    /// For sources to which nothing is to be said any more than that all is here: whoever repeats offers must not have
    /// connections without end.
    offers: Gate,
}

/// What comes under a name.
struct Comes {
    created: u64,
    /// Which run of the source brings it, and what that calls this host.
    run: String,
    host: String,
    /// Ends it.
    ended: Arc<Notify>,
}

impl Hub {
    fn door(&self) -> Door {
        Door(self.options.tls.clone())
    }

    fn transfer(&self, id: Id) -> Option<Arc<Transfer>> {
        let transfers = self
            .transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        transfers
            .iter()
            .find(|(one, _)| *one == id)
            .map(|(_, transfer)| transfer.clone())
    }

    /// What comes under this name is over, unless something newer has taken its place.
    fn forget(&self, name: &str, ended: &Arc<Notify>) {
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if coming
            .get(name)
            .is_some_and(|now| Arc::ptr_eq(&now.ended, ended))
        {
            coming.remove(name);
        }
    }

    /// What failed is not to be had from here: its files are closed, and take no room any more.
    fn let_go(&self, transfer: &Arc<Transfer>) {
        let mut transfers = self
            .transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        transfers.retain(|(_, one)| !Arc::ptr_eq(one, transfer));
    }

    /// This one has its name now. What had that before has lost it, and takes no room any more.
    fn settled(&self, transfer: &Arc<Transfer>) {
        let name = &transfer.header.name;
        let mut transfers = self
            .transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        transfers.retain(|(_, one)| {
            one.header.name != *name || !one.complete() || Arc::ptr_eq(one, transfer)
        });
    }

    fn add(&self, transfer: &Arc<Transfer>) {
        let mut transfers = self
            .transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let id = transfer.header.id;
        transfers.retain(|(one, _)| *one != id);
        transfers.push((id, transfer.clone()));
        let whole = |(_, transfer): &(Id, Arc<Transfer>)| {
            transfer.complete() || transfer.failed().is_some()
        };
        while transfers.len() > KEPT
            && let Some(oldest) = transfers.iter().position(whole)
        {
            transfers.remove(oldest);
        }
    }
}

/// Takes what comes, until it is dropped.
pub async fn receive(
    listener: TcpListener,
    options: Options,
    told: impl Fn(Event) + Send + Sync + 'static,
) -> io::Result<()> {
    let hub = Arc::new(Hub {
        options,
        told: Box::new(told),
        transfers: Mutex::default(),
        coming: Mutex::default(),
        offers: Gate::with(OFFERS, Places::new(0, 0)),
    });
    gate::allow_files();
    // Nobody should have to wait for the next version to have this one.
    let directory = hub.options.into.clone();
    spawn_blocking(move || place::recover_trees(&directory)).await?;
    let mut connections = JoinSet::new();
    let gate = Gate::new(Places::new(CHILDREN, OF_ADDRESS));
    loop {
        tokio::select! {
            connection = port::accept(&listener) => match connection {
                Ok((stream, from)) => {
                    let (hub, guest) = (hub.clone(), gate.guest().await);
                    connections.spawn(async move {
                        // Whoever breaks off has gone; others tell the source, if it concerns it.
                        let _ = connection_from(&hub, guest, stream, from).await;
                    });
                }
                // Too many open files, or the like: it passes.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection_from(
    hub: &Arc<Hub>,
    guest: Guest,
    stream: TcpStream,
    from: SocketAddr,
) -> io::Result<()> {
    gate::watch_over(&stream);
    let who = from.ip().to_string();
    let Some(accepted) = guest
        .says(timeout(HELLO, hub.door().accept(stream, &who)))
        .await
    else {
        return Ok(());
    };
    let mut stream = match accepted? {
        Ok(stream) => stream,
        Err(e) => {
            if tls::is_final(&e) {
                let (name, why) = (None, e.to_string());
                (hub.told)(Event::Refused { name, from, why });
            }
            return Err(e);
        }
    };
    let (hello, rest) = {
        let mut reader = BufReader::with_capacity(1 << 10, &mut stream);
        let hello = guest.says(timeout(HELLO, wire::read_line::<Hello>(&mut reader)));
        match hello.await {
            Some(hello) => (hello??, reader.buffer().to_vec()),
            None => return Ok(()),
        }
    };
    match hello {
        Some(Hello::Want(want)) => match (hub.transfer(want.id), guest.enter(from.ip())) {
            (Some(transfer), Some(place)) => {
                let served = serve::serve(&mut stream, &transfer, want, None);
                place.hold(served).await.unwrap_or(Ok(()))
            }
            _ => Ok(()),
        },
        Some(Hello::Offer(offer)) => {
            let Some(source) = guest.says(hub.offers.guest()).await else {
                return Ok(());
            };
            drop(guest);
            let (reader, mut writer) = tokio::io::split(stream);
            // What has come with the offer is before the rest.
            let lines = Lines::new(BufReader::new(Cursor::new(rest).chain(reader)));
            if let Err(why) = offer::offered(hub, lines, &mut writer, &offer, from, source).await {
                let reason = why.to_string();
                wire::write_line(&mut writer, &FromReceiver::Refuse { reason }).await?;
                writer.shutdown().await?;
            }
            Ok(())
        }
        None => Ok(()),
    }
}

type Lines = wire::Lines<BufReader<Chain<Cursor<Vec<u8>>, ReadHalf<Stream>>>>;

//! The connection on which a source leads one host.

use super::GONE;
use crate::gate;
use crate::manifest::Hash;
use crate::stream::Door;
use crate::tls;
use crate::transfer::Transfer;
use crate::wire::{self, FromReceiver, Hello, Offer, ToReceiver};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// So often a host that is not there is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// A host's name, as it is listed, without its port.
pub(super) fn host_of(listed: &str) -> String {
    let port = |end: &str| !end.is_empty() && end.bytes().all(|b| b.is_ascii_digit());
    match listed.rsplit_once(':') {
        Some((name, end)) if port(end) && listed.parse::<std::net::IpAddr>().is_err() => {
            name.trim_matches(['[', ']']).to_owned()
        }
        _ => listed.to_owned(),
    }
}

const CLOSED: &str = "nothing listens at ";

/// Says this note that nobody listens at a host's port?
pub(super) fn is_closed(note: &str) -> bool {
    note.contains(CLOSED)
}

/// Makes a connection to a host. Errors say to which address, which its name need not tell.
pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let why = match timeout(GONE, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(why)) => why,
        Err(_) => {
            let why = format!("no answer from {address} in {} s", GONE.as_secs_f32());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
    };
    Err(match why.kind() {
        io::ErrorKind::ConnectionRefused => {
            io::Error::new(why.kind(), format!("{CLOSED}{address}: {why}"))
        }
        kind => io::Error::new(kind, format!("{address}: {why}")),
    })
}

/// What a link says of its host.
pub(super) enum Said {
    /// It is there; this is how it reaches the source, and the hash of its certificate.
    Here(SocketAddr, Option<Hash>),
    Line(FromReceiver),
    Gone(String),
    /// Its turn has come; `false`: it never will.
    Turn(bool),
}

/// The connection to a host, made again whenever it breaks.
pub(super) struct Link {
    pub host: usize,
    pub name: String,
    /// Which run of the source this is.
    pub run: String,
    pub address: SocketAddr,
    pub door: Door,
    pub port: u16,
    /// It is only asked whether it has it.
    pub ask: bool,
    pub transfer: Arc<Transfer>,
    pub say: mpsc::Sender<(usize, Said)>,
}

impl Link {
    /// Begins when this host's turn has come, if it ever does.
    pub async fn in_turn(
        self,
        turn: oneshot::Receiver<()>,
        mut orders: mpsc::UnboundedReceiver<ToReceiver>,
    ) {
        tokio::pin!(turn);
        let comes = loop {
            tokio::select! {
                turn = &mut turn => break turn.is_ok(),
                order = orders.recv() => if matches!(order, None | Some(ToReceiver::Bye)) {
                    return;
                },
            }
        };
        let _ = self.say.send((self.host, Said::Turn(comes))).await;
        if comes {
            self.keep(orders).await;
        }
    }

    pub async fn keep(self, mut orders: mpsc::UnboundedReceiver<ToReceiver>) {
        loop {
            match self.once(&mut orders).await {
                Ok(()) => return,
                Err(why) => {
                    let why = self.door.explain(why, &self.name);
                    if tls::is_final(&why) {
                        let reason = why.to_string();
                        let refused = Said::Line(FromReceiver::Refuse { reason });
                        let _ = self.say.send((self.host, refused)).await;
                        return;
                    }
                    let gone = Said::Gone(why.to_string());
                    if self.say.send((self.host, gone)).await.is_err() {
                        return;
                    }
                }
            }
            sleep(RETRY).await;
            while let Ok(order) = orders.try_recv() {
                if order == ToReceiver::Bye {
                    return;
                }
            }
        }
    }

    /// Ends well when there is nothing more to be said to this host.
    async fn once(&self, orders: &mut mpsc::UnboundedReceiver<ToReceiver>) -> io::Result<()> {
        let stream = connect(self.address).await?;
        gate::watch_over(&stream);
        let source = SocketAddr::new(stream.local_addr()?.ip(), self.port);
        let (stream, mark) = timeout(GONE, self.door.to_host(stream, &self.name)).await??;
        let (reader, mut writer) = tokio::io::split(stream);
        let mut lines = wire::Lines::new(BufReader::new(reader));
        let offer = Offer {
            header: self.transfer.line.clone(),
            signature: self.transfer.proof.clone(),
            ask: self.ask,
            run: self.run.clone(),
            host: self.name.clone(),
        };
        wire::write_line(&mut writer, &Hello::Offer(offer)).await?;
        let _ = self.say.send((self.host, Said::Here(source, mark))).await;
        // Looking at what is there from earlier may take long.
        let mut patience = Duration::from_secs(600);
        let mut accepted = false;
        loop {
            tokio::select! {
                line = timeout(patience, lines.next::<FromReceiver>()) => {
                    let Some(line) = line?? else {
                        return Err(io::Error::other("it has closed the connection"));
                    };
                    patience = match line {
                        FromReceiver::Done => Duration::from_secs(86400),
                        _ => GONE,
                    };
                    let accepts = matches!(line, FromReceiver::Accept { .. });
                    let looks = matches!(line, FromReceiver::Looking | FromReceiver::Looked(_));
                    let refuses = matches!(line, FromReceiver::Refuse { .. });
                    // First it looks, then it accepts, and once. That a tree is no base may show later.
                    let fails = matches!(line, FromReceiver::Failed { .. } | FromReceiver::NoBase);
                    let early = accepts || refuses || looks;
                    // Whoever misses a base where there is none would get nothing, and nobody would know why.
                    let misses = line == FromReceiver::NoBase && self.transfer.header.base.is_none();
                    if misses || accepted && early || !(accepted || early || fails) {
                        return Err(io::Error::other("it does not keep to the protocol"));
                    }
                    accepted |= accepts;
                    let last = matches!(line, FromReceiver::Refuse { .. } | FromReceiver::NoBase | FromReceiver::Failed { .. });
                    let _ = self.say.send((self.host, Said::Line(line))).await;
                    if last {
                        return Ok(());
                    }
                }
                order = orders.recv() => {
                    let Some(order) = order else {
                        return Ok(());
                    };
                    let bye = order == ToReceiver::Bye;
                    wire::write_line(&mut writer, &order).await?;
                    if bye {
                        return Ok(());
                    }
                }
            }
        }
    }
}

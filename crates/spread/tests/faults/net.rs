//! A network inside this process: between every two hosts a link that can fall silent, be slow, be late, or break.
//!
//! Each link is a listener of its own, so a link is told from another by its address. Hosts learn addresses from the
//! source; the links from the source to the hosts, on which these lines go, put those of the host's own links in their
//! place. A simulated network as turmoil's would need its own types in place of tokio's sockets, and has no sendfile; so
//! these are real sockets, and real time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;

/// The source's number; hosts follow.
pub const SOURCE: usize = 0;

#[derive(Default)]
pub struct Link {
    /// Nothing goes through, and nobody is told.
    silent: AtomicBool,
    /// Bytes a second; 0: as they come.
    rate: AtomicU64,
    delay_ms: AtomicU64,
    /// Breaks what is connected.
    broken: Notify,
}

impl Link {
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    pub fn set_delay(&self, ms: u64) {
        self.delay_ms.store(ms, Ordering::Relaxed);
    }

    pub fn reset(&self) {
        self.broken.notify_waiters();
    }

    /// Lets so many bytes through, when it is their turn.
    async fn pass(&self, bytes: usize) {
        let rate = self.rate.load(Ordering::Relaxed);
        let ms = self.delay_ms.load(Ordering::Relaxed);
        let time = match rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(bytes as f64 / rate as f64),
        };
        if rate > 0 || ms > 0 {
            sleep(time + Duration::from_millis(ms)).await;
        }
        while self.silent.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(2)).await;
        }
    }
}

#[derive(Default)]
pub struct Net {
    links: Mutex<HashMap<(usize, usize), Arc<Link>>>,
    /// Where each link is entered.
    doors: Mutex<HashMap<(usize, usize), SocketAddr>>,
    /// Ports that nobody listens at, and nobody else gets.
    walls: Mutex<Vec<TcpSocket>>,
    /// How often a host has told the source that it cannot reach its parent.
    pub unreached: AtomicU64,
}

impl Net {
    pub fn link(&self, from: usize, to: usize) -> Arc<Link> {
        let mut links = self.links.lock().unwrap();
        links.entry((from, to)).or_default().clone()
    }

    /// All links between these two groups, in both directions.
    pub fn between(&self, some: &[usize], others: &[usize]) -> Vec<Arc<Link>> {
        let pairs = some
            .iter()
            .flat_map(|a| others.iter().map(move |b| (*a, *b)));
        pairs
            .flat_map(|(a, b)| [self.link(a, b), self.link(b, a)])
            .collect()
    }

    /// The address under which `from` reaches `to`, which listens at `target`.
    pub fn door(self: &Arc<Self>, from: usize, to: usize, target: SocketAddr) -> SocketAddr {
        if let Some(known) = self.doors.lock().unwrap().get(&(from, to)) {
            return *known;
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap();
        self.doors.lock().unwrap().insert((from, to), address);
        let net = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let net = net.clone();
                tokio::spawn(async move {
                    let link = net.link(from, to);
                    tokio::select! {
                        () = net.carry(from, to, target, stream) => {}
                        () = link.broken.notified() => {}
                    }
                });
            }
        });
        address
    }

    /// No connection can be made between these two.
    pub fn wall(&self, one: usize, other: usize) {
        for pair in [(one, other), (other, one)] {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = socket.local_addr().unwrap();
            self.doors.lock().unwrap().insert(pair, address);
            self.walls.lock().unwrap().push(socket);
        }
    }

    async fn carry(
        self: &Arc<Self>,
        from: usize,
        to: usize,
        target: SocketAddr,
        stream: TcpStream,
    ) {
        let there = self.link(from, to);
        let back = self.link(to, from);
        there.pass(0).await;
        let Ok(far) = TcpStream::connect(target).await else {
            return;
        };
        let _ = (stream.set_nodelay(true), far.set_nodelay(true));
        let ((a_in, a_out), (b_in, b_out)) = (stream.into_split(), far.into_split());
        match from {
            SOURCE => {
                let names = |line: String| self.for_host(to, line);
                let said = |line: String| self.for_source(to, line);
                tokio::join!(
                    lines(a_in, b_out, &there, names),
                    lines(b_in, a_out, &back, said)
                );
            }
            _ => {
                tokio::join!(bytes(a_in, b_out, &there), bytes(b_in, a_out, &back));
            }
        }
    }

    /// What the source says to a host, with that host's own links.
    fn for_host(self: &Arc<Self>, host: usize, line: String) -> String {
        let Ok(mut said) = serde_json::from_str::<serde_json::Value>(&line) else {
            return line;
        };
        let Some(parents) = said.get_mut("parents").and_then(|p| p.as_array_mut()) else {
            return line;
        };
        for parent in parents {
            let address: SocketAddr = parent.as_str().unwrap().parse().unwrap();
            let known = self.doors.lock().unwrap().clone();
            let named = known
                .iter()
                .find(|((from, _), at)| *from == SOURCE && **at == address);
            let own = match named {
                // The source does not know what its own link leads to; the door there was made before.
                Some(((_, to), _)) => known[&(host, *to)],
                None => self.door(host, SOURCE, address),
            };
            *parent = own.to_string().into();
        }
        format!("{said}\n")
    }

    /// What a host says to the source, with the source's links.
    fn for_source(&self, host: usize, mut line: String) -> String {
        let unreached = line.contains("\"unreached\":true");
        self.unreached
            .fetch_add(u64::from(unreached), Ordering::Relaxed);
        let doors = self.doors.lock().unwrap();
        let own = doors
            .iter()
            .filter(|((from, to), _)| *from == host && *to != SOURCE);
        for ((_, to), address) in own {
            line = line.replace(
                &format!("\"{address}\""),
                &format!("\"{}\"", doors[&(SOURCE, *to)]),
            );
        }
        line
    }
}

/// Ends when one side has closed; then what it wrote to is closed, too.
async fn bytes(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: &Link) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        link.pass(count).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn lines(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    link: &Link,
    change: impl Fn(String) -> String,
) {
    let mut from = BufReader::new(from);
    let mut line = String::new();
    while let Ok(1..) = from.read_line(&mut line).await {
        link.pass(line.len()).await;
        let changed = change(std::mem::take(&mut line));
        if to.write_all(changed.as_bytes()).await.is_err() {
            return;
        }
    }
}

//! A connection, plain or private, and how it is made.
//!
//! What is sent and read is the same on both. On a plain one the kernel sends from files by itself; on a private one bytes
//! come by here to be encrypted.

use crate::manifest::Hash;
use crate::sign::Key;
use crate::tls::{self, Tls, Untrusted};
use crate::verify::Peer;
use crate::wire::{self, FromReceiver};
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// The first byte of a connection with TLS; one without begins with a line of JSON.
const HANDSHAKE: u8 = 0x16;

pub enum Stream {
    Plain(TcpStream),
    Private(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// What the kernel has of it.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Private(tls) => tls.get_ref().0,
        }
    }
}

/// How this host takes connections, and makes them to hosts by name.
#[derive(Clone)]
pub struct Door(pub Option<Arc<Tls>>);

impl Door {
    /// Takes a connection. Whoever comes the other way, or with a wrong certificate, hears why.
    pub async fn accept(&self, tcp: TcpStream, who: &str) -> io::Result<Stream> {
        let mut first = [0];
        let some = tcp.peek(&mut first).await? > 0;
        match &self.0 {
            None if some && first[0] == HANDSHAKE => {
                // It takes what is no TLS for what it is.
                let why = "it comes with TLS, and here all is plain: --private takes it";
                refuse(tcp, "plain connections only").await;
                Err(io::Error::other(Untrusted(why.to_owned())))
            }
            None => Ok(Stream::Plain(tcp)),
            Some(_) if some && first[0] != HANDSHAKE => {
                refuse(tcp, "it takes only what is sent with --private").await;
                let why =
                    "it comes without TLS, and here all is private: it has to send with --private";
                Err(io::Error::other(Untrusted(why.to_owned())))
            }
            Some(tls) => match tls.accept(tcp).await {
                Ok(stream) => Ok(Stream::Private(Box::new(stream))),
                Err(e) => Err(tls.explain(e, who)),
            },
        }
    }

    /// Makes a connection to the host of this name. Says what certificate it has.
    pub async fn to_host(&self, tcp: TcpStream, name: &str) -> io::Result<(Stream, Option<Hash>)> {
        let Some(tls) = &self.0 else {
            return Ok((Stream::Plain(tcp), None));
        };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let (stream, mark) = tls.connect(tcp, Peer::Named(name)).await?;
        Ok((Stream::Private(Box::new(stream)), Some(mark)))
    }

    pub fn explain(&self, error: io::Error, who: &str) -> io::Error {
        match &self.0 {
            Some(tls) => tls.explain(error, who),
            None => error,
        }
    }

    /// The hash of this host's certificate.
    pub fn mark(&self) -> Option<Hash> {
        self.0.as_ref().map(|tls| tls.mark())
    }
}

async fn refuse(mut tcp: TcpStream, reason: &str) {
    let reason = reason.to_owned();
    let _ = wire::write_line(&mut tcp, &FromReceiver::Refuse { reason }).await;
    tls::farewell(tcp).await;
}

/// Whom a receiver believes, in one transfer.
pub struct Trust {
    /// Who has signed it.
    pub key: Key,
    door: Door,
    /// Hashes of the parents' certificates, as the source knows them.
    met: Mutex<HashMap<SocketAddr, Hash>>,
}

impl Trust {
    pub fn new(key: Key, door: Door) -> Self {
        Self {
            key,
            door,
            met: Mutex::default(),
        }
    }

    /// What the source says of hosts that it will name. Of those before, only what `named` still need is kept: whoever
    /// says this again and again must not fill the memory.
    pub fn meet(&self, hosts: Vec<(SocketAddr, String)>, named: &[SocketAddr]) {
        if self.door.0.is_none() {
            return;
        }
        let known = hosts.into_iter().filter_map(|(host, mark)| {
            let mark = blake3::Hash::from_hex(mark).ok()?;
            Some((host, *mark.as_bytes()))
        });
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.retain(|host, _| named.contains(host));
        met.extend(known);
    }

    /// Makes a connection to a parent.
    pub async fn connect(&self, parent: SocketAddr) -> io::Result<Stream> {
        let tcp = TcpStream::connect(parent).await?;
        let _ = tcp.set_nodelay(true);
        let Some(tls) = &self.door.0 else {
            return Ok(Stream::Plain(tcp));
        };
        let met = {
            let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
            met.get(&parent).copied()
        };
        let unknown = || io::Error::other("the source has not said what certificate it has");
        let connected = tls.connect(tcp, Peer::Met(met.ok_or_else(unknown)?)).await;
        match connected {
            Ok((stream, _)) => Ok(Stream::Private(Box::new(stream))),
            Err(e) => Err(tls.explain(e, &parent.to_string())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tls = match self.get_mut() {
            Self::Plain(tcp) => return Pin::new(tcp).poll_read(cx, buf),
            Self::Private(tls) => tls,
        };
        // One record at a time is little for those who take what comes by hundreds of KiB.
        let before = buf.filled().len();
        loop {
            let had = buf.filled().len();
            match Pin::new(&mut **tls).poll_read(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() > had && buf.remaining() > 0 => {}
                // It has closed without a farewell. The end of what is sent here is signed, so this is no more than that.
                Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending | Poll::Ready(Err(_)) if had > before => return Poll::Ready(Ok(())),
                other => return other,
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Private(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, pieces),
            Self::Private(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Private(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Private(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::authority::Authority;
    use crate::manifest::hex;
    use crate::sign::Signer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn tls(ca: &Authority, directory: &std::path::Path, host: &str) -> Arc<Tls> {
        let file = directory.join(host);
        Authority::save(&ca.bundle(host, 1).unwrap(), &file).unwrap();
        Arc::new(Tls::load(&file).unwrap())
    }

    /// Whoever had recorded an offer could name certificates without end, also on plain connections, and all were kept.
    #[test]
    fn certificates_of_hosts_that_are_not_named_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::load_or_make(&dir.path().join("ca")).unwrap();
        let key = Signer::new().unwrap().key();
        let private = Door(Some(tls(&ca, dir.path(), "a")));
        for (door, kept) in [(Door(None), 0), (private, 2)] {
            let trust = Trust::new(key.clone(), door);
            let host = |port| SocketAddr::from(([127, 0, 0, 1], port));
            for port in 1..1000 {
                let mark = hex(&[7; 32]);
                trust.meet(vec![(host(port), mark)], &[host(7)]);
                trust.meet(vec![(host(port), "x".repeat(60 << 10))], &[host(7)]);
                trust.meet(vec![(host(port), hex(&[7; 32]))], &[host(7)]);
            }
            assert_eq!(trust.met.lock().unwrap().len(), kept);
        }
    }

    /// A host of the same cluster, with a good bundle, that has taken the place of a parent in the network: children do
    /// not tell it what they want.
    #[tokio::test]
    async fn another_host_cannot_stand_in_for_a_parent() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::load_or_make(&dir.path().join("ca")).unwrap();
        let (parent, child) = (tls(&ca, dir.path(), "a"), tls(&ca, dir.path(), "b"));
        let evil = tls(&ca, dir.path(), "evil");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let trust = Trust::new(Signer::new().unwrap().key(), Door(Some(child)));
        let why = trust.connect(address).await.err().unwrap().to_string();
        assert!(why.contains("has not said what certificate"), "{why}");
        drop(listener.accept().await.unwrap());
        trust.meet(vec![(address, hex(&parent.mark()))], &[]);
        for (door, right) in [(Door(Some(evil)), false), (Door(Some(parent)), true)] {
            let accepted = async {
                let (tcp, from) = listener.accept().await.unwrap();
                let mut stream = door.accept(tcp, &from.to_string()).await?;
                stream.write_all(b"frames").await?;
                stream.shutdown().await
            };
            let asked = async {
                let mut text = String::new();
                trust
                    .connect(address)
                    .await?
                    .read_to_string(&mut text)
                    .await?;
                io::Result::Ok(text)
            };
            let (accepted, asked) = tokio::join!(accepted, asked);
            assert_eq!(accepted.is_ok(), right, "{accepted:?}");
            match right {
                true => assert_eq!(asked.unwrap(), "frames"),
                false => {
                    let why = asked.unwrap_err().to_string();
                    assert!(
                        why.contains("is not the host that the source has met"),
                        "{why}"
                    );
                }
            }
        }
    }
}

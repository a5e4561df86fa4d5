//! What is said between hosts.
//!
//! Every connection begins with one line of JSON, which says what it is for ([`Hello`]). On a connection for control
//! both sides go on in lines of JSON ([`ToReceiver`], [`FromReceiver`]). On one for data the child has said where it
//! stands, and the parent answers with messages: four bytes, little-endian, of which the lower 24 bits are the length of
//! what follows and the upper 8 the kind.

use crate::manifest::{Bad, Id};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

/// Longest line.
const LINE: usize = 64 << 10;

/// A parent that has nothing to send says so this often.
pub const BEAT: Duration = Duration::from_millis(100);

/// A child that has heard nothing for so long takes its parent for lost.
pub const SILENCE: Duration = Duration::from_millis(400);

/// A connection inside a LAN that takes longer will not come.
pub const CONNECT: Duration = Duration::from_millis(500);

/// Why a host that is only asked refuses what it would take.
pub const LACKS: &str = "it does not have it";

/// The first line of a connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hello {
    Offer(Offer),
    Want(Want),
}

/// A source has something for this host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// The line of the header, as it was signed.
    pub header: String,
    pub signature: String,
    /// Whoever does not have all of it shall not get it, but say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ask: bool,
    /// Which run of the source this is: random. Empty: it does not say.
    #[serde(default)]
    pub run: String,
    /// What the source calls this host.
    #[serde(default)]
    pub host: String,
}

/// A child asks for all that follows, or for one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    pub id: Id,
    pub frame: u32,
    /// Bytes of that frame that are here.
    pub offset: u32,
    /// Pages that are here.
    pub pages: u32,
    /// Only that frame.
    pub single: bool,
}

/// From the source, which leads, to a receiver.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToReceiver {
    /// How these hosts are known again, on private connections: hash of their certificates.
    Certificates(Vec<(SocketAddr, String)>),
    /// Whom to ask, in this order.
    Parents(Vec<SocketAddr>),
    /// All is over; keep what is whole.
    Bye,
}

/// From a receiver to the source.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromReceiver {
    /// It looks at what is here, and will answer. Said again and again until then.
    Looking,
    /// The same, and so many frames have been read for it, as they are or compressed.
    Looked(u32),
    Accept {
        /// Frames that are here from earlier.
        frames: u32,
        /// All of it is here under its name. Can others have it from here?
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gives: Option<bool>,
    },
    Refuse {
        reason: String,
    },
    /// The version that this is made from is not here.
    NoBase,
    Report(Report),
    /// This parent no longer answers, or what it sends is not right.
    Lost {
        parent: SocketAddr,
        why: String,
        /// No connection to it could be made.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unreached: bool,
    },
    /// What this parent sent as good was not.
    Spoilt {
        parent: SocketAddr,
        frame: u32,
    },
    Done,
    Failed {
        reason: String,
    },
}

/// How far a receiver is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Where it stands in the flow.
    pub frame: u32,
    /// Bytes that came, since the beginning.
    pub received: u64,
    /// Frames that are whole and checked.
    pub good: u32,
    /// Whom it has them from at the moment.
    pub parent: Option<SocketAddr>,
}

/// Kinds of messages on a connection for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A page: length of its bytes (u32), the bytes, their signature.
    Page = 1,
    /// What follows is of this frame (u32), from this offset (u32) on.
    Frame = 2,
    Data = 3,
    /// This frame (u32) is not good here; ask for it again later.
    Bad = 4,
    /// Nothing to send at the moment.
    Beat = 5,
    /// That was all: the manifest's signature.
    End = 6,
    /// There will be no more: why.
    Failed = 7,
}

/// Longest message other than data: a page with its signature.
pub const LONGEST: u32 = 64 << 10;

impl Kind {
    pub fn head(self, len: usize) -> [u8; 4] {
        ((self as u32) << 24 | len as u32).to_le_bytes()
    }

    /// Reads the first four bytes of a message: kind and length.
    pub fn read(head: [u8; 4]) -> Result<(Self, u32), Bad> {
        let word = u32::from_le_bytes(head);
        let len = word & 0xff_ffff;
        let (kind, most) = match word >> 24 {
            1 => (Self::Page, LONGEST),
            2 => (Self::Frame, 8),
            3 => (Self::Data, crate::manifest::FRAME),
            4 => (Self::Bad, 4),
            5 => (Self::Beat, 0),
            6 => (Self::End, LONGEST),
            7 => (Self::Failed, LONGEST),
            other => return Err(Bad(format!("a message of kind {other}"))),
        };
        match len <= most {
            true => Ok((kind, len)),
            false => Err(Bad(format!("a message of {len} bytes"))),
        }
    }
}

/// Reads a line of JSON. `None`: the other side has closed the connection.
pub async fn read_line<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> std::io::Result<Option<T>> {
    Lines::new(from).next().await
}

/// Lines of JSON, one after another.
pub struct Lines<R> {
    from: R,
    /// What is here of the next one.
    line: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub fn new(from: R) -> Self {
        let line = Vec::new();
        Self { from, line }
    }

    /// The next one; `None`: the other side has closed the connection. May be dropped at any moment: what has come of a
    /// line is kept.
    pub async fn next<T: DeserializeOwned>(&mut self) -> std::io::Result<Option<T>> {
        let invalid = |why: String| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
        loop {
            let piece = self.from.fill_buf().await?;
            if piece.is_empty() {
                return match self.line.is_empty() {
                    true => Ok(None),
                    false => Err(std::io::ErrorKind::UnexpectedEof.into()),
                };
            }
            let end = piece.iter().position(|b| *b == b'\n');
            let used = end.map_or(piece.len(), |end| end + 1);
            self.line.extend_from_slice(&piece[..used]);
            self.from.consume(used);
            if self.line.len() > LINE {
                return Err(invalid("a line that is too long".to_owned()));
            }
            if end.is_some() {
                let read = serde_json::from_slice(&self.line);
                self.line.clear();
                return read.map(Some).map_err(|e| invalid(e.to_string()));
            }
        }
    }
}

pub async fn write_line(
    to: &mut (impl AsyncWrite + Unpin),
    what: &impl Serialize,
) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn heads_there_and_back_and_wrong_ones() {
        assert_eq!(
            Kind::read(Kind::Data.head(1000)).unwrap(),
            (Kind::Data, 1000)
        );
        assert_eq!(Kind::read(Kind::Beat.head(0)).unwrap(), (Kind::Beat, 0));
        assert!(Kind::read([1, 0, 0, 5]).is_err(), "a beat of one byte");
        assert!(Kind::read([255, 255, 255, 3]).is_err(), "too much data");
        assert!(Kind::read([0, 0, 0, 99]).is_err(), "no such kind");
    }

    /// A line that came in two parts was lost when something else happened in between.
    #[tokio::test]
    async fn half_a_line_is_kept_while_something_else_happens() {
        let (mut one, other) = tokio::io::duplex(64);
        let mut lines = Lines::new(tokio::io::BufReader::new(other));
        one.write_all(b"\"b").await.unwrap();
        tokio::select! {
            biased;
            _ = lines.next::<ToReceiver>() => panic!("half a line"),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
        one.write_all(b"ye\"\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap(), Some(ToReceiver::Bye));
    }

    #[tokio::test]
    async fn lines_have_an_end() {
        let line: Want =
            serde_json::from_str(r#"{"id":"00000000000000000000000000000000","frame":1,"offset":0,"pages":0,"single":false}"#)
                .unwrap();
        let mut out = Vec::new();
        write_line(&mut out, &Hello::Want(line)).await.unwrap();
        let mut from = out.as_slice();
        assert!(matches!(read_line(&mut from).await.unwrap(), Some(Hello::Want(w)) if w == line));
        assert!(read_line::<Hello>(&mut from).await.unwrap().is_none());
        let long = vec![b' '; 1 << 20];
        assert!(read_line::<Hello>(&mut long.as_slice()).await.is_err());
        assert!(read_line::<Hello>(&mut &b"{}"[..]).await.is_err());
    }
}

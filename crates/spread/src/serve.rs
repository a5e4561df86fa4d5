//! A parent's side: what a child wants, from memory or from disk.

use crate::transfer::{Cursor, Next, Place, Transfer};
use crate::wire::{BEAT, Kind, Want};
use bytes::Bytes;
use rustix::fs::sendfile;
use std::io::{self, IoSlice};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Most of a file that is sent without looking whether anything else is to be done.
const STEP: usize = 256 << 10;

/// Sends what the child wants until there is no more of it, or until the child goes.
pub async fn serve(
    stream: &mut TcpStream,
    transfer: &Transfer,
    want: Want,
    limit: Option<&crate::limit::Limit>,
) -> io::Result<()> {
    match want.single {
        true => one(stream, transfer, want.frame).await,
        false => flow(stream, transfer, want, limit).await,
    }
}

async fn flow(
    stream: &mut TcpStream,
    transfer: &Transfer,
    want: Want,
    limit: Option<&crate::limit::Limit>,
) -> io::Result<()> {
    let mut changes = transfer.watch();
    let mut cursor = Cursor {
        pages: want.pages,
        frame: want.frame,
        offset: want.offset,
        told: false,
    };
    let mut spoke = Instant::now();
    loop {
        let next = transfer.next(&mut cursor);
        let waits = matches!(next, Next::Wait);
        match next {
            Next::Page(page) => message(stream, Kind::Page, &page).await?,
            Next::Pieces(pieces) => {
                tell(stream, &mut cursor).await?;
                let len: usize = pieces.iter().map(Bytes::len).sum();
                if let Some(limit) = limit {
                    limit.take(len).await;
                }
                send(stream, &pieces, len).await?;
                cursor.offset += len as u32;
            }
            Next::Stock(place) => {
                tell(stream, &mut cursor).await?;
                if let Some(limit) = limit {
                    limit.take(place.len as usize).await;
                }
                send_place(stream, &place).await?;
                cursor.offset += place.len;
            }
            Next::Bad(index) => message(stream, Kind::Bad, &index.to_le_bytes()).await?,
            Next::End(seal) => {
                message(stream, Kind::End, seal.as_bytes()).await?;
                return stream.shutdown().await;
            }
            Next::Failed(why) => {
                message(stream, Kind::Failed, why.as_bytes()).await?;
                return stream.shutdown().await;
            }
            // What changes here need not be what this child waits for, who may be further: it hears that we are here.
            Next::Wait => {
                if timeout_at(spoke + BEAT, changes.changed()).await.is_err() {
                    message(stream, Kind::Beat, &[]).await?;
                    spoke = Instant::now();
                }
            }
        }
        if !waits {
            spoke = Instant::now();
        }
    }
}

/// One frame, as soon as it is good here. First comes whether it was bad here, too.
async fn one(stream: &mut TcpStream, transfer: &Transfer, index: u32) -> io::Result<()> {
    let mut changes = transfer.watch();
    let mut spoke = Instant::now();
    if transfer.was_bad(index) {
        message(stream, Kind::Bad, &index.to_le_bytes()).await?;
    }
    loop {
        if let Some(why) = transfer.failed() {
            return message(stream, Kind::Failed, why.as_bytes()).await;
        }
        if transfer.is_good(index)
            && let Some(place) = transfer.place(index)
        {
            let mut cursor = Cursor {
                pages: 0,
                frame: index,
                offset: 0,
                told: false,
            };
            tell(stream, &mut cursor).await?;
            send_place(stream, &place).await?;
            return stream.shutdown().await;
        }
        if timeout_at(spoke + BEAT, changes.changed()).await.is_err() {
            message(stream, Kind::Beat, &[]).await?;
            spoke = Instant::now();
        }
    }
}

async fn message(stream: &mut TcpStream, kind: Kind, what: &[u8]) -> io::Result<()> {
    let mut all = Vec::with_capacity(4 + what.len());
    all.extend(kind.head(what.len()));
    all.extend(what);
    stream.write_all(&all).await
}

/// Says of which frame and from where on the data is that follows.
async fn tell(stream: &mut TcpStream, cursor: &mut Cursor) -> io::Result<()> {
    if cursor.told {
        return Ok(());
    }
    cursor.told = true;
    let mut where_ = [0; 8];
    where_[..4].copy_from_slice(&cursor.frame.to_le_bytes());
    where_[4..].copy_from_slice(&cursor.offset.to_le_bytes());
    message(stream, Kind::Frame, &where_).await
}

async fn send(stream: &mut TcpStream, pieces: &[Bytes], len: usize) -> io::Result<()> {
    let head = Kind::Data.head(len);
    let mut slices = Vec::with_capacity(pieces.len() + 1);
    slices.push(IoSlice::new(&head));
    slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let sent = stream.write_vectored(rest).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, sent);
    }
    Ok(())
}

/// From disk to the network without coming by.
async fn send_place(stream: &mut TcpStream, place: &Place) -> io::Result<()> {
    stream
        .write_all(&Kind::Data.head(place.len as usize))
        .await?;
    let mut offset = place.offset;
    let mut left = place.len as usize;
    while left > 0 {
        stream.writable().await?;
        let sent = stream.try_io(Interest::WRITABLE, || {
            sendfile(&*stream, &*place.file, Some(&mut offset), left.min(STEP))
                .map_err(io::Error::from)
        });
        match sent {
            // The file has become shorter. The connection ends in the middle of a message.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(sent) => left -= sent,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

//! A parent's side: what a child wants, from disk to the network (`sendfile`).

use crate::transfer::{Cursor, Next, Place, Transfer};
use crate::wire::{BEAT, Kind, Want};
use rustix::fs::sendfile;
use rustix::net::SendFlags;
use std::io;
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
            Next::Stock(place) => {
                if let Some(limit) = limit {
                    limit.take(place.len as usize).await;
                }
                send(stream, &mut cursor, &place).await?;
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
            send(stream, &mut cursor, &place).await?;
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

/// Sends bytes of the cursor's frame; where they begin it, or its rest, which frame that is comes first.
async fn send(stream: &mut TcpStream, cursor: &mut Cursor, place: &Place) -> io::Result<()> {
    let mut heads = Vec::with_capacity(16);
    if !cursor.told {
        cursor.told = true;
        heads.extend(Kind::Frame.head(8));
        heads.extend(cursor.frame.to_le_bytes());
        heads.extend(cursor.offset.to_le_bytes());
    }
    heads.extend(Kind::Data.head(place.len as usize));
    // What follows goes into the same packets.
    let mut rest = heads.as_slice();
    while !rest.is_empty() {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let sent = when_writable(stream, |stream| rustix::net::send(stream, rest, flags)).await?;
        rest = &rest[sent..];
    }
    let mut offset = place.offset;
    let mut left = place.len as usize;
    while left > 0 {
        let most = left.min(STEP);
        let sent = when_writable(stream, |stream| {
            sendfile(stream, &*place.file, Some(&mut offset), most)
        });
        match sent.await? {
            // The file has become shorter. The connection ends in the middle of a message.
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            sent => left -= sent,
        }
    }
    cursor.offset += place.len;
    Ok(())
}

/// Does it as soon as the stream takes something.
async fn when_writable<T>(
    stream: &TcpStream,
    mut act: impl FnMut(&TcpStream) -> rustix::io::Result<T>,
) -> io::Result<T> {
    let result = stream.async_io(Interest::WRITABLE, || act(stream).map_err(io::Error::from));
    result.await
}

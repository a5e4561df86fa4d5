//! A parent's side: what a child wants, from disk to the network (`sendfile`).

use crate::manifest::Header;
use crate::stream::Stream;
use crate::transfer::{Cursor, Next, Place, Transfer};
use crate::wire::{BEAT, Kind, Want};
use rustix::fs::sendfile;
use rustix::net::SendFlags;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Most of a file that is sent without looking whether anything else is to be done.
const STEP: usize = 256 << 10;

/// How much of what is not sent yet a connection may hold, in time. What waits there goes out in large packets, and each
/// host on the way has to have the whole of one before it can pass on its beginning.
const UNSENT: Duration = Duration::from_millis(4);

/// So often it is looked how fast a child takes it.
const LOOK: Duration = Duration::from_millis(50);

/// Least and most bytes that a connection may hold unsent.
const HELD: std::ops::Range<u64> = 16 << 10..1 << 20;

/// Sends what the child wants until there is no more of it, or until the child goes.
pub async fn serve(
    stream: &mut Stream,
    transfer: &Transfer,
    want: Want,
    limit: Option<&crate::limit::Limit>,
) -> io::Result<()> {
    if !can_be(&want, &transfer.header) {
        return Ok(());
    }
    match want.single {
        true => one(stream, transfer, want.frame, limit).await,
        false => flow(stream, transfer, want, limit).await,
    }
}

/// Nobody who keeps to the protocol stands behind the end; there, everything would be waited for in vain.
fn can_be(want: &Want, header: &Header) -> bool {
    let frames = header.frames();
    let inside = want.frame <= frames && want.pages <= frames;
    want.single || inside && want.offset <= header.frame_len(want.frame)
}

async fn flow(
    stream: &mut Stream,
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
    let mut pace = Pace::new();
    loop {
        let next = transfer.next(&mut cursor);
        let waits = matches!(next, Next::Wait);
        match next {
            Next::Page(page) => message(stream, Kind::Page, &page).await?,
            Next::Stock(place) => {
                let sent = send_some(stream, &mut cursor, &place, limit).await?;
                pace.sent(stream.tcp(), sent)?;
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
                stream.flush().await?;
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
async fn one(
    stream: &mut Stream,
    transfer: &Transfer,
    index: u32,
    limit: Option<&crate::limit::Limit>,
) -> io::Result<()> {
    let mut changes = transfer.watch();
    let mut spoke = Instant::now();
    let mut told = false;
    loop {
        if let Some(why) = transfer.failed() {
            return message(stream, Kind::Failed, why.as_bytes()).await;
        }
        let good = transfer.is_good(index);
        // It may have been found out only now: while it came, the child had it from here, too.
        if !told && transfer.was_bad(index) {
            told = true;
            message(stream, Kind::Bad, &index.to_le_bytes()).await?;
        }
        if good && let Some(mut place) = transfer.place(index) {
            let mut cursor = Cursor {
                pages: 0,
                frame: index,
                offset: 0,
                told: false,
            };
            while place.len > 0 {
                let sent = send_some(stream, &mut cursor, &place, limit).await?;
                place.offset += u64::from(sent);
                place.len -= sent;
            }
            return stream.shutdown().await;
        }
        // What has no bytes never comes, and whoever waits for it holds a place.
        let empty = transfer.entry(index).is_some_and(|entry| entry.stored == 0);
        if empty || index >= transfer.header.frames() {
            let why = format!("nothing is sent for frame {index}");
            message(stream, Kind::Failed, why.as_bytes()).await?;
            return stream.shutdown().await;
        }
        stream.flush().await?;
        if timeout_at(spoke + BEAT, changes.changed()).await.is_err() {
            message(stream, Kind::Beat, &[]).await?;
            spoke = Instant::now();
        }
    }
}

async fn message(stream: &mut Stream, kind: Kind, what: &[u8]) -> io::Result<()> {
    let mut all = Vec::with_capacity(4 + what.len());
    all.extend(kind.head(what.len()));
    all.extend(what);
    stream.write_all(&all).await
}

/// Sends as much of this as may go at once, when it may; says how much. While the child has to wait it hears that we are
/// here, and if it has gone, nothing is taken from the others for it.
async fn send_some(
    stream: &mut Stream,
    cursor: &mut Cursor,
    place: &Place,
    limit: Option<&crate::limit::Limit>,
) -> io::Result<u32> {
    let Some(limit) = limit else {
        send(stream, cursor, place).await?;
        return Ok(place.len);
    };
    let piece = Place {
        len: place.len.min(limit.piece()),
        ..place.clone()
    };
    {
        let turn = limit.take(piece.len);
        tokio::pin!(turn);
        while timeout(BEAT, &mut turn).await.is_err() {
            message(stream, Kind::Beat, &[]).await?;
        }
    }
    let before = cursor.offset;
    let sent = send(stream, cursor, &piece).await;
    limit.give_back(piece.len - (cursor.offset - before));
    sent.map(|()| piece.len)
}

/// Sends bytes of the cursor's frame; where they begin it, or its rest, which frame that is comes first.
async fn send(stream: &mut Stream, cursor: &mut Cursor, place: &Place) -> io::Result<()> {
    let mut heads = Vec::with_capacity(16);
    if !cursor.told {
        cursor.told = true;
        heads.extend(Kind::Frame.head(8));
        heads.extend(cursor.frame.to_le_bytes());
        heads.extend(cursor.offset.to_le_bytes());
    }
    heads.extend(Kind::Data.head(place.len as usize));
    let stream = match stream {
        Stream::Plain(tcp) => tcp,
        Stream::Private(tls) => {
            return send_read(tls, &heads, place, cursor).await;
        }
    };
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
            sent => {
                left -= sent;
                cursor.offset += sent as u32;
            }
        }
    }
    Ok(())
}

/// How fast a child takes it.
struct Pace {
    since: Instant,
    bytes: u64,
    held: u64,
}

impl Pace {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            bytes: 0,
            held: HELD.end,
        }
    }

    /// Sets what the connection may hold by the rate of late.
    fn sent(&mut self, stream: &TcpStream, len: u32) -> io::Result<()> {
        self.bytes += u64::from(len);
        let time = self.since.elapsed();
        if time < LOOK {
            return Ok(());
        }
        let held = self.bytes as f64 * UNSENT.as_secs_f64() / time.as_secs_f64();
        // What does not fill a packet may wait for more in the kernel, which takes no more as long as half of what it may
        // hold is there: with packets of 64 KiB (loopback) each piece would stand for 200 ms.
        let least = (3 * largest(stream)?).clamp(HELD.start, HELD.end);
        let held = (held as u64).clamp(least, HELD.end);
        self.since = Instant::now();
        self.bytes = 0;
        // Not for every small change.
        if held * 4 < self.held * 3 || held * 3 > self.held * 4 {
            self.held = held;
            hold(stream, held as u32)?;
        }
        Ok(())
    }
}

/// Bytes of a packet: `TCP_MAXSEG`, tcp(7)
fn largest(stream: &TcpStream) -> io::Result<u64> {
    let (mut bytes, mut len) = (0_u32, size_of::<u32>() as libc::socklen_t);
    // SAFETY: the descriptor is open as long as the stream is borrowed; the pointers are to a number of the length that is
    // given and to that length, and both live longer than the call.
    let got = unsafe {
        let value = (&raw mut bytes).cast();
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_MAXSEG);
        libc::getsockopt(stream.as_raw_fd(), level, option, value, &raw mut len)
    };
    match got {
        0 => Ok(bytes.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `TCP_NOTSENT_LOWAT`, tcp(7)
fn hold(stream: &TcpStream, bytes: u32) -> io::Result<()> {
    let len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as the stream is borrowed; the pointer is to four bytes that live longer than
    // the call, which only reads them.
    let set = unsafe {
        let value = (&raw const bytes).cast();
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT);
        libc::setsockopt(stream.as_raw_fd(), level, option, value, len)
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Does it as soon as the stream takes something.
async fn when_writable<T>(
    stream: &TcpStream,
    mut act: impl FnMut(&TcpStream) -> rustix::io::Result<T>,
) -> io::Result<T> {
    let result = stream.async_io(Interest::WRITABLE, || act(stream).map_err(io::Error::from));
    result.await
}

/// The same where the bytes have to be encrypted.
async fn send_read(
    stream: &mut (impl AsyncWrite + Unpin),
    heads: &[u8],
    place: &Place,
    cursor: &mut Cursor,
) -> io::Result<()> {
    let mut bytes = heads.to_vec();
    let (mut offset, mut left) = (place.offset, place.len as usize);
    while left > 0 {
        let (begin, step) = (bytes.len(), left.min(STEP));
        bytes.resize(begin + step, 0);
        place.file.read_exact_at(&mut bytes[begin..], offset)?;
        stream.write_all(&bytes).await?;
        bytes.clear();
        offset += step as u64;
        left -= step;
        cursor.offset += step as u32;
    }
    Ok(())
}

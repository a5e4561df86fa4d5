//! A child's side: what comes from a parent, into the window and to the keeper.

use crate::keeper::Inflow;
use crate::manifest::{Bad, Encoding, Hash, Header, Page, counted};
use crate::sign::Key;
use crate::stream::{Stream, Trust};
use crate::transfer::Transfer;
use crate::wire::{self, CONNECT, Hello, Kind, SILENCE, Want};
use bytes::{Buf, Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Bytes that are read at a time.
const READ: usize = 256 << 10;

/// Where less than this comes at a time, it is looked for more only after a pause: every packet by itself costs each host
/// on the way more than the wait, which is what a hop takes then.
const MUCH: usize = READ / 4;
const PAUSE: Duration = Duration::from_millis(1);

/// Why there is no more from a parent.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("it cannot be reached: {0}")]
    Connect(String),
    #[error("it has said nothing for {} ms", SILENCE.as_millis())]
    Silent,
    #[error("it sends next to nothing")]
    Slow,
    #[error("it has closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(std::io::Error),
    #[error("it does not keep to the protocol: {0}")]
    Protocol(#[from] Bad),
    /// It has given up; all is over only if it is the source that says so.
    #[error("it has given up: {0}")]
    Failed(String),
    /// What comes cannot be kept; this is no fault of the parent.
    #[error("what came could not be kept: {0}")]
    Stuck(std::io::Error),
}

struct Reader {
    stream: Stream,
    buffer: BytesMut,
    /// There was more than could be read at once.
    full: bool,
    /// Not before this is it looked for more.
    next: Instant,
}

impl Reader {
    async fn connect(parent: SocketAddr, trust: &Trust, want: Want) -> Result<Self, Lost> {
        let connected = timeout(CONNECT, trust.connect(parent)).await;
        let mut stream = connected
            .map_err(|_| Lost::Connect("no answer".to_owned()))?
            .map_err(|e| Lost::Connect(e.to_string()))?;
        wire::write_line(&mut stream, &Hello::Want(want))
            .await
            .map_err(Lost::Broken)?;
        Ok(Self {
            stream,
            buffer: BytesMut::new(),
            full: false,
            next: Instant::now(),
        })
    }

    async fn more(&mut self) -> Result<(), Lost> {
        // Nearly always all of it was used, and its room is used again while it is still in the processor's cache.
        let room = self.buffer.capacity() - self.buffer.len();
        if self.buffer.is_empty() || room < READ / 8 {
            self.buffer.reserve(READ);
        }
        if self.next > Instant::now() {
            sleep_until(self.next).await;
        }
        match timeout(SILENCE, self.stream.read_buf(&mut self.buffer)).await {
            Err(_) => Err(Lost::Silent),
            Ok(Err(e)) => Err(Lost::Broken(e)),
            Ok(Ok(0)) => Err(Lost::Closed),
            Ok(Ok(count)) => {
                if count < MUCH {
                    self.next = Instant::now() + PAUSE;
                }
                self.full = self.buffer.len() == self.buffer.capacity();
                Ok(())
            }
        }
    }

    async fn exactly(&mut self, len: usize) -> Result<Bytes, Lost> {
        while self.buffer.len() < len {
            self.more().await?;
        }
        Ok(self.buffer.split_to(len).freeze())
    }

    async fn head(&mut self) -> Result<(Kind, usize), Lost> {
        let head = self.exactly(4).await?;
        let (kind, len) = Kind::read([head[0], head[1], head[2], head[3]])?;
        Ok((kind, len as usize))
    }

    /// How many of the next bytes are here: at least one, at most `most`.
    async fn some(&mut self, most: usize) -> Result<usize, Lost> {
        if self.buffer.is_empty() {
            self.more().await?;
        }
        Ok(self.buffer.len().min(most))
    }
}

/// Takes all that this parent has, from where the transfer stands. Returns when the transfer is sealed. May be dropped
/// at any moment: what has come is kept.
///
/// `again` is told each frame that has to be asked for again.
pub async fn follow(
    parent: SocketAddr,
    transfer: &Transfer,
    trust: &Trust,
    inflow: &mut Inflow,
    again: &mpsc::UnboundedSender<u32>,
) -> Result<(), Lost> {
    let (frame, offset) = transfer.position();
    let (pages, _) = transfer.known();
    let want = Want {
        id: transfer.header.id,
        frame,
        offset,
        pages,
        single: false,
    };
    let mut reader = Reader::connect(parent, trust, want).await?;
    // What was dropped in the middle of a page.
    inflow.same().await;
    // The frame that comes at the moment; none while it is one that is here already.
    let mut current = None;
    let skip = |to: u32| {
        for index in transfer.skip_to(to) {
            let _ = again.send(index);
        }
    };
    loop {
        let (kind, len) = reader.head().await?;
        match kind {
            Kind::Beat => {}
            Kind::Page => {
                let page = reader.exactly(len).await?;
                add_page(transfer, &trust.key, &page)?;
                inflow.page(&page).map_err(Lost::Stuck)?;
                inflow.same().await;
            }
            Kind::Frame => {
                let mut where_ = exact(reader.exactly(len).await?, 8)?;
                let (index, offset) = (where_.get_u32_le(), where_.get_u32_le());
                let entry = transfer.entry(index);
                let entry = entry.ok_or_else(|| Bad(format!("frame {index} before its page")))?;
                current = None;
                if transfer.is_good(index) {
                    continue;
                }
                skip(index);
                if transfer.position() != (index, offset) {
                    return Err(
                        Bad(format!("frame {index} from {offset} was not asked for")).into(),
                    );
                }
                transfer.comes_from(index, parent);
                current = Some((index, entry, offset));
            }
            Kind::Data => {
                if let Some((index, entry, here)) = &mut current {
                    let before = *here;
                    *here += len as u32;
                    if *here > entry.stored {
                        // Of one that was whole before, its hash decides, and nobody else may fetch it meanwhile.
                        if before < entry.stored {
                            transfer.bad(*index);
                            let _ = again.send(*index);
                        }
                        return Err(Bad(format!("frame {index} has more than its bytes")).into());
                    }
                }
                let mut left = len;
                while left > 0 {
                    let len = reader.some(left).await?;
                    left -= len;
                    match current {
                        Some((index, entry, _)) => {
                            inflow.behind = reader.full;
                            inflow.room(entry).await;
                            let taken = inflow.piece(index, entry, &mut reader.buffer, len);
                            taken.map_err(Lost::Stuck)?;
                        }
                        None => reader.buffer.advance(len),
                    }
                }
            }
            Kind::Bad => {
                let index = exact(reader.exactly(len).await?, 4)?.get_u32_le();
                if transfer.position().0 == index {
                    skip(index + 1);
                }
                current = None;
            }
            Kind::End => {
                let seal = reader.exactly(len).await?;
                return close(transfer, &trust.key, &seal);
            }
            Kind::Failed => {
                let why = reader.exactly(len).await?;
                return Err(Lost::Failed(String::from_utf8_lossy(&why).into_owned()));
            }
        }
    }
}

/// Fetches one frame. Says whether it was bad at the parent, too. `came`: how many bytes of it have come.
pub async fn fetch(
    parent: SocketAddr,
    transfer: &Transfer,
    trust: &Trust,
    index: u32,
    came: &AtomicU32,
) -> Result<(Vec<Bytes>, bool), Lost> {
    let want = Want {
        id: transfer.header.id,
        frame: index,
        offset: 0,
        pages: 0,
        single: true,
    };
    let stored = transfer.entry(index).map_or(0, |entry| entry.stored);
    let mut reader = Reader::connect(parent, trust, want).await?;
    let mut pieces = Vec::new();
    let (mut here, mut bad_there) = (0, false);
    while here < stored {
        let (kind, len) = reader.head().await?;
        match kind {
            Kind::Beat => {}
            Kind::Bad => {
                reader.exactly(len).await?;
                bad_there = true;
            }
            Kind::Frame => {
                let mut where_ = exact(reader.exactly(len).await?, 8)?;
                if (where_.get_u32_le(), where_.get_u32_le()) != (index, 0) {
                    return Err(Bad("another frame than asked for".to_owned()).into());
                }
            }
            Kind::Data => {
                if here as usize + len > stored as usize {
                    return Err(Bad(format!("frame {index} has more than its bytes")).into());
                }
                let mut left = len;
                while left > 0 {
                    let len = reader.some(left).await?;
                    left -= len;
                    pieces.push(reader.buffer.split_to(len).freeze());
                    transfer.fetched(len as u32);
                    here += len as u32;
                    came.store(here, Ordering::Relaxed);
                }
            }
            Kind::Failed => {
                let why = reader.exactly(len).await?;
                return Err(Lost::Failed(String::from_utf8_lossy(&why).into_owned()));
            }
            Kind::Page | Kind::End => {
                return Err(Bad("more than one frame".to_owned()).into());
            }
        }
    }
    Ok((pieces, bad_there))
}

fn exact(bytes: Bytes, len: usize) -> Result<Bytes, Bad> {
    match bytes.len() == len {
        true => Ok(bytes),
        false => Err(Bad(format!("{} bytes instead of {len}", bytes.len()))),
    }
}

/// Checks a page as it came and takes it.
pub(crate) fn add_page(transfer: &Transfer, key: &Key, wire: &[u8]) -> Result<(), Bad> {
    let (bytes, signature) = split_page(wire)?;
    let page = Page::read(bytes, &transfer.header)?;
    let (number, known) = transfer.known();
    if page.first != known {
        return Err(Bad(format!(
            "page {number} begins at frame {}, not {known}",
            page.first
        )));
    }
    key.check(bytes, signature, &page_title(transfer, page.first))?;
    for (index, entry) in (page.first..).zip(&page.entries) {
        if entry.encoding == Encoding::Same && entry.hash != transfer.base_hash(index) {
            return Err(Bad(format!(
                "frame {index} is not as in the base that is here"
            )));
        }
    }
    transfer.add_page(&page, wire.into());
    Ok(())
}

/// A page on the wire: length, bytes, signature.
pub(crate) fn split_page(wire: &[u8]) -> Result<(&[u8], &str), Bad> {
    let (bytes, signature) = counted(wire).ok_or_else(|| Bad("a page ends too soon".to_owned()))?;
    let signature = std::str::from_utf8(signature)
        .map_err(|_| Bad("a signature that is no text".to_owned()))?;
    Ok((bytes, signature))
}

/// What is signed with a page.
pub(crate) fn page_title(transfer: &Transfer, first: u32) -> String {
    format!("oscarv spread {}: page from {first}", transfer.header.id)
}

/// What is signed with the manifest.
pub(crate) fn manifest_title(transfer: &Transfer) -> String {
    format!("oscarv spread {}: manifest", transfer.header.id)
}

/// The manifest: the header's line, then each page after its length.
pub(crate) fn manifest(transfer: &Transfer) -> Result<Vec<u8>, Bad> {
    let mut all = transfer.line.clone().into_bytes();
    all.push(b'\n');
    for wire in transfer.pages() {
        let (bytes, _) = split_page(&wire)?;
        all.extend((bytes.len() as u32).to_le_bytes());
        all.extend(bytes);
    }
    Ok(all)
}

/// Hashes of all frames of a manifest that was checked when it came.
pub(crate) fn hashes(manifest: &[u8]) -> Option<Vec<Hash>> {
    let end = manifest.iter().position(|byte| *byte == b'\n')?;
    let header = Header::read(std::str::from_utf8(&manifest[..end]).ok()?).ok()?;
    let mut rest = &manifest[end + 1..];
    let mut hashes = Vec::new();
    while !rest.is_empty() {
        let (page, after) = counted(rest)?;
        let page = Page::read(page, &header).ok()?;
        hashes.extend(page.entries.iter().map(|entry| entry.hash));
        rest = after;
    }
    (hashes.len() == header.frames() as usize).then_some(hashes)
}

/// The end has come: is the manifest whole, and signed?
pub(crate) fn close(transfer: &Transfer, key: &Key, seal: &[u8]) -> Result<(), Lost> {
    let (_, known) = transfer.known();
    if known != transfer.header.frames() {
        return Err(Bad("the end before the last page".to_owned()).into());
    }
    let seal = std::str::from_utf8(seal).map_err(|_| Bad("a seal that is no text".to_owned()))?;
    key.check(&manifest(transfer)?, seal, &manifest_title(transfer))?;
    let (frame, _) = transfer.position();
    if frame < transfer.header.frames() {
        return Err(Bad("the end before the last frame".to_owned()).into());
    }
    transfer.seal(Arc::from(seal));
    Ok(())
}

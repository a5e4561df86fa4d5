//! The flow's bytes go to their place as they come, and are hashed on the way.

use super::{News, Shared, Work};
use crate::manifest::{Encoding, Entry, FRAME};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The next piece of a frame that is on disk already: it is to be hashed.
pub(super) type Piece = (u32, Bytes);

/// Takes the flow's bytes, one piece after another, from whatever parent.
pub struct Inflow {
    shared: Arc<Shared>,
    work: mpsc::Sender<Work>,
    /// Room for the compressed frame that is coming.
    room: Option<mpsc::OwnedPermit<Work>>,
    hash: mpsc::Sender<Piece>,
    /// Room for the next piece that is to be hashed.
    hash_room: Option<mpsc::OwnedPermit<Piece>>,
    /// More has come at once than was read.
    pub behind: bool,
    coming: Option<Coming>,
    /// Frames before this one are on their way if they are as in the base.
    looked_at: u32,
}

struct Coming {
    index: u32,
    entry: Entry,
    /// Where it goes, in the file or in the spool.
    at: u64,
    here: u32,
    /// None: another thread hashes it.
    hasher: Option<blake3::Hasher>,
    /// Of a compressed frame.
    packed: Vec<u8>,
}

/// A thread that hashes for the flow.
pub(super) struct Hashing {
    shared: Arc<Shared>,
    /// The frame, and how many bytes of it were hashed.
    current: Option<(u32, blake3::Hasher, u32)>,
}

/// Room for one more; for ever nothing, if nobody takes it any more. Whoever did has told why, and that ends the transfer.
async fn room<T>(queue: &mpsc::Sender<T>) -> mpsc::OwnedPermit<T> {
    match queue.clone().reserve_owned().await {
        Ok(room) => room,
        Err(_) => std::future::pending().await,
    }
}

impl Inflow {
    pub(super) fn new(
        shared: Arc<Shared>,
        work: mpsc::Sender<Work>,
        hash: mpsc::Sender<Piece>,
    ) -> Self {
        Self {
            shared,
            work,
            room: None,
            hash,
            hash_room: None,
            behind: false,
            coming: None,
            looked_at: 0,
        }
    }

    /// What comes cannot be kept: that ends the transfer here.
    pub fn stuck(&self, why: io::Error) {
        let _ = self.shared.news.send(News::Stuck(why));
    }

    /// Returns when there is room for the next piece of this frame.
    pub async fn room(&mut self, entry: Entry) {
        let handed = self.coming.as_ref().is_some_and(|c| c.hasher.is_none());
        if entry.encoding.is_packed() && self.room.is_none() {
            self.room = Some(room(&self.work).await);
        } else if (self.behind || handed) && self.hash_room.is_none() {
            self.hash_room = Some(room(&self.hash).await);
        }
    }

    /// Keeps a page that was taken.
    pub fn page(&mut self, wire: &[u8]) -> io::Result<()> {
        self.shared.files.page(wire)
    }

    /// Begins with all that is known to be as in the base. May be dropped while it waits for room, and called again.
    pub async fn same(&mut self) {
        loop {
            let first = self.looked_at;
            let entry = |index| self.shared.transfer.entry(index);
            let mut end = first;
            while entry(end).is_some_and(|entry| entry.encoding == Encoding::Same) {
                end += 1;
            }
            if end > first {
                let room = room(&self.work).await;
                self.looked_at = end;
                room.send(Work::Same(first..end));
            } else if entry(first).is_none() {
                break;
            } else {
                self.looked_at += 1;
            }
        }
        self.shared.more();
    }

    /// Takes the next bytes of a frame, no more than it has, out of a buffer.
    pub fn piece(
        &mut self,
        index: u32,
        entry: Entry,
        buffer: &mut BytesMut,
        len: usize,
    ) -> io::Result<()> {
        let mut coming = match self.coming.take().filter(|c| c.index == index) {
            Some(coming) => coming,
            None => self.begin(index, entry)?,
        };
        let bytes = &buffer[..len];
        let files = &self.shared.files;
        let file = match entry.encoding {
            Encoding::Raw => &files.part,
            _ => &files.spool,
        };
        file.write_all_at(bytes, coming.at + u64::from(coming.here))?;
        // From here on children can have them.
        self.shared.transfer.append(index, len as u32);
        coming.here += len as u32;
        match &mut coming.hasher {
            Some(hasher) => {
                hasher.update(bytes);
                if entry.encoding != Encoding::Raw {
                    coming.packed.extend_from_slice(bytes);
                }
                // The buffer's room is used again at once, while it is in the processor's cache.
                buffer.advance(len);
            }
            None => {
                let bytes = buffer.split_to(len).freeze();
                if let Some(room) = self.hash_room.take() {
                    room.send((index, bytes));
                }
            }
        }
        match coming.here < entry.stored {
            true => self.coming = Some(coming),
            false => self.end(coming)?,
        }
        Ok(())
    }

    fn begin(&self, index: u32, entry: Entry) -> io::Result<Coming> {
        let packed = entry.encoding != Encoding::Raw;
        let at = match packed {
            true => self.shared.spool(index, entry.stored)?,
            false => u64::from(index) * u64::from(FRAME),
        };
        self.shared.transfer.begin(index, packed.then_some(at));
        Ok(Coming {
            index,
            entry,
            at,
            here: 0,
            hasher: (packed || self.hash_room.is_none()).then(blake3::Hasher::new),
            packed: Vec::with_capacity(if packed { entry.stored as usize } else { 0 }),
        })
    }

    /// All of a frame is here: are its bytes good?
    fn end(&mut self, coming: Coming) -> io::Result<()> {
        let Coming { index, entry, .. } = coming;
        let Some(hasher) = coming.hasher else {
            return Ok(());
        };
        if *hasher.finalize().as_bytes() != entry.stored_hash {
            self.shared.files.clear(index)?;
            self.shared.bad(index);
        } else if entry.encoding == Encoding::Raw {
            self.shared.good(index, None);
        } else if let Some(room) = self.room.take() {
            room.send(Work::Unpack(index, coming.packed));
        }
        Ok(())
    }
}

impl Hashing {
    pub fn new(shared: Arc<Shared>) -> Self {
        let current = None;
        Self { shared, current }
    }

    /// Hashes the next piece of a frame that is stored as it is, and decides at its end.
    pub fn piece(&mut self, (index, bytes): Piece) -> io::Result<()> {
        let before = self.current.take().filter(|(one, ..)| *one == index);
        let (_, mut hasher, here) = before.unwrap_or((index, blake3::Hasher::new(), 0));
        hasher.update(&bytes);
        let here = here + bytes.len() as u32;
        let Some(entry) = self.shared.transfer.entry(index) else {
            return Ok(());
        };
        if here < entry.stored {
            self.current = Some((index, hasher, here));
        } else if *hasher.finalize().as_bytes() == entry.stored_hash {
            self.shared.good(index, None);
        } else {
            self.shared.files.clear(index)?;
            self.shared.bad(index);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::{Header, Id, Page};
    use crate::place::Files;
    use crate::rereading::Rereading;
    use crate::sign::Signer;

    /// A host that got another parent while its disk was busy never had what was to be taken from the base just then: it
    /// had all bytes, and waited for ever.
    #[tokio::test]
    async fn frames_of_the_base_are_not_forgotten_when_the_parent_changes() {
        let signer = Signer::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let size = 4 * u64::from(FRAME);
        let header = Header::new(Id([3; 16]), "disk", size, 7, None).unwrap();
        let line = header.line().unwrap();
        let reading = Rereading::default();
        let opened = Files::open(
            dir.path(),
            &header,
            &line,
            "proof",
            &signer.key(),
            None,
            &reading,
        );
        let (files, transfer, _) = opened.unwrap();
        let entry = |encoding, stored| Entry {
            encoding,
            stored,
            ..Entry::raw(FRAME, [1; 32])
        };
        let (same, raw) = (entry(Encoding::Same, 0), entry(Encoding::Raw, FRAME));
        let page = Page {
            first: 0,
            entries: vec![same, raw, same, same],
        };
        transfer.add_page(&page, Arc::from(&b""[..]));
        let shared = Arc::new(Shared {
            transfer,
            unpacking: None,
            files,
            news: mpsc::unbounded_channel().0,
            spool_end: 0.into(),
            unanswered: Default::default(),
        });
        let (work, mut works) = mpsc::channel(1);
        let mut inflow = Inflow::new(shared, work, mpsc::channel(1).0);
        let mut all = Vec::new();
        // There is room for one, and nobody waits until there is more.
        while !tokio::select! { biased; () = inflow.same() => true, () = async {} => false } {
            while let Ok(Work::Same(frames)) = works.try_recv() {
                all.push(frames);
            }
        }
        while let Ok(Work::Same(frames)) = works.try_recv() {
            all.push(frames);
        }
        assert_eq!(all, [0..1, 2..4]);
    }
}

//! What a receiver has from earlier is read again before it answers an offer. That may take hours on a slow disk: how far it
//! is, for the source, which waits as long as it goes on; and whether anybody still wants the answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How far it is. Clones are of the same.
#[derive(Clone, Default)]
pub struct Rereading(Arc<Inner>);

#[derive(Default)]
struct Inner {
    frames: AtomicU32,
    over: AtomicBool,
}

impl Rereading {
    /// One more frame was read, as it is or compressed.
    ///
    /// Errors: nobody wants to know (`Interrupted`).
    pub fn one_more(&self) -> io::Result<()> {
        self.0.frames.fetch_add(1, Ordering::Relaxed);
        match self.0.over.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }

    /// Frames that were read.
    pub fn frames(&self) -> u32 {
        self.0.frames.load(Ordering::Relaxed)
    }
}

/// As long as this is there, somebody waits for the answer. A thread that reads for nobody would hold the files' lock, and
/// whoever offers it again would wait for that.
#[derive(Default)]
pub struct Wanted(pub Rereading);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.0.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nobody_reads_for_who_has_gone() {
        let wanted = Wanted::default();
        let reading = wanted.0.clone();
        reading.one_more().unwrap();
        drop(wanted);
        let why = reading.one_more().unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::Interrupted);
        assert_eq!(reading.frames(), 2);
    }
}

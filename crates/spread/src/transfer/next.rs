//! Where a child stands, and what it gets next: pages just ahead of their frames, frames in their order.

use super::{Place, Transfer};
use std::sync::Arc;

/// Where a child stands.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    pub pages: u32,
    pub frame: u32,
    pub offset: u32,
    /// Has the child been told that what comes is of this frame?
    pub told: bool,
}

/// What a child gets next.
pub enum Next {
    Page(Arc<[u8]>),
    /// What is here of the cursor's frame, from its offset on.
    Stock(Place),
    /// This frame is not good here at the moment.
    Bad(u32),
    End(Arc<str>),
    Failed(Arc<str>),
    /// Nothing yet.
    Wait,
}

impl Transfer {
    /// What a child who stands there gets next. Moves the cursor over what needs no bytes.
    pub fn next(&self, cursor: &mut Cursor) -> Next {
        let mut inner = self.inner();
        if let Some(why) = &inner.failed {
            return Next::Failed(why.clone());
        }
        let total = self.header.frames();
        loop {
            // Whoever asks for what is not made yet does not make the source run ahead.
            inner.reach(cursor.frame);
            // Pages go just ahead of their frames.
            if let Some(page) = inner.pages.get(cursor.pages as usize)
                && (cursor.frame >= inner.first_of(cursor.pages) || cursor.frame >= total)
            {
                cursor.pages += 1;
                return Next::Page(page.clone());
            }
            if cursor.frame >= total {
                return match &inner.seal {
                    Some(seal) if cursor.pages as usize == inner.pages.len() => {
                        Next::End(seal.clone())
                    }
                    Some(_) => Next::Failed("there are not so many pages".into()),
                    None => Next::Wait,
                };
            }
            let Some(entry) = inner.entries.get(cursor.frame as usize) else {
                return Next::Wait;
            };
            if cursor.offset >= entry.stored {
                cursor.frame += 1;
                cursor.offset = 0;
                cursor.told = false;
                continue;
            }
            let here = match inner.good.has(cursor.frame) {
                true => Some(entry.stored),
                false => inner.live.get(&cursor.frame).copied(),
            };
            if let Some(here) = here {
                return match inner.place(cursor.frame, &self.stock) {
                    Some(place) if here > cursor.offset => Next::Stock(Place {
                        offset: place.offset + u64::from(cursor.offset),
                        len: here.min(entry.stored) - cursor.offset,
                        ..place
                    }),
                    _ => Next::Wait,
                };
            }
            if inner.bad.contains(&cursor.frame) || cursor.told {
                let index = cursor.frame;
                cursor.frame += 1;
                cursor.offset = 0;
                cursor.told = false;
                return Next::Bad(index);
            }
            return Next::Wait;
        }
    }
}

//! Keeps clusters as their files say: up, down, status.
//!
//! There is no daemon. [`Head`] opens the store (what should be), looks at hypervisors, networks and files (what is),
//! lets `plan` work out the difference and does it. A record is in the store before the first thing is made and until
//! the last is gone, and everything that is made lies under the cluster's directory or is found by a lock in it: so a
//! command killed at any moment is repeated or undone by the next.

mod access;
mod base;
mod down;
mod error;
mod events;
mod head;
mod host;
mod identity;
mod keys;
mod layout;
mod lock;
mod look;
mod node;
mod observe;
mod record;
mod status;
mod step;
mod up;
mod wait;

pub use access::{Access, AccessNode};
pub use down::DownOptions;
pub use error::{Error, Result, Unready};
pub use head::Head;
pub use host::memory_available;
pub use status::*;
pub use up::{Consent, UpOptions};

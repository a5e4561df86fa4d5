//! What every part of OSCAR-V shares: checked names, units and progress.
//!
//! Nothing here does I/O. A value of one of these types cannot be wrong: the check is in its constructor.

mod name;
mod progress;
mod units;

pub use name::{BadName, Name};
pub use progress::{Event, Progress, Unit};
pub use units::{BadMac, BadSize, Mac, MiB};

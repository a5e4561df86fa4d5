//! Desired state: what should be, on disk.
//!
//! A [`Store`] keeps small values under keys that look like paths (`clusters/mpi/assigned`). Every change of a value gives it
//! a new generation, a number that only grows and is never used twice, not even after the value was deleted; a change
//! may be bound to the generation that was read, so that two processes never overwrite each other's work unseen.
//! Values are bytes; [`StoreJson`] puts types on top.
//!
//! [`Sqlite`] keeps it in one file, for one machine, with nothing that has to run. All implementations pass one
//! conformance suite (tests/conformance.rs).

mod error;
mod json;
mod sqlite;

pub use error::{Conflict, Error, Result};
pub use json::StoreJson;
pub use sqlite::Sqlite;

/// The largest value, in bytes.
pub const MAX_VALUE: usize = 16 << 20;
/// The longest key, in bytes.
pub const MAX_KEY: usize = 512;

/// A value and its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub value: Vec<u8>,
    pub generation: u64,
}

/// What must be true of a key for a change to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It has no value.
    Absent,
    /// Its value is of this generation: nobody has changed it since.
    Generation(u64),
    Any,
}

/// Where desired state is kept. Calls may come from several threads and processes at once; each is atomic, and what
/// one has returned survives the death of the process at any moment.
///
/// Keys are 1 to [`MAX_KEY`] printable ASCII characters without blanks.
pub trait Store: Send + Sync {
    fn get(&self, key: &str) -> Result<Option<Entry>>;

    /// All entries whose keys begin with `prefix`, sorted by key (byte by byte). The empty prefix lists all.
    fn list(&self, prefix: &str) -> Result<Vec<(String, Entry)>>;

    /// Gives the new generation, or [`Error::Conflict`] if the key is not as `expected`.
    fn put(&self, key: &str, value: &[u8], expected: Expected) -> Result<u64>;

    /// Of a key without a value: nothing happens, unless a generation was expected.
    fn delete(&self, key: &str, expected: Expected) -> Result<()>;
}

/// Checked where they come in: they become ranges in the database and, one day, paths of other stores.
fn check_key(key: &str) -> Result<()> {
    let reason = if key.is_empty() {
        "it is empty".to_owned()
    } else {
        return check_prefix(key);
    };
    Err(Error::Key {
        key: key.to_owned(),
        reason,
    })
}

fn check_prefix(prefix: &str) -> Result<()> {
    let reason = if prefix.len() > MAX_KEY {
        format!("it has more than {MAX_KEY} bytes")
    } else if let Some(odd) = prefix.chars().find(|c| !c.is_ascii_graphic()) {
        format!("it has {odd:?}")
    } else {
        return Ok(());
    };
    Err(Error::Key {
        key: prefix.chars().take(MAX_KEY).collect(),
        reason,
    })
}

fn check_value(key: &str, value: &[u8]) -> Result<()> {
    if value.len() <= MAX_VALUE {
        return Ok(());
    }
    Err(Error::TooLarge {
        key: key.to_owned(),
        size: value.len(),
    })
}

impl Expected {
    /// Is the key as expected, if its value is of this generation?
    fn check(self, key: &str, found: Option<u64>) -> Result<()> {
        let fine = match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Generation(expected) => found == Some(expected),
        };
        if fine {
            return Ok(());
        }
        Err(Error::Conflict(Conflict {
            key: key.to_owned(),
            expected: self,
            found,
        }))
    }
}

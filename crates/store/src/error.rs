//! What can go wrong with a store, and what to do then.

use crate::{Expected, MAX_VALUE};
use std::fmt;
use std::io;
use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

/// The key is not as it was expected: somebody else has changed it. Read it again and decide anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub key: String,
    pub expected: Expected,
    /// The generation of the value that is there.
    pub found: Option<u64>,
}

impl std::error::Error for Conflict {}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (self.expected, self.found) {
            (_, None) => write!(f, "{key} was deleted by somebody else meanwhile"),
            (Expected::Absent, Some(_)) => write!(f, "{key} exists already"),
            (_, Some(_)) => write!(f, "{key} was changed by somebody else meanwhile"),
        }?;
        f.write_str("; try again")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Conflict(#[from] Conflict),

    #[error("{key:?} cannot be a key of the store: {reason}")]
    Key { key: String, reason: String },

    #[error("the value of {key} has {size} bytes; the store takes at most {MAX_VALUE}")]
    TooLarge { key: String, size: usize },

    /// The entry is there, but is not what is looked for.
    #[error(
        "the entry {key} of the store cannot be understood; it was written by another version of oscarv: use that one, or delete what the entry stands for and make it again"
    )]
    Value {
        key: String,
        source: serde_json::Error,
    },

    #[error(
        "the store {path} is damaged; move it aside with `mv {path} {path}.damaged`, then run `oscarv up` with the files of your clusters again", path = path.display()
    )]
    Damaged {
        path: PathBuf,
        source: rusqlite::Error,
    },

    #[error("{path} is not a store of oscarv; move it aside, or name another directory with --state", path = path.display())]
    Foreign { path: PathBuf },

    #[error(
        "the store {path} was written by a newer version of oscarv (format {found}, this one knows {known}); use that version, or name another directory with --state", path = path.display()
    )]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },

    #[error(
        "the store {path} cannot be opened; be the user that it belongs to, or name another directory with --state", path = path.display()
    )]
    Denied { path: PathBuf, source: io::Error },

    #[error("the store {path} cannot be made; make its directory first, with `mkdir -p`", path = path.display())]
    NoDirectory { path: PathBuf, source: io::Error },

    #[error(
        "the store {path} was in use by another process for {seconds} seconds; see which one with `fuser -v {path}` and try again", path = path.display()
    )]
    Busy { path: PathBuf, seconds: u64 },

    #[error("the disk with the store {path} is full; free some space (`oscarv image list` shows what images take) and try again", path = path.display())]
    Full { path: PathBuf },

    #[error("the store {path} cannot be read or written; look at the disk (`dmesg`, `df`) and try again", path = path.display())]
    Io {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }
}

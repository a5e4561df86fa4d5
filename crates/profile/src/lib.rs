//! What a person writes, checked: the cluster file and the VM profile.
//!
//! Two steps and two types. A reader (`toml`) turns text into the raw model (`raw`): as it was written, each value with
//! its place. `check` turns the raw model into the checked one ([`Cluster`]), which cannot be wrong, and fills in what
//! was left out. Neither stops at the first error: all of a file's errors are reported at once, each with its place, the
//! offending text and what to do. There is no I/O here: whether a host can run a cluster is another question.
//!
//! docs/cluster-file.md is the reference for those who write such files; a test keeps it true.

mod check;
mod error;
mod model;
mod raw;
mod suggest;
mod toml;
mod write;

pub use error::{Error, Errors, Note};
pub use model::*;
pub use suggest::suggest;
pub use write::to_toml;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 16 << 20;

/// A value that cannot be wrong, and what was filled in to make it whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked<T> {
    pub value: T,
    pub notes: Vec<Note>,
}

/// Reads and checks a cluster file. `source` names it in messages.
pub fn cluster(text: &str, source: &str) -> Result<Checked<Cluster>, Errors> {
    let mut found = error::Found::new(text);
    if text.len() > MAX_BYTES {
        let size = text.len();
        found.error(
            0..0,
            format!(
                "the file has {size} bytes; a cluster file has at most {MAX_BYTES} ({} MiB)",
                MAX_BYTES >> 20
            ),
        );
        return Err(found.into_errors(source));
    }
    let raw = toml::read(text, &mut found);
    let value = check::cluster(raw, &mut found);
    match value {
        Some(value) if found.is_clean() => Ok(Checked {
            value,
            notes: found.into_notes(),
        }),
        _ => Err(found.into_errors(source)),
    }
}

/// The same for bytes that may not be text at all.
pub fn cluster_bytes(bytes: &[u8], source: &str) -> Result<Checked<Cluster>, Errors> {
    // Too large a file is refused for its size alone, whatever is in it.
    let bytes = bytes.get(..MAX_BYTES + 1).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => cluster(text, source),
        Err(_) if bytes.len() > MAX_BYTES => cluster(&String::from_utf8_lossy(bytes), source),
        Err(e) => {
            let at = e.valid_up_to();
            let text = String::from_utf8_lossy(bytes);
            let mut found = error::Found::new(&text);
            let byte = bytes.get(at).copied().unwrap_or_default();
            found
                .error(
                    at..at + char::REPLACEMENT_CHARACTER.len_utf8(),
                    format!("the file is not UTF-8 text: byte 0x{byte:02x} at offset {at}"),
                )
                .hint("save it as UTF-8");
            Err(found.into_errors(source))
        }
    }
}

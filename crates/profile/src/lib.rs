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
mod form;
mod model;
mod raw;
mod schema;
mod suggest;
mod toml;
mod write;
mod write_vm;
mod xml;

pub use error::{Error, Errors, Note};
pub use model::*;
pub use schema::{CLUSTER_DTD, CLUSTER_SCHEMA, DTD, VM_SCHEMA};
pub use suggest::suggest;
pub use write::{cluster_to_xml, to_toml};
pub use write_vm::{Unwritable, vm_to_toml, vm_to_xml};

use form::Form;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 16 << 20;

/// A value that cannot be wrong, and what was filled in to make it whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked<T> {
    pub value: T,
    pub notes: Vec<Note>,
    /// The file is in libv3m's form, in which much of what a VM needs is not said.
    pub original: bool,
}

/// Reads and checks a cluster file, in TOML or XML. `source` names it in messages.
pub fn cluster(text: &str, source: &str) -> Result<Checked<Cluster>, Errors> {
    small_enough(text.len(), source)?;
    let mut found = error::Found::new(text);
    let raw = match Form::of(text) {
        Form::Toml => toml::cluster(text, &mut found),
        Form::Xml => xml::cluster(text, &mut found),
    };
    let value = check::cluster(raw, &mut found);
    finish(value, found, source)
}

/// The same for bytes that may not be text at all.
pub fn cluster_bytes(bytes: &[u8], source: &str) -> Result<Checked<Cluster>, Errors> {
    of_bytes(bytes, source, cluster)
}

/// Reads and checks a VM profile: TOML, XML, or the XML of libv3m. Paths in it are not touched: they are relative to
/// whatever the caller says.
pub fn vm(text: &str, source: &str) -> Result<Checked<Vm>, Errors> {
    let mut all = vms(text, source)?;
    match all.value.pop() {
        Some(value) if all.value.is_empty() => Ok(Checked {
            value,
            notes: all.notes,
            original: all.original,
        }),
        last => {
            let count = all.value.len() + usize::from(last.is_some());
            let mut found = error::Found::new(text);
            found
                .error(
                    0..0,
                    format!("the file has {count} profiles, and one is wanted"),
                )
                .hint("take the <profile> that is meant into a file of its own");
            Err(found.into_errors(source))
        }
    }
}

/// The same for bytes that may not be text at all.
pub fn vm_bytes(bytes: &[u8], source: &str) -> Result<Checked<Vm>, Errors> {
    of_bytes(bytes, source, vm)
}

/// All VMs of a file: one, or as many as are in libv3m's `<profiles>`, which may be none. Notes of several begin with
/// the name of their VM.
pub fn vms(text: &str, source: &str) -> Result<Checked<Vec<Vm>>, Errors> {
    small_enough(text.len(), source)?;
    let mut found = error::Found::new(text);
    let raw = match Form::of(text) {
        Form::Toml => toml::vms(text, &mut found),
        Form::Xml => xml::vms(text, &mut found),
    };
    let value = check::vms(raw, &mut found);
    finish(value, found, source)
}

/// The same for bytes that may not be text at all.
pub fn vms_bytes(bytes: &[u8], source: &str) -> Result<Checked<Vec<Vm>>, Errors> {
    of_bytes(bytes, source, vms)
}

fn finish<T>(
    value: Option<T>,
    found: error::Found<'_>,
    source: &str,
) -> Result<Checked<T>, Errors> {
    match value {
        Some(value) if found.is_clean() => Ok(Checked {
            value,
            original: found.original,
            notes: found.into_notes(),
        }),
        _ => Err(found.into_errors(source)),
    }
}

/// Too large a file is not looked into at all.
fn small_enough(size: usize, source: &str) -> Result<(), Errors> {
    if size <= MAX_BYTES {
        return Ok(());
    }
    let most = MAX_BYTES >> 20;
    // How large it is, is not known: readers of files stop here.
    let message = format!("the file has more than {most} MiB, which is too much");
    let mut found = error::Found::new("");
    found.error(0..0, message);
    Err(found.into_errors(source))
}

fn of_bytes<T>(
    bytes: &[u8],
    source: &str,
    read: fn(&str, &str) -> Result<Checked<T>, Errors>,
) -> Result<Checked<T>, Errors> {
    small_enough(bytes.len(), source)?;
    match std::str::from_utf8(bytes) {
        Ok(text) => read(text, source),
        Err(e) => {
            let at = e.valid_up_to();
            let text = String::from_utf8_lossy(bytes);
            let mut found = error::Found::new(&text);
            let byte = bytes.get(at).copied().unwrap_or_default();
            let replaced = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
            let message = match bytes {
                [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                    "the file is UTF-16, not UTF-8 text".to_owned()
                }
                _ => format!("the file is not UTF-8 text: byte 0x{byte:02x} at offset {at}"),
            };
            found.error(replaced, message).hint("save it as UTF-8");
            Err(found.into_errors(source))
        }
    }
}

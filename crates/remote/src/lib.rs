//! Reaching many nodes at once: commands and files, over the user's own ssh.
//!
//! Everything goes through `ssh -F CONFIG NODE`, where the configuration is the cluster's own, so that nothing here
//! knows of keys, addresses or namespaces. [`exec`] runs one argument vector on many nodes with a bounded fan-out,
//! [`push`] and [`get`] carry files as tar streams, [`fold`] says what many nodes answered in few words.
//!
//! ssh hands a command to a shell on the node as one text. [`quote`] makes that text, so that what arrives is the
//! argument vector that was given: programs are run, never shell lines.

mod copy;
mod error;
mod exec;
mod fold;
mod nodes;
mod quote;
mod ssh;

pub use copy::{Copied, get, push, size_of};
pub use error::Error;
pub use exec::{Cancel, Event, Options, Outcome, Status, Stream, exec, highest};
pub use fold::{Folded, fold, fold_ends};
pub use nodes::{BadNodes, fold_names, parse_hosts, parse_names};
pub use quote::{command_line, quote};
pub use ssh::{Ssh, Tty};

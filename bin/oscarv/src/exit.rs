//! How the command ends: exit codes, and errors as people read them.

use crate::engine;

pub use terminal::exit::{Code, Failure};

/// What `oscarv help exit-codes` says.
pub const CODES: &str = "\
Exit codes:
    0  it is done
    1  it failed
    2  wrong usage, or a file with errors
    3  this machine is not fit for it: `oscarv check` says what is missing
    4  there is no such cluster, node or image
    5  another oscarv works on the cluster
    6  the time limit passed
  130  interrupted

Of exec, run and ssh, the code is the command's own on the node (of several nodes: the highest), or
  124  the time limit of a node passed
  125  oscarv itself failed before the command was started
  126  the command was found but could not be run
  127  there is no such command on the node
  128+n  it was ended by signal n
  255  a node could not be reached (ssh's own code)";

/// The code that an error ends the command with.
pub fn code_of(error: &anyhow::Error) -> Code {
    terminal::exit::code_of(error, engine::code_of)
}

/// Says it on standard error: `error: …`, its causes, then what to do.
pub fn tell(error: &anyhow::Error, colored: bool) {
    terminal::exit::tell(error, colored, engine::hint_of);
}

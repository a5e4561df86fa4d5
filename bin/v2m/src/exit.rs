//! How the command ends: what its codes are, and what errors of other crates mean here.

use v3m::Error;
use v3m_qemu::disk;

pub use terminal::exit::{Code, Failure};

/// What `v2m exit-codes` says.
pub const CODES: &str = "\
Exit codes:
    0  it is done
    1  it failed
    2  wrong usage, or a profile with errors
    3  this machine is not fit for it: `v2m check` says what is missing
    4  there is no such VM
    6  the time limit passed
    7  v2m has this command for those who know it from before, and cannot do it yet";

/// Asked for something that only the original could promise.
pub const NOT_YET: Code = Code::Of(7);

/// The code that an error ends the command with.
pub fn code_of(error: &anyhow::Error) -> Code {
    terminal::exit::code_of(error, |cause| {
        if let Some(disk::Error::Program(_)) = cause.downcast_ref() {
            return Some(Code::Unfit);
        }
        match cause.downcast_ref::<Error>()? {
            Error::NoSuchVm(_) => Some(Code::NotFound),
            Error::Unusable { .. } | Error::Unfit { .. } => Some(Code::Unfit),
            _ => None,
        }
    })
}

/// Says it on standard error: `error: …`, its causes, then what to do.
pub fn tell(error: &anyhow::Error, colored: bool) {
    terminal::exit::tell(error, colored, |cause| {
        match cause.downcast_ref::<Error>()? {
            Error::NoSuchVm(_) => {
                Some("`v2m list` shows all; make one with: v2m create FILE".to_owned())
            }
            Error::WrongState { name, .. } => Some(format!("see: v2m status {name}")),
            Error::Unusable { .. } | Error::Unfit { .. } => Some("see: v2m check".to_owned()),
            _ => None,
        }
    });
}

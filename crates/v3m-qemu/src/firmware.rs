//! UEFI: the firmware's code, shared and read only, and each VM's own copy of its variables.

use crate::home::{Home, at};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use v3m::Result;

/// The variables, in the VM's directory: boot entries that the guest's installer made live there.
pub const VARIABLES: &str = "uefi-vars.fd";
pub const HALF: &str = "uefi-vars.half";

/// Where distributions have OVMF, without Secure Boot (which needs another machine than `pc`): code, then variables.
const PLACES: [(&str, &str); 3] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
];

/// What is missing, as a person reads it.
pub const MISSING: &str = "the firmware for UEFI is missing; try: sudo apt-get install ovmf";

/// Code and template of the variables, where they are installed.
pub fn find() -> Option<(PathBuf, PathBuf)> {
    PLACES
        .iter()
        .map(|(code, variables)| (PathBuf::from(code), PathBuf::from(variables)))
        .find(|(code, variables)| code.is_file() && variables.is_file())
}

/// Makes the VM's variables where it has none.
pub fn variables(home: &Home, template: &Path) -> Result<()> {
    let (half, whole) = (home.file(HALF), home.file(VARIABLES));
    if whole.exists() {
        return Ok(());
    }
    let copy = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut to = options.open(&half)?;
        io::copy(&mut fs::File::open(template)?, &mut to)?;
        fs::rename(&half, &whole)
    };
    copy().map_err(at(&whole))
}

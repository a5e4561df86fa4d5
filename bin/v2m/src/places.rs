//! What is on disk.
//!
//! ```text
//! <state>/                 /var/lib/v2m as root, $XDG_DATA_HOME/v2m as a user, or --state DIR / V2M_STATE
//!   vms/<name>/record.json what the VM should be, whom it runs as, which disks v2m made: this makes the VM be
//!   vms/<name>/number      the number of the id it runs as, where it has one of its own
//!   vms/<name>/boot        how long its console's log was when it was last started
//!   run/<name>/            the QEMU driver's, fake/<name>/ the fake driver's
//!   probe.json             does KVM work here
//! ```

use anyhow::{Context as _, Result};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes a directory for nobody else to read; as root others may pass, so that a VM's user gets to its own files.
pub fn directory(path: &Path, pass: bool) -> Result<()> {
    let mode = match pass && rustix::process::geteuid().is_root() {
        true => 0o711,
        false => 0o700,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("{} cannot be made", path.display()))
}

/// Writes a private file that appears whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    files::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))
}

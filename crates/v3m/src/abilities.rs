//! What only some hypervisors can do: traits that a driver hands out as `Option<&dyn …>`, and what they speak of.
//!
//! A driver's [`crate::Capabilities`] say the same as these options: `snapshot` is true exactly where
//! [`crate::Driver::snapshots`] is `Some`, `stats` where [`crate::Driver::stats`] is.

use crate::Result;
use api::Name;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// States of a VM that it can be taken back to, kept inside its disks.
///
/// Of a running or paused VM a snapshot holds disks and memory; of one without a process, its disks. While a running VM
/// is saved or taken back its guest stands still, and then goes on.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Makes a snapshot. A name that is taken is refused.
    async fn create(&self, vm: &Name, snapshot: &Name) -> Result<()>;

    /// Those that every writable disk of the VM has, oldest first.
    async fn list(&self, vm: &Name) -> Result<Vec<Snapshot>>;

    /// Takes the VM back to a snapshot: a live VM goes on from there, with its memory (a snapshot without memory is
    /// refused); one without a process boots from the disks as they were.
    async fn apply(&self, vm: &Name, snapshot: &Name) -> Result<()>;

    /// Removes a snapshot. One that is not there is an error.
    async fn delete(&self, vm: &Name, snapshot: &Name) -> Result<()>;
}

/// One snapshot of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub name: String,
    /// Seconds since 1970 (UTC).
    pub created: u64,
    /// Has it the guest's memory, so that a live VM can be taken back to it?
    pub memory: bool,
}

/// What live VMs use of the host.
#[async_trait]
pub trait Stats: Send + Sync {
    /// One entry for each VM that has a process, sorted by name. Cheap; a VM that hangs delays it by a fraction of a
    /// second at most, however many do.
    async fn usage(&self) -> Result<Vec<Usage>>;
}

/// Counters since the VM's process began, and levels now. A rate is the difference of two of them by that of `uptime`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub name: Name,
    pub pid: u32,
    /// Since the process began.
    pub uptime: Duration,
    /// Processor time of the host, of all threads.
    pub cpu: Duration,
    /// Bytes of the host's memory that the VM's process holds, the hypervisor's own included. What the guest never
    /// touched is not in it, what it has freed is.
    pub memory: u64,
    /// Bytes that the guest says it uses, without its caches; none where it has no balloon driver, or does not answer.
    pub memory_used: Option<u64>,
    /// Bytes that the guest's machine has.
    pub memory_configured: u64,
    /// Bytes that the process read from and wrote to the host's disks; what the host's cache gave is not in it.
    pub disk_read: Option<u64>,
    pub disk_written: Option<u64>,
    /// Bytes that came to the guest and went out of it, over all NICs; none where the host does not count them.
    pub net_received: Option<u64>,
    pub net_sent: Option<u64>,
}

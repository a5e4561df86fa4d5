//! The V3M driver for QEMU: with KVM, or with QEMU's own translation (TCG).
//!
//! Each VM is one QEMU process that outlives us, in a directory of its own (module `home`). What runs is known from a
//! lock and from the journal that QEMU itself keeps (module `journal`), never from memory of ours and without asking
//! QEMU: so status and list cost a few small reads a VM, say the same, and do not hang when a QEMU does.
//!
//! ```no_run
#![doc = include_str!("../examples/start.rs")]
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | `arguments` | definition → argument vector |
//! | `fit` | can this host run it: what is missing, and the cure |
//! | `launch` | files, descriptors, privileges; start and wait |
//! | `home`, `journal` | what is on disk, and what it says |
//! | `qmp`, `ask` | the protocol, and what is asked in it: pause, resume, power button |
//! | `disk` | images, by qemu-img |
//! | `link` | NICs on the host's bridges and on private networks |
//! | `firmware`, `cloud` | a VM's own UEFI variables, and its cloud-init disk |
//! | `snapshots`, `machine` | back to what a VM was; does a snapshot's memory fit |
//! | `stats`, `balloon` | what it uses of the host; what its guest says it uses |
//! | `console_log` | the bound of what its console printed |
//! | `owner` | whom QEMU can run as |
//! | `probe` | which accelerator works here; boots a tiny guest |
//! | `tsc` | the clock of translated guests |
//! | `slice` | how soon QEMU's own thread gets a core |

#![allow(unexpected_cfgs, reason = "fuzzing is set by cargo-fuzz")]

pub mod arguments;
mod ask;
mod balloon;
mod cloud;
mod console_log;
pub mod disk;
mod driver;
mod firmware;
mod fit;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod home;
mod journal;
mod launch;
mod link;
mod machine;
mod owner;
mod probe;
pub mod qmp;
mod slice;
mod snapshots;
mod stats;
mod tsc;

pub use driver::{Options, QemuDriver};
pub use link::HELPER as BRIDGE_HELPER;
pub use owner::{can_become, group_of, is_no_accounts};

/// Is there firmware for VMs that boot by UEFI?
pub fn has_uefi() -> bool {
    firmware::find().is_some()
}

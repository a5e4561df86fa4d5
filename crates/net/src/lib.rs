//! One private network per virtual cluster.
//!
//! A small process, the holder, lives in the network namespace of a cluster and hands out open file descriptors on a
//! unix socket: taps for VMs, connected TCP sockets to nodes. Nobody else ever enters the namespace, so neither QEMU
//! nor the user who types `oscarv ssh` needs any right to networking. As an ordinary user there is a user namespace
//! around it.
//!
//! | module | what it is for |
//! |---|---|
//! | `spec` | what the network should be, and its check |
//! | `up`, `client`, `wire` | this side of the socket: start, stop, ask |
//! | `holder`, `way`, `space`, `links`, `tap`, `rules`, `services`, `keeper` | the other side |
//! | `host` | what root needs outside of the namespace |
//! | `check` | is this machine fit |
//!
//! Nothing here trusts its own memory: everything that is made has a name that follows from the cluster's directory
//! and slot, and is found again or removed by that name, whoever was killed in between.

mod check;
mod client;
mod dnsmasq;
mod error;
mod files;
mod holder;
mod host;
mod keeper;
mod links;
mod rules;
mod services;
mod space;
mod spec;
mod tap;
mod up;
mod way;
mod wire;

pub use check::{Missing, check};
pub use client::{dial, send_fd_over_stdout, settled, tap};
pub use error::Error;
pub use holder::holder_main;
pub use host::is_slot_taken;
pub use spec::{Host, MAX_SLOT, Spec};
pub use up::{Status, down, is_current, status, up};

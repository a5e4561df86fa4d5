//! V3M: virtual machines on any hypervisor.
//!
//! A [`Driver`] is a hypervisor back-end. Its core is small; what only some hypervisors can do is an optional trait
//! reached through an `Option`. What a driver can do is data ([`Capabilities`]), so that a command line, a planner and
//! a web page read the same truth. VMs outlive the process that started them and are found again by the next one.
//!
//! Contract of every call: it may be repeated; a failed one never stops a running VM; it changes only the VM it names.
//! Which call is possible in which state, and what follows, is one table: [`State::allows`].

mod abilities;
mod console;
mod driver;
#[cfg(feature = "model-test")]
pub mod model_test;
mod state;

pub use abilities::*;
pub use console::*;
pub use driver::*;
pub use state::*;

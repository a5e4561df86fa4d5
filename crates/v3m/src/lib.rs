//! V3M: virtual machines on any hypervisor.
//!
//! A [`Driver`] is a hypervisor back-end. Its core is small; what only some hypervisors can do is an optional trait
//! reached through an `Option`. What a driver can do is data ([`Capabilities`]), so that a command line, a planner and
//! a web page read the same truth. VMs outlive the process that started them and are found again by the next one.
//!
//! Contract of every call: it may be repeated; a failed one never stops a running VM; it changes only the VM it names.
//! Which call is possible in which state, and what follows, is one table: [`State::allows`].
//!
//! ```
//! use std::time::Duration;
//!
//! /// Runs a VM for a while, on whatever hypervisor the driver is for.
//! async fn run(driver: &dyn v3m::Driver, vm: &profile::Vm) -> v3m::Result<()> {
//!     driver.define(vm).await?;
//!     driver.start(&vm.name).await?;
//!     assert_eq!(driver.status(&vm.name).await?.state, v3m::State::Running);
//!     if let Some(stats) = driver.stats() {
//!         for usage in stats.usage().await? {
//!             println!("{}: {:?} of processor time", usage.name, usage.cpu);
//!         }
//!     }
//!     driver.stop(&vm.name, Duration::from_secs(30)).await?;
//!     driver.undefine(&vm.name).await
//! }
//! ```

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

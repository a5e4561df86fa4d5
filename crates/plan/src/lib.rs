//! Decisions: what has to change, who gets which address, does it fit.
//!
//! All of it is pure: no I/O, no clock, no chance. The same cluster and the same observation give the same answer,
//! on every machine and in every year, so that a plan can be shown, agreed to and then carried out.

mod assign;
mod fits;
mod fold;
mod up;

pub use assign::{AssignError, Assigned, assign, gateway};
pub use fits::{Finding, fits};
pub use fold::fold;
pub use up::{NetworkState, Observed, ObservedNode, Plan, Step, Summary, up};

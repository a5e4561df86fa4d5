//! What a person writes, checked: the cluster file and the VM profile.

mod model;

pub use model::*;

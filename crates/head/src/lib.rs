//! Keeps clusters as their files say: up, down, status.

mod status;

pub use status::*;

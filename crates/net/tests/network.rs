//! Networks for real, as whoever runs the tests.
//!
//! This program is also the holder of the networks that it makes: `up` runs it again as `network net-holder DIR`. The
//! other words in front (`act`) are helper processes of the tests, which are killed or live in namespaces.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics is a test that failed"
)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "plain system calls of a test, in processes of its own"
)]

#[path = "network/cases.rs"]
mod cases;
#[path = "network/faults.rs"]
mod faults;
#[path = "network/guest.rs"]
mod guest;
#[path = "network/kit.rs"]
mod kit;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[1..] {
        ["net-holder", dir] => net::holder_main(Path::new(dir)),
        ["act", ref rest @ ..] => guest::act(rest),
        ref options => kit::run(options, cases::ALL),
    }
}

//! Trees as they go over the network: a tar of one form.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| spread::fuzzing::tree(bytes));

//! Any bytes as a disk image: no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    v3m_qemu::fuzzing::image(bytes).expect("a file in memory can be read");
});

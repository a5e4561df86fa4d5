//! What it costs to ask how much 100 VMs use: `cargo bench -p v3m-qemu --bench stats`.
//!
//! 100 real QEMU processes of a boot sector that waits; then the time of one `usage` of all of them, by the clock and on the processor.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

#[path = "../tests/guests/mod.rs"]
mod guests;

use guests::{Guest, Place};
use std::time::{Duration, Instant};
use v3m::Driver;

const VMS: usize = 100;
const TIMES: u32 = 20;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let place = Place::new();
    let driver = place.driver();
    let mut names = Vec::new();
    for number in 0..VMS {
        let vm = place.vm(&format!("n{number}"), Guest::Dots);
        runtime.block_on(driver.define(&vm)).unwrap();
        runtime.block_on(driver.start(&vm.name)).unwrap();
        // They are to be there, and not in the way.
        runtime.block_on(driver.pause(&vm.name)).unwrap();
        names.push(vm.name);
    }
    let stats = driver.stats().unwrap();
    let usage = || runtime.block_on(stats.usage()).unwrap();
    assert_eq!(usage().len(), VMS);
    let (begin, before) = (Instant::now(), processor());
    for _ in 0..TIMES {
        usage();
    }
    let (clock, cpu) = (begin.elapsed() / TIMES, (processor() - before) / TIMES);
    println!("usage of {VMS} VMs: {clock:.1?} by the clock, {cpu:.1?} of a processor");
    for name in &names {
        runtime.block_on(driver.stop(name, Duration::ZERO)).unwrap();
    }
}

/// Processor time of this process.
fn processor() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

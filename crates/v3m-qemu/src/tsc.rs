//! The frequency of this host's time-stamp counter, which is also that of a translated guest.
//!
//! Under TCG the guest's counter is the host's, but a guest that measures it against QEMU's timers while the host is busy
//! may be wrong by a factor; and a Linux that does not trust it reads its clock by port I/O, thousands of instructions a
//! time instead of one. So we measure, where measuring is exact, and tell it.

use std::fs;
use std::sync::OnceLock;

/// In kHz; none where the host's own kernel does not trust the counter.
pub fn khz() -> Option<u32> {
    static KHZ: OnceLock<Option<u32>> = OnceLock::new();
    *KHZ.get_or_init(|| trusted().then(measure).flatten())
}

/// A counter that stops, changes its rate or differs between cores is not among the kernel's clocks.
fn trusted() -> bool {
    let clocks = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    fs::read_to_string(clocks)
        .is_ok_and(|clocks| clocks.split_whitespace().any(|clock| clock == "tsc"))
}

#[cfg(target_arch = "x86_64")]
fn measure() -> Option<u32> {
    use std::time::Duration;
    /// With readings that are known to some 50 ns, good to about 20 parts in a million.
    const SPAN: Duration = Duration::from_millis(3);

    let (began, first) = reading()?;
    let (ended, last) = loop {
        let (now, count) = reading()?;
        if now.saturating_sub(began) >= SPAN {
            break (now, count);
        }
    };
    let cycles = u128::from(last.checked_sub(first)?);
    let khz = cycles * 1_000_000 / (ended - began).as_nanos();
    // What is outside of this is no processor.
    u32::try_from(khz)
        .ok()
        .filter(|khz| (100_000..20_000_000).contains(khz))
}

/// The clock and the counter at the same moment: the pair, of a few, that took the least time to read.
#[cfg(target_arch = "x86_64")]
fn reading() -> Option<(std::time::Duration, u64)> {
    use rustix::time::{ClockId, clock_gettime};
    let pairs = (0..8).filter_map(|_| {
        // SAFETY: reads a counter.
        let before = unsafe { core::arch::x86_64::_rdtsc() };
        let now = clock_gettime(ClockId::MonotonicRaw);
        // SAFETY: reads a counter.
        let after = unsafe { core::arch::x86_64::_rdtsc() };
        let took = after.checked_sub(before)?;
        let now = std::time::Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        Some((took, now, before + took / 2))
    });
    pairs
        .min_by_key(|(took, ..)| *took)
        .map(|(_, now, count)| (now, count))
}

#[cfg(not(target_arch = "x86_64"))]
fn measure() -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn two_measurements_agree() {
        if !trusted() {
            eprintln!("skipped: this host's kernel does not trust its time-stamp counter");
            return;
        }
        let all: Vec<u32> = (0..5).filter_map(|_| measure()).collect();
        assert_eq!(all.len(), 5, "{all:?}");
        let (low, high) = (*all.iter().min().unwrap(), *all.iter().max().unwrap());
        assert!(f64::from(high - low) < 0.001 * f64::from(low), "{all:?}");
    }
}

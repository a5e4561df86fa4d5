//! How hard to compress: so that the slower of compressing and sending takes the least time.
//!
//! With `n` threads, a frame that takes one of them `t` and is `s` bytes afterwards, over a network that takes `B` bytes a
//! second, costs max(t ÷ n, s ÷ B). Not compressing costs its reading, or its length ÷ B: what is chosen is never slower.
//! `t` and `s` are measured at the level that is used, and known for the others from what zstd's levels are to each
//! other; `B` is measured whenever the network always has something to take, and else taken for more than it gets.

use crate::manifest::FRAME;
use std::time::Duration;

/// A level of zstd, how fast it is, and what is left of what it compresses, both in relation to each other: operating
/// system images, frames of 1 MiB.
struct Level {
    level: i32,
    /// MB/s of one thread.
    speed: f64,
    left: f64,
}

const LEVELS: [Level; 5] = [
    Level::new(-5, 628.0, 0.505),
    Level::new(1, 470.0, 0.360),
    Level::new(3, 282.0, 0.320),
    Level::new(6, 100.0, 0.304),
    Level::new(9, 60.0, 0.300),
];

impl Level {
    const fn new(level: i32, speed: f64, left: f64) -> Self {
        Self { level, speed, left }
    }
}

/// All levels that frames are compressed at.
pub fn all() -> impl Iterator<Item = i32> {
    LEVELS.iter().map(|level| level.level)
}

/// The level that is begun with.
const FIRST: i32 = 3;

/// The fastest level.
pub const FASTEST: i32 = LEVELS[0].level;

/// Compressing may take so much of the time that sending takes: others need processors, too, and it varies.
const SHARE: f64 = 0.7;

/// What is measured counts so much against what was known.
const NEW: f64 = 1.0 / 16.0;

/// What the network takes is looked at over so long a time.
const WINDOW: Duration = Duration::from_millis(200);

/// Fewer frames ready than this: it may have had to wait.
const READY: u32 = 4;

/// What is known of threads, content and network.
pub struct Levels {
    threads: f64,
    /// Seconds to read and hash a frame; to compress one, times the level's speed; its bytes then, by what its level leaves.
    read: Option<f64>,
    work: Option<f64>,
    size: Option<f64>,
    /// Bytes a second, and whether it ever had as much as it could take; what it could is only guessed before.
    network: Option<f64>,
    measured: bool,
    window: Option<Window>,
}

/// What the network has taken since.
struct Window {
    begin: Duration,
    taken: u64,
    had_to_wait: bool,
}

fn learn(known: &mut Option<f64>, now: f64) {
    *known = Some(known.map_or(now, |known| known + (now - known) * NEW));
}

impl Levels {
    pub fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1) as f64,
            read: None,
            work: None,
            size: None,
            network: None,
            measured: false,
            window: None,
        }
    }

    /// The level for the next frame; `None`: as it is.
    pub fn level(&self) -> Option<i32> {
        let (Some(work), Some(size), Some(network)) = (self.work, self.size, self.network) else {
            return Some(FIRST);
        };
        let read = self.read.unwrap_or(0.0);
        let frame = f64::from(FRAME);
        let cost = |time: f64, bytes: f64| f64::max(time / self.threads / SHARE, bytes / network);
        let of = |level: &Level| {
            let left = (size * level.left).min(frame);
            (cost(read + work / level.speed, left), Some(level.level))
        };
        // Of equal ones the one with fewer bytes.
        let all = LEVELS
            .iter()
            .rev()
            .map(of)
            .chain([(cost(read, frame), None)]);
        let least = all.reduce(|best, next| if next.0 < best.0 { next } else { best });
        least.and_then(|(_, level)| level)
    }

    /// A frame was made: seconds for reading it, and for compressing it to so many bytes at this level.
    pub fn made(&mut self, read: Duration, packed: Option<(i32, Duration, usize)>) {
        learn(&mut self.read, read.as_secs_f64());
        let Some((level, time, len)) = packed else {
            return;
        };
        if let Some(level) = LEVELS.iter().find(|known| known.level == level) {
            learn(&mut self.work, time.as_secs_f64() * level.speed);
            learn(&mut self.size, len as f64 / level.left);
        }
    }

    /// So many bytes are on their way, and so many frames are ready.
    pub fn look(&mut self, now: Duration, taken: u64, ready: u32) {
        let window = self.window.get_or_insert(Window {
            begin: now,
            taken,
            had_to_wait: false,
        });
        window.had_to_wait |= ready < READY;
        let time = now.saturating_sub(window.begin);
        if time < WINDOW {
            return;
        }
        let rate = taken.saturating_sub(window.taken) as f64 / time.as_secs_f64();
        if rate > 0.0 {
            let known = self.network.unwrap_or(rate);
            self.network = Some(match (window.had_to_wait, self.measured) {
                (false, _) => rate,
                // It could have taken more; how much shows when it gets more.
                (true, false) => known.max(rate) * 2.0,
                (true, true) => known.max(rate) * 1.02,
            });
            self.measured |= !window.had_to_wait;
        }
        self.window = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const MIB: f64 = 1_048_576.0;

    /// A source that makes frames until the level stays, with a processor of which it gets this part, and content of which
    /// so much is left in relation to what is usual.
    fn settled(network: f64, share: f64, content: f64) -> (Option<i32>, f64, f64) {
        let mut levels = Levels::new(2);
        let (mut now, mut taken) = (Duration::ZERO, 0.0);
        let read = 0.0004 / share;
        let cost = |level: Option<i32>| {
            let level = LEVELS.iter().find(|known| Some(known.level) == level);
            let (time, bytes) = match level {
                Some(level) => (
                    MIB / 1e6 / level.speed / share,
                    (MIB * level.left * content).min(MIB),
                ),
                None => (0.0, MIB),
            };
            (time, bytes, f64::max((read + time) / 2.0, bytes / network))
        };
        for _ in 0..2000 {
            let level = levels.level();
            let (time, bytes, took) = cost(level);
            let packed = level.map(|level| (level, Duration::from_secs_f64(time), bytes as usize));
            levels.made(Duration::from_secs_f64(read), packed);
            now += Duration::from_secs_f64(took);
            taken += bytes;
            let waits = bytes / network < took;
            levels.look(now, taken as u64, if waits { 0 } else { 60 });
        }
        let level = levels.level();
        (level, cost(level).2, cost(None).2)
    }

    #[test]
    fn slow_networks_are_worth_more_work() {
        let at = |bits: f64| settled(bits / 8.0, 1.0, 1.0).0;
        assert_eq!(at(100e6), Some(9));
        assert_eq!(at(1e9), Some(3));
        assert_eq!(at(10e9), None);
    }

    /// Compressing got next to no processor, and so nothing was compressed, for which the network took three times as long.
    #[test]
    fn a_busy_processor_does_not_make_it_slower_than_it_must_be() {
        let (level, took, _) = settled(12e6, 0.05, 1.0);
        assert!(level.is_some_and(|level| level < 6), "{level:?}");
        let best = MIB * 0.36 / 12e6;
        assert!(
            took < 1.5 * best,
            "{level:?}: {took} s a frame instead of {best}"
        );
    }

    proptest! {
        #[test]
        fn never_slower_than_not_to_compress(
            network in 1e6_f64..1e10,
            share in 0.02_f64..1.0,
            content in 0.5_f64..3.0,
        ) {
            let (level, took, plain) = settled(network, share, content);
            prop_assert!(took <= plain * 1.05, "{:?}: {} s instead of {}", level, took, plain);
        }
    }
}

//! What the chain would do on hosts that are not there: the same decisions as the real thing, on links that are numbers.
//!
//! A link carries so many bytes a second up and down; a parent's upward link is shared by its children; a hop is behind
//! the one before it by a constant number of bytes and seconds. Time goes in steps. Given the same scenario it gives the
//! same result.

mod run;

use crate::chain::Parent;
use crate::layout::Layout;
use run::Run;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub bytes: f64,
    /// Bytes a second of a host's link, each way.
    pub rate: f64,
    /// That of the source.
    pub source_rate: f64,
    /// It knows that.
    pub source_knows: bool,
    /// Seconds at which the source, which leads, is killed.
    pub source_killed: Option<f64>,
    /// Chains that go out from the source.
    pub chains: usize,
    /// Bytes that a host is behind its parent.
    pub hop_bytes: f64,
    /// Seconds that a hop takes besides.
    pub hop_seconds: f64,
    /// Bytes that a link carries at once when it was idle: that of a shaper, which lets them go as a reserve.
    pub burst: f64,
    /// Seconds before the first byte: connections, and looking at what is there.
    pub begin: f64,
    /// Where hosts stand; none: nothing is known.
    pub layout: Option<Layout>,
    pub hosts: Vec<Host>,
    /// Seconds after which the simulation ends in any case.
    pub most: f64,
}

/// One host, and what befalls it.
#[derive(Clone, Debug)]
pub struct Host {
    /// Part of the rate that its link has, to it and from it.
    pub down: f64,
    pub up: f64,
    /// Seconds at which it comes.
    pub from: f64,
    /// It has all of it when it comes, and gives it to others.
    pub whole: bool,
    /// Seconds at which it is killed: its connections break.
    pub killed: Option<f64>,
    /// Seconds at which its link is cut: nothing breaks, nothing comes.
    pub cut: Option<f64>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            down: 1.0,
            up: 1.0,
            from: 0.0,
            whole: false,
            killed: None,
            cut: None,
        }
    }
}

/// Numbers that look random and are the same for the same seed (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// From 0 to less than 1.
    pub fn throw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// So many different ones of so many.
    pub fn choose(&mut self, some: usize, all: usize) -> Vec<usize> {
        let mut left: Vec<usize> = (0..all).collect();
        let take = |_| left.swap_remove((self.throw() * left.len() as f64) as usize);
        (0..some.min(all)).map(take).collect()
    }
}

impl Scenario {
    /// Seconds before the first byte, as measured on one machine.
    pub const BEGIN: f64 = 0.03;

    /// So many equal hosts, all there, on links that carry `rate` bytes a second.
    pub fn new(hosts: usize, bytes: f64, rate: f64) -> Self {
        Self {
            bytes,
            rate,
            source_rate: rate,
            source_knows: true,
            source_killed: None,
            chains: 1,
            hop_bytes: 4096.0,
            hop_seconds: 0.0005,
            burst: 0.0,
            begin: 0.0,
            layout: None,
            hosts: vec![Host::default(); hosts],
            most: 1000.0 + 20.0 * bytes / rate,
        }
    }

    /// What no way of sending can beat, in seconds.
    pub fn floor(&self) -> f64 {
        self.bytes / self.rate.min(self.source_rate)
    }

    /// Seconds at which each host has all of it; none: never.
    pub fn run(&self) -> Vec<Option<f64>> {
        let mut run = Run::new(self);
        run.run();
        run.hosts.into_iter().map(|one| one.done).collect()
    }

    /// The same, and after how many seconds it is looked at: who has it from whom then.
    pub fn run_and_look(&self, at: f64) -> (Vec<Option<f64>>, Vec<(Parent, usize)>) {
        let mut run = Run::new(self);
        run.look_at = Some(at);
        run.run();
        let times = run.hosts.into_iter().map(|one| one.done).collect();
        (times, run.looked)
    }
}

#[cfg(test)]
mod tests;

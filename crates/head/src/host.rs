//! This host.

use crate::{Error, Result};
use api::{MiB, Progress};
use profile::Cluster;
use std::fs;
use std::path::Path;

/// Memory that programs can still have, as the kernel estimates it (`MemAvailable`, proc(5)).
pub fn memory_available() -> Result<MiB> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(MiB(kib.unwrap_or(0) / 1024))
}

/// Memory that a process has now, in MiB (`VmRSS`, proc(5)); none where it has ended.
pub fn memory_of(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Refuses what this host's memory cannot carry.
pub(crate) fn fits(cluster: &Cluster, has: MiB, progress: &Progress) -> Result<()> {
    let free = memory_available()?;
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let mut reasons = Vec::new();
    for finding in plan::fits(cluster, MiB(free.0 + has.0), cpus) {
        if finding.is_refusal() {
            reasons.push(finding.to_string());
        } else {
            progress.note(finding.to_string());
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Error::TooLarge {
        name: cluster.name.clone(),
        reasons,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_seen() {
        assert!(memory_of(std::process::id()) > 0);
        assert_eq!(memory_of(u32::MAX), 0);
        assert!(memory_available().unwrap().0 > 0);
    }
}

//! What VMs use of the host, from what the kernel counts for their processes: four small files a VM. The one thing that
//! QEMU is asked for is what the guest says of its memory: see module `balloon`.
//!
//! * Processor time and age: `/proc/PID/stat`. Memory: `/proc/PID/statm`.
//! * Disks: `/proc/PID/io`, what really went to and came from the host's disks. It can be read of one's own processes,
//!   and by root.
//! * Network: the kernel counts for taps. Those of a cluster are in its own network namespace, which the holder's
//!   `/proc/PID/net/dev` shows; it is read once for all VMs there. A tap of the host's is found by its name in QEMU's
//!   `/proc/PID/fdinfo`. User-mode NAT and private networks are not counted by anybody (QEMU 7.2
//!   has no counter there, nor for the guest's end): none, and not 0.
//!
//! Formats: proc(5).

use crate::balloon;
use crate::driver::QemuDriver;
use crate::home::{Home, at};
use api::Name;
use async_trait::async_trait;
use profile::{Link, Vm};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use v3m::{Result, Stats, Usage};

#[async_trait]
impl Stats for QemuDriver {
    async fn usage(&self) -> Result<Vec<Usage>> {
        let dir = self.inner.dir.clone();
        let mut all = match tokio::task::spawn_blocking(move || usage(&dir)).await {
            Ok(usage) => usage?,
            Err(e) => return Err(at(&self.inner.dir)(e.into())),
        };
        let homes = all.iter().map(|usage| self.home(&usage.name)).collect();
        for (usage, used) in all.iter_mut().zip(balloon::used(homes).await) {
            usage.memory_used = used;
        }
        Ok(all)
    }
}

/// Of all VMs under `dir` that have a process.
fn usage(dir: &Path) -> Result<Vec<Usage>> {
    let mut namespaces = Namespaces::default();
    let clock = Clock::read();
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let name = entry.map_err(at(dir))?.file_name();
        let Some(name) = name.to_str().and_then(|name| Name::new(name).ok()) else {
            continue;
        };
        let home = Home::new(dir, &name);
        let (Some(pid @ 1..), Some(vm)) = (home.process()?, home.vm()?) else {
            continue;
        };
        // A process that ended since is none.
        if let Ok(usage) = of(name, pid, &vm, &clock, &mut namespaces) {
            all.push(usage);
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn of(
    name: Name,
    pid: u32,
    vm: &Vm,
    clock: &Clock,
    namespaces: &mut Namespaces,
) -> io::Result<Usage> {
    let file = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let (cpu, began) = ticks(&file("stat")?).ok_or(io::ErrorKind::InvalidData)?;
    let resident = file("statm")?;
    let resident = resident
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    let io = file("io").unwrap_or_default();
    let (net_received, net_sent) = network(pid, vm, namespaces).unzip();
    Ok(Usage {
        name,
        pid,
        uptime: clock.now.saturating_sub(clock.time(began)),
        cpu: clock.time(cpu),
        memory: resident.unwrap_or(0) * clock.page,
        memory_used: None,
        memory_configured: vm.memory.0.saturating_mul(1 << 20),
        disk_read: field(&io, "read_bytes:"),
        disk_written: field(&io, "write_bytes:"),
        net_received,
        net_sent,
    })
}

/// The units of the kernel's numbers.
struct Clock {
    now: Duration,
    ticks_a_second: u64,
    page: u64,
}

impl Clock {
    fn read() -> Self {
        // SAFETY: it takes a number and gives a number.
        let constant = |name| unsafe { libc::sysconf(name) };
        let constant = |name| u64::try_from(constant(name)).unwrap_or(1).max(1);
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self {
            now: Duration::new(now.tv_sec as u64, now.tv_nsec as u32),
            ticks_a_second: constant(libc::_SC_CLK_TCK),
            page: constant(libc::_SC_PAGESIZE),
        }
    }

    fn time(&self, ticks: u64) -> Duration {
        let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(self.ticks_a_second);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// Processor time and time of the start, in ticks. The program's name, in brackets, may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some((number(14)? + number(15)?, number(22)?))
}

fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.trim().parse().ok())
}

/// The counters of a network namespace, by interface: bytes received and sent by the host's end.
type Counters = HashMap<String, (u64, u64)>;

#[derive(Default)]
struct Namespaces {
    /// By the process whose namespace it is.
    of: HashMap<u32, Counters>,
    /// By a network's directory: who holds it.
    holders: HashMap<PathBuf, Option<u32>>,
}

impl Namespaces {
    fn counters(&mut self, pid: u32) -> &Counters {
        self.of.entry(pid).or_insert_with(|| {
            let text = fs::read_to_string(format!("/proc/{pid}/net/dev"));
            text.map(|text| counters(&text)).unwrap_or_default()
        })
    }

    fn holder(&mut self, directory: &Path) -> Option<u32> {
        *self.holders.entry(directory.to_owned()).or_insert_with(|| {
            let lock = directory.join("holder.lock");
            daemon::running(&lock)
                .ok()
                .flatten()
                .filter(|pid| *pid != 0)
        })
    }
}

/// What the guest received and sent; none unless every NIC is counted.
fn network(pid: u32, vm: &Vm, namespaces: &mut Namespaces) -> Option<(u64, u64)> {
    let (mut received, mut sent) = (0, 0);
    let taps = if vm.nics.is_empty() {
        Vec::new()
    } else {
        taps(pid)
    };
    let mut taps = taps.iter();
    for nic in &vm.nics {
        let namespace = match &nic.link {
            Link::Unplugged => continue,
            Link::Nat | Link::Private { .. } => return None,
            Link::Network { directory, .. } => namespaces.holder(directory)?,
            Link::Bridged { .. } | Link::Vlan { .. } | Link::HostOnly { .. } => std::process::id(),
        };
        // Descriptors have the order of the NICs.
        let tap = taps.next()?;
        let (of_host, to_host) = namespaces.counters(namespace).get(tap)?;
        // What the host's end received is what the guest sent.
        sent += of_host;
        received += to_host;
    }
    Some((received, sent))
}

/// The names of the taps that a process has open, by the number of the descriptor.
fn taps(pid: u32) -> Vec<String> {
    let directory = PathBuf::from(format!("/proc/{pid}/fdinfo"));
    let mut found: Vec<(u32, String)> = Vec::new();
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if let Some(name) = text.lines().find_map(|line| line.strip_prefix("iff:")) {
            found.push((number, name.trim().to_owned()));
        }
    }
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

/// `/proc/PID/net/dev`: a line an interface, bytes received first, bytes sent ninth.
fn counters(text: &str) -> Counters {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map_while(|n| n.parse().ok())
            .collect();
        Some((
            name.trim().to_owned(),
            (*numbers.first()?, *numbers.get(8)?),
        ))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_programs_name_may_hold_anything() {
        let stat = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0 20 0 4 0 5000 1 2";
        assert_eq!(ticks(stat), Some((123, 5000)));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn interfaces_are_counted() {
        let text = "Inter-|   Receive    |  Transmit\n face |bytes    packets\n\
                        lo: 1 2 3 4 5 6 7 8 9 10\n t0-a:  100 0 0 0 0 0 0 0 200 0 0\n cut: 1 2\n";
        let counters = counters(text);
        assert_eq!(counters["t0-a"], (100, 200));
        assert_eq!(counters["lo"], (1, 9));
        assert_eq!(counters.len(), 2);
    }
}

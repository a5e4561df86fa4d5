//! For the tests with real VMs: their state, whether this machine can run them, and what a cluster leaves on it.
//!
//! The state outlives the tests, so that an image is built once: `OSCARV_TEST_STATE`, or a directory below cargo's own.

use super::{Home, answer, is_root, processes};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// For nodes that are emulated, on a machine that has other things to do.
pub const UP: &str = "6m";
pub const LIMIT: Duration = Duration::from_secs(60);

/// One test with VMs at a time, also without `--test-threads=1`.
static ONE: Mutex<()> = Mutex::new(());

fn state() -> PathBuf {
    match std::env::var_os("OSCARV_TEST_STATE") {
        Some(state) => PathBuf::from(state),
        None => {
            let user = rustix::process::geteuid().as_raw();
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lab-{user}"))
        }
    }
}

/// A home for a test with VMs; none, and a word why, where this machine cannot run any.
pub fn home() -> Option<(Home, MutexGuard<'static, ()>)> {
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let state = state();
    if let Err(e) = fs::create_dir_all(&state) {
        super::skip(&format!("{}: {e}; set OSCARV_TEST_STATE", state.display()));
        return None;
    }
    let home = Home::with_state(&state.canonicalize().unwrap());
    let check = home.run(&["check"]);
    if check.code != 0 {
        // `./test` has installed what is needed: there a skipped test would be one that cannot fail.
        assert!(
            std::env::var_os("OSCARV_TEST_MUST").is_none(),
            "this machine is not fit:\n{}",
            check.out
        );
        super::skip(&format!("this machine is not fit:\n{}", check.out));
        return None;
    }
    Some((home, guard))
}

/// The smallest cluster: a head with ssh, and what else its file says.
pub fn tiny(name: &str, more: &str) -> String {
    format!("name = \"{name}\"\n[image]\nopkgs = [\"base\"]\n{more}[[group]]\nname = \"head\"\n")
}

/// What a running cluster has on this machine besides files.
#[derive(Debug, Default)]
pub struct Things {
    directory: PathBuf,
    /// When they were seen, in clock ticks since boot.
    at: u64,
    processes: Vec<String>,
    /// As /proc/PID/ns names them: `net:[4026532281]`.
    namespaces: BTreeSet<String>,
    tables: BTreeSet<String>,
}

impl Home {
    pub fn cluster(&self, name: &str) -> PathBuf {
        self.state().join("clusters").join(name)
    }

    pub fn things(&self, cluster: &str) -> Things {
        let directory = self.cluster(cluster);
        let processes = processes(&directory);
        let ours = namespaces("self");
        let mut theirs = BTreeSet::new();
        for process in &processes {
            let pid = process.split(' ').next().unwrap_or_default();
            theirs.extend(namespaces(pid).difference(&ours).cloned());
        }
        let slots = self.entries(cluster);
        let slots = slots.iter().filter_map(|entry| entry.strip_prefix("slot/"));
        let mine: Vec<String> = slots.map(|slot| format!("oscarv_{slot}_")).collect();
        Things {
            directory,
            at: now(),
            processes,
            namespaces: theirs,
            tables: tables()
                .into_iter()
                .filter(|table| mine.iter().any(|m| table.contains(m)))
                .collect(),
        }
    }

    #[track_caller]
    pub fn boot_id(&self, node: &str) -> String {
        let answer = self.ok(&["exec", node, "--", "cat", "/proc/sys/kernel/random/boot_id"]);
        answer.out.trim().to_owned()
    }

    pub fn pid(&self, cluster: &str, node: &str) -> rustix::process::Pid {
        let pid = self.node(cluster, node)["pid"].as_i64().unwrap();
        rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap()
    }
}

impl Things {
    /// There is something to be seen at all: a check that finds nothing must not pass by finding nothing.
    #[track_caller]
    pub fn are_there(&self, nodes: usize) {
        assert!(self.processes.len() > nodes, "{self:?}");
        assert!(!self.namespaces.is_empty(), "{self:?}");
        assert!(!is_root() || !self.tables.is_empty(), "{self:?}");
    }

    /// None of it is left.
    #[track_caller]
    pub fn are_gone(&self) {
        let left = processes(&self.directory);
        assert_eq!(left, Vec::<String>::new(), "processes are left");
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // The kernel gives the numbers of namespaces that have ended to new ones.
            if name.parse::<u32>().is_err() || started(&name).is_none_or(|at| at > self.at) {
                continue;
            }
            let both: Vec<_> = namespaces(&name)
                .intersection(&self.namespaces)
                .cloned()
                .collect();
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            // What has ended and waits for init to notice holds nothing.
            if status.contains("State:\tZ") {
                continue;
            }
            assert!(both.is_empty(), "still in {both:?} is\n{status}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for namespace in &self.namespaces {
            assert!(!mounts.contains(namespace.as_str()), "{namespace} is kept");
        }
        let left: Vec<_> = tables().intersection(&self.tables).cloned().collect();
        assert!(left.is_empty(), "nftables has {left:?}");
        for link in fs::read_dir("/sys/class/net").unwrap().flatten() {
            let alias = fs::read_to_string(link.path().join("ifalias")).unwrap_or_default();
            let ours = self.directory.to_string_lossy();
            assert!(!alias.contains(&*ours), "link {:?} is left", link.path());
        }
    }
}

fn namespaces(pid: &str) -> BTreeSet<String> {
    let links = fs::read_dir(format!("/proc/{pid}/ns"));
    let links = links.into_iter().flatten().flatten();
    links
        .filter_map(|link| fs::read_link(link.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect()
}

/// Now, as [`started`] counts: a hundredth of a second, whatever the kernel's own clock.
fn now() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    (seconds * 100.0) as u64
}

/// When a process started (field 22 of /proc/PID/stat, proc(5)).
fn started(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn tables() -> BTreeSet<String> {
    if !is_root() {
        return BTreeSet::new();
    }
    let mut command = Command::new("nft");
    command.args(["list", "tables"]);
    answer(command).out.lines().map(str::to_owned).collect()
}

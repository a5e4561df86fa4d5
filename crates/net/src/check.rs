//! Is this machine fit for networks, and if not: the command that mends it.

use crate::files::{is_root, program};
use rustix::fs::{Mode, OFlags, open};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Something that is missing on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub what: String,
    /// A command line that mends it, for a person to read and run; none if there is no such command.
    pub remedy: Option<String>,
}

impl Missing {
    fn new(what: impl Into<String>, remedy: &str) -> Self {
        Self {
            what: what.into(),
            remedy: Some(remedy.to_owned()),
        }
    }
}

/// All that is missing for this user; nothing is changed.
pub fn check() -> Vec<Missing> {
    let root = is_root();
    let mut missing = programs(root);
    missing.extend(tun());
    missing.extend(namespaces(root));
    missing
}

fn programs(root: bool) -> Vec<Missing> {
    let mut needed = vec![("dnsmasq", "dnsmasq-base"), ("nft", "nftables")];
    if !root {
        needed.extend([("pasta", "passt"), ("newuidmap", "uidmap")]);
    }
    needed
        .into_iter()
        .filter(|(name, _)| program(name).is_none())
        .map(|(name, package)| {
            Missing::new(
                format!("{name} is not installed"),
                &format!("sudo apt-get install {package}"),
            )
        })
        .collect()
}

fn tun() -> Option<Missing> {
    let error = open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .err()?;
    let (what, remedy) = match error {
        rustix::io::Errno::ACCESS => (
            "this user may not open /dev/net/tun",
            "sudo chmod 0666 /dev/net/tun",
        ),
        _ => ("there is no usable /dev/net/tun", "sudo modprobe tun"),
    };
    Some(Missing::new(format!("{what} ({error})"), remedy))
}

/// Tries it, and only then looks for the reason.
fn namespaces(root: bool) -> Option<Missing> {
    let error = try_namespaces(root).err()?;
    if root {
        return Some(Missing {
            what: format!(
                "network namespaces cannot be made ({error}); in a container, it lacks privileges"
            ),
            remedy: None,
        });
    }
    let setting = |name: &str| {
        fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")))
            .map(|value| value.trim().to_owned())
    };
    let switches = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "65536"),
        ("user.max_net_namespaces", "0", "65536"),
        ("user.max_pid_namespaces", "0", "65536"),
    ];
    let cause = switches
        .iter()
        .find(|(name, bad, _)| setting(name).is_ok_and(|value| value == *bad));
    Some(match cause {
        Some((name, bad, good)) => Missing::new(
            format!("ordinary users may not make user namespaces here ({name} is {bad})"),
            &format!(
                "echo {name}={good} | sudo tee /etc/sysctl.d/60-oscarv.conf && sudo sysctl -w {name}={good}"
            ),
        ),
        None => Missing {
            what: format!(
                "ordinary users may not make user namespaces here ({error}); a security module may forbid it"
            ),
            remedy: None,
        },
    })
}

fn try_namespaces(root: bool) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec only system calls on plain numbers are made. The last one ends the process, so
    // that nothing is executed.
    unsafe {
        command.pre_exec(move || {
            // One by one: where AppArmor restricts user namespaces, the first succeeds, but gives no rights.
            if !root && libc::unshare(libc::CLONE_NEWUSER) != 0 {
                return Err(io::Error::last_os_error());
            }
            for space in [libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWNET] {
                if libc::unshare(space) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            libc::_exit(0)
        });
    }
    command.spawn()?.wait().map(drop)
}

//! The first program of a virtual node: from the initrd to systemd with everything in place that makes the node itself.
//!
//! It loads the modules the root disk needs, mounts the root disk, grows its file system to the disk's size, puts the
//! files of the identity disk (NoCloud, label CIDATA) where they belong, configures the NIC, lets the packages write
//! their configuration (`/usr/lib/oscarv/configure`, once per identity) and hands over to `/sbin/init`.
//! Nothing in the guest waits for udev, DHCP or cloud-init.
//!
//! In a running node, `oscarv-init apply DISK` takes on a changed identity in the same way.
//!
//! Each step is reported on the port `org.oscarv.events`, one line a message: `SECONDS KIND DETAIL…`.
//! No dependencies but std: the crate `image` compiles it, static, into every initrd.

mod events;
mod identity;
mod network;
mod sys;

use events::Events;
use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = "/sysroot";
const IDENTITY: &str = "/identity";
const CONFIGURE: &str = "/usr/lib/oscarv/configure";

fn main() {
    if std::process::id() != 1 {
        std::process::exit(run_in_node(&std::env::args().collect::<Vec<_>>()));
    }
    let mut events = Events::none();
    if let Err(problem) = boot(&mut events) {
        events.tell("failed", &format!("init {problem}"));
        println!("oscarv-init: {problem}");
        sys::sync();
        sys::power_off();
    }
}

/// Not the first program: the node runs, and its identity may have changed.
fn run_in_node(arguments: &[String]) -> i32 {
    let [_, verb, disk] = arguments else {
        eprintln!(
            "usage: oscarv-init apply DISK\nWithout arguments it is the first program of a virtual node."
        );
        return 2;
    };
    match verb.as_str() {
        "apply" => match apply(disk) {
            Ok(()) => 0,
            Err(problem) => {
                eprintln!("oscarv-init: {problem}");
                1
            }
        },
        _ => {
            eprintln!("oscarv-init: {verb:?} is not something it does; `apply DISK` is");
            2
        }
    }
}

/// Installs what the identity disk holds now and lets the packages write their configuration again. The NIC keeps its
/// address: a node whose address changes is started anew.
fn apply(disk: &str) -> Result<(), String> {
    let at = format!("/run/oscarv-identity.{}", std::process::id());
    fs::create_dir_all(&at).map_err(|e| format!("cannot make {at}: {e}"))?;
    sys::mount(disk, &at, "vfat", sys::MS_RDONLY, "")?;
    // Always: a node that booted while the disk was being written anew took its files for those of the new digest.
    let installed = identity::install(Path::new(&at), Path::new("/"), true);
    sys::unmount(&at)?;
    let _ = fs::remove_dir(&at);
    installed?;
    let status = Command::new(CONFIGURE)
        .status()
        .map_err(|e| format!("configure did not start: {e}"))?;
    if !status.success() {
        return Err(format!(
            "configure ended with {status}; see /var/log/oscarv"
        ));
    }
    identity::remember(Path::new("/"))?;
    // What was ready as something else is not ready yet. Stopped first: the port takes one writer at a time.
    let readiness = |verb: &str| {
        let _ = Command::new("systemctl")
            .args([verb, "--quiet", "oscarv-ready.service"])
            .status();
    };
    readiness("stop");
    Events::open().tell("applied", "");
    readiness("start");
    Ok(())
}

fn boot(events: &mut Events) -> Result<(), String> {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        fs::create_dir_all(at).map_err(|e| format!("cannot make {at}: {e}"))?;
        sys::mount(kind, at, kind, 0, "")?;
    }
    load_modules()?;
    *events = Events::open();
    events.tell("boot", "kernel");

    let arguments = fs::read_to_string("/proc/cmdline")
        .map_err(|e| format!("cannot read /proc/cmdline: {e}"))?;
    let root = argument(&arguments, "root").unwrap_or("/dev/vda");
    fs::create_dir_all(ROOT).map_err(|e| e.to_string())?;
    sys::mount(root, ROOT, "ext4", sys::MS_NOATIME, "")?;
    if let Err(problem) = sys::grow(root, ROOT) {
        events.tell(
            "note",
            &format!("the root file system was not grown: {problem}"),
        );
    }

    if let Some(disk) = argument(&arguments, "oscarv.identity") {
        fs::create_dir_all(IDENTITY).map_err(|e| e.to_string())?;
        sys::mount(disk, IDENTITY, "vfat", sys::MS_RDONLY, "")?;
        let new = identity::install(Path::new(IDENTITY), Path::new(ROOT), false)?;
        let facts = identity::facts(Path::new(IDENTITY))?;
        network::up(&facts)?;
        sys::unmount(IDENTITY)?;
        events.tell("boot", "identity");
        if new {
            configure(events)?;
            identity::remember(Path::new(ROOT))?;
        }
    }

    events.tell("boot", "systemd");
    for at in ["/dev", "/proc", "/sys"] {
        sys::move_mount(at, &format!("{ROOT}{at}"))?;
    }
    sys::switch_root(ROOT, "/sbin/init")
}

fn argument<'a>(arguments: &'a str, key: &str) -> Option<&'a str> {
    arguments
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// Loads what `/modules/order` names, in that order; one that is built in or loaded is no error.
fn load_modules() -> Result<(), String> {
    let Ok(order) = fs::read_to_string("/modules/order") else {
        return Ok(());
    };
    for name in order.lines().filter(|line| !line.is_empty()) {
        sys::load_module(&format!("/modules/{name}"))?;
    }
    Ok(())
}

/// Lets the packages write their configuration, in the root that is to be. What fails is reported by the script
/// itself; the node still boots, so that one can look at it.
fn configure(events: &mut Events) -> Result<(), String> {
    let program = format!("{ROOT}{CONFIGURE}");
    if !Path::new(&program).exists() {
        return Ok(());
    }
    for at in ["/dev", "/proc", "/sys"] {
        sys::bind(at, &format!("{ROOT}{at}"))?;
    }
    let status = sys::in_root(
        Command::new(CONFIGURE).env_clear().env("PATH", sys::PATH),
        ROOT,
    )
    .status();
    for at in ["/sys", "/proc", "/dev"] {
        sys::unmount(&format!("{ROOT}{at}"))?;
    }
    match status {
        Ok(status) if status.success() => events.tell("boot", "configured"),
        Ok(status) => events.tell("failed", &format!("configure ended with {status}")),
        Err(problem) => events.tell("failed", &format!("configure did not start: {problem}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn kernel_arguments() {
        let line = "console=ttyS0 root=/dev/vda oscarv.identity=/dev/vdb rootflags=x\n";
        assert_eq!(super::argument(line, "root"), Some("/dev/vda"));
        assert_eq!(super::argument(line, "oscarv.identity"), Some("/dev/vdb"));
        assert_eq!(super::argument(line, "oscarv"), None);
    }
}

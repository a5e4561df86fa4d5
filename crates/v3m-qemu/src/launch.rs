//! From a definition to a running QEMU.
//!
//! Everything QEMU needs in the VM's directory is made here first: logs, the journal's FIFO, both listening sockets.
//! Then it is started by `daemon::spawn` as the holder of `qemu.lock`, and the journal says when the guest runs. A caller
//! killed in between leaves either no process (and the next start begins anew) or one that is found, on its way.
//!
//! Least privilege: as root, with an owner given, QEMU becomes that user between fork and exec and has no way back;
//! the VM's directory stays root's, so that a guest that breaks out of QEMU cannot change what QEMU is started with.

use crate::arguments::{Accelerator, Descriptors, Site, arguments};
use crate::home::{Home, Run, at, remove, write};
use crate::journal;
use daemon::Spawned;
use files::Place;
use profile::{Channel, Disk, Display, Firmware, Link, Medium, Vm};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use v3m::{Error, Result};

/// The user that QEMU runs as when root starts it.
pub type Owner = (u32, u32);

/// Starts QEMU; the caller holds the VM's lock and has seen that none runs.
pub fn spawn(
    home: &Home,
    vm: &Vm,
    accelerator: Accelerator,
    program: &Path,
    owner: Option<Owner>,
    new_disk: crate::disk::Made,
) -> Result<()> {
    let owner = owner.filter(|_| rustix::process::geteuid().is_root());
    if let Some((uid, gid)) = owner
        && (uid == 0 || gid == 0)
    {
        return Err(Error::StartFailed {
            name: home.name.clone(),
            reason: format!(
                "QEMU is to run as user {uid}, group {gid}: root's rights are not given to it"
            ),
        });
    }
    let findings = crate::fit::findings(vm, accelerator, Path::new("/"));
    if !findings.is_empty() {
        let (name, reason) = (home.name.clone(), findings.join("\n"));
        let hosts = crate::fit::of_host(vm, accelerator, Path::new("/"));
        return Err(
            match findings.iter().all(|finding| hosts.contains(finding)) {
                true => Error::Unfit { name, reason },
                false => Error::StartFailed { name, reason },
            },
        );
    }
    // From here to the next `run.json` the VM counts as never started: a start cut off leaves no crash behind.
    for file in ["run.json", "stopping", "paused", "qmp.sock", "console.sock"] {
        remove(&home.file(file))?;
    }
    let directory = File::open(&home.path).map_err(at(&home.path))?;
    if let Some((_, gid)) = owner {
        // QEMU may reach its files, and make none.
        fchown(&directory, Some(0), Some(gid)).map_err(at(&home.path))?;
        let mode = Permissions::from_mode(0o710);
        directory.set_permissions(mode).map_err(at(&home.path))?;
    }
    let log = made(&home.file("qemu.log"), true, None)?;
    made(&home.file("console.log"), false, owner)?;
    made(&home.file("journal.out"), true, owner)?;
    let fifo = fifo(&home.file("journal.in"), owner)?;
    let qmp = listen(&directory, "qmp.sock").map_err(at(&home.file("qmp.sock")))?;
    let console = listen(&directory, "console.sock").map_err(at(&home.file("console.sock")))?;
    for Channel { log, .. } in &vm.channels {
        made(log, false, owner)?;
    }
    let uefi = furnish(home, vm, owner, new_disk)?;
    let writable = |disk: &&Disk| !disk.read_only && disk.medium == Medium::Disk;
    if let Some((uid, _)) = owner {
        // All of them first: a start that is refused takes nothing from who has it.
        for disk in vm.disks.iter().filter(writable) {
            if taken(&disk.path, uid).map_err(at(&disk.path))? {
                return Err(Error::StartFailed {
                    name: home.name.clone(),
                    reason: crate::fit::is_in_use(&disk.path.display()),
                });
            }
        }
    }
    for disk in vm.disks.iter().filter(writable) {
        give(&disk.path, owner)?;
    }
    let networks = home.path.parent().unwrap_or(&home.path).to_owned();
    let taps = taps(home, vm, &networks)?;

    let descriptors = Descriptors {
        qmp: qmp.as_raw_fd(),
        console: console.as_raw_fd(),
        taps: taps
            .iter()
            .map(|tap| tap.as_ref().map(AsRawFd::as_raw_fd))
            .collect(),
    };
    let mut inherited = vec![descriptors.qmp, descriptors.console, fifo.as_raw_fd()];
    inherited.extend(descriptors.taps.iter().flatten());
    let tsc_khz = match accelerator {
        Accelerator::Tcg => crate::tsc::khz(),
        Accelerator::Kvm => None,
    };
    let site = Site {
        tsc_khz,
        uefi,
        networks,
    };
    let mut command = Command::new(program);
    command
        .args(arguments(vm, accelerator, &descriptors, &site))
        .current_dir(&home.path)
        .stdout(log.try_clone().map_err(at(&home.path))?)
        .stderr(Stdio::from(log));
    let groups = match (accelerator, fs::metadata("/dev/kvm")) {
        (Accelerator::Kvm, Ok(kvm)) => vec![kvm.gid()],
        _ => Vec::new(),
    };
    // SAFETY: the closure runs between fork and exec and makes only system calls, on memory made before the fork.
    unsafe {
        command.pre_exec(move || become_qemu(&inherited, owner, &groups));
    }
    write(
        &home.file("run.json"),
        &Run {
            kvm: accelerator == Accelerator::Kvm,
        },
    )?;
    match daemon::spawn(&home.lock_file(), command) {
        Ok(Spawned::Started(child)) => {
            children().push(child);
            Ok(())
        }
        Ok(Spawned::AlreadyRunning(_)) => Ok(()),
        Err(e) => {
            remove(&home.file("run.json"))?;
            let name = home.name.clone();
            let reason = format!("cannot run {}: {e}", program.display());
            Err(match e.kind() {
                ErrorKind::NotFound => Error::Unfit {
                    name,
                    reason: format!("{reason}; try: {}", crate::probe::INSTALL),
                },
                _ => Error::StartFailed { name, reason },
            })
        }
    }
}

/// What this process started, whichever driver it was, and has not yet buried.
fn children() -> MutexGuard<'static, Vec<Child>> {
    static CHILDREN: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the exit statuses of children that have ended, so that a long-lived caller has no zombies.
pub fn bury() {
    children().retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// In the child, before it is QEMU: pass the descriptors on, and let go of every right.
fn become_qemu(inherited: &[RawFd], owner: Option<Owner>, groups: &[u32]) -> io::Result<()> {
    let check = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    crate::slice::shorten();
    // SAFETY: plain system calls on plain integers, and a group list whose length is told.
    unsafe {
        libc::umask(0o077);
        for fd in inherited {
            check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
        }
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        if let Some((uid, gid)) = owner {
            check(libc::setgroups(groups.len(), groups.as_ptr()))?;
            check(libc::setresgid(gid, gid, gid))?;
            check(libc::setresuid(uid, uid, uid))?;
        }
    }
    Ok(())
}

/// Waits until the journal says that the guest's CPUs run. The end of the process is an event; the journal is looked at
/// in steps of a sixteenth of the time that has passed, since closing an inotify descriptor takes the kernel 20 ms.
pub fn wait_running(home: &Home, limit: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        // The process first: what it wrote before it ended is then in the journal.
        let process = process(home)?;
        if home.journal()?.started {
            return Ok(());
        }
        let failed = |reason| Error::StartFailed {
            name: home.name.clone(),
            reason,
        };
        let Some(process) = process else {
            let words = home.last_words(5);
            return Err(failed(if words.is_empty() {
                "QEMU ended without a word: it was killed (out of memory? see dmesg)".to_owned()
            } else {
                crate::fit::in_use(&words).unwrap_or(words)
            }));
        };
        let passed = begin.elapsed();
        if passed > limit {
            return Err(failed(format!(
                "QEMU runs, but its guest does not after {} s; is the host overloaded? Start it again to wait on, or stop it",
                limit.as_secs()
            )));
        }
        let step = (passed / 16).clamp(Duration::from_micros(300), Duration::from_millis(50));
        wait(&process, step).map_err(at(&home.lock_file()))?;
    }
}

/// Waits until the VM's process is gone; false if `limit` passed first.
pub fn wait_gone(home: &Home, limit: Duration) -> Result<bool> {
    let lock = home.lock_file();
    daemon::wait(&lock, limit).map_err(at(&lock))
}

/// A handle of the VM's process that becomes readable when it ends.
fn process(home: &Home) -> Result<Option<OwnedFd>> {
    loop {
        let Some(pid) = home.process()? else {
            return Ok(None);
        };
        let handle = i32::try_from(pid).ok().and_then(Pid::from_raw);
        match handle.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(fd)) if home.process()? == Some(pid) => return Ok(Some(fd)),
            // Between fork and exec, or just gone: look again.
            None | Some(Ok(_) | Err(rustix::io::Errno::SRCH)) => std::thread::yield_now(),
            Some(Err(e)) => return Err(at(&home.lock_file())(e.into())),
        }
    }
}

fn wait(process: &OwnedFd, limit: Duration) -> io::Result<()> {
    let timeout = Timespec {
        tv_sec: limit.as_secs() as i64,
        tv_nsec: limit.subsec_nanos() as i64,
    };
    match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A private file that is there, QEMU's where QEMU opens it.
fn made(path: &Path, empty: bool, owner: Option<Owner>) -> Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(at(path))?;
    if empty {
        file.set_len(0).map_err(at(path))?;
    }
    hand(&file, owner).map_err(at(path))?;
    Ok(file)
}

/// Gives a disk of root's to QEMU's user, or one that another VM had. Root goes over no link of a user's to it: it could
/// lead to anything; and what a user has is not taken from him.
fn give(path: &Path, owner: Option<Owner>) -> Result<()> {
    given(path, owner, |user| {
        user == 0 || crate::owner::is_no_accounts(user)
    })
}

/// Is this disk another user's, and does a QEMU have it open? QEMU says which access it has and shares by locks on single
/// bytes from 100 on (QEMU, `block/file-posix.c`: `RAW_LOCK_PERM_BASE`, `RAW_LOCK_SHARED_BASE`).
fn taken(path: &Path, uid: u32) -> io::Result<bool> {
    let place = Place::found(path)?;
    let found = place.handle()?.metadata()?;
    if !found.is_file() || found.uid() == uid {
        // Nothing is given away, and QEMU itself looks.
        return Ok(false);
    }
    let file = place.open(false)?;
    // SAFETY: a struct of integers, for which all zeros are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (100, 200);
    // SAFETY: an open descriptor and a valid struct, which the kernel fills in.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(lock.l_type != libc::F_UNLCK as libc::c_short),
        _ => Err(io::Error::last_os_error()),
    }
}

fn given(path: &Path, owner: Option<Owner>, from: impl Fn(u32) -> bool) -> Result<()> {
    match owner {
        Some(owner) => Place::found(path)
            .and_then(|place| place.give(owner, from))
            .map_err(at(path)),
        None => Ok(()),
    }
}

fn hand(file: &File, owner: Option<Owner>) -> io::Result<()> {
    match owner {
        Some((uid, gid)) if file.metadata()?.is_file() => fchown(file, Some(uid), Some(gid)),
        _ => Ok(()),
    }
}

/// The journal's FIFO with its commands in it. While the returned descriptor, or QEMU's copy of it, is open they stay.
fn fifo(path: &Path, owner: Option<Owner>) -> Result<OwnedFd> {
    remove(path)?;
    let make = || -> io::Result<OwnedFd> {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        if let Some((uid, gid)) = owner {
            fchown(&fd, Some(uid), Some(gid))?;
        }
        match rustix::io::write(&fd, journal::COMMANDS)? {
            n if n == journal::COMMANDS.len() => Ok(fd),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    };
    make().map_err(at(path))
}

/// A socket that listens in `directory`, whose path may be longer than an address.
fn listen(directory: &File, name: &str) -> io::Result<UnixListener> {
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Makes what the VM's description only promises: disks with a size whose files are missing, a UEFI machine's variables,
/// the disk for cloud-init, the directory for VNC's socket.
fn furnish(
    home: &Home,
    vm: &Vm,
    owner: Option<Owner>,
    new_disk: crate::disk::Made,
) -> Result<Option<PathBuf>> {
    let failed = |reason| Error::StartFailed {
        name: home.name.clone(),
        reason,
    };
    for disk in &vm.disks {
        if disk.size.is_some() && disk.path.exists() {
            // The start that made it may have been killed before it had tidied up.
            crate::disk::sweep_beside(&disk.path);
        }
        if let (Some(size), false) = (disk.size, disk.path.exists()) {
            match crate::disk::create_told(&disk.path, disk.format, size, new_disk) {
                // Another VM's start was first with a disk that they share.
                Ok(()) | Err(crate::disk::Error::Exists { .. }) => {}
                Err(e @ crate::disk::Error::Program(_)) => {
                    let (name, reason) = (home.name.clone(), e.to_string());
                    return Err(Error::Unfit { name, reason });
                }
                Err(e) => return Err(failed(format!("cannot make a disk: {e}"))),
            }
        }
    }
    let mut code = None;
    if vm.firmware == Firmware::Uefi {
        let Some((found, template)) = crate::firmware::find() else {
            return Err(failed(crate::firmware::MISSING.to_owned()));
        };
        crate::firmware::variables(home, &template)?;
        given(&home.file(crate::firmware::VARIABLES), owner, |_| true)?;
        code = Some(found);
    }
    if let Some(cloud) = &vm.cloud_init {
        crate::cloud::write(home, cloud)?;
        given(&home.file(crate::cloud::FILE), owner, |_| true)?;
    }
    if vm.display == Display::Vnc {
        let vnc = home.file("vnc");
        match DirBuilder::new().mode(0o700).create(&vnc) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(at(&vnc)(e)),
            _ => remove(&vnc.join("vnc.sock"))?,
        }
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::lchown(&vnc, Some(uid), Some(gid)).map_err(at(&vnc))?;
        }
    }
    Ok(code)
}

/// One descriptor for each NIC that needs one.
fn taps(home: &Home, vm: &Vm, networks: &Path) -> Result<Vec<Option<OwnedFd>>> {
    vm.nics
        .iter()
        .map(|nic| {
            let name = home.name.clone();
            crate::link::open(&nic.link, networks).map_err(|reason| match &nic.link {
                // A cluster's network is made by who runs the cluster; the others are the host's.
                Link::Network { .. } => Error::StartFailed { name, reason },
                _ => Error::Unfit { name, reason },
            })
        })
        .collect()
}

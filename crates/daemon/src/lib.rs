//! Processes that outlive the command that started them, and are found again.
//!
//! Such a process holds a lock on a file of its own for its whole life: it gets the locked file as its standard input.
//! The lock is an open-file-description lock (`F_OFD_SETLK`, fcntl(2)), which goes with the descriptor over fork and
//! exec, ends with the last copy of it, and can be tested without being taken. The process's id is the file's content.
//! So "is it alive, and which one is it" has one answer that no recycled pid can fool.
//!
//! Until the id is written, the child dies with its parent: a command killed between any two steps leaves either a
//! process that the next command finds, or none.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// What [`spawn`] found.
#[derive(Debug)]
pub enum Spawned {
    /// It runs now; the child can be waited for while the caller lives.
    Started(Child),
    /// It ran before; nothing was started.
    AlreadyRunning(u32),
}

/// Starts `command` as the holder of `lock`, in a session of its own. Its standard input is the lock file; set the
/// other two before. The lock file is made (mode 0600) where it is missing; its directory must be there.
pub fn spawn(lock: &Path, mut command: Command) -> io::Result<Spawned> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock)?;
    if !take(&file)? {
        return Ok(Spawned::AlreadyRunning(holder_of(&file)?.unwrap_or(0)));
    }
    file.set_len(0)?;
    let fd = file.as_raw_fd();
    let parent = std::process::id();
    command.stdin(file.try_clone()?);
    // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls on plain integers.
    unsafe {
        command.pre_exec(move || {
            // Order matters: first bind our life to the parent's, then check that it is still there, then say who we are.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            libc::setsid();
            let mut digits = [0u8; 11];
            let text = decimal(libc::getpid() as u32, &mut digits);
            if libc::pwrite(fd, text.as_ptr().cast(), text.len(), 0) != text.len() as isize {
                return Err(io::Error::last_os_error());
            }
            if libc::prctl(libc::PR_SET_PDEATHSIG, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.spawn().map(Spawned::Started)
}

/// Makes `command` end with us: what it was to do is of no use to whoever comes after us, and would be in the way. The
/// thread that starts it must live as long as it does.
pub fn dies_with_us(command: &mut Command) -> &mut Command {
    let parent = std::process::id();
    // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls on plain integers.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        })
    }
}

/// The id of the process that holds `lock`, or none. A missing file is no process.
pub fn running(lock: &Path) -> io::Result<Option<u32>> {
    match File::open(lock) {
        Ok(file) => holder_of(&file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sends a signal to the process that holds `lock`; false if there is none.
pub fn signal(lock: &Path, signal: Signal) -> io::Result<bool> {
    match holder_fd(lock)? {
        Some(fd) => match pidfd_send_signal(&fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(e.into()),
        },
        None => Ok(false),
    }
}

/// Waits until no process holds `lock`; false if `limit` passed first.
pub fn wait(lock: &Path, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    while let Some(fd) = holder_fd(lock)? {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos() as i64,
        };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            // The process has ended, but its descriptors may be closed a moment later.
            Ok(_) | Err(rustix::io::Errno::INTR) => std::thread::yield_now(),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

/// Kills the process that holds `lock` and waits until it is gone. Of no process: nothing happens.
pub fn kill(lock: &Path, limit: Duration) -> io::Result<()> {
    if signal(lock, Signal::KILL)? && !wait(lock, limit)? {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the process was killed but has not ended",
        ));
    }
    Ok(())
}

/// A handle of the holder that cannot come to mean another process: taken, then checked against the lock.
fn holder_fd(lock: &Path) -> io::Result<Option<OwnedFd>> {
    loop {
        let Some(pid) = running(lock)? else {
            return Ok(None);
        };
        let Some(handle) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            // Locked, but its id is not written yet: it is between fork and exec.
            std::thread::yield_now();
            continue;
        };
        match pidfd_open(handle, PidfdFlags::empty()) {
            Ok(fd) if running(lock)? == Some(pid) => return Ok(Some(fd)),
            Ok(_) | Err(rustix::io::Errno::SRCH) => std::thread::yield_now(),
            Err(e) => return Err(e.into()),
        }
    }
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes the lock for this open file; false if another one has it.
fn take(file: &File) -> io::Result<bool> {
    let lock = whole_file(libc::F_WRLCK);
    // SAFETY: the descriptor is open and the struct is valid for the length of the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        e => Err(e),
    }
}

/// The id in the file if somebody else has its lock: 0 while it is not written yet.
fn holder_of(mut file: &File) -> io::Result<Option<u32>> {
    let mut lock = whole_file(libc::F_WRLCK);
    // A read-only descriptor may ask about a write lock: F_OFD_GETLK takes nothing.
    // SAFETY: the descriptor is open and the struct is valid for the length of the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if lock.l_type == libc::F_UNLCK as libc::c_short {
        return Ok(None);
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(Some(text.trim().parse().unwrap_or(0)))
}

/// `number` in decimal, without allocation (between fork and exec none is allowed).
fn decimal(mut number: u32, digits: &mut [u8; 11]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

//! The keeper: the parent of dnsmasq and pasta, and our hand outside of the network namespace.
//!
//! It is forked off before the holder enters the network namespace, and is the first process of a process namespace
//! (pid_namespaces(7)), so whatever it starts cannot outlive it. `PR_SET_PDEATHSIG` would not do: both programs change
//! their credentials, which clears it. When the holder ends, the socket between the two ends; the keeper then kills
//! and reaps everything, and only then lets go of `services.lock`. So who sees that lock free knows that all is gone.
//!
//! It does what it is told, one thing at a time; all decisions are the holder's. Programs see `run/` of the network's
//! directory as /tmp, in a mount namespace of their own: so dnsmasq, which is nobody when it reads its files again,
//! needs no way through our private directories, and pasta finds the network namespace as a file (/tmp/netns).

use crate::files::{Dir, SERVICES_LOCK};
use crate::{Error, host, rules, wire};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, pidfd_open, wait, waitpid,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// With a descriptor: the cluster's network namespace.
    Space,
    /// With a descriptor: standard output and error of the program. `inside`: in the cluster's network namespace.
    Start {
        id: u32,
        argv: Vec<String>,
        inside: bool,
    },
    Signal {
        id: u32,
        signal: i32,
    },
    /// Rules for the cluster's namespace.
    Rules {
        id: u32,
        text: String,
    },
    /// Rules for the host's, and forwarding.
    Forward {
        id: u32,
        text: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Done {
        id: u32,
    },
    Failed {
        id: u32,
        reason: String,
    },
    /// A program that was started has ended.
    Ended {
        id: u32,
        how: String,
    },
}

/// Forks the keeper; the holder's end of the socket. The caller must have one thread only.
pub(crate) fn fork(dir: &Dir) -> Result<OwnedFd, Error> {
    let cannot = || Error::io("cannot start the keeper of services");
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| cannot()(e.into()))?;
    let run = CString::new(dir.join("run").into_os_string().into_vec())
        .map_err(|e| cannot()(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
    let lock = lock(dir).map_err(Error::at("cannot lock", &dir.join(SERVICES_LOCK)))?;
    // SAFETY: there is one thread, so the child may do whatever the parent might.
    match unsafe { libc::fork() } {
        -1 => Err(cannot()(io::Error::last_os_error())),
        0 => {
            drop(ours);
            let code = match keep(theirs, run) {
                Ok(()) => 0,
                Err(e) => {
                    eprintln!("keeper: {e}");
                    1
                }
            };
            end_all();
            drop(lock);
            // SAFETY: ends this process without the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        pid => {
            // Of the keeper's namespace it would be 1: who waits for it needs our number.
            lock.write_all_at(pid.to_string().as_bytes(), 0)
                .map_err(cannot())?;
            Ok(ours)
        }
    }
}

/// The lock file, locked for this open file (`F_OFD_SETLK`), as crate `daemon` does it.
fn lock(dir: &Dir) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(SERVICES_LOCK))?;
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open and the struct is valid for the length of the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    file.set_len(0)?;
    Ok(file)
}

struct Keeper {
    socket: OwnedFd,
    run: CString,
    space: Option<OwnedFd>,
    children: BTreeMap<u32, (Pid, OwnedFd)>,
}

/// Until the holder ends.
fn keep(socket: OwnedFd, run: CString) -> io::Result<()> {
    // The holder's lock and its listening socket, which must end with the holder.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: takes plain numbers; both are replaced on purpose, and this process has no other user of them.
        if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let mut keeper = Keeper {
        socket,
        run,
        space: None,
        children: BTreeMap::new(),
    };
    loop {
        let mut watched = vec![PollFd::new(&keeper.socket, PollFlags::IN)];
        watched.extend(
            keeper
                .children
                .values()
                .map(|(_, fd)| PollFd::new(fd, PollFlags::IN)),
        );
        match poll(&mut watched, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let asked = !watched[0].revents().is_empty();
        drop(watched);
        keeper.reap()?;
        if asked && !keeper.serve()? {
            return Ok(());
        }
    }
}

impl Keeper {
    /// One order; false at the end.
    fn serve(&mut self) -> io::Result<bool> {
        let mut bytes = vec![0; wire::LIMIT];
        let (count, fd) = match wire::receive(&self.socket, &mut bytes) {
            Ok((0, _)) => return Ok(false),
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(e) => return Err(e),
        };
        let (id, result) = match serde_json::from_slice(&bytes[..count])? {
            Order::Space => {
                self.space = fd;
                return Ok(true);
            }
            Order::Start { id, argv, inside } => (id, self.start(id, &argv, inside, fd)),
            Order::Signal { id, signal } => {
                if let (Some((pid, _)), Some(signal)) =
                    (self.children.get(&id), Signal::from_named_raw(signal))
                {
                    // It is our child and not reaped yet, so the number is still its own.
                    let _ = kill_process(*pid, signal);
                }
                return Ok(true);
            }
            Order::Rules { id, text } => {
                let space = self.space.as_ref().map(AsFd::as_fd);
                (id, rules::nft(&["-f", "-"], &text, space).map(drop))
            }
            Order::Forward { id, text } => (id, host::forward(&text)),
        };
        self.tell(&match result {
            Ok(()) => Event::Done { id },
            Err(e) => Event::Failed {
                id,
                reason: e.chain(),
            },
        })?;
        Ok(true)
    }

    fn start(
        &mut self,
        id: u32,
        argv: &[String],
        inside: bool,
        output: Option<OwnedFd>,
    ) -> Result<(), Error> {
        let cannot = || {
            Error::io(format!(
                "cannot start {}",
                argv.first().map_or("nothing", |a| a)
            ))
        };
        let (Some(output), Some(space), [program, arguments @ ..]) = (output, &self.space, argv)
        else {
            return Err(cannot()(io::ErrorKind::InvalidInput.into()));
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(cannot())?)
            .stderr(output);
        let (run, space) = (self.run.clone(), space.as_raw_fd());
        let netns = path_of(space);
        // SAFETY: between fork and exec only system calls on numbers and texts made before are made.
        unsafe { command.pre_exec(move || surroundings(inside.then_some(space), &run, &netns)) };
        let child = command.spawn().map_err(cannot())?;
        let pid = Pid::from_child(&child);
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| cannot()(e.into()))?;
        self.children.insert(id, (pid, handle));
        Ok(())
    }

    /// All that have ended, ours and orphans.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let id = self
                        .children
                        .iter()
                        .find(|(_, (child, _))| *child == pid)
                        .map(|(id, _)| *id);
                    if let Some(id) = id {
                        self.children.remove(&id);
                        self.tell(&Event::Ended {
                            id,
                            how: how(status),
                        })?;
                    }
                }
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn tell(&self, event: &Event) -> io::Result<()> {
        match wire::send(&self.socket, &serde_json::to_vec(event)?, None) {
            // The holder has ended; the next read says so.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map(drop),
        }
    }
}

fn how(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

/// `/proc/self/fd/<fd>` with a final zero, in no heap.
type Source = [u8; 32];

fn path_of(fd: RawFd) -> Source {
    let mut path = [0; 32];
    for (to, from) in path.iter_mut().zip(format!("/proc/self/fd/{fd}").bytes()) {
        *to = from;
    }
    path
}

/// Between fork and exec: the network namespace, and `run/` in the place of /tmp with the namespace as a file in it.
fn surroundings(space: Option<RawFd>, run: &CStr, netns: &Source) -> io::Result<()> {
    let check = |result: libc::c_int| {
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    let none = std::ptr::null();
    // SAFETY: all texts end with zero and live long enough; the kernel only reads them.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(
            none,
            c"/".as_ptr(),
            none,
            libc::MS_REC | libc::MS_SLAVE,
            none.cast(),
        ))?;
        let sources = [run.as_ptr(), netns.as_ptr().cast()];
        for (source, target) in sources.into_iter().zip([c"/tmp", c"/tmp/netns"]) {
            check(libc::mount(
                source,
                target.as_ptr(),
                none,
                libc::MS_BIND,
                none.cast(),
            ))?;
        }
        if let Some(space) = space {
            check(libc::setns(space, libc::CLONE_NEWNET))?;
        }
    }
    Ok(())
}

/// Kills and reaps all processes of our process namespace.
fn end_all() {
    // Anywhere else this would mean all processes of the user.
    if std::process::id() != 1 {
        return;
    }
    // SAFETY: takes plain numbers only.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    while !matches!(
        waitpid(None, WaitOptions::empty()),
        Err(rustix::io::Errno::CHILD)
    ) {}
}

//! Our terminal and a serial console, joined. Keys go through as they are, but for Ctrl-].
//!
//! While they are joined our terminal is raw, and is put right however it ends: by the key, by the VM, by a signal that
//! asks us to end (so that another can take the console over), by a reader of our output that has gone.

use crate::exit::{Code, Failure};
use crate::file::last_lines;
use crate::{Screen, print};
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Ctrl-], as telnet and virsh have it.
const DETACH: u8 = 0x1d;
/// Lines of the past that are shown first.
const PAST: usize = 20;

/// Shows the end of what `name` has printed.
pub fn past(log: &Path) -> Result<()> {
    match last_lines(log, PAST) {
        Ok(past) => print(past),
        // Nothing was printed yet.
        Err(_) => Ok(()),
    }
}

/// Joins standard input and output with the console `far` of `name`, until one side ends or Ctrl-] is typed.
pub fn attach(screen: &Screen, name: &str, far: &mut (impl Read + Write + AsFd)) -> Result<()> {
    screen.say(format!("attached to {name}; Ctrl-] detaches"));
    let stdin = io::stdin();
    let raw = match stdin.is_terminal() {
        true => Some(Raw::enter()?),
        false => None,
    };
    let told = Told::listen().context("signals cannot be watched")?;
    let ended = join(&mut stdin.lock(), far, Some(&told));
    drop(raw);
    match ended? {
        End::Detached => screen.say(format!("\ndetached; {name} goes on")),
        End::NoInput => {}
        End::Closed => screen.say(format!("\nthe console of {name} has ended")),
        End::Told => {
            let message = format!("detached from {name}: another took the console, or ended us");
            return Err(Failure::new(Code::Of(143), message).into());
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Detached,
    /// Our input came to its end.
    NoInput,
    /// The VM has ended, or somebody else has the console now.
    Closed,
    /// A signal asked us to end.
    Told,
}

/// Carries bytes both ways until one side ends.
fn join(
    near: &mut (impl Read + AsFd),
    far: &mut (impl Read + Write + AsFd),
    told: Option<&Told>,
) -> Result<End> {
    let mut buffer = [0; 4096];
    loop {
        let (keys, output) = {
            let mut all = vec![
                PollFd::new(&*near, PollFlags::IN),
                PollFd::new(&*far, PollFlags::IN),
            ];
            all.extend(told.map(|told| PollFd::new(&told.0, PollFlags::IN)));
            match poll(&mut all, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e).context("the terminal cannot be watched"),
            }
            if all.get(2).is_some_and(|told| !told.revents().is_empty()) {
                return Ok(End::Told);
            }
            (!all[0].revents().is_empty(), !all[1].revents().is_empty())
        };
        if output {
            match far.read(&mut buffer) {
                Ok(0) | Err(_) => return Ok(End::Closed),
                Ok(count) => print(buffer.get(..count).unwrap_or_default())?,
            }
        }
        if keys {
            let count = near.read(&mut buffer)?;
            let bytes = buffer.get(..count).unwrap_or_default();
            let end = bytes.iter().position(|b| *b == DETACH);
            let passed = bytes.get(..end.unwrap_or(count)).unwrap_or_default();
            if far.write_all(passed).is_err() {
                return Ok(End::Closed);
            }
            match end {
                Some(_) => return Ok(End::Detached),
                None if count == 0 => return Ok(End::NoInput),
                None => {}
            }
        }
    }
}

/// From here on SIGTERM and SIGHUP are read here (signalfd(2)) and end nothing by themselves.
struct Told(OwnedFd);

impl Told {
    fn listen() -> io::Result<Self> {
        // SAFETY: plain system calls on a set that the first of them fills; the descriptor is new and nobody else's.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigaddset(&raw mut set, libc::SIGHUP);
            match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
                0 => {}
                error => return Err(io::Error::from_raw_os_error(error)),
            }
            match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }
}

/// Our terminal passes every key on while this lives.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let before = tcgetattr(io::stdin()).context("the terminal cannot be asked")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)
            .context("the terminal cannot be set")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// What the node got, and how it ended.
    fn typed(keys: &[u8]) -> (Vec<u8>, End) {
        let (mut near, mut fingers) = UnixStream::pair().unwrap();
        let (mut far, mut node) = UnixStream::pair().unwrap();
        fingers.write_all(keys).unwrap();
        drop(fingers);
        let end = join(&mut near, &mut far, None).unwrap();
        drop(far);
        let mut got = Vec::new();
        node.read_to_end(&mut got).unwrap();
        (got, end)
    }

    #[test]
    fn keys_go_through_until_the_one_that_detaches() {
        assert_eq!(
            typed(b"ls\r\x03\x1dxyz"),
            (b"ls\r\x03".to_vec(), End::Detached)
        );
        assert_eq!(typed(b"ls\r"), (b"ls\r".to_vec(), End::NoInput));
    }

    #[test]
    fn a_console_that_ends_is_seen() {
        let (mut near, _fingers) = UnixStream::pair().unwrap();
        let (mut far, node) = UnixStream::pair().unwrap();
        drop(node);
        assert_eq!(join(&mut near, &mut far, None).unwrap(), End::Closed);
    }
}

//! `console`: our terminal and a node's serial console, joined. Keys go through as they are, but for Ctrl-].

use super::logs;
use crate::args::OneNode;
use crate::context::{Context, print, small_runtime};
use crate::exit::{Code, Failure};
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

/// Ctrl-], as telnet and virsh have it.
const DETACH: u8 = 0x1d;
/// Lines of the past that are shown first.
const PAST: usize = 20;

pub fn run(context: &Context, args: &OneNode) -> Result<Code> {
    let (access, node) = context.node(&args.node)?;
    let head = context.head()?;
    let console = small_runtime()?.block_on(head.console(&access.cluster, &node))?;
    if let Ok(past) = logs::last_lines(&console.log, PAST) {
        print(past)?;
    }
    let mut far = console.connect().map_err(|e| {
        Failure::new(
            Code::Failed,
            format!("the console of {node} cannot be reached: {e}"),
        )
        .hint(format!(
            "does it run? `oscarv status {0}`; what it printed: `oscarv logs {0}:{node}`",
            access.cluster
        ))
    })?;
    context.say(format!("attached to {node}; Ctrl-] detaches"));
    let stdin = io::stdin();
    let raw = match stdin.is_terminal() {
        true => Some(Raw::enter()?),
        false => None,
    };
    let ended = join(&mut stdin.lock(), &mut far);
    drop(raw);
    context.say(match ended? {
        End::Detached => format!("\ndetached; {node} goes on"),
        End::NoInput => String::new(),
        End::Closed => format!("\nthe console of {node} has ended"),
    });
    Ok(Code::Ok)
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Detached,
    /// Our input came to its end.
    NoInput,
    /// The VM has ended, or somebody else has the console now.
    Closed,
}

/// Carries bytes both ways until one side ends.
fn join(near: &mut (impl Read + AsFd), far: &mut (impl Read + Write + AsFd)) -> Result<End> {
    let mut buffer = [0; 4096];
    loop {
        let (keys, output) = {
            let mut both = [
                PollFd::new(&*near, PollFlags::IN),
                PollFd::new(&*far, PollFlags::IN),
            ];
            match poll(&mut both, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e).context("the terminal cannot be watched"),
            }
            (!both[0].revents().is_empty(), !both[1].revents().is_empty())
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
        let end = join(&mut near, &mut far).unwrap();
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
        assert_eq!(join(&mut near, &mut far).unwrap(), End::Closed);
    }
}

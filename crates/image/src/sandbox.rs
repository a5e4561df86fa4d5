//! Where every step of a build runs: as root of mount and pid namespaces of its own, for an ordinary user with a user
//! namespace and subordinate ids around them. Inside, files belong to their right owners; outside, to the user.
//!
//! One kill ends it: the child dies with the thread that waits for it (`PR_SET_PDEATHSIG`), and with unshare's child, the
//! first process of the pid namespace (`--kill-child`), die all the others.

use crate::{Error, Result};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};

/// What needs several programs in one namespace. A constant: names and paths reach it as arguments only.
pub(crate) const SCRIPT: &str = include_str!("inside.sh");

/// So much of the last output is kept for messages.
const LINES_KEPT: usize = 400;

pub(crate) struct Sandbox {
    /// Inherited by all children, so that it is held until the last of them is gone.
    lock: RawFd,
    /// Settings for the programs inside, besides the fixed ones.
    environment: Vec<(String, String)>,
    log: PathBuf,
}

/// How a program in the sandbox ended, if not well.
pub(crate) struct Failed {
    pub status: ExitStatus,
    /// Its last lines, of standard output and error together.
    pub lines: Vec<String>,
}

impl Sandbox {
    pub fn new(lock: RawFd, log: PathBuf, temporary: &Path, epoch: u64) -> Self {
        let mut environment = vec![
            (
                "PATH".to_owned(),
                "/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            ),
            ("HOME".to_owned(), "/root".to_owned()),
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
            ("TMPDIR".to_owned(), temporary.display().to_string()),
            ("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string()),
            ("E2FSPROGS_FAKE_TIME".to_owned(), epoch.to_string()),
            // Our initrd is made by us; Debian's would cost seconds and never be used (initramfs-tools' kernel hook).
            ("INITRD".to_owned(), "No".to_owned()),
            ("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned()),
            ("DEBCONF_NONINTERACTIVE_SEEN".to_owned(), "true".to_owned()),
            ("SYSTEMD_OFFLINE".to_owned(), "1".to_owned()),
        ];
        for name in ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy"] {
            if let Ok(value) = std::env::var(name) {
                environment.push((name.to_owned(), value));
            }
        }
        Self {
            lock,
            environment,
            log,
        }
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// `program` with `arguments`, inside.
    fn command<A: AsRef<OsStr>>(&self, program: &str, arguments: &[A]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child=KILL"]);
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user", "--map-auto"]);
        }
        command.arg("--").arg(program).args(arguments);
        command
            .env_clear()
            .envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.current_dir("/").stdin(Stdio::null());
        let parent = std::process::id();
        let lock = self.lock;
        // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls on plain integers.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                if libc::getppid() as u32 != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                if libc::fcntl(lock, libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
                libc::umask(0o022);
                Ok(())
            });
        }
        command
    }

    /// Runs a program; its output goes to the log and, line by line, to `line`.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: &[A],
        mut line: impl FnMut(&str),
    ) -> Result<std::result::Result<(), Failed>> {
        let start = |source| Error::Start {
            program: program.to_owned(),
            source,
        };
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(Error::io(&self.log))?;
        let (reader, writer) = io::pipe().map_err(start)?;
        let mut command = self.command(program, arguments);
        command
            .stdout(writer.try_clone().map_err(start)?)
            .stderr(writer);
        let mut child = command.spawn().map_err(start)?;
        // It holds the writing ends: reading would never come to the end.
        drop(command);
        let mut lines = VecDeque::new();
        let mut reader = BufReader::new(reader);
        let mut raw = Vec::new();
        while reader.read_until(b'\n', &mut raw).map_err(start)? > 0 {
            // A log that cannot be written (a full disk) is no reason to stop: the program's own error tells it better.
            let _ = log.write_all(&raw);
            let text = String::from_utf8_lossy(&raw).trim_end().to_owned();
            raw.clear();
            line(&text);
            lines.push_back(text);
            if lines.len() > LINES_KEPT {
                lines.pop_front();
            }
        }
        let status = child.wait().map_err(start)?;
        Ok(if status.success() {
            Ok(())
        } else {
            Err(Failed {
                status,
                lines: lines.into(),
            })
        })
    }

    /// Runs a program and gives its standard output to `read` while it runs. Its standard error goes to the log.
    pub fn pipe<A: AsRef<OsStr>, T>(
        &self,
        program: &str,
        arguments: &[A],
        read: impl FnOnce(ChildStdout) -> io::Result<T>,
    ) -> Result<T> {
        let start = |source| Error::Start {
            program: program.to_owned(),
            source,
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(Error::io(&self.log))?;
        let mut command = self.command(program, arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(start)?;
        let result = match child.stdout.take() {
            Some(stdout) => read(stdout),
            None => Err(io::Error::other("no pipe")),
        };
        let status = child.wait().map_err(start)?;
        let value = result.map_err(start)?;
        if status.success() {
            Ok(value)
        } else {
            Err(self.step(program, &status, self.last_line()))
        }
    }

    /// Runs a program whose failure is nobody's fault but the machine's.
    pub fn must<A: AsRef<OsStr>>(&self, program: &str, arguments: &[A]) -> Result<()> {
        self.run(program, arguments, |_| {})?.map_err(|failed| {
            self.step(program, &failed.status, failed.lines.join("\n           "))
        })
    }

    /// Runs the script's step `step`.
    pub fn script<A: AsRef<OsStr>>(
        &self,
        step: &str,
        arguments: &[A],
        line: impl FnMut(&str),
    ) -> Result<std::result::Result<(), Failed>> {
        let fixed = ["-c", SCRIPT, "oscarv-build", step].map(OsStr::new);
        let all: Vec<&OsStr> = fixed
            .into_iter()
            .chain(arguments.iter().map(AsRef::as_ref))
            .collect();
        self.run("/bin/sh", &all, line)
    }

    /// Removes a tree whose files belong to subordinate ids.
    pub fn remove(&self, path: &Path) -> Result<()> {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let arguments = [
            OsStr::new("-rf"),
            OsStr::new("--one-file-system"),
            OsStr::new("--"),
            path.as_os_str(),
        ];
        self.must("rm", &arguments)
    }

    pub fn step(&self, step: &str, status: &ExitStatus, said: String) -> Error {
        Error::Step {
            step: step.to_owned(),
            how: status.to_string(),
            said,
            log: self.log.clone(),
        }
    }

    fn last_line(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().last().unwrap_or_default().to_owned()
    }
}

//! The ssh program, told which cluster it is for.

use crate::command_line;
use api::Name;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

/// How to reach the nodes of one cluster.
#[derive(Clone, Debug)]
pub struct Ssh {
    /// The cluster's own `ssh_config`.
    pub config: PathBuf,
    /// Who to be on the nodes; none: whom the configuration names.
    pub user: Option<Name>,
    /// `ssh`, looked for in `PATH`.
    pub program: OsString,
    /// More environment for ssh, and so for what it starts to reach a node.
    pub environment: Vec<(OsString, OsString)>,
}

/// Whether the command on the node gets a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tty {
    Yes,
    No,
}

/// Runs `"$@"` in a session of its own with no input, and ends all of it when our side hangs up. Without a terminal
/// sshd tells nobody that the client has gone; the open standard input does. A process that ends by itself is not
/// touched afterwards.
const WATCHED: &str = r#"exec 3<&0 </dev/null
setsid "$@" 3<&- & p=$!
{ read -r _; trap '' TERM; kill -TERM -- -$p || kill -TERM $p; sleep 2; kill -KILL -- -$p; } <&3 >/dev/null 2>&1 & w=$!
exec 3<&-
{ wait $p; c=$?; } 2>/dev/null
kill $w 2>/dev/null
exit $c"#;

/// The same for a command that reads our input: then the end of the input is no hint, but the end of the session's
/// sshd is.
const WATCHED_WITH_INPUT: &str = r#"exec 3<&0
setsid "$@" <&3 3<&- & p=$!
exec 3<&- </dev/null
{ tail -f -s 1 --pid=$PPID /dev/null; trap '' TERM; kill -TERM -- -$p || kill -TERM $p; sleep 2; kill -KILL -- -$p; } >/dev/null 2>&1 & w=$!
{ wait $p; c=$?; } 2>/dev/null
kill $w 2>/dev/null
exit $c"#;

impl Ssh {
    pub fn new(config: impl Into<PathBuf>) -> Self {
        Self {
            config: config.into(),
            user: None,
            program: "ssh".into(),
            environment: Vec::new(),
        }
    }

    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn as_user(mut self, user: Option<Name>) -> Self {
        self.user = user;
        self
    }

    fn base(&self, node: &Name) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-F").arg(&self.config);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(user) = &self.user {
            command.args(["-l", user.as_str()]);
        }
        command.arg(node.as_str());
        command
    }

    /// A login shell on the node, or a program with our input and, if asked for, a terminal. For a command that we
    /// become or wait for.
    pub fn session<S: AsRef<OsStr>>(&self, node: &Name, argv: &[S], tty: Tty) -> Command {
        let mut command = self.base(node);
        match (argv.is_empty(), tty) {
            // ssh itself decides: a terminal if ours is one.
            (true, _) => {}
            (false, Tty::Yes) => {
                command.arg("-t").arg("--").arg(command_line(argv));
            }
            (false, Tty::No) => {
                command.arg("-T").arg("--");
                command.arg(shell(WATCHED_WITH_INPUT, argv));
            }
        }
        command
    }

    /// A program without input that ends when our side of its input is closed.
    pub(crate) fn watched<S: AsRef<OsStr>>(&self, node: &Name, argv: &[S]) -> Command {
        self.script(node, WATCHED, argv)
    }

    /// A script of ours with arguments; its input is ours.
    pub(crate) fn script<S: AsRef<OsStr>>(&self, node: &Name, script: &str, argv: &[S]) -> Command {
        let mut command = self.base(node);
        command.args(["-T", "-o", "BatchMode=yes", "--"]);
        command.arg(shell(script, argv));
        command
    }
}

/// The user's login shell at the other end, whichever it is, only has to start `sh`.
fn shell<S: AsRef<OsStr>>(script: &str, argv: &[S]) -> OsString {
    let mut words: Vec<&OsStr> = ["exec", "sh", "-c", script, "sh"].map(OsStr::new).to_vec();
    words.extend(argv.iter().map(AsRef::as_ref));
    command_line(&words)
}

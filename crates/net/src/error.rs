//! What can go wrong, said so that the reader knows what to do next.

use api::Name;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the network of cluster {cluster} cannot be made: {problem}")]
    Spec { cluster: Name, problem: String },
    #[error("{program} is not installed; run: sudo apt-get install {package}")]
    Missing {
        program: &'static str,
        package: &'static str,
    },
    #[error(
        "network slot {slot} is in use by {owner}; take that cluster down first, or choose another slot"
    )]
    SlotInUse { slot: u16, owner: String },
    #[error(
        "the network of cluster {cluster} runs with another {what}; take the cluster down first"
    )]
    Changed { cluster: Name, what: &'static str },
    #[error(
        "process {pid} still uses the old network of this cluster, and this kernel does not let us reach it there; \
         run: sudo sysctl kernel.yama.ptrace_scope=0, then repeat; or take the cluster down first"
    )]
    Lost { pid: i32 },
    #[error("the network of cluster {cluster} did not start: {reason}")]
    NotStarted { cluster: Name, reason: String },
    #[error("the network of cluster {cluster} runs, but the change failed: {reason}")]
    NotChanged { cluster: Name, reason: String },
    #[error("{doing}")]
    Io { doing: String, source: io::Error },
    #[error("{program} failed: {said}")]
    Program { program: &'static str, said: String },
    #[error("{path} is damaged: {problem}; take the cluster down and up again")]
    Damaged { path: PathBuf, problem: String },
}

impl Error {
    /// For `map_err`: says what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn at(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{doing} {}", path.display()))
    }

    /// The message with its causes, on one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}

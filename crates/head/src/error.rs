//! What can go wrong with a cluster, in words that say what to do next.

use api::Name;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no cluster {name}")]
    NoSuchCluster { name: Name, known: Vec<Name> },
    #[error("cluster {name} has no node {node}")]
    NoSuchNode { name: Name, node: Name },
    #[error("another oscarv (pid {pid}) is at work on cluster {name}")]
    Busy { name: Name, pid: u32 },
    #[error("cluster {name} does not fit on this host: {}", reasons.join("; "))]
    TooLarge { name: Name, reasons: Vec<String> },
    #[error("no hypervisor on this host can run it: {reason}")]
    NoBackend { reason: String },
    #[error("all {0} networks of this host are in use; take a cluster down first")]
    NoSlot(u16),
    #[error("{}", in_words(.nodes))]
    NotReady {
        cluster: Name,
        /// The time limit passed; otherwise a node has failed, and waiting would not help.
        late: bool,
        nodes: Vec<Unready>,
    },
    #[error("the {what} of cluster {name} cannot change from {from} to {to} while it is up")]
    Fixed {
        name: Name,
        what: &'static str,
        from: String,
        to: String,
    },
    #[error("meanwhile more has to be done than was agreed to:\n{steps}")]
    NotAgreed { steps: String },
    #[error("node {node} could not be reached: {said}")]
    Unreachable { node: Name, said: String },
    #[error("{program} failed: {said}")]
    Program { program: String, said: String },
    #[error("{program} is not installed; run: sudo apt-get install {package}")]
    Missing {
        program: &'static str,
        package: &'static str,
    },
    #[error("the disk of {} is full", path.display())]
    DiskFull { path: PathBuf },
    #[error("{}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(transparent)]
    Assign(#[from] plan::AssignError),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Net(#[from] net::Error),
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error(transparent)]
    Opkg(#[from] opkg::Error),
    #[error(transparent)]
    Vm(#[from] v3m::Error),
}

/// A node that did not come up, and what is known about it.
#[derive(Clone, Debug)]
pub struct Unready {
    pub node: Name,
    pub reason: String,
    /// The last lines of its console.
    pub console: Vec<String>,
}

const FULL: &str =
    "free space there (`oscarv image prune`, `oscarv down`), or choose another place with --state";

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSuchCluster { known, .. } if known.is_empty() => {
                "there are no clusters; make one with `oscarv up FILE`".to_owned()
            }
            Self::NoSuchCluster { known, .. } => {
                let known: Vec<_> = known.iter().map(Name::as_str).collect();
                format!("there are: {}", known.join(", "))
            }
            Self::NoSuchNode { name, .. } => format!("`oscarv status {name}` lists its nodes"),
            Self::Busy { .. } => "wait until it has ended, then try again".to_owned(),
            Self::Fixed { name, from, .. } => format!(
                "put {from} back into the file, or take the cluster down first: oscarv down {name}"
            ),
            Self::NotAgreed { .. } => "run `oscarv up` again and look at its plan".to_owned(),
            Self::NoBackend { .. } => "`oscarv check` says what is missing".to_owned(),
            Self::NotReady { cluster, nodes, .. } => match nodes.first() {
                Some(first) => format!(
                    "look with `oscarv console {cluster}:{0}` or `oscarv logs {cluster}:{0}`; \
                     `oscarv up` again tries on, `oscarv down {cluster}` removes it",
                    first.node
                ),
                None => return None,
            },
            Self::DiskFull { .. } => FULL.to_owned(),
            Self::Damaged { path, .. } => {
                format!("remove {} and run `oscarv up` again", path.display())
            }
            Self::Io { source, .. }
            | Self::Image(image::Error::Io { source, .. })
            | Self::Opkg(opkg::Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                "be the user that it belongs to, or choose another place with --state".to_owned()
            }
            Self::Image(image::Error::Io { source, .. })
            | Self::Opkg(opkg::Error::Io { source, .. })
            | Self::Vm(v3m::Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                FULL.to_owned()
            }
            _ => return None,
        })
    }

    /// A program, of a package of the host's, that could not be started.
    pub(crate) fn start(
        program: &'static str,
        package: &'static str,
    ) -> impl Fn(std::io::Error) -> Self {
        move |e| match e.kind() {
            std::io::ErrorKind::NotFound => Self::Missing { program, package },
            _ => Self::Program {
                program: program.to_owned(),
                said: e.to_string(),
            },
        }
    }

    /// A program that has failed, at work on `path`.
    pub(crate) fn program(program: &str, said: String, path: &Path) -> Self {
        if said.contains("No space left on device") {
            return Self::DiskFull {
                path: path.to_owned(),
            };
        }
        Self::Program {
            program: program.to_owned(),
            said,
        }
    }

    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        move |source| {
            if source.kind() == std::io::ErrorKind::StorageFull {
                return Self::DiskFull {
                    path: path.to_owned(),
                };
            }
            Self::Io {
                path: path.to_owned(),
                source,
            }
        }
    }
}

fn in_words(nodes: &[Unready]) -> String {
    let one = |node: &Unready| {
        let mut text = format!("node {} is not ready: {}", node.node, node.reason);
        if !node.console.is_empty() {
            text.push_str("\n  the last lines of its console:");
            for line in &node.console {
                text.push_str("\n  | ");
                text.push_str(line);
            }
        }
        text
    };
    nodes.iter().map(one).collect::<Vec<_>>().join("\n")
}

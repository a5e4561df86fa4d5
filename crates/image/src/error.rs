//! Why an image could not be had, and what to do about it.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("this machine cannot build images:\n{}", .0.join("\n"))]
    Unfit(Vec<String>),
    #[error("images of {distribution:?} cannot be built\n  hint: distribution = \"debian\"")]
    Distribution { distribution: String },
    /// apt does not know these packages.
    #[error(
        "there is no package {} in {distribution} {release}\n  apt says: {said}\n  \
         hint: look for the right name with `apt-cache search`, or take it out of {place}",
        names.join(", ")
    )]
    NoPackage {
        names: Vec<String>,
        distribution: String,
        release: String,
        /// The recipe or the OPKG that asks for it.
        place: String,
        said: String,
    },
    #[error(
        "packages could not be downloaded\n  apt says: {said}\n  \
         hint: check the network, http_proxy and the recipe's mirror; then try again: what is here already is kept"
    )]
    Download { said: String },
    #[error(
        "the disk of {} is full: {free} MiB are free, about {needed} MiB are needed\n  \
         hint: free space there (`oscarv image remove`, `oscarv image prune`), or put the state elsewhere with --state",
        path.display()
    )]
    DiskFull {
        path: PathBuf,
        free: u64,
        needed: u64,
    },
    #[error("{step} failed ({how})\n  it said: {said}\n  hint: the whole output is in {}", log.display())]
    Step {
        step: String,
        how: String,
        said: String,
        log: PathBuf,
    },
    #[error(
        "{program} could not be started: {source}\n  hint: `oscarv check` says what is missing"
    )]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error(
        "the image has no kernel: no /boot/vmlinuz-* was installed\n  hint: name a kernel package in the recipe"
    )]
    NoKernel,
    #[error("{}: {why}", path.display())]
    BadImage { path: PathBuf, why: String },
    #[error("OPKG {name}: {why}")]
    Opkg { name: String, why: String },
    #[error("no image is called {0:?}\n  hint: `oscarv image list` shows all")]
    NoImage(String),
    #[error("{selector:?} is the beginning of {} images: {}\n  hint: give more of it", ids.len(), ids.join(", "))]
    Ambiguous { selector: String, ids: Vec<String> },
    #[error("{tag:?} is not a tag: {why}")]
    BadTag { tag: String, why: String },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

use std::path::PathBuf;

/// What can go wrong before a node is reached, or on our side of a copy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is nothing at {0}")]
    NoSource(PathBuf),
    #[error("{0} has no name to copy it under; give its full path")]
    NoName(PathBuf),
    #[error("two sources are called {0}, and one would overwrite the other; push them one by one")]
    SameName(String),
    #[error("{0} is a file, and several files cannot be put into a file; name a directory")]
    NotADirectory(PathBuf),
    #[error("{path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

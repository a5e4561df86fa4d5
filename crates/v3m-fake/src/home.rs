//! The files of one VM. They change by rename only; one writer at a time holds the lock on the VM's directory.

use crate::Kept;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use v3m::{Error, Result, State};

pub(crate) struct Home {
    path: PathBuf,
    /// Held while this lives: the open, locked directory.
    _lock: Option<File>,
}

impl Home {
    /// The VM's directory, locked; `None` if there is none.
    pub(crate) fn locked(path: PathBuf) -> Result<Option<Self>> {
        let lock = files::lock(&path).map_err(io(&path))?;
        Ok(lock.map(|lock| Self {
            path,
            _lock: Some(lock),
        }))
    }

    /// The same, made where it is missing.
    pub(crate) fn made(path: PathBuf) -> Result<Self> {
        let lock = files::lock_made(&path, 0o777).map_err(io(&path))?;
        Ok(Self {
            path,
            _lock: Some(lock),
        })
    }

    pub(crate) fn unlocked(path: PathBuf) -> Self {
        Self { path, _lock: None }
    }

    pub(crate) fn definition(&self) -> PathBuf {
        self.path.join("vm.json")
    }

    pub(crate) fn kept(&self) -> Result<Kept> {
        let plain = |state| Kept {
            state,
            reason: None,
        };
        let kept = read(&self.path.join("state.json"))?;
        if !self.definition().exists() {
            return Ok(plain(State::Absent));
        }
        Ok(kept.unwrap_or(plain(State::Defined)))
    }

    pub(crate) fn keep(&self, state: State, reason: Option<&str>) -> Result<()> {
        let reason = reason.map(str::to_owned);
        write(&self.path.join("state.json"), &Kept { state, reason })
    }

    pub(crate) fn log(&self, line: &str) -> Result<()> {
        append(&self.path.join("console.log"), line)
    }

    /// Removes what this driver made and nothing else; the definition goes first, since it is what makes the VM be.
    pub(crate) fn removed(&self) -> Result<()> {
        for file in ["vm.json", "state.json", "console.log"] {
            remove(&self.path.join(file))?;
        }
        match fs::remove_dir(&self.path) {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Ok(())
            }
            Err(e) => Err(io(&self.path)(e)),
        }
    }
}

pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io {
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| io(path)(e.into())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io(path)(e)),
    }
}

pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| io(path)(e.into()))?;
    files::write(path, &text).map_err(io(path))
}

pub(crate) fn append(path: &Path, line: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .map_err(io(path))
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io(path)(e)),
    }
}

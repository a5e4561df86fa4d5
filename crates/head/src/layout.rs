//! Where things of a cluster are on disk (ARCHITECTURE.md has the whole tree).

use crate::{Error, Result};
use api::Name;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// One cluster's directory.
#[derive(Clone, Debug)]
pub struct Layout {
    pub root: PathBuf,
}

impl Layout {
    pub fn new(state: &Path, cluster: &Name) -> Self {
        Self {
            root: state.join("clusters").join(cluster),
        }
    }

    pub fn net(&self) -> PathBuf {
        self.root.join("net")
    }

    /// The driver's directory.
    pub fn vms(&self) -> PathBuf {
        self.root.join("nodes")
    }

    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    pub fn ssh_config(&self) -> PathBuf {
        self.root.join("ssh_config")
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.root.join("known_hosts")
    }

    /// For which cluster packages have done what needs all nodes.
    pub fn deployed(&self) -> PathBuf {
        self.root.join("deployed")
    }

    /// What belongs to one node besides its VM: disks and reports.
    pub fn disks(&self, node: &Name) -> PathBuf {
        self.root.join("disks").join(node)
    }

    pub fn disk(&self, node: &Name) -> PathBuf {
        self.disks(node).join("disk.qcow2")
    }

    pub fn identity(&self, node: &Name) -> PathBuf {
        self.disks(node).join("identity.img")
    }

    pub fn events(&self, node: &Name) -> PathBuf {
        self.disks(node).join("events.log")
    }

    /// What the node was made from; written when all of it is there.
    pub fn made(&self, node: &Name) -> PathBuf {
        self.disks(node).join("made.json")
    }

    /// Makes the directories. QEMU, which runs as another user where we are root, must get through to its files:
    /// hence 0711, except where secrets lie.
    pub fn make(&self) -> Result<()> {
        make_dir(&self.root, 0o711)?;
        make_dir(&self.vms(), 0o711)?;
        make_dir(&self.root.join("disks"), 0o711)?;
        make_dir(&self.keys(), 0o700)
    }
}

pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(Error::io(path))
}

/// Writes a file that is there whole or not at all.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut half = path.as_os_str().to_owned();
    half.push(".new");
    let half = PathBuf::from(half);
    let put = || {
        let _ = fs::remove_file(&half);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&half)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&half, path)
    };
    put().map_err(Error::io(path))
}

pub fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}

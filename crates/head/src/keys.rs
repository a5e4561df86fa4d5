//! Secrets of a cluster: made once, kept 0600 in its own directory, never in an image, an argument or a log.

use crate::layout::{Layout, write};
use crate::{Error, Result};
use api::Name;
use opkg::Secret;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// The key that we reach nodes with.
pub const ADMIN: &str = "admin";
/// The key that the cluster's user has inside, for ssh between nodes.
pub const USER: &str = "user";

/// A key pair in OpenSSH's forms.
pub struct KeyPair {
    pub private: String,
    pub public: String,
}

impl KeyPair {
    /// `ssh-ed25519 AAAA…` without the comment.
    pub fn bare(&self) -> String {
        self.public
            .split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// What is done about a key that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is made. Only who holds the cluster's lock may do so.
    Make,
    /// It is empty, and so unlike any that will be made: whoever only looks changes nothing.
    Leave,
}

/// The ssh key of that name.
pub fn ssh_key(layout: &Layout, name: &str, comment: &str, missing: Missing) -> Result<KeyPair> {
    let path = layout.keys().join(name);
    let public = layout.keys().join(format!("{name}.pub"));
    // An empty one is what a crash of the host may leave of a file that was just written.
    let is_there = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    if !is_there(&path) || !is_there(&public) {
        match missing {
            Missing::Make => generate(&path, comment)?,
            Missing::Leave => {
                return Ok(KeyPair {
                    private: String::new(),
                    public: String::new(),
                });
            }
        }
    }
    let read = |path: &Path| fs::read_to_string(path).map_err(Error::io(path));
    Ok(KeyPair {
        private: read(&path)?,
        public: read(&public)?.trim().to_owned(),
    })
}

/// Under another name first: ssh-keygen writes two files, and one alone would be a key that is not one.
fn generate(path: &Path, comment: &str) -> Result<()> {
    let half = path.with_extension("new");
    let half_public = path.with_extension("new.pub");
    for old in [&half, &half_public] {
        let _ = fs::remove_file(old);
    }
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(&half)
        .stdin(Stdio::null());
    let output = daemon::dies_with_us(&mut command)
        .output()
        .map_err(Error::start("ssh-keygen", "openssh-client"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::program("ssh-keygen", said, path));
    }
    let public = path.with_extension("pub");
    fs::rename(&half_public, &public).map_err(Error::io(&public))?;
    fs::rename(&half, path).map_err(Error::io(path))
}

/// A package's secret.
pub fn secret(
    layout: &Layout,
    package: &Name,
    secret: &Secret,
    missing: Missing,
) -> Result<Vec<u8>> {
    let path = layout.keys().join(format!("{package}.{}", secret.name));
    match fs::read(&path) {
        Ok(bytes) if bytes.len() == secret.bytes => return Ok(bytes),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io(&path)(e)),
    }
    if missing == Missing::Leave {
        return Ok(Vec::new());
    }
    let bytes = random(secret.bytes)?;
    write(&path, &bytes, 0o600)?;
    Ok(bytes)
}

fn random(count: usize) -> Result<Vec<u8>> {
    let source = Path::new("/dev/urandom");
    let mut bytes = vec![0; count];
    let mut file = fs::File::open(source).map_err(Error::io(source))?;
    file.read_exact(&mut bytes).map_err(Error::io(source))?;
    Ok(bytes)
}

//! What makes a node itself: files from the identity disk.
//!
//! `oscarv/index` on that disk has one line a file: `SOURCE MODE OWNER GROUP PATH`, where SOURCE is a file beside the
//! index, MODE is octal, OWNER and GROUP are names of the image or numbers, and PATH is absolute. `oscarv/facts` has
//! `KEY=VALUE` lines; `digest` in it changes when any of this does.

use crate::sys;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

const SEEN: &str = "var/lib/oscarv/identity";
const PENDING: &str = "var/lib/oscarv/identity.new";

pub type Facts = HashMap<String, String>;

pub fn facts(disk: &Path) -> Result<Facts, String> {
    let path = disk.join("oscarv/facts");
    let text =
        fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect())
}

/// Puts the files in place where this identity was not installed before, or `again`; true if that was done.
pub fn install(disk: &Path, root: &Path, again: bool) -> Result<bool, String> {
    let facts = facts(disk)?;
    let digest = facts.get("digest").map(String::as_str).unwrap_or_default();
    if let Some(name) = facts.get("hostname") {
        sys::set_host_name(name)?;
    }
    if !again && fs::read_to_string(root.join(SEEN)).is_ok_and(|seen| seen == digest) {
        return Ok(false);
    }
    let accounts = Accounts::read(root)?;
    let index = disk.join("oscarv/index");
    let text =
        fs::read_to_string(&index).map_err(|e| format!("cannot read {}: {e}", index.display()))?;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let entry = Entry::parse(line)
            .ok_or_else(|| format!("bad line in {}: {line:?}", index.display()))?;
        entry
            .install(disk, root, &accounts)
            .map_err(|e| format!("cannot install {}: {e}", entry.path.display()))?;
    }
    write(&root.join(PENDING), digest.as_bytes(), 0o600)?;
    Ok(true)
}

/// The identity is complete: the next boot need not do it again.
pub fn remember(root: &Path) -> Result<(), String> {
    fs::rename(root.join(PENDING), root.join(SEEN)).map_err(|e| format!("cannot write {SEEN}: {e}"))
}

struct Entry<'a> {
    source: &'a str,
    mode: u32,
    owner: &'a str,
    group: &'a str,
    path: PathBuf,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        let source = words.next().filter(|s| !s.contains('/') && *s != "..")?;
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let (owner, group) = (words.next()?, words.next()?);
        let path = Path::new(words.next()?).strip_prefix("/").ok()?;
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        plain.then(|| Self {
            source,
            mode,
            owner,
            group,
            path: path.to_owned(),
        })
    }

    fn install(&self, disk: &Path, root: &Path, accounts: &Accounts) -> Result<(), String> {
        let content = fs::read(disk.join("oscarv").join(self.source)).map_err(|e| e.to_string())?;
        let (uid, gid) = (accounts.user(self.owner)?, accounts.group(self.group)?);
        let path = root.join(&self.path);
        write(&path, &content, self.mode)?;
        chown(&path, Some(uid), Some(gid)).map_err(|e| e.to_string())
    }
}

/// Under another name first: a node that loses power here boots with the whole file or the old one.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), String> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(parent)
        .map_err(|e| e.to_string())?;
    let mut half = path.as_os_str().to_owned();
    half.push(".oscarv-new");
    let _ = fs::remove_file(&half);
    // Nobody else's until its mode says so: it may be a secret, and users may be logged in.
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&half)
        .map_err(|e| e.to_string())?;
    file.write_all(content).map_err(|e| e.to_string())?;
    fs::set_permissions(&half, fs::Permissions::from_mode(mode)).map_err(|e| e.to_string())?;
    fs::rename(&half, path).map_err(|e| e.to_string())
}

/// The image's own names for users and groups.
struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Accounts {
    fn read(root: &Path) -> Result<Self, String> {
        let table = |file: &str| -> Result<HashMap<String, u32>, String> {
            let text = fs::read_to_string(root.join(file))
                .map_err(|e| format!("cannot read {file}: {e}"))?;
            Ok(text.lines().filter_map(account).collect())
        };
        Ok(Self {
            users: table("etc/passwd")?,
            groups: table("etc/group")?,
        })
    }

    fn user(&self, name: &str) -> Result<u32, String> {
        number(&self.users, name).ok_or_else(|| format!("the image has no user {name}"))
    }

    fn group(&self, name: &str) -> Result<u32, String> {
        number(&self.groups, name).ok_or_else(|| format!("the image has no group {name}"))
    }
}

fn number(table: &HashMap<String, u32>, name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| table.get(name).copied())
}

/// `name:x:id:…`, the first three fields of passwd(5) and group(5).
fn account(line: &str) -> Option<(String, u32)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    Some((name.to_owned(), fields.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_lines() {
        let entry = Entry::parse("f7 0400 munge munge /etc/munge/munge.key").unwrap();
        assert_eq!(
            (entry.source, entry.mode, entry.owner),
            ("f7", 0o400, "munge")
        );
        assert_eq!(entry.path, Path::new("etc/munge/munge.key"));
        for bad in [
            "",
            "f 0400 a b",
            "f 9 a b /x",
            "../f 0400 a b /x",
            "f 0400 a b x",
            "f 0400 a b /../x",
        ] {
            assert!(Entry::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn accounts() {
        assert_eq!(
            account("munge:x:104:106::/nonexistent:/usr/sbin/nologin"),
            Some(("munge".to_owned(), 104))
        );
        assert_eq!(account("munge:x"), None);
    }
}

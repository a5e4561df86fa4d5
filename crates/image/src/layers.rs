//! Layers: what one step changed in the tree, kept as a tar named by the digest of all that went into it and into the
//! layers below. A step's changes are found by comparing two listings of the tree: whatever changes a file changes its
//! inode's change time, which no program can set.

use crate::sandbox::Sandbox;
use crate::{Error, Result};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// The list of paths that a layer takes away; the first member of its tar.
const DELETED: &str = "./.oscarv-deleted";

/// Options that make GNU tar keep everything about a file, with numbers for owners. ACLs as ACLs: as extended attributes
/// they would come in the order in which they were once set.
const FAITHFUL: [&str; 6] = [
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=security.*",
    "--format=posix",
];

/// All paths of a tree, each with what changes when it changes.
#[derive(Default)]
pub(crate) struct Listing(HashMap<Vec<u8>, State>);

#[derive(PartialEq, Eq)]
struct State {
    kind: u8,
    /// Change time, inode and size as find prints them.
    stamp: Vec<u8>,
    blocks: u64,
}

impl Listing {
    pub fn read(sandbox: &Sandbox, root: &Path) -> Result<Self> {
        let mut arguments = vec![root.as_os_str().to_owned()];
        arguments.extend(["-xdev", "-printf", r"%y %k %C@ %i %s ./%P\0"].map(OsString::from));
        sandbox.pipe("find", &arguments, |stdout| {
            let mut listing = HashMap::new();
            for record in BufReader::new(stdout).split(0) {
                let record = record?;
                let mut parts = record.splitn(6, |b| *b == b' ');
                let mut part = || {
                    parts
                        .next()
                        .ok_or_else(|| io::Error::other("find printed half a line"))
                };
                let kind = part()?.first().copied().unwrap_or(b'?');
                let kib: u64 = std::str::from_utf8(part()?)
                    .ok()
                    .and_then(|k| k.parse().ok())
                    .unwrap_or(0);
                let stamp = [part()?, part()?, part()?].join(&b' ');
                let path = part()?.to_owned();
                let blocks = kib.div_ceil(4);
                listing.insert(
                    path,
                    State {
                        kind,
                        stamp,
                        blocks,
                    },
                );
            }
            Ok(Self(listing))
        })
    }

    pub fn files(&self) -> u64 {
        self.0.len() as u64
    }

    /// Bytes in whole blocks of 4 KiB.
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|s| s.blocks * 4096).sum()
    }

    /// Paths that are new or changed since `before`, and paths that are gone or have become something else; sorted.
    fn changes_since<'a>(&'a self, before: &'a Self) -> (Vec<&'a [u8]>, Vec<&'a [u8]>) {
        let changed = self
            .0
            .iter()
            .filter(|(path, state)| before.0.get(*path) != Some(state));
        let mut changed: Vec<&[u8]> = changed.map(|(path, _)| path.as_slice()).collect();
        let gone = before
            .0
            .iter()
            .filter(|(path, old)| self.0.get(*path).is_none_or(|new| new.kind != old.kind));
        let mut gone: Vec<&[u8]> = gone.map(|(path, _)| path.as_slice()).collect();
        changed.sort_unstable();
        gone.sort_unstable();
        (changed, gone)
    }
}

/// Keeps what the step between the two listings did as `layer`. `work` is a directory on the same file system.
pub(crate) fn save(
    sandbox: &Sandbox,
    root: &Path,
    (before, after): (&Listing, &Listing),
    work: &Path,
    layer: &Path,
) -> Result<(String, JoinHandle<Result<()>>)> {
    let (changed, gone) = after.changes_since(before);
    let joined = |paths: &[&[u8]]| {
        paths
            .iter()
            .flat_map(|p| [*p, &[0]].concat())
            .collect::<Vec<u8>>()
    };
    let lists = work.join("layer-lists");
    fs::create_dir_all(&lists).map_err(Error::io(&lists))?;
    let deleted = lists.join(DELETED);
    fs::write(&deleted, joined(&gone)).map_err(Error::io(&deleted))?;
    let members = lists.join("members");
    fs::write(&members, joined(&changed)).map_err(Error::io(&members))?;
    let half = work.join(layer.file_name().unwrap_or_default());
    let mut arguments: Vec<OsString> = ["--create", "--no-recursion"].map(OsString::from).to_vec();
    arguments.extend(FAITHFUL.map(OsString::from));
    arguments.extend([OsString::from("--file"), half.clone().into()]);
    arguments.extend([
        OsString::from("--directory"),
        lists.clone().into(),
        DELETED.into(),
    ]);
    arguments.extend([OsString::from("--directory"), root.into()]);
    arguments.extend(["--null", "--verbatim-files-from", "--files-from"].map(OsString::from));
    arguments.push(members.into());
    tar(sandbox, &arguments, after.bytes())?;
    let stamp = stamp(&half)?;
    // Under its name only when it is on the disk for good; the next step need not wait for that.
    let layer = layer.to_owned();
    let thread = std::thread::spawn(move || {
        File::open(&half)
            .and_then(|f| f.sync_all())
            .map_err(Error::io(&half))?;
        fs::rename(&half, &layer).map_err(Error::io(&layer))
    });
    Ok((stamp, thread))
}

/// Puts a kept layer over the tree.
pub(crate) fn apply(sandbox: &Sandbox, layer: &Path, root: &Path) -> Result<()> {
    sandbox
        .script("delete", &[root, layer], |_| {})?
        .map_err(|failed| {
            sandbox.step("unpacking a layer", &failed.status, failed.lines.join("\n"))
        })?;
    let mut arguments: Vec<OsString> = [
        "--extract",
        "--same-permissions",
        "--same-owner",
        "--delay-directory-restore",
    ]
    .into_iter()
    .chain(FAITHFUL)
    .map(OsString::from)
    .collect();
    arguments.extend([OsString::from("--exclude"), DELETED.into()]);
    arguments.extend([
        OsString::from("--directory"),
        root.into(),
        "--file".into(),
        layer.into(),
    ]);
    let size = fs::metadata(layer).map_or(0, |m| m.len());
    tar(sandbox, &arguments, size)
}

/// The digest of the whole tree: of a tar in the order of names, with nothing in it that depends on when and where.
pub(crate) fn digest(sandbox: &Sandbox, root: &Path, seen: impl FnMut(u64)) -> Result<String> {
    let mut arguments: Vec<OsString> = ["--create", "--sort=name"].map(OsString::from).to_vec();
    arguments.extend(FAITHFUL.map(OsString::from));
    // Names of extended headers would hold tar's process id; change and access times are nobody's inputs.
    arguments.push("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime".into());
    arguments.extend([
        OsString::from("--directory"),
        root.into(),
        "--file=-".into(),
        ".".into(),
    ]);
    sandbox.pipe("tar", &arguments, |stdout| {
        crate::digest::stream(stdout, seen)
    })
}

fn tar(sandbox: &Sandbox, arguments: &[OsString], bytes: u64) -> Result<()> {
    sandbox.run("tar", arguments, |_| {})?.map_err(|failed| {
        let state = sandbox.log().parent().unwrap_or(Path::new("/"));
        crate::apt::disk_full(&failed.lines, state, bytes >> 20)
            .unwrap_or_else(|| sandbox.step("tar", &failed.status, failed.lines.join("\n")))
    })
}

/// Distinguishes a layer from the one that the same inputs gave another day (a mirror moves on): what was made on top of
/// one is not put on top of the other.
pub(crate) fn stamp(layer: &Path) -> Result<String> {
    let meta = fs::metadata(layer).map_err(Error::io(layer))?;
    Ok(format!(
        "{} {}.{:09}",
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec()
    ))
}

/// Where the layer with this digest lies.
pub(crate) fn place(state: &Path, digest: &str) -> PathBuf {
    state.join("layers").join(format!("{digest}.tar"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(paths: &[&[u8]]) -> Vec<String> {
        paths
            .iter()
            .map(|p| String::from_utf8_lossy(p).into_owned())
            .collect()
    }

    fn listing(entries: &[(&str, u8, &str)]) -> Listing {
        let state = |kind, stamp: &str| State {
            kind,
            stamp: stamp.as_bytes().to_owned(),
            blocks: 1,
        };
        Listing(
            entries
                .iter()
                .map(|(p, k, s)| (p.as_bytes().to_owned(), state(*k, s)))
                .collect(),
        )
    }

    #[test]
    fn changes() {
        let before = listing(&[
            ("./a", b'f', "1"),
            ("./b", b'f', "1"),
            ("./c", b'd', "1"),
            ("./d", b'f', "1"),
        ]);
        let after = listing(&[
            ("./a", b'f', "1"),
            ("./b", b'f', "2"),
            ("./c", b'l', "2"),
            ("./e", b'f', "2"),
        ]);
        let (changed, gone) = after.changes_since(&before);
        assert_eq!(shown(&changed), ["./b", "./c", "./e"]);
        assert_eq!(shown(&gone), ["./c", "./d"]);
    }
}

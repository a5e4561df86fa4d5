//! Disk images: made, looked at, changed and moved between formats, by `qemu-img`.
//!
//! A format is told to every call. What makes a file makes it under another name in the same directory and gives it its
//! own when it is whole and checked; a file that is there is never written over. What changes an image in place (resize,
//! snapshots) is QEMU's own transaction on it, and is refused by QEMU's lock while a VM has the image open.

use crate::arguments::DriverName;
use api::MiB;
use profile::DiskFormat;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What went wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} is there already; nothing was changed")]
    Exists { path: PathBuf },
    #[error("{path}: {reason}")]
    Refused { path: PathBuf, reason: String },
    #[error("cannot run qemu-img; try: sudo apt-get install qemu-utils")]
    Program(#[source] io::Error),
    #[error("cannot use {path}")]
    Io { path: PathBuf, source: io::Error },
}

/// The result of every call here.
pub type Result<T> = std::result::Result<T, Error>;

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    pub path: PathBuf,
    pub format: DiskFormat,
    /// Bytes that a guest sees.
    pub virtual_size: u64,
    /// Bytes that the file takes of the host's disk.
    pub actual_size: u64,
    /// What an overlay stands on, as the overlay has it written.
    pub backing: Option<Backing>,
    pub snapshots: Vec<Snapshot>,
}

/// The image under an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    pub path: PathBuf,
    /// As the overlay has it; none: it was never told.
    pub format: Option<String>,
}

/// A snapshot inside an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub name: String,
    /// Seconds since 1970 (UTC).
    pub created: u64,
    /// Bytes of a guest's memory in it; 0: of the disk only.
    pub memory: u64,
}

/// Makes an empty image, sparse where the format can be. A `size` of 0 is refused.
pub fn create(path: &Path, format: DiskFormat, size: MiB) -> Result<()> {
    if size.0 == 0 {
        return Err(refused(path, "a disk of no size holds nothing"));
    }
    whole(path, format, |half| {
        let size = format!("{}M", size.0);
        run(
            path,
            &["create", "-q", "-f", format.driver()],
            &[half.as_os_str(), OsStr::new(&size)],
        )
    })
}

/// Makes a qcow2 image that holds only what differs from `base`, which must then not change: an external snapshot.
pub fn overlay(path: &Path, base: &Path, base_format: DiskFormat) -> Result<()> {
    // A relative one would be looked for beside the overlay.
    let base = fs::canonicalize(base).map_err(at(base))?;
    info(&base, base_format)?;
    whole(path, DiskFormat::Qcow2, |half| {
        let options = [
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            base_format.driver(),
            "-b",
        ];
        run(path, &options, &[base.as_os_str(), half.as_os_str()])
    })
}

/// What an image is. May be asked while a VM has it open.
pub fn info(path: &Path, format: DiskFormat) -> Result<Info> {
    agrees(path, format)?;
    let options = ["info", "-U", "--output=json", "-f", format.driver()];
    let said: Said = output(path, &options, &[path.as_os_str()])?;
    Ok(Info {
        path: path.to_owned(),
        format,
        virtual_size: said.virtual_size,
        actual_size: said.actual_size,
        backing: said.backing.map(|path| Backing {
            path,
            format: said.backing_format,
        }),
        snapshots: said.snapshots.into_iter().map(Snapshot::from).collect(),
    })
}

/// The format that a file begins as; none: raw, or unknown. For what a person is asked to confirm, or a new file that no
/// guest has written to; never for a disk that one had.
pub fn format_of(path: &Path) -> Result<Option<DiskFormat>> {
    crate::fit::format_of(path).map_err(at(path))
}

/// Gives an image another size. Less than it has only with `shrink`: what was behind the new end is lost.
pub fn resize(path: &Path, format: DiskFormat, size: MiB, shrink: bool) -> Result<()> {
    let now = info(path, format)?.virtual_size;
    let wanted = size.0.saturating_mul(1 << 20);
    if wanted == now {
        return Ok(());
    }
    if wanted < now && (!shrink || size.0 == 0) {
        let reason = format!(
            "it has {} MiB; what is behind {} MiB would be lost",
            now >> 20,
            size.0
        );
        return Err(refused(path, &reason));
    }
    let size = size.0.to_string() + "M";
    let mut options = vec!["resize", "-q", "-f", format.driver()];
    if wanted < now {
        options.push("--shrink");
    }
    run(path, &options, &[path.as_os_str(), OsStr::new(&size)])?;
    check(path, format)
}

/// Makes an image of another format with the same content, without what it stands on and without its snapshots.
/// Import and export are this, from and to a foreign format.
pub fn convert(
    from: &Path,
    from_format: DiskFormat,
    to: &Path,
    to_format: DiskFormat,
) -> Result<()> {
    agrees(from, from_format)?;
    whole(to, to_format, |half| {
        let options = [
            "convert",
            "-q",
            "-f",
            from_format.driver(),
            "-O",
            to_format.driver(),
        ];
        run(from, &options, &[from.as_os_str(), half.as_os_str()])
    })
}

/// Takes a foreign image in: as [`convert`], its format found by its first bytes where it is not told. Returns it.
pub fn import(
    from: &Path,
    told: Option<DiskFormat>,
    to: &Path,
    to_format: DiskFormat,
) -> Result<DiskFormat> {
    let from_format = match told {
        Some(format) => format,
        None => format_of(from)?.unwrap_or(DiskFormat::Raw),
    };
    convert(from, from_format, to, to_format)?;
    Ok(from_format)
}

/// Gives an image away as one file that stands on nothing.
pub fn export(
    from: &Path,
    from_format: DiskFormat,
    to: &Path,
    to_format: DiskFormat,
) -> Result<()> {
    convert(from, from_format, to, to_format)
}

/// Looks for damage. A raw image has no structure that could be damaged.
pub fn check(path: &Path, format: DiskFormat) -> Result<()> {
    agrees(path, format)?;
    match format {
        DiskFormat::Raw => Ok(()),
        _ => run(
            path,
            &["check", "-q", "-f", format.driver()],
            &[path.as_os_str()],
        ),
    }
}

/// Makes a snapshot inside a qcow2 image that no VM has open. A name that is taken is refused.
pub fn snapshot_create(path: &Path, name: &str) -> Result<()> {
    if has(path, name)? {
        return Err(refused(path, &format!("it has a snapshot {name} already")));
    }
    snapshot(path, "-c", name)
}

/// The snapshots of a qcow2 image, oldest first.
pub fn snapshot_list(path: &Path) -> Result<Vec<Snapshot>> {
    let mut list = info(path, DiskFormat::Qcow2)?.snapshots;
    list.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    Ok(list)
}

/// Takes a qcow2 image that no VM has open back to a snapshot; what was written since is lost.
pub fn snapshot_apply(path: &Path, name: &str) -> Result<()> {
    known(path, name)?;
    snapshot(path, "-a", name)
}

/// Removes a snapshot of a qcow2 image that no VM has open.
pub fn snapshot_delete(path: &Path, name: &str) -> Result<()> {
    known(path, name)?;
    snapshot(path, "-d", name)
}

fn snapshot(path: &Path, what: &str, name: &str) -> Result<()> {
    // This one command has no -f; the format is told with the name.
    let image = crate::arguments::with_path("driver=qcow2,file.driver=file,file.filename=", path);
    let options = ["snapshot", "-q", what, name, "--image-opts"];
    run(path, &options, &[&image])?;
    check(path, DiskFormat::Qcow2)
}

fn has(path: &Path, name: &str) -> Result<bool> {
    if name.is_empty() || name.starts_with('-') {
        return Err(refused(
            path,
            "a snapshot's name is not empty and does not begin with a dash",
        ));
    }
    Ok(snapshot_list(path)?.iter().any(|s| s.name == name))
}

fn known(path: &Path, name: &str) -> Result<()> {
    match has(path, name)? {
        true => Ok(()),
        false => Err(refused(path, &format!("it has no snapshot {name}"))),
    }
}

/// `qemu-img info`, as far as it is used.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Said {
    virtual_size: u64,
    #[serde(default)]
    actual_size: u64,
    #[serde(rename = "backing-filename")]
    backing: Option<PathBuf>,
    #[serde(rename = "backing-filename-format")]
    backing_format: Option<String>,
    #[serde(default)]
    snapshots: Vec<SaidSnapshot>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SaidSnapshot {
    name: String,
    date_sec: u64,
    vm_state_size: u64,
}

impl From<SaidSnapshot> for Snapshot {
    fn from(said: SaidSnapshot) -> Self {
        Self {
            name: said.name,
            created: said.date_sec,
            memory: said.vm_state_size,
        }
    }
}

/// Makes a file under another name, checks it, and gives it its own name if nothing has that.
fn whole(path: &Path, format: DiskFormat, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(Error::Exists {
            path: path.to_owned(),
        });
    }
    let mut name = OsString::from(".");
    name.push(
        path.file_name()
            .ok_or_else(|| refused(path, "this is no file's name"))?,
    );
    name.push(format!(".{}.half", std::process::id()));
    let half = absolute(&path.with_file_name(name))?;
    let made = make(&half)
        .and_then(|()| check(&half, format))
        .and_then(|()| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            renameat_with(CWD, &half, CWD, path, RenameFlags::NOREPLACE).map_err(|e| match e {
                rustix::io::Errno::EXIST => Error::Exists {
                    path: path.to_owned(),
                },
                other => at(path)(other.into()),
            })
        });
    if made.is_err() {
        // Its own error would hide the one that counts.
        let _ = fs::remove_file(&half);
    }
    made
}

/// A format that the first bytes contradict is refused: see module `fit`.
fn agrees(path: &Path, told: DiskFormat) -> Result<()> {
    if fs::metadata(path).map_err(at(path))?.is_dir() {
        return Err(refused(path, "this is a directory"));
    }
    match (told, format_of(path)?) {
        (told, Some(found)) if told != found => Err(refused(
            path,
            &format!(
                "it is told to be {}, and begins as {} does",
                told.driver(),
                found.driver()
            ),
        )),
        (DiskFormat::Raw, _) | (_, Some(_)) => Ok(()),
        (told, None) => Err(refused(
            path,
            &format!("it does not begin as {} does", told.driver()),
        )),
    }
}

fn run(path: &Path, options: &[&str], rest: &[&OsStr]) -> Result<()> {
    said(path, options, rest).map(drop)
}

fn output<T: for<'a> Deserialize<'a>>(path: &Path, options: &[&str], rest: &[&OsStr]) -> Result<T> {
    let bytes = said(path, options, rest)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| refused(path, &format!("qemu-img said something else: {e}")))
}

fn said(path: &Path, options: &[&str], rest: &[&OsStr]) -> Result<Vec<u8>> {
    let mut command = Command::new("qemu-img");
    command.args(options).stdin(Stdio::null());
    // No path can be taken for an option or for a protocol (`nbd:…`), if it is an absolute one.
    for argument in rest {
        let argument = Path::new(argument);
        if argument == path {
            command.arg(absolute(argument)?);
        } else {
            command.arg(argument);
        }
    }
    let output = command.output().map_err(Error::Program)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let reason = crate::fit::in_use(&text).unwrap_or_else(|| {
        let line = text
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("it failed without a word");
        line.trim_start_matches("qemu-img: ").to_owned()
    });
    Err(refused(path, &reason))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(at(path))
}

fn refused(path: &Path, reason: &str) -> Error {
    Error::Refused {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| match source.kind() {
        ErrorKind::NotFound => refused(path, "there is no such file or directory"),
        _ => Error::Io {
            path: path.to_owned(),
            source,
        },
    }
}

//! Disk images: made, looked at, changed and moved between formats, by `qemu-img`.
//!
//! A format is told to every call. A new image appears whole or not at all (module `half`); a file that is there is never
//! written over. What changes an image in place (resize, snapshots) is QEMU's own transaction on it, and is refused by
//! QEMU's lock while a VM has the image open. What may happen to whose files is said in module `program`.

mod chain;
mod half;
pub(crate) mod header;
mod program;

use crate::arguments::DriverName;
use api::MiB;
use profile::DiskFormat;
use program::Image;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

pub use chain::chain;
pub use files::Identity;
pub use half::{Made, sweep_beside};

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
    /// The file that has a qcow2 image's content, where that is not the image itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data_file: Option<PathBuf>,
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
    create_told(path, format, size, &|_, _| Ok(()))
}

/// The same, and tells of it before it appears; what says no to it is the error.
pub fn create_told(path: &Path, format: DiskFormat, size: MiB, made: Made) -> Result<()> {
    if size.0 == 0 {
        return Err(refused(path, "a disk of no size holds nothing"));
    }
    half::whole(path, made, |half| {
        let size = format!("{}M", size.0);
        half.run(
            &["create", "-q", "-f", format.driver()],
            &[half.argument.as_os_str(), OsStr::new(&size)],
        )?;
        checked(half, format)
    })
}

/// Makes a qcow2 image that holds only what differs from `base`, which must then not change: an external snapshot. It is
/// as large as the base, or larger.
pub fn overlay(path: &Path, base: &Path, base_format: DiskFormat, size: Option<MiB>) -> Result<()> {
    // A relative one would be looked for beside the overlay.
    let base = fs::canonicalize(base).map_err(at(base))?;
    let least = info(&base, base_format)?.virtual_size;
    let size = match size {
        Some(size) if size.0.saturating_mul(1 << 20) < least => {
            let reason = format!(
                "{} MiB are less than {}, which it is to stand on, has: {} MiB",
                size.0,
                base.display(),
                least >> 20
            );
            return Err(refused(path, &reason));
        }
        size => size.map(|size| format!("{}M", size.0)),
    };
    half::whole(path, &|_, _| Ok(()), |half| {
        let options = [
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            base_format.driver(),
            "-b",
        ];
        let mut rest = vec![base.as_os_str(), half.argument.as_os_str()];
        rest.extend(size.as_ref().map(OsStr::new));
        half.run(&options, &rest)?;
        checked(half, DiskFormat::Qcow2)
    })
}

/// What an image is. May be asked while a VM has it open.
pub fn info(path: &Path, format: DiskFormat) -> Result<Info> {
    let (image, _) = Image::open(path, format)?;
    let options = ["info", "-U", "--output=json", "-f", format.driver()];
    let bytes = image.said(&options, &[image.argument.as_os_str()])?;
    let said: Said = serde_json::from_slice(&bytes)
        .map_err(|e| refused(path, &format!("qemu-img said something else: {e}")))?;
    Ok(Info {
        path: path.to_owned(),
        format,
        virtual_size: said.virtual_size,
        actual_size: said.actual_size,
        backing: said.backing.map(|path| Backing {
            path,
            format: said.backing_format,
        }),
        data_file: said.specific.data.data_file,
        snapshots: said.snapshots.into_iter().map(Snapshot::from).collect(),
    })
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
    if matches!(format, DiskFormat::Vmdk | DiskFormat::Vdi) {
        let reason = format!(
            "a {} image keeps its size; make a qcow2 of it (convert), and resize that",
            format.driver()
        );
        return Err(refused(path, &reason));
    }
    let size = size.0.to_string() + "M";
    let mut options = vec!["resize", "-q", "-f", format.driver()];
    if wanted < now {
        options.push("--shrink");
    }
    let (image, _) = Image::open(path, format)?;
    image.run(&options, &[image.argument.as_os_str(), OsStr::new(&size)])?;
    checked(&image, format)
}

/// Makes an image of another format with the same content, without what it stands on and without its snapshots. Tells
/// how far it is, from 0 to 1.
pub fn convert(
    from: &Path,
    from_format: DiskFormat,
    to: &Path,
    to_format: DiskFormat,
    far: &mut dyn FnMut(f64),
) -> Result<()> {
    let (image, header) = Image::open(from, from_format)?;
    let below = match from_format {
        DiskFormat::Qcow2 => chain(from, from_format)?,
        _ => Vec::new(),
    };
    let image = image.for_us(&header, &below)?;
    converted(&image, from_format, to, to_format, far)
}

/// Takes a foreign image in: as [`convert`], its format found by its first bytes where it is not told. Returns it. One
/// that names other files is refused: whoever made it would choose what of ours is read.
pub fn import(
    from: &Path,
    told: Option<DiskFormat>,
    to: &Path,
    to_format: DiskFormat,
    far: &mut dyn FnMut(f64),
) -> Result<DiskFormat> {
    let (_, _, found) = program::look(from)?;
    let from_format = match (told, found.format, found.foreign) {
        (Some(format), ..) | (None, Some(format), _) => format,
        (None, None, Some(foreign)) => {
            let reason = format!(
                "it begins as {foreign} does, which cannot be read here; unpack it, or convert it where it comes from"
            );
            return Err(refused(from, &reason));
        }
        (None, None, None) if found.is_disk => DiskFormat::Raw,
        (None, None, None) => {
            let reason = "it begins as no image that is known, and has no partitions; if it is a raw disk, say so: \
                          --from-format raw";
            return Err(refused(from, reason));
        }
    };
    let (image, header) = Image::open(from, from_format)?;
    if header.external {
        let reason = "it names other files that belong to it, and what somebody else's image names is not read; have it \
                      made one file where it comes from, or convert it, if it is your own";
        return Err(refused(from, reason));
    }
    let image = image.for_us(&header, &[])?;
    converted(&image, from_format, to, to_format, far)?;
    Ok(from_format)
}

fn converted(
    from: &Image,
    from_format: DiskFormat,
    to: &Path,
    to_format: DiskFormat,
    far: &mut dyn FnMut(f64),
) -> Result<()> {
    half::whole(to, &|_, _| Ok(()), |half| {
        let options = [
            "convert",
            "-p",
            "-f",
            from_format.driver(),
            "-O",
            to_format.driver(),
        ];
        let rest = [from.argument.as_os_str(), half.argument.as_os_str()];
        from.with(&[half], &options, &rest, far)?;
        checked(half, to_format)
    })
}

/// Looks for damage. A raw image has no structure that could be damaged. What the image stands on has to be there.
pub fn check(path: &Path, format: DiskFormat) -> Result<()> {
    let (image, header) = Image::open(path, format)?;
    // Said with its cure, and not in QEMU's words.
    if header.external && format == DiskFormat::Qcow2 {
        chain(path, format)?;
    }
    checked(&image, format)
}

fn checked(image: &Image, format: DiskFormat) -> Result<()> {
    match format {
        DiskFormat::Raw => Ok(()),
        _ => image.run(
            &["check", "-q", "-f", format.driver()],
            &[image.argument.as_os_str()],
        ),
    }
}

/// Makes a snapshot inside a qcow2 image that no VM has open. A name that is taken is refused.
pub fn snapshot_create(path: &Path, name: &str) -> Result<()> {
    // qemu-img takes a number for the one that it counts so.
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused(path, "a snapshot's name is no number"));
    }
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
    let (image, _) = Image::open(path, DiskFormat::Qcow2)?;
    // This one command has no -f; the format is told with the name.
    let argument = crate::arguments::with_path(
        "driver=qcow2,file.driver=file,file.filename=",
        &image.argument,
    );
    let options = ["snapshot", "-q", what, name, "--image-opts"];
    image.run(&options, &[&argument])?;
    checked(&image, DiskFormat::Qcow2)
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
    #[serde(rename = "format-specific", default)]
    specific: SaidSpecific,
}

#[derive(Default, Deserialize)]
struct SaidSpecific {
    #[serde(default)]
    data: SaidData,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SaidData {
    #[serde(default)]
    data_file: Option<PathBuf>,
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

fn refused(path: &Path, reason: &str) -> Error {
    Error::Refused {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| match source.kind() {
        ErrorKind::NotFound => refused(path, "there is no such file or directory"),
        ErrorKind::InvalidInput => refused(path, &source.to_string()),
        _ => Error::Io {
            path: path.to_owned(),
            source,
        },
    }
}

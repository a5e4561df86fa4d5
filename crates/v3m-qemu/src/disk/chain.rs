//! What an image stands on.
//!
//! An image that names other files is opened with them, so they are looked at before: each has to be there, with its format
//! told. An image whose format is not told would be probed, and whoever wrote to it could make it another (see `fit`).

use super::program::look;
use super::{Error, Result, info, refused};
use crate::arguments::DriverName;
use profile::DiskFormat;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// All other files that an image is opened with, the nearest first. Most have none, and cost one read.
pub fn chain(path: &Path, format: DiskFormat) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = Vec::new();
    let mut seen = HashSet::new();
    let mut now = (path.to_owned(), format);
    loop {
        let (image, format) = &now;
        let (place, _, header) = look(image).map_err(|e| missing(path, image, e))?;
        if !seen.insert(place.path().to_owned()) {
            return Err(refused(path, "it stands on itself"));
        }
        if !header.external {
            return Ok(all);
        }
        let info = info(image, *format).map_err(|e| missing(path, image, e))?;
        if let Some(data) = &info.data_file {
            all.push(beside(path, image, data)?);
        }
        let Some(backing) = info.backing else {
            return Ok(all);
        };
        let below = beside(path, image, &backing.path)?;
        let cure = |format: &str| {
            format!(
                "qemu-img rebase -u -F {format} -b {} {}",
                backing.path.display(),
                image.display()
            )
        };
        let shown = match path == image {
            true => "it".to_owned(),
            false => image.display().to_string(),
        };
        let under = backing.path.display();
        let Some(told) = &backing.format else {
            let (_, _, header) = look(&below).map_err(|e| missing(path, &below, e))?;
            let found = header.format.map_or("raw", |found| found.driver());
            let reason = match format {
                DiskFormat::Qcow2 => format!(
                    "{shown} does not tell the format of {under}, which it stands on; if it is {found}: {}",
                    cure(found)
                ),
                _ => format!(
                    "{shown} does not tell the format of {under}, which it stands on; convert it to qcow2"
                ),
            };
            return Err(refused(path, &reason));
        };
        let known = [
            DiskFormat::Raw,
            DiskFormat::Qcow2,
            DiskFormat::Vmdk,
            DiskFormat::Vdi,
        ];
        let Some(told) = known.into_iter().find(|known| known.driver() == told) else {
            let reason = format!("{shown} stands on {under}, whose format is {told}; convert it");
            return Err(refused(path, &reason));
        };
        all.push(below.clone());
        now = (below, told);
    }
}

/// A path as an image has it written; a protocol of QEMU's (`nbd:…`, `json:…`) is none.
fn beside(path: &Path, image: &Path, written: &Path) -> Result<PathBuf> {
    let text = written.to_string_lossy();
    let plain = text
        .split('/')
        .next()
        .is_none_or(|first| !first.contains(':'));
    match (plain, text.strip_prefix("file:")) {
        (true, _) => Ok(image.with_file_name("").join(written)),
        (false, Some(file)) => Ok(image.with_file_name("").join(file)),
        (false, None) => Err(refused(
            path,
            &format!("it stands on {text}, which is no file"),
        )),
    }
}

/// What is wrong with another image is wrong with this one.
fn missing(path: &Path, image: &Path, error: Error) -> Error {
    if path == image {
        return error;
    }
    let why = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    refused(
        path,
        &format!(
            "it stands on another image: {why}; bring it back, or tell it where that is: qemu-img rebase -u -F FORMAT -b FILE {}",
            path.display()
        ),
    )
}

//! Removing images, while nobody is about to use them.

use crate::catalogue::{Image, Images, on_disk};
use crate::lock::Lock;
use crate::{Error, Result};
use api::Progress;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// What was, or would be, removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub paths: Vec<PathBuf>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// While it lives no image is removed: to be held from finding one until it is written down who uses it.
#[derive(Debug)]
pub struct Hold {
    _lock: Lock,
}

/// The right to remove images. While it lives nothing is built and nobody takes an image into use, so what its holder
/// finds unused stays unused.
#[derive(Debug)]
pub struct Removal<'a> {
    images: &'a Images,
    _use: Lock,
    _build: Lock,
}

impl Images {
    pub fn hold(&self, progress: &Progress) -> Result<Hold> {
        let lock = Lock::share(&self.dir.join("use.lock"), || {
            progress.note(
                "images are being removed in this state directory: waiting for the end of it",
            );
        })?;
        Ok(Hold { _lock: lock })
    }

    /// Clears away what interrupted builds and removals left, unless one is at work.
    pub fn sweep(&self, progress: &Progress) -> Result<()> {
        match Lock::attempt(&self.dir.join("build.lock"))? {
            Some(lock) => crate::build::sweep_with(self, &lock, progress),
            None => Ok(()),
        }
    }

    /// Waits until clusters that are being made have their image, and builds have ended.
    pub fn removal(&self, progress: &Progress) -> Result<Removal<'_>> {
        let used = Lock::take(&self.dir.join("use.lock"), || {
            progress.note(
                "an `oscarv up` is at work in this state directory: waiting until it has its image",
            );
        })?;
        let build = Lock::take(&self.dir.join("build.lock"), || {
            progress.note("a build is at work in this state directory: waiting for it to end");
        })?;
        crate::build::sweep_with(self, &build, progress)?;
        Ok(Removal {
            images: self,
            _use: used,
            _build: build,
        })
    }
}

impl Removal<'_> {
    /// Removes an image with its names. Whether a cluster uses it is for the caller to know.
    pub fn remove(&self, selector: &str, dry_run: bool) -> Result<Removed> {
        let image = self.images.show(selector)?;
        self.remove_image(&image, dry_run)
    }

    /// Removes the images that `used` does not want and that have no tag, all layers that no image left is made of, and
    /// the downloaded packages: what a build needs again it fetches again.
    pub fn prune(&self, used: impl Fn(&Image) -> bool, dry_run: bool) -> Result<Removed> {
        let mut removed = Removed::default();
        let mut kept_layers = BTreeSet::new();
        for image in self.images.list()? {
            if used(&image) || !image.tags.is_empty() {
                kept_layers.extend(image.manifest.layers.iter().cloned());
                continue;
            }
            let more = self.remove_image(&image, dry_run)?;
            removed.paths.extend(more.paths);
            removed.bytes += more.bytes;
        }
        let layers = self.images.dir.join("layers");
        for entry in fs::read_dir(&layers).map_err(Error::io(&layers))? {
            let path = entry.map_err(Error::io(&layers))?.path();
            let digest = path
                .file_stem()
                .map(|s| s.to_string_lossy().into_owned())
                .unwrap_or_default();
            if !kept_layers.contains(&digest) {
                removed.file(path, dry_run)?;
            }
        }
        let archives = self.images.dir.join("cache/apt/archives");
        for entry in fs::read_dir(&archives).map_err(Error::io(&archives))? {
            let path = entry.map_err(Error::io(&archives))?.path();
            if path.extension().is_some_and(|e| e == "deb") {
                removed.file(path, dry_run)?;
            }
        }
        Ok(removed)
    }

    fn remove_image(&self, image: &Image, dry_run: bool) -> Result<Removed> {
        let mut removed = Removed {
            paths: vec![image.directory.clone()],
            bytes: 0,
        };
        for path in [&image.disk, &image.kernel, &image.initrd] {
            removed.bytes += fs::metadata(path).map_or(0, |m| on_disk(&m));
        }
        if dry_run {
            return Ok(removed);
        }
        let dir = &self.images.dir;
        // First out of sight, then away: nobody finds half of it.
        let away = tempfile::Builder::new()
            .prefix("removed-")
            .tempdir_in(dir.join("tmp"));
        let away = away.map_err(Error::io(dir.join("tmp")))?;
        let target = away.path().join("image");
        fs::rename(&image.directory, &target).map_err(Error::io(&image.directory))?;
        for kind in ["keys", "tags"] {
            for (name, id) in self.images.links(kind)? {
                if id == image.id {
                    let path = dir.join(kind).join(name);
                    fs::remove_file(&path).map_err(Error::io(&path))?;
                }
            }
        }
        away.close().map_err(Error::io(target))?;
        Ok(removed)
    }
}

impl Removed {
    fn file(&mut self, path: PathBuf, dry_run: bool) -> Result<()> {
        self.bytes += fs::metadata(&path).map_or(0, |m| on_disk(&m));
        if !dry_run {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        self.paths.push(path);
        Ok(())
    }
}

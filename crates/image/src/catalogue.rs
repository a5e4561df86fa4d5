//! The images that are there: found by key, listed, named, removed.

use crate::build::{self, BuildOptions};
use crate::key::Key;
use crate::manifest::Manifest;
use crate::{Error, Result};
use api::{Name, Progress};
use opkg::Opkg;
use profile::Recipe;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The images of one state directory.
#[derive(Clone, Debug)]
pub struct Images {
    pub(crate) dir: PathBuf,
}

/// A finished image. It never changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub key: Key,
    /// Digest of what boots; the name of the image's directory.
    pub id: String,
    /// BLAKE3 of the root file system.
    pub digest: String,
    pub directory: PathBuf,
    /// Raw, sparse, ext4 without a partition table.
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub tags: Vec<String>,
    pub manifest: Manifest,
}

impl Images {
    /// The images in `<state>`; the directories are made where they are missing.
    pub fn open(state: &Path) -> Result<Self> {
        // 0711: QEMU that has dropped root's rights reaches its image, and nobody can look around.
        let directories = [
            ("", 0o711),
            ("images", 0o711),
            ("keys", 0o700),
            ("tags", 0o700),
            ("layers", 0o700),
            ("tmp", 0o700),
            ("logs", 0o700),
            ("cache", 0o700),
            ("cache/apt", 0o700),
            ("cache/apt/archives", 0o700),
            ("cache/apt/archives/partial", 0o700),
            ("cache/apt/lists", 0o700),
            ("cache/apt/lists/partial", 0o700),
        ];
        for (name, mode) in directories {
            let path = state.join(name);
            if !path.is_dir() {
                let made = fs::DirBuilder::new()
                    .recursive(true)
                    .mode(mode)
                    .create(&path);
                made.map_err(Error::io(&path))?;
            }
        }
        let dir = fs::canonicalize(state).map_err(Error::io(state))?;
        Ok(Self { dir })
    }

    /// The digest of everything that would go into this image.
    pub fn key(&self, recipe: &Recipe, opkgs: &[Opkg]) -> Key {
        Key::of(recipe, opkgs)
    }

    /// The image that was made from these inputs, if there is one.
    pub fn find(&self, key: &Key) -> Result<Option<Image>> {
        let link = self.dir.join("keys").join(key.as_str());
        match fs::read_link(&link) {
            Ok(target) => match target.file_name() {
                Some(id) if self.dir.join("images").join(id).is_dir() => {
                    self.load(&id.to_string_lossy(), Some(key)).map(Some)
                }
                _ => Ok(None),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&link)(e)),
        }
    }

    /// Finds the image or makes it.
    pub fn build(
        &self,
        recipe: &Recipe,
        opkgs: &[Opkg],
        options: BuildOptions,
        progress: &Progress,
    ) -> Result<Image> {
        if let Some(tag) = &options.tag {
            check_tag(tag)?;
        }
        let key = self.key(recipe, opkgs);
        let image = match self.find(&key)? {
            Some(image) if !options.force => image,
            _ => build::build(self, recipe, opkgs, &key, options.force, progress)?,
        };
        match options.tag {
            Some(tag) => {
                self.tag(&image.id, &tag)?;
                self.load(&image.id, Some(&key))
            }
            None => Ok(image),
        }
    }

    /// All images, the newest first.
    pub fn list(&self) -> Result<Vec<Image>> {
        let directory = self.dir.join("images");
        let mut images = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::io(&directory))? {
            let entry = entry.map_err(Error::io(&directory))?;
            images.push(self.load(&entry.file_name().to_string_lossy(), None)?);
        }
        images.sort_by(|a, b| {
            b.manifest
                .built
                .cmp(&a.manifest.built)
                .then(a.id.cmp(&b.id))
        });
        Ok(images)
    }

    /// The image with this tag, or the only one whose id, key or digest begins so.
    pub fn show(&self, selector: &str) -> Result<Image> {
        let images = self.list()?;
        if let Some(image) = images.iter().find(|i| i.tags.iter().any(|t| t == selector)) {
            return Ok(image.clone());
        }
        let begins = |i: &&Image| {
            [&i.id, &i.key.0, &i.digest]
                .iter()
                .any(|d| d.starts_with(selector))
        };
        let mut found = images.iter().filter(begins);
        match (found.next(), found.next()) {
            (Some(image), None) if !selector.is_empty() => Ok(image.clone()),
            (Some(_), Some(_)) if !selector.is_empty() => Err(Error::Ambiguous {
                selector: selector.to_owned(),
                ids: images
                    .iter()
                    .filter(begins)
                    .map(|i| i.id[..12.min(i.id.len())].to_owned())
                    .collect(),
            }),
            _ => Err(Error::NoImage(selector.to_owned())),
        }
    }

    /// Gives an image a name; it is taken from any other image.
    pub fn tag(&self, id: &str, tag: &str) -> Result<()> {
        check_tag(tag)?;
        self.link("tags", tag, id)
    }

    /// Points `<state>/<kind>/<name>` to an image, at once.
    pub(crate) fn link(&self, kind: &str, name: &str, id: &str) -> Result<()> {
        let path = self.dir.join(kind).join(name);
        let tmp = self.dir.join("tmp");
        let half = tempfile::Builder::new()
            .prefix("link-")
            .tempdir_in(&tmp)
            .map_err(Error::io(&tmp))?;
        let link = half.path().join("link");
        symlink(Path::new("../images").join(id), &link).map_err(Error::io(&link))?;
        fs::rename(&link, &path).map_err(Error::io(path))
    }

    pub(crate) fn links(&self, kind: &str) -> Result<Vec<(String, String)>> {
        let directory = self.dir.join(kind);
        let mut links = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::io(&directory))? {
            let entry = entry.map_err(Error::io(&directory))?;
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            let id = target.file_name().map(|n| n.to_string_lossy().into_owned());
            links.push((
                entry.file_name().to_string_lossy().into_owned(),
                id.unwrap_or_default(),
            ));
        }
        links.sort();
        Ok(links)
    }

    pub(crate) fn load(&self, id: &str, key: Option<&Key>) -> Result<Image> {
        let directory = self.dir.join("images").join(id);
        let path = directory.join("manifest.json");
        let text = fs::read(&path).map_err(Error::io(&path))?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| Error::BadImage {
            path: path.clone(),
            why: format!("it cannot be read: {e}; remove the directory and build the image again"),
        })?;
        let tags = self
            .links("tags")?
            .into_iter()
            .filter(|(_, to)| to == id)
            .map(|(tag, _)| tag)
            .collect();
        Ok(Image {
            key: key.cloned().unwrap_or_else(|| Key(manifest.key.clone())),
            id: id.to_owned(),
            digest: manifest.digests.get("rootfs").cloned().unwrap_or_default(),
            disk: directory.join("disk.raw"),
            kernel: directory.join("kernel"),
            initrd: directory.join("initrd"),
            directory,
            tags,
            manifest,
        })
    }
}

fn check_tag(tag: &str) -> Result<()> {
    Name::new(tag).map(|_| ()).map_err(|why| Error::BadTag {
        tag: tag.to_owned(),
        why: why.to_string(),
    })
}

pub(crate) fn on_disk(meta: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    meta.blocks() * 512
}

/// Readable for the user that QEMU becomes; there is nothing private in an image.
pub(crate) fn open_up(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::io(path))
}

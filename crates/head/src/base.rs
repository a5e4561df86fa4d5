//! What nodes boot from.

use image::Image;
use profile::Backend;
use std::path::PathBuf;

/// The parts of an image that a node needs.
#[derive(Clone, Debug)]
pub struct Base {
    pub id: String,
    /// None for nodes that are no VMs: they have no disk either.
    pub disk: Option<PathBuf>,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

impl Base {
    /// Nodes that are states only boot nothing: no image is built for them.
    pub fn without_image(backend: Backend) -> Option<Self> {
        (backend == Backend::Fake).then(|| Self {
            id: "none".to_owned(),
            disk: None,
            kernel: PathBuf::from("/dev/null"),
            initrd: PathBuf::from("/dev/null"),
        })
    }
}

impl From<Image> for Base {
    fn from(image: Image) -> Self {
        Self {
            id: image.id,
            disk: Some(image.disk),
            kernel: image.kernel,
            initrd: image.initrd,
        }
    }
}

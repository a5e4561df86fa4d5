//! Images: an operating system built from packages, immutable, named by its content.
//!
//! A recipe and its OPKGs have a [`Key`], the digest of everything that goes in. [`Images::build`] makes layers (base →
//! distribution packages → one for each OPKG), keeps each as a tar named by the digest of its own inputs, and then a
//! disk, a kernel, an initrd and a manifest. Every step runs in one private mount and pid namespace (module `sandbox`),
//! with a user namespace around it for an ordinary user, so that both get the same bytes and one kill ends all of it.
//!
//! ```text
//! <state>/images/<id>/     disk.raw kernel initrd manifest.json; id: digest of what boots; appears by rename, never changes
//! <state>/keys/<key>       link to the image that was made from these inputs
//! <state>/tags/<tag>       link to the image with this name
//! <state>/layers/<key>.tar what a step changed in the tree
//! <state>/cache/apt/       downloaded packages and lists: a build that failed goes on where it was
//! <state>/logs/            what the programs said, of builds that failed
//! <state>/tmp/             half-made things, swept by the next build
//! <state>/build.lock       held by the builder and all of its children
//! <state>/use.lock         shared by those who take an image into use, against its removal meanwhile
//! ```

mod apt;
mod build;
mod catalogue;
mod check;
mod cpio;
mod digest;
mod disk;
mod error;
mod initrd;
mod kernel;
mod key;
mod layers;
mod lock;
mod manifest;
mod removal;
mod sandbox;
mod steps;

pub use build::BuildOptions;
pub use catalogue::{Image, Images};
pub use check::{Finding, check};
pub use error::Error;
pub use key::Key;
pub use manifest::{Difference, Manifest, OpkgEntry, PackageEntry, SourceEntry};
pub use removal::{Hold, Removal, Removed};

pub type Result<T> = std::result::Result<T, Error>;

/// `oscarv-init`: the static program that every image's initrd starts.
pub const INIT: &[u8] = include_bytes!(env!("OSCARV_INIT"));

//! OPKGs: software, its configuration by phase, its tests and its documentation, in one directory.
//!
//! ```text
//! packages/<name>/opkg.toml          the manifest (module `manifest`)
//!                 scripts/<phase>    executables, safe to run again (module `phase`)
//!                 testing/ready      ends with 0 when the package works on this node
//!                 testing/test       proves it
//!                 doc/README.md      tells people
//!                 files/             copied over the image's root
//! ```
//!
//! A package is a trust boundary: whoever loads one has checked that every path in it stays inside it (`package`).
//! [`Repository`] finds packages by name and puts them in order; those we ship travel in the program (`embedded`).

mod embedded;
mod error;
mod manifest;
mod package;
mod phase;
mod reader;
mod repository;

pub use embedded::unpack as unpack_shipped;
pub use error::{Error, Problem};
pub use manifest::{Class, Manifest, PackageTable, Secret, Services};
pub use package::{Entry, EntryKind, Opkg, PackageSet};
pub use phase::Phase;
pub use repository::Repository;

//! The digest of everything that goes into an image, known before anything is built.

use crate::INIT;
use crate::digest::Fields;
use opkg::Opkg;
use profile::Recipe;
use std::fmt;

/// Changed whenever the same inputs would give another image than before.
pub(crate) const FORMAT: &str = "1";

/// 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub(crate) String);

impl Key {
    pub(crate) fn of(recipe: &Recipe, opkgs: &[Opkg]) -> Self {
        let mut packages = recipe.packages.clone();
        packages.sort();
        packages.dedup();
        let opkgs: Vec<String> = opkgs
            .iter()
            .map(|o| format!("{} {}", o.name, o.digest()))
            .collect();
        let fields = Fields::new("oscarv image")
            .add(FORMAT)
            .add(architecture())
            .add(&recipe.distribution)
            .add(&recipe.release)
            .add(recipe.kernel.as_deref().unwrap_or_default())
            .add(recipe.mirror.as_deref().unwrap_or_default())
            .list(&packages)
            .list(&opkgs)
            .add(crate::sandbox::SCRIPT)
            .add(blake3::hash(INIT).as_bytes());
        Self(fields.hex())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The distribution's word for the architecture of this machine, which is the one of its images.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

//! What is in an image, and where it came from: `manifest.json`.

use profile::Recipe;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub format: u32,
    pub key: String,
    /// Digest of what boots: root file system, kernel, initrd.
    pub id: String,
    pub recipe: Recipe,
    pub architecture: String,
    pub opkgs: Vec<OpkgEntry>,
    /// Sorted by name.
    pub packages: Vec<PackageEntry>,
    pub kernel_release: String,
    /// Unpacked to an ELF file with a PVH entry, or as the distribution ships it.
    pub kernel_unpacked: bool,
    /// The layers it is made of, from the bottom.
    pub layers: Vec<String>,
    /// In the order in which the initrd loads them.
    pub modules: Vec<String>,
    /// BLAKE3, in hexadecimal, by name: rootfs, disk, kernel, initrd.
    pub digests: BTreeMap<String, String>,
    /// Bytes, by name: disk (virtual), disk-used, kernel, initrd, content.
    pub sizes: BTreeMap<String, u64>,
    pub files: u64,
    /// Seconds since 1970.
    pub built: u64,
    pub built_by: String,
    /// SOURCE_DATE_EPOCH of the build.
    pub epoch: u64,
    pub sources: Vec<SourceEntry>,
    /// If the same inputs gave another image before: what differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs: Option<Difference>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpkgEntry {
    pub name: String,
    pub version: String,
    pub digest: String,
}

/// An installed distribution package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageEntry {
    pub name: String,
    pub version: String,
    pub architecture: String,
}

/// A package list that was in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEntry {
    pub list: String,
    pub suite: String,
    /// The Release file's own date.
    pub date: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The image that these inputs gave before.
    pub from: String,
    /// "name old → new", "name new" or "name gone".
    pub packages: Vec<String>,
    /// Where no package differs: the first files that do.
    pub files: Vec<String>,
}

/// The installed packages, from dpkg's own record in the tree.
pub(crate) fn installed(root: &Path) -> std::io::Result<Vec<PackageEntry>> {
    let text = fs::read_to_string(root.join("var/lib/dpkg/status"))?;
    let mut packages: Vec<PackageEntry> = text.split("\n\n").filter_map(package).collect();
    packages.sort();
    Ok(packages)
}

fn package(stanza: &str) -> Option<PackageEntry> {
    let field = |name: &str| {
        let found = stanza
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        found.map(|value| value.trim().to_owned())
    };
    if !field("Status")?.ends_with(" installed") {
        return None;
    }
    Some(PackageEntry {
        name: field("Package")?,
        version: field("Version")?,
        architecture: field("Architecture")?,
    })
}

/// Suites and dates of the package lists in `lists`.
pub(crate) fn sources(lists: &Path) -> Vec<SourceEntry> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(lists).into_iter().flatten().flatten() {
        let list = entry.file_name().to_string_lossy().into_owned();
        if !list.ends_with("_InRelease") && !list.ends_with("_Release") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| {
            let found = text
                .lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
            found.unwrap_or_default().to_owned()
        };
        sources.push(SourceEntry {
            list,
            suite: field("Codename"),
            date: field("Date"),
        });
    }
    sources.sort_by(|a, b| a.list.cmp(&b.list));
    sources
}

/// What distinguishes the packages of two images.
pub(crate) fn package_changes(old: &[PackageEntry], new: &[PackageEntry]) -> Vec<String> {
    let map = |list: &[PackageEntry]| -> BTreeMap<String, String> {
        list.iter()
            .map(|p| (format!("{}:{}", p.name, p.architecture), p.version.clone()))
            .collect()
    };
    let (old, new) = (map(old), map(new));
    let mut changes = Vec::new();
    for (name, version) in &new {
        match old.get(name) {
            Some(before) if before == version => {}
            Some(before) => changes.push(format!("{name} {before} → {version}")),
            None => changes.push(format!("{name} {version} new")),
        }
    }
    changes.extend(
        old.keys()
            .filter(|n| !new.contains_key(*n))
            .map(|n| format!("{n} gone")),
    );
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/lib/dpkg")).unwrap();
        let status = "Package: b\nStatus: install ok installed\nVersion: 2\nArchitecture: all\nDescription: x\n more\n\n\
                      Package: c\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n\
                      Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1\n";
        fs::write(root.path().join("var/lib/dpkg/status"), status).unwrap();
        let names: Vec<String> = installed(root.path())
            .unwrap()
            .into_iter()
            .map(|p| p.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn changes_of_packages() {
        let p = |name: &str, version: &str| PackageEntry {
            name: name.into(),
            version: version.into(),
            architecture: "all".into(),
        };
        assert_eq!(
            package_changes(
                &[p("a", "1"), p("b", "1"), p("c", "1")],
                &[p("a", "1"), p("b", "2"), p("d", "1")]
            ),
            ["b:all 1 → 2", "d:all 1 new", "c:all gone"]
        );
    }
}

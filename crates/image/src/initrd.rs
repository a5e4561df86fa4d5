//! The initrd: `/init` (oscarv-init) and the modules that lead to the root disk, the NIC and the console.
//!
//! `/modules/order` names the files in `/modules`, one a line, each after those it needs: loading them in that order is
//! all there is to do.

use crate::cpio::Cpio;
use crate::{Error, INIT, Result};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// By name as `modprobe` knows them; built-in ones need no file, and so do those that a kernel does not have.
/// Each costs time at every boot: no more than oscarv-init needs before the root disk is there.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
];

/// The archive for the kernel `release` in the tree `root`, and the names of the modules in it.
pub(crate) fn make(root: &Path, release: &str) -> Result<(Vec<u8>, Vec<String>)> {
    let base = root.join("usr/lib/modules").join(release);
    let base = if base.is_dir() {
        base
    } else {
        root.join("lib/modules").join(release)
    };
    let order = Dependencies::read(&base)?.order(&MODULES);
    let whole = |e: std::io::Error| Error::io("initrd")(e);
    let mut archive = Cpio::new(Vec::new());
    for directory in ["dev", "proc", "sys", "run", "root", "modules"] {
        archive.directory(directory).map_err(whole)?;
    }
    let mut names = String::new();
    for (number, path) in order.iter().enumerate() {
        let file = path.rsplit('/').next().unwrap_or(path);
        let stem = file.split(".ko").next().unwrap_or(file);
        let name = format!("{number:02}-{stem}.ko");
        let content = unpacked(&base.join(path))?;
        archive
            .file(&format!("modules/{name}"), false, &content)
            .map_err(whole)?;
        names += &name;
        names.push('\n');
    }
    archive
        .file("modules/order", false, names.as_bytes())
        .map_err(whole)?;
    archive.file("init", true, INIT).map_err(whole)?;
    let bytes = archive.finish().map_err(whole)?;
    Ok((bytes, names.lines().map(str::to_owned).collect()))
}

/// depmod's files: what needs what. Names compare with `-` as `_`.
#[derive(Default)]
struct Dependencies {
    /// Module name → its file, relative.
    files: HashMap<String, String>,
    /// File → the files it needs.
    needs: HashMap<String, Vec<String>>,
    /// Module name → modules to load before it, if they are there.
    before: HashMap<String, Vec<String>>,
}

impl Dependencies {
    fn read(base: &Path) -> Result<Self> {
        let dep = base.join("modules.dep");
        let dep = fs::read_to_string(&dep).map_err(Error::io(&dep))?;
        let soft = fs::read_to_string(base.join("modules.softdep")).unwrap_or_default();
        Ok(Self::parse(&dep, &soft))
    }

    fn parse(dep: &str, soft: &str) -> Self {
        let mut all = Self::default();
        for line in dep.lines() {
            let Some((file, needs)) = line.split_once(':') else {
                continue;
            };
            all.files.insert(module_name(file), file.to_owned());
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            all.needs.insert(file.to_owned(), needs);
        }
        for line in soft.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(module) = words.next() else { continue };
            let before = words
                .skip_while(|w| *w != "pre:")
                .skip(1)
                .take_while(|w| *w != "post:");
            let before = before.map(module_name).collect();
            all.before.insert(module_name(module), before);
        }
        all
    }

    /// The files of these modules and all they need, each after its own needs.
    fn order(&self, modules: &[&str]) -> Vec<String> {
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        for module in modules {
            if let Some(file) = self.files.get(&module_name(module)) {
                self.add(file, &mut order, &mut seen);
            }
        }
        order
    }

    fn add(&self, file: &str, order: &mut Vec<String>, seen: &mut HashSet<String>) {
        if !seen.insert(file.to_owned()) {
            return;
        }
        for before in self.before.get(&module_name(file)).into_iter().flatten() {
            if let Some(file) = self.files.get(before) {
                self.add(file, order, seen);
            }
        }
        // modules.dep lists them so that the last is to be loaded first.
        for need in self.needs.get(file).into_iter().flatten().rev() {
            self.add(need, order, seen);
        }
        order.push(file.to_owned());
    }
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko.xz` → `virtio_rng`
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// oscarv-init has no unpackers: modules lie in the initrd as the kernel takes them.
fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).map_err(Error::io(path)),
    };
    let output = Command::new(program)
        .args(["-d", "-c", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: program.to_owned(),
            source,
        })?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Error::BadImage {
            path: path.to_owned(),
            why: format!(
                "{program} cannot unpack it: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_come_first() {
        let all = Dependencies::parse(
            "kernel/virtio.ko:\nkernel/virtio_ring.ko: kernel/virtio.ko\n\
             kernel/virtio_blk.ko.xz: kernel/virtio_ring.ko kernel/virtio.ko\n\
             kernel/crc.ko:\nkernel/virtio-rng.ko: kernel/virtio.ko\n",
            "# comment\nsoftdep virtio_rng pre: crc post: virtio_blk\n",
        );
        assert_eq!(
            all.order(&["virtio_rng", "virtio_blk", "absent"]),
            [
                "kernel/crc.ko",
                "kernel/virtio.ko",
                "kernel/virtio-rng.ko",
                "kernel/virtio_ring.ko",
                "kernel/virtio_blk.ko.xz"
            ]
        );
    }
}

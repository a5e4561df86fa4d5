//! The disk from which a guest with cloud-init configures itself: a small FAT file system in NoCloud form.
//!
//! Source of the form: cloud-init, `doc/rtd/reference/datasources/nocloud.rst` (label `CIDATA`, files `meta-data`,
//! `user-data`, `network-config`). A guest goes through its first boot again when `instance-id` changes, which is when
//! what it is given changes.

use crate::home::{Home, at};
use profile::CloudInit;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use v3m::Result;

/// In the VM's directory.
pub const FILE: &str = "cloud-init.img";
pub const HALF: &str = "cloud-init.half";
/// What FAT itself needs, and small user data.
const LEAST: u64 = 1 << 20;

/// Writes the disk anew; it appears whole or not at all.
pub fn write(home: &Home, cloud: &CloudInit) -> Result<()> {
    let (half, whole) = (home.file(HALF), home.file(FILE));
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.mode(0o600).open(&half)
    };
    open()
        .and_then(|file| fill(file, home.name.as_str(), cloud))
        .and_then(|()| fs::rename(&half, &whole))
        .map_err(at(&whole))
}

fn fill(mut disk: File, name: &str, cloud: &CloudInit) -> io::Result<()> {
    let network = cloud.network_config.as_deref();
    let id = crate::link::digest(&[
        name.as_bytes(),
        cloud.user_data.as_bytes(),
        network.unwrap_or("").as_bytes(),
    ]);
    // JSON is YAML, and quotes safely.
    let meta = serde_json::json!({
        "instance-id": format!("{name}-{id:016x}"),
        "local-hostname": name,
    })
    .to_string();
    let content = cloud.user_data.len() + network.map_or(0, str::len);
    disk.set_len((LEAST + 2 * content as u64).next_multiple_of(4096))?;
    let label = fatfs::FormatVolumeOptions::new().volume_label(*b"CIDATA     ");
    fatfs::format_volume(&mut disk, label)?;
    let volume = fatfs::FileSystem::new(disk, fatfs::FsOptions::new())?;
    {
        let root = volume.root_dir();
        let file = |name: &str, text: &str| {
            let mut file = root.create_file(name)?;
            file.write_all(text.as_bytes())?;
            file.flush()
        };
        file("meta-data", &meta)?;
        file("user-data", &cloud.user_data)?;
        if let Some(network) = network {
            file("network-config", network)?;
        }
    }
    volume.unmount()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use api::Name;
    use std::io::Read;

    #[test]
    fn what_is_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), &Name::new("a").unwrap());
        fs::create_dir(&home.path).unwrap();
        let mut ids = Vec::new();
        for user_data in ["#cloud-config\n", &"x".repeat(3 << 20)] {
            let cloud = CloudInit {
                user_data: user_data.to_owned(),
                network_config: Some("version: 2\n".to_owned()),
            };
            write(&home, &cloud).unwrap();
            let disk = File::options()
                .read(true)
                .write(true)
                .open(home.file(FILE))
                .unwrap();
            let volume = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).unwrap();
            assert!(volume.volume_label_as_bytes().starts_with(b"CIDATA"));
            let read = |name: &str| {
                let mut text = String::new();
                let mut file = volume.root_dir().open_file(name).unwrap();
                file.read_to_string(&mut text).unwrap();
                text
            };
            assert_eq!(read("user-data"), user_data);
            assert_eq!(read("network-config"), "version: 2\n");
            assert!(read("meta-data").contains("\"local-hostname\":\"a\""));
            ids.push(read("meta-data"));
        }
        assert_ne!(ids[0], ids[1]);
        assert!(!home.file(HALF).exists());
    }

    /// The program was built without a feature of fatfs that the tests had: its names were `META-D~1` and `USER-D~1`, and
    /// cloud-init found nothing.
    #[test]
    fn the_names_are_long_ones() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), &Name::new("a").unwrap());
        fs::create_dir(&home.path).unwrap();
        let cloud = CloudInit {
            user_data: "#cloud-config\n".to_owned(),
            network_config: Some("version: 2\n".to_owned()),
        };
        write(&home, &cloud).unwrap();
        let disk = fs::read(home.file(FILE)).unwrap();
        // A long name's first five characters are in one piece, in UTF-16.
        for name in ["meta-data", "user-data", "netwo"] {
            let start: Vec<u8> = name.bytes().take(5).flat_map(|b| [b, 0]).collect();
            assert!(disk.windows(10).any(|w| w == start), "{name}");
        }
    }
}

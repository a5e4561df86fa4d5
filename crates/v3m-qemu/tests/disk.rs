//! Disk images, with the real qemu-img.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use api::MiB;
use profile::DiskFormat::{self, Qcow2, Raw, Vdi, Vmdk};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use v3m_qemu::disk;

const ALL: [DiskFormat; 4] = [Raw, Qcow2, Vmdk, Vdi];

fn left(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn with_text(path: &Path, at: u64, text: &[u8]) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(text, at).unwrap();
}

#[test]
fn made_sparse_and_told_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    for format in ALL {
        let path = dir.path().join(format!("-a,b {format:?}"));
        disk::create(&path, format, MiB(64)).unwrap();
        disk::check(&path, format).unwrap();
        let info = disk::info(&path, format).unwrap();
        assert_eq!((info.virtual_size, info.format), (64 << 20, format));
        assert!(info.actual_size < 1 << 20, "{info:?}");
        assert!(fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
        let again = disk::create(&path, format, MiB(1)).unwrap_err();
        assert!(matches!(again, disk::Error::Exists { .. }), "{again}");
        assert_eq!(disk::info(&path, format).unwrap(), info);
    }
    assert_eq!(left(dir.path()).len(), ALL.len());
    let path = dir.path().join("none");
    assert!(disk::create(&path, Raw, MiB(0)).is_err());
    assert!(disk::create(&dir.path().join("no/dir"), Raw, MiB(1)).is_err());
    assert!(disk::create(&path, Qcow2, MiB(u64::MAX)).is_err());
    assert_eq!(left(dir.path()).len(), ALL.len());
}

#[test]
fn content_survives_every_conversion() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first");
    disk::create(&first, Raw, MiB(8)).unwrap();
    with_text(&first, 5 << 20, b"here I am");
    for from_format in ALL {
        let from = dir.path().join(format!("from-{from_format:?}"));
        disk::convert(&first, Raw, &from, from_format).unwrap();
        for to_format in ALL {
            let to = dir.path().join(format!("{from_format:?}-{to_format:?}"));
            disk::export(&from, from_format, &to, to_format).unwrap();
            disk::check(&to, to_format).unwrap();
            let back = dir.path().join("back");
            assert_eq!(disk::import(&to, None, &back, Raw).unwrap(), to_format);
            assert!(fs::read(&back).unwrap() == fs::read(&first).unwrap());
            fs::remove_file(back).unwrap();
        }
    }
}

#[test]
fn sizes_grow_and_shrink_only_when_told() {
    let dir = tempfile::tempdir().unwrap();
    for format in [Raw, Qcow2] {
        let path = dir.path().join(format!("{format:?}"));
        disk::create(&path, format, MiB(8)).unwrap();
        disk::resize(&path, format, MiB(16), false).unwrap();
        disk::resize(&path, format, MiB(16), false).unwrap();
        let error = disk::resize(&path, format, MiB(4), false).unwrap_err();
        assert!(error.to_string().contains("would be lost"), "{error}");
        assert_eq!(disk::info(&path, format).unwrap().virtual_size, 16 << 20);
        disk::resize(&path, format, MiB(4), true).unwrap();
        assert_eq!(disk::info(&path, format).unwrap().virtual_size, 4 << 20);
        assert!(disk::resize(&path, format, MiB(0), true).is_err());
    }
}

#[test]
fn overlays_stand_on_their_base() {
    let dir = tempfile::tempdir().unwrap();
    let (base, overlay) = (dir.path().join("base"), dir.path().join("overlay"));
    disk::create(&base, Raw, MiB(8)).unwrap();
    with_text(&base, 1 << 20, b"of the base");
    disk::overlay(&overlay, &base, Raw).unwrap();
    let info = disk::info(&overlay, Qcow2).unwrap();
    let backing = info.backing.unwrap();
    assert_eq!(backing.path, fs::canonicalize(&base).unwrap());
    assert_eq!(backing.format.as_deref(), Some("raw"));
    // A chain of two, flattened.
    let second = dir.path().join("second");
    disk::overlay(&second, &overlay, Qcow2).unwrap();
    let flat = dir.path().join("flat");
    disk::convert(&second, Qcow2, &flat, Raw).unwrap();
    assert!(fs::read(&flat).unwrap() == fs::read(&base).unwrap());
    assert!(disk::overlay(&dir.path().join("x"), &dir.path().join("none"), Raw).is_err());
    assert!(!dir.path().join("x").exists());
}

#[test]
fn snapshots_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a,b.qcow2");
    disk::create(&path, Qcow2, MiB(8)).unwrap();
    disk::snapshot_create(&path, "one").unwrap();
    assert!(disk::snapshot_create(&path, "one").is_err());
    disk::snapshot_create(&path, "two").unwrap();
    let names = || {
        let list = disk::snapshot_list(&path).unwrap();
        list.into_iter().map(|s| s.name).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["one", "two"]);
    disk::snapshot_apply(&path, "one").unwrap();
    disk::snapshot_delete(&path, "one").unwrap();
    assert!(disk::snapshot_delete(&path, "one").is_err());
    assert!(disk::snapshot_apply(&path, "none").is_err());
    assert!(disk::snapshot_create(&path, "-d").is_err());
    assert_eq!(names(), ["two"]);
    disk::check(&path, Qcow2).unwrap();
    let raw = dir.path().join("raw");
    disk::create(&raw, Raw, MiB(1)).unwrap();
    assert!(disk::snapshot_create(&raw, "one").is_err());
}

#[test]
fn what_is_not_as_told_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    disk::create(&path, Qcow2, MiB(1)).unwrap();
    let to = dir.path().join("to");
    for format in [Raw, Vmdk, Vdi] {
        let error = disk::info(&path, format).unwrap_err().to_string();
        assert!(error.contains("begins as qcow2 does"), "{error}");
        assert!(disk::convert(&path, format, &to, Raw).is_err());
        assert!(disk::resize(&path, format, MiB(2), false).is_err());
    }
    assert!(
        disk::info(dir.path(), Raw)
            .unwrap_err()
            .to_string()
            .contains("directory")
    );
    let error = disk::info(&to, Raw).unwrap_err().to_string();
    assert!(error.contains("no such file"), "{error}");
    // Damage is found.
    let mut bytes = fs::read(&path).unwrap();
    bytes[4..8].copy_from_slice(&[0xff; 4]);
    fs::write(&path, bytes).unwrap();
    assert!(disk::check(&path, Qcow2).is_err());
    assert_eq!(left(dir.path()), ["a"]);
}

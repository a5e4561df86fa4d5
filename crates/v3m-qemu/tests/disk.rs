//! Disk images, with the real qemu-img.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use api::MiB;
use profile::DiskFormat::{self, Qcow2, Raw, Vdi, Vmdk};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use v3m_qemu::disk;

/// Nobody listens how far it is.
fn convert(
    from: &Path,
    from_format: DiskFormat,
    to: &Path,
    to_format: DiskFormat,
) -> disk::Result<()> {
    disk::convert(from, from_format, to, to_format, &mut |_| {})
}

fn import(from: &Path, told: Option<DiskFormat>, to: &Path) -> disk::Result<DiskFormat> {
    disk::import(from, told, to, Raw, &mut |_| {})
}

/// By hand, what a foreign image may be.
#[track_caller]
fn qemu_img(dir: &Path, words: &str) {
    let mut command = Command::new("qemu-img");
    let done = command
        .current_dir(dir)
        .args(words.split(' '))
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

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
        convert(&first, Raw, &from, from_format).unwrap();
        for to_format in ALL {
            let to = dir.path().join(format!("{from_format:?}-{to_format:?}"));
            convert(&from, from_format, &to, to_format).unwrap();
            disk::check(&to, to_format).unwrap();
            let back = dir.path().join("back");
            let told = (to_format == Raw).then_some(Raw);
            assert_eq!(import(&to, told, &back).unwrap(), to_format);
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
    disk::overlay(&overlay, &base, Raw, None).unwrap();
    let info = disk::info(&overlay, Qcow2).unwrap();
    let backing = info.backing.unwrap();
    assert_eq!(backing.path, fs::canonicalize(&base).unwrap());
    assert_eq!(backing.format.as_deref(), Some("raw"));
    // A chain of two, flattened.
    let second = dir.path().join("second");
    disk::overlay(&second, &overlay, Qcow2, None).unwrap();
    let flat = dir.path().join("flat");
    convert(&second, Qcow2, &flat, Raw).unwrap();
    assert!(fs::read(&flat).unwrap() == fs::read(&base).unwrap());
    assert!(disk::overlay(&dir.path().join("x"), &dir.path().join("none"), Raw, None).is_err());
    assert!(!dir.path().join("x").exists());
    disk::check(&second, Qcow2).unwrap();
    fs::remove_file(&base).unwrap();
    let error = disk::check(&second, Qcow2).unwrap_err().to_string();
    assert!(error.contains("bring it back, or"), "{error}");
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
        assert!(convert(&path, format, &to, Raw).is_err());
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

/// A foreign image may name any file of the host's; nothing of it is read.
#[test]
fn an_import_reads_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    disk::create(&path("secret.raw"), Raw, MiB(1)).unwrap();
    with_text(&path("secret.raw"), 0, b"a secret");
    qemu_img(
        dir.path(),
        "create -q -f qcow2 -b secret.raw -F raw backed.qcow2",
    );
    qemu_img(
        dir.path(),
        "create -q -f qcow2 -o data_file=data.raw data.qcow2 1M",
    );
    qemu_img(
        dir.path(),
        "create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M",
    );
    qemu_img(dir.path(), "create -q -f vmdk base.vmdk 1M");
    qemu_img(
        dir.path(),
        "create -q -f vmdk -b base.vmdk -F vmdk delta.vmdk",
    );
    // As a monolithic one begins, with nothing of its own.
    let mut hollow = vec![0; 2048];
    hollow[..4].copy_from_slice(b"KDMV");
    hollow[28] = 1;
    fs::write(path("hollow.vmdk"), hollow).unwrap();
    for name in [
        "backed.qcow2",
        "data.qcow2",
        "flat.vmdk",
        "delta.vmdk",
        "hollow.vmdk",
    ] {
        for told in [
            None,
            Some(if name.ends_with("vmdk") { Vmdk } else { Qcow2 }),
        ] {
            let error = import(&path(name), told, &path("out.raw")).unwrap_err();
            assert!(error.to_string().contains("names other files"), "{error}");
            assert!(!path("out.raw").exists());
        }
    }
    // One's own is converted, with what it stands on.
    convert(&path("backed.qcow2"), Qcow2, &path("own.raw"), Raw).unwrap();
    assert!(fs::read(path("own.raw")).unwrap().starts_with(b"a secret"));
}

#[test]
fn formats_that_are_not_read_are_no_raw_disks() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    disk::create(&path("a.raw"), Raw, MiB(1)).unwrap();
    for (format, named) in [
        ("vhdx", "VHDX"),
        ("vpc", "VHD"),
        ("qed", "QED"),
        ("qcow", "qcow"),
    ] {
        qemu_img(
            dir.path(),
            &format!("convert -f raw -O {format} a.raw a.{format}"),
        );
        let error = import(&path(&format!("a.{format}")), None, &path("out.raw")).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
    qemu_img(
        dir.path(),
        "convert -f raw -O vpc -o subformat=fixed,force_size a.raw fixed.vhd",
    );
    for (name, start) in [
        ("a.gz", &b"\x1f\x8b"[..]),
        ("a.xz", b"\xfd7zXZ\0"),
        ("text", b"text"),
    ] {
        fs::write(path(name), start).unwrap();
    }
    for name in ["fixed.vhd", "a.gz", "a.xz", "text", "a.raw"] {
        let error = import(&path(name), None, &path("out.raw"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("begins as"), "{name}: {error}");
        assert!(!path("out.raw").exists(), "{name}");
    }
    // Who says what it is, is believed; a disk with a boot sector is known.
    import(&path("a.raw"), Some(Raw), &path("out.raw")).unwrap();
    with_text(&path("a.raw"), 510, b"\x55\xaa");
    assert_eq!(
        import(&path("a.raw"), None, &path("out2.raw")).unwrap(),
        Raw
    );
}

#[test]
fn a_chain_is_walked_before_anything_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    qemu_img(dir.path(), "create -q -f raw base 1M");
    qemu_img(dir.path(), "create -q -f qcow2 -b base -F raw middle");
    qemu_img(dir.path(), "create -q -f qcow2 -b middle -F qcow2 top");
    assert_eq!(
        disk::chain(&path("top"), Qcow2).unwrap(),
        [path("middle"), path("base")]
    );
    assert!(disk::chain(&path("base"), Raw).unwrap().is_empty());
    let refused = |words: &str| {
        let error = disk::chain(&path("top"), Qcow2).unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} is not in {error}");
        assert!(convert(&path("top"), Qcow2, &path("out"), Raw).is_err());
        assert!(!path("out").exists());
    };
    fs::rename(path("base"), path("away")).unwrap();
    refused("no such file");
    refused("qemu-img rebase -u");
    fs::rename(path("away"), path("base")).unwrap();
    // As `qemu-img create` made them before it asked for a format.
    qemu_img(dir.path(), "rebase -u -b base -F raw middle");
    let bytes = fs::read(path("middle")).unwrap();
    let at = bytes
        .windows(4)
        .position(|w| w == [0xe2, 0x79, 0x2a, 0xca])
        .unwrap();
    with_text(&path("middle"), at as u64, &[0x12, 0x34, 0x56, 0x78]);
    refused("does not tell the format of base");
    refused("qemu-img rebase -u -F raw -b base");
    qemu_img(
        dir.path(),
        "create -q -f qcow2 -u -b nbd:localhost:1 -F raw middle 1M",
    );
    refused("which is no file");
    qemu_img(
        dir.path(),
        "create -q -f qcow2 -u -b top -F qcow2 middle 1M",
    );
    refused("stands on itself");
}

#[test]
fn an_overlay_is_as_large_as_its_base_or_larger() {
    let dir = tempfile::tempdir().unwrap();
    let (base, over) = (dir.path().join("base"), dir.path().join("over"));
    disk::create(&base, Raw, MiB(64)).unwrap();
    let error = disk::overlay(&over, &base, Raw, Some(MiB(1))).unwrap_err();
    assert!(error.to_string().contains("are less than"), "{error}");
    assert_eq!(left(dir.path()), ["base"]);
    disk::overlay(&over, &base, Raw, Some(MiB(65))).unwrap();
    assert_eq!(disk::info(&over, Qcow2).unwrap().virtual_size, 65 << 20);
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for path in [fifo.as_path(), Path::new("/dev/zero")] {
        for result in [
            disk::info(path, Raw).map(drop),
            import(path, Some(Raw), &dir.path().join("to")).map(drop),
            convert(path, Raw, &dir.path().join("to"), Raw),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("neither a file nor a disk"), "{error}");
        }
    }
    assert_eq!(left(dir.path()), ["fifo"]);
}

/// What was left of an image whose making was cut off goes when the next is made there; one that is being made stays.
#[test]
fn what_was_cut_off_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (dead, live) = (
        dir.path().join(".v2m-1.half"),
        dir.path().join(".v2m-2.half"),
    );
    let theirs = dir.path().join(".v2m-3.half");
    for half in [&dead, &live, &theirs] {
        fs::create_dir(half).unwrap();
        fs::write(half.join("a.raw"), "half").unwrap();
    }
    for half in [&dead, &live] {
        fs::write(half.join("an image is being made here"), "").unwrap();
    }
    let lock = fs::File::open(&live).unwrap();
    lock.lock().unwrap();
    disk::create(&dir.path().join("a.raw"), Raw, MiB(1)).unwrap();
    assert_eq!(left(dir.path()), [".v2m-2.half", ".v2m-3.half", "a.raw"]);
    drop(lock);
    disk::sweep_beside(&dir.path().join("a.raw"));
    assert_eq!(left(dir.path()), [".v2m-3.half", "a.raw"]);
}

#[test]
fn a_conversion_tells_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, vec![7; 32 << 20]).unwrap();
    let mut all = Vec::new();
    disk::convert(&from, Raw, &to, Qcow2, &mut |far| all.push(far)).unwrap();
    assert!(all.windows(2).all(|w| w[0] <= w[1]), "{all:?}");
    assert_eq!(all.last(), Some(&1.0));
}

#[test]
fn sizes_that_stay_are_told_with_a_cure() {
    let dir = tempfile::tempdir().unwrap();
    for format in [Vmdk, Vdi] {
        let path = dir.path().join(format!("{format:?}"));
        disk::create(&path, format, MiB(1)).unwrap();
        let error = disk::resize(&path, format, MiB(2), false).unwrap_err();
        assert!(error.to_string().contains("convert"), "{error}");
    }
}

/// As root, where others can write: nothing goes where they lead it.
#[test]
fn root_makes_and_changes_images_in_a_users_directory() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    use std::os::unix::fs::{lchown, symlink};
    const ALICE: u32 = 4711;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o711),
    )
    .unwrap();
    let (hers, roots) = (dir.path().join("hers"), dir.path().join("roots"));
    for path in [&hers, &roots] {
        fs::create_dir(path).unwrap();
    }
    let give = |path: &Path| lchown(path, Some(ALICE), Some(ALICE)).unwrap();
    give(&hers);
    let secret = roots.join("secret.raw");
    fs::write(&secret, vec![9; 1 << 20]).unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // Names that were predictable once.
    let planted = hers.join(format!(".a.raw.{}.half", std::process::id()));
    symlink(&secret, &planted).unwrap();
    disk::create(&hers.join("a.raw"), Raw, MiB(2)).unwrap();
    assert!(fs::symlink_metadata(hers.join("a.raw")).unwrap().is_file());
    disk::resize(&hers.join("a.raw"), Raw, MiB(3), false).unwrap();
    // Her own image is worked on with her rights, so that what it names is what she may read.
    qemu_img(
        dir.path(),
        "create -q -f qcow2 -b ../roots/secret.raw -F raw hers/b.qcow2",
    );
    give(&hers.join("b.qcow2"));
    assert!(disk::check(&hers.join("b.qcow2"), Qcow2).is_err());
    assert!(convert(&hers.join("b.qcow2"), Qcow2, &roots.join("out"), Raw).is_err());
    disk::create(&hers.join("c.qcow2"), Qcow2, MiB(1)).unwrap();
    give(&hers.join("c.qcow2"));
    disk::snapshot_create(&hers.join("c.qcow2"), "one").unwrap();
    disk::resize(&hers.join("c.qcow2"), Qcow2, MiB(2), false).unwrap();
    convert(&hers.join("c.qcow2"), Qcow2, &roots.join("c.raw"), Raw).unwrap();
    // In a directory of root's nobody changes it meanwhile, and what its user may read is read for him.
    fs::write(roots.join("open.raw"), vec![7; 1 << 20]).unwrap();
    qemu_img(&roots, "create -q -f qcow2 -b open.raw -F raw over.qcow2");
    give(&roots.join("over.qcow2"));
    fs::set_permissions(&roots, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    disk::check(&roots.join("over.qcow2"), Qcow2).unwrap();
    convert(
        &roots.join("over.qcow2"),
        Qcow2,
        &roots.join("over.raw"),
        Raw,
    )
    .unwrap();
    assert!(fs::read(roots.join("over.raw")).unwrap() == vec![7; 1 << 20]);
    qemu_img(&roots, "rebase -u -b secret.raw -F raw over.qcow2");
    let error = convert(&roots.join("over.qcow2"), Qcow2, &roots.join("out"), Raw).unwrap_err();
    assert!(error.to_string().contains("let him do it"), "{error}");
    // One of hers where she cannot go.
    fs::set_permissions(&roots, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    disk::create(&roots.join("d.qcow2"), Qcow2, MiB(1)).unwrap();
    give(&roots.join("d.qcow2"));
    disk::resize(&roots.join("d.qcow2"), Qcow2, MiB(2), false).unwrap();
    // Links of hers.
    symlink(&secret, hers.join("link.raw")).unwrap();
    give(&hers.join("link.raw"));
    for result in [
        disk::resize(&hers.join("link.raw"), Raw, MiB(2), false),
        disk::info(&hers.join("link.raw"), Raw).map(drop),
        convert(&hers.join("link.raw"), Raw, &roots.join("out"), Raw),
    ] {
        let error = std::error::Error::source(&result.unwrap_err())
            .unwrap()
            .to_string();
        assert!(error.contains("is a link of user 4711's"), "{error}");
    }
    assert!(fs::read(&secret).unwrap() == vec![9; 1 << 20]);
    assert!(!roots.join("out").exists());
}

//! What leads astray, and does not. Tests of root's own are skipped for others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use super::*;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::PathBuf;

const ALICE: u32 = 4711;

/// Root of the host, and not of a user namespace that has no other ids.
fn gives_files_away() -> bool {
    is_root() && !in_namespace("/proc/self/uid_map")
}

/// A directory that is a user's, with a file of root's beside it.
fn users() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (hers, roots) = (dir.path().join("hers"), dir.path().join("roots"));
    for path in [&hers, &roots] {
        fs::create_dir(path).unwrap();
    }
    lchown(&hers, Some(ALICE), Some(ALICE)).unwrap();
    fs::write(roots.join("file"), "root's").unwrap();
    (dir, hers, roots)
}

#[test]
fn root_follows_no_link_of_a_users() {
    if !gives_files_away() {
        return;
    }
    let (_dir, hers, roots) = users();
    symlink(&roots, hers.join("d")).unwrap();
    symlink(roots.join("file"), hers.join("f")).unwrap();
    for link in ["d", "f"] {
        lchown(hers.join(link), Some(ALICE), Some(ALICE)).unwrap();
    }
    for path in ["d/file", "d/new"] {
        let error = Place::of(&hers.join(path)).unwrap_err().to_string();
        assert!(error.contains("d is a link of user 4711's"), "{error}");
        assert!(super::remove(&hers.join(path)).is_err());
        assert!(write(&hers.join(path), b"x").is_err());
    }
    assert!(Place::found(&hers.join("f")).is_err());
    // Its name is hers to lose, and what it leads to is not touched.
    write(&hers.join("f"), b"new").unwrap();
    assert!(
        fs::symlink_metadata(hers.join("f"))
            .unwrap()
            .file_type()
            .is_file()
    );
    assert_eq!(fs::read(roots.join("file")).unwrap(), b"root's");
    // A link of root's leads there.
    symlink(&roots, hers.join("r")).unwrap();
    let place = Place::found(&hers.join("r/../roots/file")).unwrap();
    assert_eq!(place.path(), roots.join("file").canonicalize().unwrap());
}

#[test]
fn a_planted_half_file_is_not_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "whole").unwrap();
    symlink(&victim, dir.path().join("a.half")).unwrap();
    write(&dir.path().join("a.json"), b"new").unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"whole");
    assert_eq!(fs::read(dir.path().join("a.json")).unwrap(), b"new");
    assert!(!dir.path().join("a.half").exists());
}

#[test]
fn only_files_and_disks_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for (path, reason) in [
        (fifo.as_path(), "neither a file nor a disk"),
        (Path::new("/dev/zero"), "neither a file nor a disk"),
        (dir.path(), "is a directory"),
    ] {
        let error = Place::found(path).unwrap().open(false).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let missing = Place::found(&dir.path().join("missing")).unwrap();
    assert_eq!(missing.open(false).unwrap_err().kind(), ErrorKind::NotFound);
    let none = Place::found(&dir.path().join("no/dir")).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
    assert!(Place::of(Path::new("/")).is_err());
}

#[test]
fn links_in_a_circle_end() {
    let dir = tempfile::tempdir().unwrap();
    symlink("b", dir.path().join("a")).unwrap();
    symlink("a", dir.path().join("b")).unwrap();
    let error = Place::found(&dir.path().join("a")).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::LOOP.raw_os_error())
    );
    // Without going over it, it is a name as any.
    Place::of(&dir.path().join("a")).unwrap().remove().unwrap();
}

#[test]
fn directories_that_others_can_write_to_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    own(&open).unwrap();
    own(&dir.path().join("missing/too")).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let error = own(&open).unwrap_err().to_string();
    assert!(error.contains("can be written to by others"), "{error}");
    if !gives_files_away() {
        return;
    }
    assert!(own(&open.join("below")).is_err());
    // As /tmp is.
    fs::set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
    assert!(own(&open).is_err());
    own(&open.join("below")).unwrap();
    let (_dir, hers, roots) = users();
    for below in ["", "state/run"] {
        let error = own(&hers.join(below)).unwrap_err().to_string();
        assert!(error.contains("belongs to user 4711"), "{error}");
    }
    own(&roots).unwrap();
}

#[test]
fn a_file_with_two_names_is_not_given_away() {
    if !gives_files_away() {
        return;
    }
    let (_dir, hers, roots) = users();
    fs::hard_link(roots.join("file"), hers.join("disk")).unwrap();
    let place = Place::found(&hers.join("disk")).unwrap();
    let to_her = || place.give((ALICE, ALICE), |uid| uid == 0);
    assert!(to_her().is_err());
    fs::remove_file(roots.join("file")).unwrap();
    to_her().unwrap();
    assert_eq!(fs::metadata(hers.join("disk")).unwrap().uid(), ALICE);
    // From her it is not taken.
    to_her().unwrap();
    assert!(place.give((0, 0), |uid| uid == 0).is_err());
}

#[test]
fn a_file_that_comes_into_anothers_place_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let made = |path: &Path| Identity::of(&File::create(path).unwrap()).unwrap();
    let first = made(&path);
    assert!(first.is(&Identity::of(&File::open(&path).unwrap()).unwrap()));
    fs::rename(&path, dir.path().join("b")).unwrap();
    assert!(first.is(&Identity::of(&File::open(dir.path().join("b")).unwrap()).unwrap()));
    // Its inode's number is free now, and likely to be given again.
    fs::remove_file(dir.path().join("b")).unwrap();
    // The clock of files ticks 100 times a second or more; a person is not faster.
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(!first.is(&made(&path)));
}

#[test]
fn a_lock_is_of_the_directory_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm");
    assert!(lock(&path).unwrap().is_none());
    let first = lock_made(&path, 0o700).unwrap();
    let waiting = {
        let path = path.clone();
        std::thread::spawn(move || lock_made(&path, 0o700).unwrap())
    };
    fs::remove_dir(&path).unwrap();
    drop(first);
    let second = waiting.join().unwrap();
    assert_eq!(
        second.metadata().unwrap().ino(),
        fs::metadata(&path).unwrap().ino()
    );
}

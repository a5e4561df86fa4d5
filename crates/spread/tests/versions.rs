//! What happens on a host to the version that a new one is made from.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::{Place, options, says};
use spread::send::{self, Host, State};
use spread::source::From;
use std::fs::Permissions;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// A host gets a version, something happens to it there, and the next one comes, which has one block of 24 MiB that is
/// new. Returns what became of it.
async fn after(place: &Place, happens: impl FnOnce(&Path)) -> Host {
    let file = place.file("source", 24);
    let hosts = place.receivers(["a"]).await;
    place.send(&file, &hosts).await;
    happens(&place.path("a/disk.raw"));
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .write_all_at(&[7; 4096], 10 << 20)
        .unwrap();
    let source = place.open(&file, "disk.raw", From::Version).unwrap();
    let report = send::send(source.transfer.clone(), options(&hosts, None), |_| {});
    let host = report.await.unwrap().remove(0);
    if host.state == State::Done {
        assert!(place.has("a", &file));
    }
    host
}

/// Only the time when its inode was changed shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_was_changed_and_has_its_old_times_is_not_used() {
    let place = Place::new();
    let host = after(&place, |file| {
        let before = std::fs::metadata(file).unwrap();
        let open = std::fs::File::options().write(true).open(file).unwrap();
        open.write_all_at(b"rotten", 20 << 20).unwrap();
        open.set_modified(before.modified().unwrap()).unwrap();
        let now = std::fs::metadata(file).unwrap();
        assert_eq!(
            (now.mtime(), now.mtime_nsec()),
            (before.mtime(), before.mtime_nsec())
        );
    });
    let host = host.await;
    assert_eq!(host.state, State::NoBase, "{host:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_with_another_mode_is_looked_at_and_used() {
    let place = Place::new();
    let host = after(&place, |file| {
        std::fs::set_permissions(file, Permissions::from_mode(0o640)).unwrap();
    });
    let host = host.await;
    assert_eq!(host.state, State::Done, "{host:?}");
    assert!(host.received < 100_000, "{host:?}");
}

/// Whoever ran a virtual machine on it as another user could not do so with the next version.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_has_mode_and_owner_of_the_one_before() {
    let place = Place::new();
    let root = rustix::process::geteuid().is_root();
    let mask = |file: &Path| std::fs::metadata(file).unwrap().mode() & 0o777;
    let host = after(&place, |file| {
        let plain = place.write("plain", b"");
        assert_eq!(mask(file), mask(&plain));
        std::fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        if root {
            std::os::unix::fs::chown(file, Some(12), Some(34)).unwrap();
        }
    });
    assert_eq!(host.await.state, State::Done);
    let file = place.path("a/disk.raw");
    assert_eq!(mask(&file), 0o644);
    if root {
        let now = std::fs::metadata(&file).unwrap();
        assert_eq!((now.uid(), now.gid()), (12, 34));
    }
}

/// Whoever can write there could say what is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_beside_the_files_that_is_somebody_elses_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can give a directory to somebody else");
        return;
    }
    let place = Place::new();
    let file = place.file("source", 2);
    let hosts = place.receivers(["a"]).await;
    let beside = place.path("a/.spread");
    std::fs::create_dir_all(&beside).unwrap();
    std::os::unix::fs::chown(&beside, Some(12), None).unwrap();
    let report = place.send(&file, &hosts).await;
    assert_eq!(report[0].state, State::Refused, "{report:?}");
    assert!(
        says(&report[0], "is not this user's directory"),
        "{report:?}"
    );
    assert!(!place.path("a/disk.raw").exists());
}

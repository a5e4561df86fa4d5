//! What a source remembers: that a bad disk spoils it, and that it is sent as if it was made anew.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::{LONG, Place, noise, options, says};
use spread::send::{self, Host, State};
use spread::source::{From, Source};
use spread::version::Version;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tokio::time::timeout;

async fn send(source: &Source, to: &(String, SocketAddr)) -> Host {
    let hosts = [to.clone()];
    let sent = send::send(source.transfer.clone(), options(&hosts, None), |_| {});
    timeout(LONG, sent).await.unwrap().unwrap().remove(0)
}

/// Where this is remembered.
fn memory(place: &Place, source: &Source) -> PathBuf {
    let id = source.transfer.header.id.to_string();
    place.path("memory").join(id)
}

/// Another bit, so many bytes from the end.
fn spoil(file: &Path, from_end: u64) {
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).open(file).unwrap();
    let at = file.metadata().unwrap().len() - from_end;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 16], at).unwrap();
}

/// Each run sent what was spoilt, and no host could take it, until somebody touched the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_spoilt_where_it_is_remembered_is_made_again() {
    let place = Place::new();
    let hosts = place.receivers(["a", "b", "c", "d"]).await;
    let file = place.file("source", 24);
    let source = place.source(&file);
    assert_eq!(send(&source, &hosts[0]).await.state, State::Done);
    let spool = memory(&place, &source).join("spool");
    drop(source);
    spoil(&spool, 5);
    spoil(&spool, std::fs::metadata(&spool).unwrap().len() / 2);
    // To two in a row: whoever is behind the other has it spoilt from there.
    let source = place.source(&file);
    assert!(source.transfer.sealed().is_some(), "it is remembered");
    let two = options(&hosts[1..3], None);
    let sent = send::send(source.transfer.clone(), two, |_| {});
    let report = timeout(LONG, sent).await.unwrap().unwrap();
    for (host, name) in report.iter().zip(["b", "c"]) {
        assert_eq!(host.state, State::Done, "{report:#?}");
        assert!(place.has(name, &file), "{name}");
        assert!(!says(host, "spoilt by"), "{report:#?}");
    }
    assert_eq!(source.transfer.mended(), 2);
    drop(source);
    // It is as it was now, for whoever comes next.
    let source = place.source(&file);
    assert_eq!(send(&source, &hosts[3]).await.state, State::Done);
    assert_eq!(source.transfer.mended(), 0);
    assert!(place.has("d", &file));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_spoilt_where_it_is_remembered_is_made_again() {
    let place = Place::new();
    let hosts = place.receivers(["a", "b"]).await;
    let tree = place.path("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("noise"), noise(1, 3 << 20)).unwrap();
    std::fs::write(tree.join("text"), b"all the same ".repeat(200_000)).unwrap();
    let source = place.source(&tree);
    assert_eq!(send(&source, &hosts[0]).await.state, State::Done);
    let spool = memory(&place, &source).join("spool");
    drop(source);
    // What compresses is at the end, and before it what does not.
    spoil(&spool, 5);
    spoil(&spool, 2 << 20);
    let source = place.source(&tree);
    let host = send(&source, &hosts[1]).await;
    assert_eq!(host.state, State::Done, "{host:#?}");
    assert_eq!(source.transfer.mended(), 2);
    for name in ["noise", "text"] {
        let there = std::fs::read(place.path("b/disk.raw").join(name)).unwrap();
        assert!(there == std::fs::read(tree.join(name)).unwrap(), "{name}");
    }
}

/// What is new in a version is not made again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_again_is_forgotten_and_the_next_run_makes_it() {
    let place = Place::new();
    let hosts = place.receivers(["a", "b"]).await;
    let file = place.file("source", 24);
    place.send(&file, &hosts).await;
    let changed = std::fs::File::options().write(true).open(&file).unwrap();
    changed.write_all_at(&noise(9, 4096), 10 << 20).unwrap();
    drop(changed);
    let news = || place.open(&file, "disk.raw", From::Version).unwrap();
    let source = news();
    assert_eq!(send(&source, &hosts[0]).await.state, State::Done);
    let place_of_it = memory(&place, &source);
    drop(source);
    spoil(&place_of_it.join("spool"), 100);
    let host = send(&news(), &hosts[1]).await;
    assert_eq!(host.state, State::Failed, "{host:#?}");
    for words in ["is forgotten: frame 10 is spoilt", "send it again"] {
        assert!(says(&host, words), "{host:#?}");
    }
    assert!(!place_of_it.exists());
    let host = send(&news(), &hosts[1]).await;
    assert_eq!(host.state, State::Done, "{host:#?}");
    assert!(host.received < 100_000, "{host:#?}");
    assert!(place.has("b", &file));
}

/// No host took a page that was spoilt.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_spoilt_are_forgotten() {
    let place = Place::new();
    let hosts = place.receivers(["a", "b"]).await;
    let file = place.file("source", 5);
    let source = place.source(&file);
    assert_eq!(send(&source, &hosts[0]).await.state, State::Done);
    let place_of_it = memory(&place, &source);
    drop(source);
    // In the signature of the last one.
    spoil(&place_of_it.join("pages"), 50);
    let source = place.source(&file);
    assert!(!place_of_it.exists());
    assert_eq!(send(&source, &hosts[1]).await.state, State::Done);
    assert!(place.has("b", &file));
    // It is the same version: whoever has it is left alone.
    let host = send(&source, &hosts[0]).await;
    assert_eq!((host.state, host.received), (State::Done, 0), "{host:#?}");
}

/// All of it was compressed again, only to have another time.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_anew_is_not_made_again() {
    let place = Place::new();
    let hosts = place.receivers(["a"]).await;
    let tree = place.path("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("text"), b"all the same ".repeat(200_000)).unwrap();
    for what in [place.file("source", 24), tree] {
        let name = if what.is_dir() { "tree" } else { "disk.raw" };
        let first = place.open(&what, name, From::Nothing).unwrap();
        assert_eq!(send(&first, &hosts[0]).await.state, State::Done);
        let (old, other) = (memory(&place, &first), place.path("other"));
        drop(first);
        // A newer one takes its place.
        if what.is_dir() {
            std::fs::create_dir(&other).unwrap();
            std::fs::write(other.join("new"), noise(4, 2 << 20)).unwrap();
        } else {
            std::fs::write(&other, noise(3, 2 << 20)).unwrap();
        }
        let newer = place.open(&other, name, From::Nothing).unwrap();
        assert_eq!(send(&newer, &hosts[0]).await.state, State::Done);
        let after = newer.transfer.header.created;
        drop(newer);
        match what.is_dir() {
            true => std::fs::remove_dir_all(&other).unwrap(),
            false => std::fs::remove_file(&other).unwrap(),
        }
        let version = Version::new(&what, name, place.signer.clone(), &place.path("memory"));
        let anew = version.anew(true);
        let made = anew.made().unwrap();
        assert!(made > after);
        let source = anew.open(made, 2, From::Nothing).unwrap().unwrap();
        assert!(source.transfer.sealed().is_some(), "{name} is made again");
        assert_eq!(source.transfer.header.created, made);
        let host = send(&source, &hosts[0]).await;
        assert_eq!(host.state, State::Done, "{host:#?}");
        // From now on this is it.
        assert!(memory(&place, &source).join("spool").exists() && !old.exists());
        let again = place.open(&what, name, From::Nothing).unwrap();
        assert_eq!(again.transfer.header.id, source.transfer.header.id);
        if what.is_dir() {
            let there = std::fs::read(place.path("a/tree/text")).unwrap();
            assert!(there == std::fs::read(what.join("text")).unwrap());
        } else {
            assert!(place.has("a", &what));
        }
    }
}

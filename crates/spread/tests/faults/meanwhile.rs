//! What appears at the name of what comes, or is changed there, while it comes.

use super::lab::may_not;
use crate::kit::{LONG, Place, noise, options, says};
use spread::send::{self, Host, State};
use spread::source::From;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::sync::watch;
use tokio::time::timeout;

const MIB: usize = 1 << 20;

/// Sends all of it slowly, and does something when some of it has come.
async fn send_while(
    place: &Place,
    what: PathBuf,
    name: &str,
    host: SocketAddr,
    meanwhile: impl FnOnce(),
) -> Host {
    let source = place.open(&what, name, From::Nothing).unwrap();
    let (say, mut said) = watch::channel(0);
    let slowly = options(&[("a", host)], Some(6 << 20));
    let report = tokio::spawn(send::send(source.transfer.clone(), slowly, move |hosts| {
        say.send_replace(hosts[0].received);
    }));
    let some = said.wait_for(|bytes| *bytes > 1 << 20);
    timeout(LONG, some).await.unwrap().unwrap();
    meanwhile();
    report.await.unwrap().unwrap().remove(0)
}

fn tree(place: &Place, seed: u64) -> PathBuf {
    let top = place.path("tree");
    std::fs::create_dir_all(top.join("below")).unwrap();
    std::fs::write(top.join("below/large"), noise(seed, 5 * MIB)).unwrap();
    top
}

fn is_refused(host: &Host, why: &str) {
    assert_eq!(host.state, State::Failed, "{host:?}");
    assert!(says(host, why), "{host:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_appears_meanwhile_stays() {
    let place = Place::new();
    let (address, _receiver) = place.receiver("a").await;
    let file = place.write("source", &noise(1, 5 * MIB));
    let there = place.path("a/disk.raw");
    let host = send_while(&place, file.clone(), "disk.raw", address, || {
        std::fs::write(&there, "mine").unwrap();
    });
    is_refused(&host.await, "did not come from here; --replace");
    assert_eq!(std::fs::read(&there).unwrap(), b"mine");
    // What has come was not lost, and takes its place when nothing is there.
    std::fs::remove_file(&there).unwrap();
    let report = place.send(&file, &[("a".to_owned(), address)]).await;
    assert_eq!(report[0].state, State::Done);
    assert!(place.has("a", &file));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_appears_meanwhile_is_replaced_if_that_was_said() {
    let place = Place::new();
    let address = place.receiver_that_replaces("a").await;
    let file = place.write("source", &noise(1, 5 * MIB));
    let there = place.path("a/disk.raw");
    let host = send_while(&place, file.clone(), "disk.raw", address, || {
        std::fs::write(&there, "mine").unwrap();
    });
    assert_eq!(host.await.state, State::Done);
    assert!(place.has("a", &file));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_changed_meanwhile_stays() {
    let place = Place::new();
    let (address, _receiver) = place.receiver("a").await;
    let file = place.write("source", &noise(1, 5 * MIB));
    let hosts = [("a".to_owned(), address)];
    assert_eq!(place.send(&file, &hosts).await[0].state, State::Done);
    std::fs::write(&file, noise(2, 5 * MIB)).unwrap();
    let there = place.path("a/disk.raw");
    let host = send_while(&place, file.clone(), "disk.raw", address, || {
        std::fs::write(&there, "mine").unwrap();
    });
    is_refused(&host.await, "was changed since it came; --replace");
    assert_eq!(std::fs::read(&there).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_appears_meanwhile_stays_whatever_was_said() {
    let place = Place::new();
    let address = place.receiver_that_replaces("a").await;
    let top = tree(&place, 1);
    let there = place.path("a/tree");
    let host = send_while(&place, top, "tree", address, || {
        std::fs::create_dir(&there).unwrap();
        std::fs::write(there.join("mine"), "mine").unwrap();
    });
    is_refused(&host.await, "is a directory");
    assert_eq!(std::fs::read(there.join("mine")).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_made_in_the_old_tree_meanwhile_stays() {
    let place = Place::new();
    let (address, _receiver) = place.receiver("a").await;
    let there = place.path("a/tree");
    let first = send_while(&place, tree(&place, 1), "tree", address, || {});
    assert_eq!(first.await.state, State::Done);
    let host = send_while(&place, tree(&place, 2), "tree", address, || {
        std::fs::write(there.join("below/mine"), "mine").unwrap();
    });
    is_refused(&host.await, "was changed since it came; --replace");
    assert_eq!(std::fs::read(there.join("below/mine")).unwrap(), b"mine");
    assert!(std::fs::read(there.join("below/large")).unwrap() == noise(1, 5 * MIB));
}

/// The second one has to wait for the first one to let go of the name, and finds something else there than before.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_receivers_in_one_directory_the_newer_version_wins() {
    let place = Place::new();
    let old = place.write("old", &noise(1, MIB));
    let older = place.open(&old, "disk.raw", From::Nothing).unwrap();
    let new = place.write("new", &noise(2, 5 * MIB));
    // Two processes: within one they know of each other.
    let one = place.start_receiver("a", "127.0.0.1:0", &[]);
    let two = place.start_receiver("a", "127.0.0.1:0", &[]);
    let (say, mut late) = watch::channel(None);
    let address = two.address;
    let newer = send_while(&place, new.clone(), "disk.raw", one.address, || {
        let sent = send::send(
            older.transfer.clone(),
            options(&[("b", address)], None),
            |_| {},
        );
        tokio::spawn(async move { say.send_replace(Some(sent.await.unwrap().remove(0))) });
    });
    assert_eq!(newer.await.state, State::Done);
    let late = late.wait_for(Option::is_some);
    let late = timeout(LONG, late).await.unwrap().unwrap().clone().unwrap();
    assert_ne!(late.state, State::Done, "{late:?}");
    assert!(says(&late, "is newer"), "{late:?}");
    assert!(place.has("a", &new));
}

struct Mounted(PathBuf);

impl Mounted {
    fn on(what: &Path, at: PathBuf) -> Self {
        rustix::mount::mount_bind(what, &at).unwrap();
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// All in it was removed with the tree that it was mounted in.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_mounted_in_an_old_tree_stays() {
    if may_not("a mount in a tree") {
        return;
    }
    let place = Place::new();
    let address = place.receiver_that_replaces("a").await;
    let there = place.path("a/tree");
    let first = send_while(&place, tree(&place, 1), "tree", address, || {});
    assert_eq!(first.await.state, State::Done);
    let precious = place.path("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), "mine").unwrap();
    let stays = || assert_eq!(std::fs::read(precious.join("file")).unwrap(), b"mine");

    // While it comes,
    let mut mounted = None;
    let host = send_while(&place, tree(&place, 2), "tree", address, || {
        mounted = Some(Mounted::on(&precious, there.join("below")));
    });
    is_refused(&host.await, "unmount it");
    stays();
    // and before.
    let before = async |seed| {
        let source = place.open(&tree(&place, seed), "tree", From::Nothing);
        let transfer = source.as_ref().unwrap().transfer.clone();
        let report = send::send(transfer, options(&[("a", address)], None), |_| {});
        let host = report.await.unwrap().remove(0);
        assert_eq!(host.state, State::Refused, "{host:?}");
        host
    };
    let host = before(3).await;
    assert!(says(&host, "unmount it"), "{host:?}");
    stays();

    // What is left of an old tree is removed up to there.
    let left = place.path("a/.spread/tree.tree");
    std::fs::create_dir_all(left.join("below")).unwrap();
    let second = Mounted::on(&precious, left.join("below"));
    drop(mounted);
    let host = before(4).await;
    assert!(says(&host, "something is mounted on below"), "{host:?}");
    stays();
    drop(second);
    let host = send_while(&place, tree(&place, 5), "tree", address, || {}).await;
    assert_eq!(host.state, State::Done, "{host:?}");
    stays();
}

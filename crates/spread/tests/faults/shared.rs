//! A version whose blocks the new one shares.

use super::lab::{may_not, xfs};
use crate::kit::{LONG, Place, noise, options};
use spread::send::{self, State};
use spread::source::From;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use tokio::sync::watch;
use tokio::time::timeout;

const MIB: usize = 1 << 20;

/// What was shared was not looked at, and so could become a part of a version that it is no part of.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_is_changed_while_it_is_shared_is_no_base() {
    if may_not("a receiver on XFS") {
        return;
    }
    let place = Place::new();
    let Some(image) = xfs(&place) else {
        return;
    };
    let receiver = place.start_receiver("a", "127.0.0.1:0", &[("SPREAD_MOUNT", image)]);
    // As its process sees it.
    let root = PathBuf::from(format!("/proc/{}/root", receiver.child.id()));
    let there = place.path("a/disk.raw");
    let there = root.join(there.strip_prefix("/").unwrap());
    let hosts = [("a".to_owned(), receiver.address)];
    let file = place.write("source", &noise(1, 24 * MIB));
    assert_eq!(place.send(&file, &hosts).await[0].state, State::Done);

    // The first 16 MiB stay.
    let next = |seed| {
        let open = std::fs::File::options().write(true).open(&file).unwrap();
        open.write_all_at(&noise(seed, 8 * MIB), 16 * MIB as u64)
            .unwrap();
        place.open(&file, "disk.raw", From::Version).unwrap()
    };
    let source = next(2);
    let report = send::send(source.transfer.clone(), options(&hosts, None), |_| {});
    assert_eq!(report.await.unwrap()[0].state, State::Done);
    drop(source);
    assert!(std::fs::read(&there).unwrap() == std::fs::read(&file).unwrap());

    let source = next(3);
    let (say, mut said) = watch::channel(0);
    let slowly = options(&hosts, Some(4 * MIB as u64));
    let report = tokio::spawn(send::send(source.transfer.clone(), slowly, move |hosts| {
        say.send_replace(hosts[0].frames);
    }));
    let shared = said.wait_for(|frames| *frames >= 16);
    timeout(LONG, shared).await.unwrap().unwrap();
    let old = std::fs::File::options().write(true).open(&there).unwrap();
    old.write_all_at(b"another", MIB as u64).unwrap();
    let report = report.await.unwrap().unwrap();
    assert_eq!(report[0].state, State::NoBase, "{report:?}");
    let now = std::fs::read(&there).unwrap();
    assert!(now[16 * MIB..] == noise(2, 8 * MIB));
}

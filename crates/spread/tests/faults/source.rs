//! Sources with files that change, with nobody to send to, with one host under two names, and two at once.

use crate::kit::{LONG, Place, options, says};
use spread::receive;
use spread::send::{self, State};
use spread::sign::Signer;
use spread::source::{self, From};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// One receiver, reached at two of its host's addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_listed_twice_has_it_once() {
    let lab = Place::new();
    let file = lab.file("source", 8);
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    lab.receive_on(listener, "a");
    let (b, _task) = lab.receiver("b").await;
    let hosts = [
        ("one", SocketAddr::from(([127, 0, 0, 1], port))),
        ("two", SocketAddr::from(([127, 0, 0, 2], port))),
        ("b", b),
    ];
    let source = lab.source(&file);
    let sent = send::send(
        source.transfer.clone(),
        options(&hosts, Some(8 << 20)),
        |_| {},
    );
    let report = timeout(LONG, sent).await.unwrap().unwrap();
    let (one, two) = (&report[0], &report[1]);
    let (done, other) = match one.state {
        State::Done => (one, two),
        _ => (two, one),
    };
    assert_eq!(done.state, State::Done, "{report:#?}");
    assert_eq!(other.state, State::Refused, "{report:#?}");
    let why = format!("this is the same host as {}", done.name);
    assert!(says(other, &why), "{report:#?}");
    assert_eq!(report[2].state, State::Done, "{report:#?}");
    assert!(lab.has("a", &file) && lab.has("b", &file));
}

/// The same is sent twice at once: they took it away from each other, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_send_the_same_one_is_told() {
    let lab = Place::new();
    let file = lab.file("source", 8);
    let (a, _task) = lab.receiver("a").await;
    let source = lab.source(&file);
    let run = |limit| {
        send::send(
            source.transfer.clone(),
            options(&[("a", a)], Some(limit)),
            |_| {},
        )
    };
    let both = async { tokio::join!(run(6 << 20), run(6 << 20)) };
    let (one, two) = timeout(LONG, both).await.unwrap();
    let reports = [one.unwrap(), two.unwrap()];
    let done = reports.iter().filter(|r| r[0].state == State::Done).count();
    assert!(done >= 1, "{reports:#?}");
    for report in reports.iter().filter(|r| r[0].state != State::Done) {
        assert!(
            says(&report[0], "it was offered again, and goes on"),
            "{reports:#?}"
        );
    }
    assert!(lab.has("a", &file));
}

/// Two sources that are both trusted have different files of one name: the newer one is taken, and it is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_files_of_one_name_the_newer_one_stays() {
    let lab = Place::new();
    let other = Arc::new(Signer::new().unwrap());
    let (old, new) = (lab.file("old", 8), lab.file("newer", 8));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hosts = [("a", listener.local_addr().unwrap())];
    let both = receive::Options {
        tls: None,
        into: lab.path("a"),
        keys: vec![lab.signer.key(), other.key()],
        replace: false,
        in_place: false,
    };
    tokio::spawn(receive::receive(listener, both, |_| {}));
    let first = lab.source(&old);
    let memory = lab.path("other");
    let second = source::open(&new, "disk.raw", other, &memory, 2, From::Nothing);
    let second = second.unwrap().unwrap();
    let run = |transfer: &Arc<spread::Transfer>| {
        send::send(transfer.clone(), options(&hosts, Some(4 << 20)), |_| {})
    };
    let both = async { tokio::join!(run(&first.transfer), run(&second.transfer)) };
    let (one, two) = timeout(LONG, both).await.unwrap();
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(two[0].state, State::Done, "{one:#?} {two:#?}");
    assert_ne!(one[0].state, State::Done, "{one:#?} {two:#?}");
    assert!(!one[0].notes.is_empty(), "{one:#?}");
    assert!(lab.has("a", &new));
}

/// Frames go out of the file itself also after all of them were made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_changes_after_it_was_prepared_is_named() {
    for change in ["truncated", "rewritten", "grown"] {
        let lab = Place::new();
        let file = lab.file_of("source", 20, |_| 0);
        let (a, _task) = lab.receiver("a").await;
        let (b, _task) = lab.receiver("b").await;
        // Once to somebody else: it is remembered.
        let source = lab.source(&file);
        let sent = send::send(source.transfer.clone(), options(&[("b", b)], None), |_| {});
        assert_eq!(sent.await.unwrap()[0].state, State::Done);
        drop(source);
        let source = lab.source(&file);
        assert!(source.transfer.sealed().is_some(), "it was remembered");
        let mut changed = false;
        let transfer = source.transfer.clone();
        let sent = send::send(transfer, options(&[("a", a)], Some(8 << 20)), |hosts| {
            if hosts[0].frames > 1 && !changed {
                changed = true;
                let source = std::fs::File::options().write(true).open(&file).unwrap();
                match change {
                    "truncated" => source.set_len(5 << 20).unwrap(),
                    "grown" => source.set_len(50 << 20).unwrap(),
                    _ => source.write_all_at(&[7; 5 << 20], 15 << 20).unwrap(),
                }
            }
        });
        let report = timeout(LONG, sent).await.unwrap().unwrap();
        assert_eq!(report[0].state, State::Failed, "{change}: {report:#?}");
        let how = match change {
            "rewritten" => "it was written to",
            _ => "it had 20971527 bytes, and has",
        };
        assert!(
            says(
                &report[0],
                &format!("the file was changed while it was sent: {how}")
            ),
            "{change}: {report:#?}"
        );
        assert!(!lab.path("a/disk.raw").exists(), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_to_send_to() {
    let lab = Place::new();
    let file = lab.file("source", 3);
    let source = lab.source(&file);
    let run = |hosts: Vec<(&'static str, SocketAddr)>| {
        let mut options = options(&hosts, None);
        options.patience = Duration::from_secs(1);
        let sent = send::send(source.transfer.clone(), options, |_| {});
        timeout(LONG, sent)
    };
    assert!(run(Vec::new()).await.unwrap().unwrap().is_empty());
    // Nobody listens, and nobody ever answers.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = nobody.local_addr().unwrap();
    drop(nobody);
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hosts = vec![("gone", gone), ("mute", mute.local_addr().unwrap())];
    let report = run(hosts).await.unwrap().unwrap();
    for (host, why) in report.iter().zip(["not reached: ", "it has not answered"]) {
        assert_eq!(host.state, State::Failed, "{report:#?}");
        assert!(says(host, why), "{report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_hosts_die_in_the_middle() {
    let lab = Place::new();
    let file = lab.file("source", 16);
    let mut processes = Vec::new();
    for name in ["a", "b"] {
        processes.push(lab.start_receiver(name, "127.0.0.1:0", &[]));
    }
    let hosts = [("a", processes[0].address), ("b", processes[1].address)];
    let source = lab.source(&file);
    let (frames, mut some) = tokio::sync::watch::channel(0);
    let mut options = options(&hosts, Some(6 << 20));
    options.patience = Duration::from_secs(1);
    let sent = send::send(source.transfer.clone(), options, move |hosts| {
        frames.send_replace(hosts[1].frames);
    });
    let killed = async {
        some.wait_for(|frames| *frames > 5).await.unwrap();
        processes.iter_mut().for_each(super::lab::Process::kill);
        tokio::time::Instant::now()
    };
    let both = async { tokio::join!(sent, killed) };
    let (report, killed) = timeout(LONG, both).await.unwrap();
    assert!(killed.elapsed() < Duration::from_secs(20));
    for host in report.unwrap() {
        assert_eq!(host.state, State::Failed);
        assert!(says(&host, "gone: "), "{host:?}");
    }
}

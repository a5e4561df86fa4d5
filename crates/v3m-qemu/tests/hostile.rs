//! The driver against a QEMU that answers late, nonsense or not at all, and against files that are not its own.
//!
//! A real VM runs; its QMP socket's name is given to a peer of the test's. Whatever that does, the call ends in time with
//! an error, the VM runs on, and can be stopped, since neither status nor stop needs an answer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod guests;

use guests::{Guest, Place, eventually, length};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};
use v3m::{Driver, State};

const NOW: Duration = Duration::ZERO;
const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";

/// Takes one connection at `socket`, whose old name goes, and does this with it.
fn peer(
    socket: &Path,
    does: impl FnOnce(UnixStream) + Send + 'static,
) -> std::thread::JoinHandle<()> {
    fs::remove_file(socket).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || does(listener.accept().unwrap().0))
}

/// Answers the negotiation, and takes the next command.
fn negotiate(stream: &mut UnixStream) -> String {
    stream.write_all(GREETING.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    lines.next().unwrap().unwrap();
    stream.write_all(b"{\"return\": {}, \"id\": 0}\n").unwrap();
    lines.next().unwrap().unwrap()
}

#[tokio::test]
async fn peers_that_misbehave_cost_an_error_and_nothing_else() {
    type Does = fn(UnixStream);
    let cases: [(&str, Does, &str); 5] = [
        ("closes at once", drop, "closed the connection"),
        (
            "speaks garbage",
            |mut stream| {
                let _ = stream.write_all(&b"\xff\x00 not QMP\n".repeat(200));
            },
            "not QMP",
        ),
        (
            "closes in the middle of an answer",
            |mut stream| {
                negotiate(&mut stream);
                stream.write_all(b"{\"retu").unwrap();
            },
            "closed the connection",
        ),
        (
            "refuses",
            |mut stream| {
                negotiate(&mut stream);
                stream
                    .write_all(b"{\"event\": \"NEVER_HEARD_OF\"}\n{\"error\": {\"class\": \"X\", \"desc\": \"not today\"}, \"id\": 1}\n")
                    .unwrap();
            },
            "not today",
        ),
        (
            "says nothing",
            |stream| {
                let mut text = String::new();
                // Until the other side gives up.
                let _ = BufReader::new(stream).read_line(&mut text);
            },
            "did not answer within",
        ),
    ];
    let place = Place::new();
    let driver = place.driver();
    let vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let socket = place.vms().join("a/qmp.sock");
    let log = driver.console(&vm.name).await.unwrap().log;
    for (what, does, says) in cases {
        let peer = peer(&socket, does);
        let begin = Instant::now();
        let error = driver.pause(&vm.name).await.unwrap_err().to_string();
        assert!(error.contains(says), "{what}: {error}");
        assert!(begin.elapsed() < Duration::from_secs(12), "{what}");
        peer.join().unwrap();
        assert_eq!(
            driver.status(&vm.name).await.unwrap().state,
            State::Running,
            "{what}"
        );
        let before = length(&log);
        eventually("the guest runs on", || length(&log) > before);
    }
    // Nobody listens there any more: it is stopped all the same.
    driver
        .stop(&vm.name, Duration::from_millis(50))
        .await
        .unwrap();
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Stopped);
    driver.start(&vm.name).await.unwrap();
    driver.stop(&vm.name, NOW).await.unwrap();
}

#[tokio::test]
async fn an_answer_after_an_unknown_event_counts() {
    let place = Place::new();
    let driver = place.driver();
    let vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let peer = peer(&place.vms().join("a/qmp.sock"), |mut stream| {
        assert!(negotiate(&mut stream).contains("system_reset"));
        let answer =
            "{\"event\": \"NEVER_HEARD_OF\", \"data\": []}\nnoise\n{\"return\": {}, \"id\": 1}\n";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    driver.reboot(&vm.name, NOW).await.unwrap();
    peer.join().unwrap();
}

/// What another program left, or has, under our names says nothing of a VM: only a held lock does.
#[tokio::test]
async fn files_of_another_program() {
    let place = Place::new();
    let driver = place.driver();
    let vm = place.vm("a", Guest::Dots);
    driver.define(&vm).await.unwrap();
    let home = place.vms().join("a");
    // The pid of a live process that is not ours to touch: the test itself.
    let pid = std::process::id();
    fs::write(home.join("qemu.lock"), format!("{pid}\n")).unwrap();
    for socket in ["qmp.sock", "console.sock"] {
        drop(UnixListener::bind(home.join(socket)).unwrap());
    }
    fs::write(home.join("journal.out"), b"\xff\0garbage").unwrap();
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Defined);
    driver.stop(&vm.name, NOW).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!(status.state, State::Running);
    assert_ne!(status.pid, Some(pid));
    driver.pause(&vm.name).await.unwrap();
    driver.stop(&vm.name, NOW).await.unwrap();
    // And after a crash, whose lock file names a pid that another process has by now.
    fs::write(home.join("qemu.lock"), format!("{pid}\n")).unwrap();
    driver.stop(&vm.name, NOW).await.unwrap();
    driver.undefine(&vm.name).await.unwrap();
    assert!(!home.exists());
}

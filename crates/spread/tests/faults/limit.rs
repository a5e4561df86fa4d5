//! A source that may send no more than so much: what counts, and that nobody has to wait for those who are gone.

use crate::kit::peer::{BEAT, DATA, hear, idle, want, want_one};
use crate::kit::{LONG, Place, options};
use spread::send;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Runs a source with this limit while `test` asks it for what it has.
async fn limited<F: Future<Output = ()>>(
    limit: u64,
    test: impl FnOnce(SocketAddr, spread::manifest::Id) -> F,
) {
    let place = Place::new();
    let file = place.file_of("source", 8, |_| 0);
    let source = place.source(&file);
    let id = source.transfer.header.id;
    let (host, mut found) = idle().await;
    let options = options(&[("a", host)], Some(limit));
    let sent = send::send(source.transfer.clone(), options, |_| {});
    let asked = async {
        let at = *found.wait_for(Option::is_some).await.unwrap();
        timeout(LONG, test(at.unwrap(), id)).await.unwrap();
    };
    tokio::select! {
        report = sent => panic!("{report:?}"),
        () = asked => {}
    }
}

/// Reads until so many bytes of data have come.
async fn take(child: &mut TcpStream, bytes: usize) {
    let mut here = 0;
    while here < bytes {
        let (kind, what) = hear(child).await.unwrap();
        here += if kind == DATA { what.len() } else { 0 };
    }
}

/// They went at full speed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_fetched_by_themselves_count_against_the_limit() {
    limited(4 << 20, |source, id| async move {
        let begin = Instant::now();
        for frame in 0..4 {
            let mut child = TcpStream::connect(source).await.unwrap();
            child.write_all(&want_one(id, frame)).await.unwrap();
            take(&mut child, 1 << 20).await;
        }
        let took = begin.elapsed();
        // All but the last piece of 50 ms.
        assert!(took > Duration::from_millis(900), "{took:?}");
    })
    .await;
}

/// A child waited for its turn without a word for longer than it waits for a word, and left; what it had been waiting
/// for was sent to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_its_turn_hears_that_the_source_is_there() {
    limited(256 << 10, |source, id| async move {
        let mut children = Vec::new();
        for _ in 0..10 {
            let mut child = TcpStream::connect(source).await.unwrap();
            child.write_all(&want(id, 0, 0)).await.unwrap();
            take(&mut child, 1).await;
            children.push(child);
        }
        let mut beats = 0;
        for child in &mut children[..2] {
            for _ in 0..10 {
                let heard = timeout(Duration::from_millis(390), hear(child)).await;
                let (kind, _) = heard.unwrap().unwrap();
                beats += usize::from(kind == BEAT);
            }
        }
        assert!(beats > 0);
    })
    .await;
}

/// Each of them had 1 MiB, which is a second here, before the others were served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_that_are_gone_take_nothing_of_the_limit() {
    limited(1 << 20, |source, id| async move {
        for _ in 0..20 {
            let mut child = TcpStream::connect(source).await.unwrap();
            child.write_all(&want(id, 0, 0)).await.unwrap();
            // It is served by now, or stands in line.
            hear(&mut child).await.unwrap();
        }
        let begin = Instant::now();
        let mut child = TcpStream::connect(source).await.unwrap();
        child.write_all(&want(id, 3, 0)).await.unwrap();
        take(&mut child, 1 << 20).await;
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}");
    })
    .await;
}

/// Where packets are large (64 KiB on loopback), what did not fill one waited for 200 ms in the kernel, each time: a third
/// of the limit came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_reached_where_packets_are_large() {
    limited(2 << 20, |source, id| async move {
        let mut child = TcpStream::connect(source).await.unwrap();
        child.write_all(&want(id, 0, 0)).await.unwrap();
        take(&mut child, 1 << 20).await;
        let begin = Instant::now();
        take(&mut child, 4 << 20).await;
        let took = begin.elapsed();
        assert!(took < Duration::from_millis(2600), "{took:?}");
    })
    .await;
}

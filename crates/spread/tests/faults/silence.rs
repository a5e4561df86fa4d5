//! Parents that fall silent where nobody but their child can notice it: no source moves it.

use crate::kit::Place;
use crate::kit::peer::{DATA, Fake, frame, frame_at, message, parent, raw};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// What each of them sends before it says nothing more.
const PIECE: u32 = 100_000;

/// When a child came and what it asked for, and when it had been sent all that it would get.
struct Visit {
    came: Instant,
    want: serde_json::Value,
    silent: Instant,
}

/// A parent that sends a piece from where the child stands, or all of it, and then nothing: no byte, and no end.
async fn falls_silent(
    fake: &Fake,
    end: Option<Vec<u8>>,
    visits: Arc<Mutex<Vec<Visit>>>,
) -> SocketAddr {
    let page = fake.page.clone();
    parent(move |mut child, line| {
        let came = Instant::now();
        let mut want: serde_json::Value = serde_json::from_str(&line).unwrap();
        let want = want["want"].take();
        let number = |name: &str| u32::try_from(want[name].as_u64().unwrap()).unwrap();
        let (at, offset) = (number("frame"), number("offset"));
        let mut what = match number("pages") {
            0 => page.clone(),
            _ => Vec::new(),
        };
        what.extend(frame_at(at, offset));
        match &end {
            Some(end) => {
                what.extend(message(DATA, &frame(1)[offset as usize..]));
                what.extend([frame_at(1, 0), message(DATA, &frame(2)), end.clone()].concat());
            }
            None => what.extend(message(DATA, &[1; PIECE as usize])),
        }
        let visits = visits.clone();
        async move {
            let silent = Instant::now();
            visits.lock().unwrap().push(Visit { came, want, silent });
            child.write_all(&what).await.unwrap();
            std::future::pending::<()>().await;
        }
    })
    .await
}

/// There is no source that would notice: the child itself leaves a parent after 400 ms without a word, and goes on from
/// the byte where it stands. Silence is to be noticed in half a second; where the machine has other things to do the
/// fastest of five shows what the rule takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_says_nothing_is_left_by_its_child_after_400_ms() {
    let place = Place::new();
    let fake = Fake::new(&place.signer, "file", vec![raw(1), raw(2)]);
    let (a, _task) = place.receiver("a").await;
    let visits = Arc::default();
    let mut parents = Vec::new();
    for _ in 0..5 {
        parents.push(falls_silent(&fake, None, Arc::clone(&visits)).await);
    }
    let end = fake.end(&place.signer);
    parents.push(falls_silent(&fake, Some(end), Arc::clone(&visits)).await);
    let mut control = fake.offer(a, &parents).await;
    for silent in &parents[..5] {
        let lost = control.hear("lost").await;
        assert!(lost.contains(&silent.to_string()), "{lost}");
        assert!(lost.contains("it has said nothing for 400 ms"), "{lost}");
    }
    control.hear("done").await;
    let visits = visits.lock().unwrap();
    assert_eq!(visits.len(), parents.len());
    for (number, visit) in (0..).zip(visits.iter()) {
        assert_eq!(visit.want["frame"], 0);
        assert_eq!(
            visit.want["offset"],
            number * PIECE,
            "not a byte is sent again"
        );
    }
    let mut waits: Vec<Duration> = visits
        .windows(2)
        .map(|two| two[1].came - two[0].silent)
        .collect();
    waits.sort_unstable();
    println!("{waits:?}");
    assert!(waits[0] >= Duration::from_millis(400), "{waits:?}");
    assert!(waits[0] < Duration::from_millis(450), "{waits:?}");
    assert!(waits[2] < Duration::from_millis(600), "{waits:?}");
    let there = std::fs::read(place.path("a/file")).unwrap();
    assert!(there == [frame(1), frame(2)].concat());
}

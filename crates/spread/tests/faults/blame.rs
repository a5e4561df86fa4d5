//! Who is named for a frame that is not what it should be: whoever sent it as good, and nobody else.

use crate::kit::peer::{
    BAD, BEAT, Control, DATA, FRAME_AT, Fake, frame, frame_at, hear, message, parent, raw, want_one,
};
use crate::kit::{LONG, Place};
use spread::manifest::FRAME;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

const LEN: usize = FRAME as usize;

/// A file of two frames: ones, and twos.
fn two(place: &Place) -> Fake {
    Fake::new(&place.signer, "file", vec![raw(1), raw(2)])
}

/// A parent that says this, and this to whoever wants a frame by itself; then it closes.
async fn says(all: Vec<u8>, single: Vec<u8>) -> SocketAddr {
    parent(move |mut child, line| {
        let what = match line.contains("\"single\":true") {
            true => single.clone(),
            false => all.clone(),
        };
        async move {
            let _ = child.write_all(&what).await;
            let _ = child.shutdown().await;
            // So that nothing is lost of what was said.
            let _ = child.read_u8().await;
        }
    })
    .await
}

/// All that a receiver says of spoilt frames until it has all.
async fn spoilt(control: &mut Control) -> Vec<String> {
    let mut spoilt = Vec::new();
    loop {
        let line = control.hear("").await;
        assert!(!line.contains("\"failed\""), "{line}");
        if line.contains("\"spoilt\"") {
            spoilt.push(line);
        } else if line.contains("\"done\"") {
            return spoilt;
        }
    }
}

fn good_alone() -> Vec<u8> {
    [frame_at(0, 0), message(DATA, &frame(1))].concat()
}

/// The second of them was blamed, because the frame came from it at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_whose_bytes_came_from_two_is_blamed_on_nobody() {
    let place = Place::new();
    let fake = two(&place);
    let (a, _task) = place.receiver("a").await;
    let half = [
        fake.page.clone(),
        frame_at(0, 0),
        message(DATA, &[9; LEN / 2]),
    ]
    .concat();
    let rest = [
        frame_at(0, FRAME / 2),
        message(DATA, &[1; LEN / 2]),
        frame_at(1, 0),
        message(DATA, &frame(2)),
        fake.end(&place.signer),
    ];
    let first = says(half, Vec::new()).await;
    let second = says(rest.concat(), good_alone()).await;
    let mut control = fake.offer(a, &[first, second]).await;
    assert_eq!(spoilt(&mut control).await, Vec::<String>::new());
}

/// By the time that it was found out, another one had become the parent, and was blamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sent_a_bad_frame_is_named_though_it_comes_from_another_by_then() {
    let place = Place::new();
    let fake = two(&place);
    let (a, _task) = place.receiver("a").await;
    let bad = [fake.page.clone(), frame_at(0, 0), message(DATA, &frame(9))].concat();
    let rest = [
        frame_at(1, 0),
        message(DATA, &frame(2)),
        fake.end(&place.signer),
    ];
    let first = says(bad, good_alone()).await;
    let second = says(rest.concat(), good_alone()).await;
    let mut control = fake.offer(a, &[first, second]).await;
    let spoilt = spoilt(&mut control).await;
    assert_eq!(spoilt.len(), 1, "{spoilt:?}");
    assert!(spoilt[0].contains(&first.to_string()), "{spoilt:?}");
}

/// It was not asked whether it was bad there, too, if it was not the first on the list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_had_it_bad_itself_is_not_blamed() {
    let place = Place::new();
    let fake = two(&place);
    let (a, _task) = place.receiver("a").await;
    let all = [
        fake.page.clone(),
        frame_at(0, 0),
        message(DATA, &frame(9)),
        frame_at(1, 0),
        message(DATA, &frame(2)),
        fake.end(&place.signer),
    ];
    let was_bad = [message(BAD, &[0; 4]), good_alone()].concat();
    let first = says(Vec::new(), good_alone()).await;
    let second = says(all.concat(), was_bad).await;
    let mut control = fake.offer(a, &[first, second]).await;
    assert_eq!(spoilt(&mut control).await, Vec::<String>::new());
}

/// Its child had asked for the frame by itself before it was found to be bad here, and never heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_asks_early_hears_that_a_frame_was_bad() {
    let place = Place::new();
    let fake = two(&place);
    let (a, _task) = place.receiver("a").await;
    let go_on = Arc::new(Notify::new());
    let goes_on = go_on.clone();
    let begin = [
        fake.page.clone(),
        frame_at(0, 0),
        message(DATA, &[9; LEN / 2]),
    ]
    .concat();
    let above = parent(move |mut child, line| {
        let (begin, goes_on) = (begin.clone(), goes_on.clone());
        async move {
            if line.contains("\"single\":true") {
                let _ = child.write_all(&good_alone()).await;
                return;
            }
            child.write_all(&begin).await.unwrap();
            let beat = message(BEAT, &[]);
            while timeout(std::time::Duration::from_millis(50), goes_on.notified())
                .await
                .is_err()
            {
                child.write_all(&beat).await.unwrap();
            }
            child
                .write_all(&message(DATA, &[9; LEN / 2]))
                .await
                .unwrap();
            let _ = child.read_u8().await;
        }
    })
    .await;
    let _control = fake.offer(a, &[above]).await;
    let mut child = TcpStream::connect(a).await.unwrap();
    child.write_all(&want_one(fake.header.id, 0)).await.unwrap();
    let (kind, _) = timeout(LONG, hear(&mut child)).await.unwrap().unwrap();
    assert_eq!(kind, BEAT, "it waits for the frame");
    go_on.notify_one();
    let mut kinds = Vec::new();
    while kinds.last() != Some(&DATA) {
        let (kind, what) = timeout(LONG, hear(&mut child)).await.unwrap().unwrap();
        assert!(kind != DATA || what == frame(1));
        if kind != BEAT {
            kinds.push(kind);
        }
    }
    assert_eq!(kinds, [BAD, FRAME_AT, DATA]);
}

//! Receivers that have much from earlier: they read it again before they go on, and say how far they are.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::Place;
use kit::peer::{Control, Fake};
use serde_json::{Value, json};
use spread::manifest::{Entry, FRAME, Header, Id, Page};
use std::fs::File;

/// Frames of what is there, all of them in the file: so many that reading them takes a while. They are zeros, and no host
/// knows that before it has read them.
const FRAMES: u32 = 2048;

/// Puts beside the files of a host what one has that was killed just before the end. Returns what was offered.
fn remains(place: &Place, host: &str) -> (String, String) {
    let signer = &place.signer;
    let size = u64::from(FRAMES) * u64::from(FRAME);
    let header = Header::new(Id([7; 16]), "disk.raw", size, 1, None).unwrap();
    let line = header.line().unwrap();
    let proof = signer.sign(line.as_bytes(), "oscarv spread: header");
    let entry = Entry::raw(FRAME, *blake3::hash(&[0; FRAME as usize]).as_bytes());
    let mut pages = Vec::new();
    for first in (0..FRAMES).step_by(256) {
        let entries = vec![entry; 256];
        let page = Page { first, entries }.bytes(header.id);
        let title = format!("oscarv spread {}: page from {first}", header.id);
        let signature = signer.sign(&page, &title);
        pages.extend((4 + (page.len() + signature.len()) as u32).to_le_bytes());
        pages.extend((page.len() as u32).to_le_bytes());
        pages.extend(page);
        pages.extend(signature.as_bytes());
    }
    let beside = place.path(host).join(".spread");
    std::fs::create_dir_all(&beside).unwrap();
    let head = json!({"header": line, "signature": proof});
    std::fs::write(beside.join("disk.raw.head"), head.to_string()).unwrap();
    std::fs::write(beside.join("disk.raw.pages"), pages).unwrap();
    let part = File::create(beside.join("disk.raw.part")).unwrap();
    part.set_len(size).unwrap();
    (line, proof)
}

fn number(line: &str, what: &str) -> u64 {
    let said: Value = serde_json::from_str(line).unwrap();
    said.pointer(what).and_then(Value::as_u64).unwrap()
}

/// Whoever had more than can be read in a quarter of an hour could never go on with it: nothing showed that it did anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_reads_what_it_has_says_how_far_it_is() {
    let place = Place::new();
    let receiver = place.receiver("a").await.0;
    let (line, proof) = remains(&place, "a");
    let mut source = Control::offer(receiver, &line, &proof).await;
    let mut before = 0;
    for _ in 0..2 {
        let frames = number(&source.hear("looked").await, "/looked");
        assert!(frames > before, "{frames} after {before}");
        before = frames;
    }
    let frames = number(&source.hear("accept").await, "/accept/frames");
    assert_eq!(frames, u64::from(FRAMES));
    assert!(before <= frames);
}

/// What was read for a source that has gone held the files, and whoever came next waited for it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_for_a_source_that_has_gone() {
    let place = Place::new();
    let receiver = place.receiver("a").await.0;
    let (line, proof) = remains(&place, "a");
    let mut source = Control::offer(receiver, &line, &proof).await;
    source.hear("looked").await;
    // Somebody else who is newer.
    let other = Fake::new(&place.signer, "disk.raw", vec![Entry::ZERO]);
    let (newer, signed) = other.offered();
    let mut next = Control::offer(receiver, newer, signed).await;
    source.hear("it was offered again").await;
    next.hear("accept").await;
    let part = place.path("a/.spread/disk.raw.part");
    assert_eq!(std::fs::metadata(part).unwrap().len(), u64::from(FRAME));
}

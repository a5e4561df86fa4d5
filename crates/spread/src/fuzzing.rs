//! Doors for fuzz/run to what reads bytes of others and is no interface. In no other build.

use crate::chunks;
use crate::keeper::{self, News};
use crate::manifest::{Entry, FRAME, Header, Id, Page};
use crate::place::Files;
use crate::pull::{self, Lost};
use crate::sign::Signer;
use crate::stream::{Door, Trust};
use crate::tar;
use crate::transfer::Transfer;
use crate::wire::{FromReceiver, Hello, Lines, ToReceiver};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Lines of a connection for control, of either side.
pub async fn lines(bytes: &[u8]) {
    let mut lines = Lines::new(bytes);
    while let Ok(Some(hello)) = lines.next::<Hello>().await {
        let written = serde_json::to_string(&hello).expect("what was read can be written");
        let again: Hello = serde_json::from_str(&written).expect("and read again");
        assert_eq!(serde_json::to_string(&again).expect("as before"), written);
    }
    let mut lines = Lines::new(bytes);
    while let Ok(Some(said)) = lines.next::<ToReceiver>().await {
        let written = serde_json::to_string(&said).expect("what was read can be written");
        assert_eq!(
            serde_json::from_str::<ToReceiver>(&written).ok(),
            Some(said)
        );
    }
    let mut lines = Lines::new(bytes);
    while let Ok(Some(said)) = lines.next::<FromReceiver>().await {
        let written = serde_json::to_string(&said).expect("what was read can be written");
        assert_eq!(
            serde_json::from_str::<FromReceiver>(&written).ok(),
            Some(said)
        );
    }
}

/// A file of three frames, the middle one of zeros, with its page.
struct Known {
    signer: Signer,
    header: Header,
    page: Vec<u8>,
    wire: Vec<u8>,
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let signer = Signer::new().expect("a key");
        let size = u64::from(FRAME) * 2 + 3;
        let header = Header::new(Id([7; 16]), "disk", size, 1, None).expect("a good header");
        let one = Entry::raw(FRAME, *blake3::hash(&vec![0x41; FRAME as usize]).as_bytes());
        let end = Entry::raw(3, *blake3::hash(b"end").as_bytes());
        let page = Page {
            first: 0,
            entries: vec![one, Entry::ZERO, end],
        };
        let page = page.bytes(header.id);
        let title = format!("oscarv spread {}: page from 0", header.id);
        let signature = signer.sign(&page, &title);
        let mut wire = (page.len() as u32).to_le_bytes().to_vec();
        wire.extend(&page);
        wire.extend(signature.as_bytes());
        Known {
            signer,
            header,
            page,
            wire,
        }
    })
}

/// What a parent says on a connection for data. It comes after the page where `paged`, else before anything is known.
/// Nothing that was not signed is ever good. `dir`: made anew.
pub async fn messages(bytes: &[u8], paged: bool, dir: &Path) {
    let known = known();
    let _ = std::fs::remove_dir_all(dir);
    let line = known.header.line().expect("a header can be written");
    let key = known.signer.key();
    let opened = Files::open(
        dir,
        &known.header,
        &line,
        "",
        &key,
        None,
        &Default::default(),
    );
    let (files, transfer, end) = opened.expect("a place");
    if paged {
        let page = Page::read(&known.page, &known.header).expect("a good page");
        transfer.add_page(&page, known.wire.as_slice().into());
    }
    let (mut inflow, work, mut news) =
        keeper::start(transfer.clone(), files, end).expect("a keeper");
    let (again, mut repairs) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let parent = listener.local_addr().expect("its address");
    let said = async {
        let (mut stream, _) = listener.accept().await.expect("a child");
        // It may have read enough.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        stream
    };
    let trust = Trust::new(key, Door(None));
    let follow = pull::follow(parent, &transfer, &trust, &mut inflow, &again);
    let both = async { tokio::join!(follow, said) };
    let (ended, _stream) = tokio::time::timeout(Duration::from_secs(8), both)
        .await
        .expect("it ends with the connection");
    if let Err(Lost::Stuck(e)) = ended {
        panic!("{e}");
    }
    drop((inflow, work));
    while let Some(News::Bad(_)) = news.recv().await {}
    check(&transfer);
    repairs.close();
    while let Some(index) = repairs.recv().await {
        assert!(index < transfer.header.frames());
    }
}

/// What is said to be good is what the manifest says.
fn check(transfer: &Arc<Transfer>) {
    assert!(!transfer.complete(), "nobody has signed the end");
    let (good, frames) = transfer.count();
    assert!(good <= frames);
    for index in 0..frames {
        let entry = transfer.entry(index);
        assert!(!transfer.is_good(index) || entry.is_some());
    }
}

/// The stream of a tree, and a patch of one. What is read of the stream is written in one way, and that is read as the same.
pub fn tree(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(entry)) = tar::Entry::read(&mut rest) {
        let header = entry.header();
        assert_eq!(header.len() as u64, entry.header_len());
        let again = tar::Entry::read(&mut header.as_slice());
        assert_eq!(again.ok().flatten().as_ref(), Some(&entry));
        let content = usize::try_from(entry.padded()).unwrap_or(usize::MAX);
        rest = rest.get(content..).unwrap_or_default();
    }
    let (base, frame) = (1 << 40, bytes.len());
    let mut all = 0;
    for piece in chunks::pieces(bytes, base, frame).unwrap_or_default() {
        all += match piece {
            chunks::Piece::Old { from, len } => {
                assert!(from + len <= base);
                len
            }
            chunks::Piece::New { at, len } => {
                assert!(at as u64 + len <= bytes.len() as u64);
                len
            }
        };
    }
    assert!(all == 0 || all == frame as u64);
}

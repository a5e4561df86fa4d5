//! Pages and headers, and what is none.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn header(size: u64) -> Header {
    Header::new(Id([7; 16]), "disk.raw", size, 1, None).unwrap()
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        Just(Entry::ZERO),
        any::<Hash>().prop_map(|hash| Entry::raw(FRAME, hash)),
        (1..FRAME, any::<Hash>(), any::<Hash>()).prop_map(|(stored, stored_hash, hash)| {
            Entry {
                encoding: Encoding::Zstd,
                stored,
                stored_hash,
                hash,
            }
        }),
    ]
}

proptest! {
    #[test]
    fn pages_there_and_back(entries in prop::collection::vec(entry(), 1..PAGE_FRAMES), first in 0_u32..9) {
        let header = header(300 * u64::from(FRAME));
        let page = Page { first, entries };
        prop_assert_eq!(Page::read(&page.bytes(header.id), &header).unwrap(), page);
    }

    #[test]
    fn whatever_comes_is_a_page_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut page = Page { first: 0, entries: vec![Entry::ZERO] }.bytes(Id([7; 16]));
        page.truncate(20);
        page.extend(bytes);
        if let Ok(read) = Page::read(&page, &header(1 << 40)) {
            prop_assert_eq!(read.bytes(Id([7; 16])), page);
        }
    }
}

#[test]
fn names_that_would_leave_the_directory() {
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "/etc/passwd",
        "-rf",
        ".ssh",
        "a\0b",
        "a b",
        "ä",
    ] {
        assert!(
            Header::new(Id([0; 16]), name, 1, 1, None).is_err(),
            "{name:?}"
        );
    }
    assert!(Header::new(Id([0; 16]), &"a".repeat(201), 1, 1, None).is_err());
}

/// What is made of ranges has no hash of its own, and is of a tree that is made from another one.
#[test]
fn a_tree_is_known_by_its_version() {
    let known = Header::new(Id([7; 16]), "tree", u64::from(FRAME), 1, None).unwrap();
    let whole = known.clone().of_tree(&[3; 32]);
    assert_eq!(Header::read(&whole.line().unwrap()), Ok(whole.clone()));
    let mut made = whole.clone();
    made.base = Some("ab".repeat(32));
    assert_eq!(Header::read(&made.line().unwrap()), Ok(made.clone()));
    for version in [None, Some("short".to_owned())] {
        let mut nameless = made.clone();
        nameless.version = version;
        assert!(Header::read(&nameless.line().unwrap()).is_err());
    }
    let entry = Entry {
        encoding: Encoding::Ranges,
        hash: [0; 32],
        ..Entry::raw(900, [5; 32])
    };
    let page = Page {
        first: 0,
        entries: vec![entry],
    };
    let bytes = page.bytes(made.id);
    assert_eq!(bytes.len(), 26 + 1 + 4 + 32);
    assert_eq!(Page::read(&bytes, &made).unwrap(), page);
    assert!(Page::read(&bytes, &whole).is_err());
}

#[test]
fn the_last_frame_is_shorter() {
    let header = header(u64::from(FRAME) * 2 + 5);
    assert_eq!(header.frames(), 3);
    assert_eq!(header.frame_len(1), FRAME);
    assert_eq!(header.frame_len(2), 5);
    assert_eq!(super::tests::header(0).frames(), 0);
}

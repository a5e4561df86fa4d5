//! Headers there and back, and those that nobody should send.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Read;

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1_u8..=255, 1..150).prop_map(|mut name| {
        name.iter_mut().for_each(|byte| {
            if *byte == b'/' {
                *byte = b'-';
            }
        });
        if name == b"." || name == b".." {
            name = b"dots".to_vec();
        }
        name
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let path = prop::collection::vec(name(), 1..4).prop_map(|names| names.join(&b'/'));
    let kind = prop_oneof![
        Just(Kind::File),
        Just(Kind::Directory),
        name().prop_map(Kind::Symlink),
        (0_u32..4096, 0_u32..(1 << 20)).prop_map(|(a, b)| Kind::Character(a, b)),
        Just(Kind::Disk(8, 1)),
        Just(Kind::Fifo),
    ];
    let attribute = (name(), prop::collection::vec(any::<u8>(), 0..200));
    let attribute = attribute.prop_map(|(mut name, value)| {
        name.retain(|byte| *byte != b'=');
        (name, value)
    });
    (
        (path, kind, 0_u32..0o10000, any::<u32>(), any::<u32>()),
        (
            0_u64..1 << 40,
            -(1_i64 << 33)..1 << 34,
            0_u32..1_000_000_000,
        ),
        prop::collection::vec(attribute, 0..3),
    )
        .prop_map(
            |((path, kind, mode, user, group), (size, seconds, nanos), attributes)| {
                let is_link = matches!(kind, Kind::Symlink(_));
                let mut attributes = BTreeMap::from_iter(attributes);
                if is_link {
                    attributes.clear();
                }
                Entry {
                    size: if kind == Kind::File { size } else { 0 },
                    path,
                    mode: if is_link { 0o777 } else { mode },
                    user,
                    group,
                    modified: (seconds, nanos),
                    attributes: attributes.into_iter().collect(),
                    kind,
                }
            },
        )
}

proptest! {
    #[test]
    fn headers_there_and_back(entry in entry()) {
        let header = entry.header();
        prop_assert_eq!(header.len() as u64, entry.header_len());
        let mut rest = header.as_slice();
        prop_assert_eq!(Entry::read(&mut rest).unwrap(), Some(entry));
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn paths_are_in_the_order_of_trees(
        paths in prop::collection::vec(prop::collection::vec("[a0.-]{1,2}", 1..4), 2),
    ) {
        let [one, two] = [0, 1].map(|which| paths[which].join("/"));
        let first = order(one.as_bytes(), two.as_bytes());
        // As a walk finds them: names of a directory sorted, and what is in one right after it.
        prop_assert_eq!(first, paths[0].cmp(&paths[1]));
    }

    #[test]
    fn whatever_comes_is_a_header_or_refused(
        entry in entry(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut header = entry.header();
        let at = at.index(header.len());
        header[at] = byte;
        // What is taken is what it would be written as.
        if let Ok(Some(read)) = Entry::read(&mut header.as_slice()) {
            prop_assert!(header.starts_with(&read.header()));
        }
    }
}

#[test]
fn names_that_would_leave_the_tree() {
    for name in [
        "/etc/passwd",
        "etc",
        "./../x",
        "./a/../../x",
        ".//x",
        "./a//b",
        "./.",
        "..",
        "./a/",
        "./",
    ] {
        let header = plain(name.as_bytes(), b"", |header| {
            header.set_entry_type(EntryType::Regular);
            header.set_size(0);
        });
        let read = Entry::read(&mut header.as_slice());
        assert!(read.is_err(), "{name}: {read:?}");
        let link = plain(b"./fine", name.as_bytes(), |header| {
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
        });
        let read = Entry::read(&mut link.as_slice());
        assert!(read.is_err(), "to {name}: {read:?}");
    }
}

#[test]
fn endless_pax_records_are_not_read() {
    let header = plain(b"x", b"", |header| {
        header.set_entry_type(EntryType::XHeader);
        header.set_size(1 << 40);
    });
    let read = Entry::read(&mut header.chain(io::repeat(b'1')));
    assert!(read.unwrap_err().to_string().contains("pax records"));
}

//! Any bytes as what a sender of files says of them: no panic, and what is taken comes back as it is written.
//!
//! The first line is a header, and the rest a page of its transfer; without one, all of it is a page of a known transfer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spread::manifest::{Header, Id, Page};

fuzz_target!(|bytes: &[u8]| {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let read = std::str::from_utf8(line).ok().map(Header::read);
    let (header, page) = match read {
        Some(Ok(header)) => {
            let written = header.line().expect("a header can be written");
            assert_eq!(Header::read(&written), Ok(header.clone()), "{written}");
            (header, bytes.get(line.len() + 1..).unwrap_or_default())
        }
        _ => {
            let known = Header::new(Id([7; 16]), "disk", 1 << 30, 0, Some("base".to_owned()));
            (known.expect("a good header"), bytes)
        }
    };
    if let Ok(page) = Page::read(page, &header) {
        let written = page.bytes(header.id);
        assert_eq!(Page::read(&written, &header), Ok(page), "{header:?}");
    }
});

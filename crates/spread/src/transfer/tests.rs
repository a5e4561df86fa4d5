//! Whose bytes a host has.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::manifest::Id;

/// When a frame is found to be bad, another one may come from another parent by then.
#[test]
fn whose_bytes_a_frame_has_is_known_until_it_is_checked() {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let spool = file.clone();
    let header = Header::new(Id([0; 16]), "disk", 5 << 20, 1, None).unwrap();
    let stock = Stock { file, spool };
    let transfer = Transfer::new(header, String::new(), String::new(), stock);
    let [a, b] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    // Who only said that it was to come has sent nothing.
    transfer.comes_from(0, b);
    transfer.begin(0, None);
    transfer.comes_from(0, a);
    transfer.append(0, 10);
    transfer.comes_from(0, a);
    transfer.comes_from(1, b);
    transfer.begin(1, None);
    transfer.append(1, 10);
    transfer.bad(0);
    assert_eq!(transfer.sender(0), Some(a));
    assert_eq!(transfer.sender(0), None, "once");
    transfer.comes_from(1, a);
    transfer.append(1, 10);
    transfer.comes_from(1, b);
    transfer.bad(1);
    assert_eq!(transfer.sender(1), None, "of two");
    transfer.comes_from(2, a);
    transfer.good(2, None);
    assert_eq!(transfer.inner().senders.len(), 0);
}

//! Pax records: what a plain header cannot say, each with its length, its key and its value.
//!
//! POSIX.1-2017, pax, "pax Extended Header".

use super::{bad, shown};
use std::io;

/// Adds a pax record: its own length, key and value.
pub(super) fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Space, equals sign, line feed.
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend(len.to_string().as_bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

/// Key and value.
pub(super) type Record<'a> = (&'a [u8], &'a [u8]);

pub(super) fn read_records(mut records: &[u8]) -> io::Result<Vec<Record<'_>>> {
    let mut all = Vec::new();
    let wrong = || bad("a pax record that is none");
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ');
        let space = space.ok_or_else(wrong)?;
        let len = std::str::from_utf8(&records[..space]).ok();
        let len: usize = len.and_then(|len| len.parse().ok()).ok_or_else(wrong)?;
        let (record, rest) = records.split_at_checked(len).ok_or_else(wrong)?;
        let inner = record.get(space + 1..).and_then(|r| r.strip_suffix(b"\n"));
        let inner = inner.ok_or_else(wrong)?;
        let equals = inner.iter().position(|byte| *byte == b'=');
        let equals = equals.ok_or_else(wrong)?;
        all.push((&inner[..equals], &inner[equals + 1..]));
        records = rest;
    }
    Ok(all)
}

/// A time as pax has it: seconds with nine places, and a sign before 1970.
pub(super) fn decimal(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (0.., _) | (_, 0) => format!("{seconds}.{nanos:09}"),
        _ => format!(
            "-{}.{:09}",
            (seconds + 1).unsigned_abs(),
            1_000_000_000 - nanos
        ),
    }
}

/// Reads such a time.
pub(super) fn read_decimal(text: &[u8]) -> io::Result<(i64, u32)> {
    let wrong = || bad(format!("a time {:?}", shown(text)));
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (whole, part) = text.split_once('.').ok_or_else(wrong)?;
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    let nanos: u32 = part.parse().map_err(|_| wrong())?;
    if part.len() != 9 || part.starts_with('+') {
        return Err(wrong());
    }
    match (whole.starts_with('-'), nanos) {
        (false, _) | (true, 0) => Ok((seconds, nanos)),
        (true, _) => {
            let before = seconds.checked_sub(1).ok_or_else(wrong)?;
            Ok((before, 1_000_000_000 - nanos))
        }
    }
}

//! Files as command lines read them.

use crate::exit::{Code, Failure};
use anyhow::Result;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// A file's bytes and its name in messages; `-` is standard input. No more is read than a file of ours may have, and one
/// byte.
pub fn read(path: &Path) -> Result<(Vec<u8>, String)> {
    let most = profile::MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut bytes)?;
        return Ok((bytes, "<stdin>".to_owned()));
    }
    let name = crate::printable(&path.display().to_string());
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok((bytes, name)),
        Err(e) => Err(Failure::new(Code::Usage, format!("{name} cannot be read: {e}")).into()),
    }
}

/// The most that is shown of a file's end.
const MOST: u64 = 1 << 20;

/// The last lines of a file, the last MiB at most.
pub fn last_lines(path: &Path, lines: usize) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    seek(&mut file, lines, MOST)?;
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

/// To where the last lines begin. Reads backwards, so that a log of gigabytes costs no more than a short one.
pub fn seek_to_last_lines(file: &mut File, lines: usize) -> Result<()> {
    seek(file, lines, u64::MAX)
}

fn seek(file: &mut File, lines: usize, most: u64) -> Result<()> {
    const BLOCK: u64 = 16 << 10;
    let end = file.seek(SeekFrom::End(0))?;
    let first = end.saturating_sub(most);
    let mut at = end;
    let mut left = lines;
    while at > first {
        let start = at.saturating_sub(BLOCK).max(first);
        file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::new();
        file.take(at - start).read_to_end(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let position = start + index as u64;
            // The newline that ends the last line begins none.
            if *byte != b'\n' || position + 1 == end {
                continue;
            }
            left -= 1;
            if left == 0 {
                file.seek(SeekFrom::Start(position + 1))?;
                return Ok(());
            }
        }
        at = start;
    }
    file.seek(SeekFrom::Start(first))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text: String = (1..=5000).map(|n| format!("line {n}\n")).collect();
        file.write_all(text.as_bytes()).unwrap();
        let last = |lines| String::from_utf8(last_lines(file.path(), lines).unwrap()).unwrap();
        assert_eq!(last(2), "line 4999\nline 5000\n");
        assert_eq!(last(3000).lines().count(), 3000);
        assert_eq!(last(9000), text);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a\n\nlogin: ").unwrap();
        assert_eq!(last_lines(file.path(), 1).unwrap(), b"login: ");
        assert_eq!(last_lines(file.path(), 2).unwrap(), b"\nlogin: ");
        // One line that is longer than all that is shown: its end.
        file.write_all(&vec![b'x'; 3 << 20]).unwrap();
        file.write_all(b"end").unwrap();
        let shown = last_lines(file.path(), 2).unwrap();
        assert_eq!(shown.len() as u64, MOST);
        assert!(shown.ends_with(b"xend"));
    }
}

//! `logs`: files that a VM's processes append to.

use crate::args::{Logs, Which};
use crate::context::{Context, print, small_runtime};
use crate::exit::{Code, Failure};
use anyhow::{Context as _, Result};
use rustix::fs::inotify;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub fn run(context: &Context, args: &Logs) -> Result<Code> {
    let (access, node) = context.node(&args.node.node)?;
    let head = context.head()?;
    let console = small_runtime()?.block_on(head.console(&access.cluster, &node))?;
    let path = match args.which {
        Which::Console => console.log.clone(),
        Which::Events => head.events(&access.cluster, &node),
        Which::Hypervisor => head.hypervisor_log(&access.cluster, &node),
    };
    match File::open(&path) {
        Ok(mut file) => {
            if args.lines > 0 {
                seek_to_last_lines(&mut file, args.lines)?;
            }
            copy(&mut file)?;
            if args.follow {
                follow(&path, file)?;
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::new(
                Code::NotFound,
                format!("{node} has written no such log yet"),
            )
            .hint(format!("is it there? `oscarv status {}`", access.cluster))
            .into());
        }
        Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
    }
    Ok(Code::Ok)
}

/// The last lines of a file.
pub fn last_lines(path: &Path, lines: usize) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    seek_to_last_lines(&mut file, lines)?;
    let mut text = Vec::new();
    file.take(1 << 20).read_to_end(&mut text)?;
    Ok(text)
}

/// Reads backwards, so that a log of gigabytes costs no more than a short one.
fn seek_to_last_lines(file: &mut File, lines: usize) -> Result<()> {
    const BLOCK: u64 = 16 << 10;
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = end;
    let mut left = lines;
    while at > 0 {
        let start = at.saturating_sub(BLOCK);
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
    file.seek(SeekFrom::Start(0))?;
    Ok(())
}

fn copy(file: &mut File) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => print(buffer.get(..count).unwrap_or_default())?,
        }
    }
}

/// Until we are interrupted, or the file is removed with its node.
fn follow(path: &PathBuf, mut file: File) -> Result<()> {
    let watch =
        inotify::init(inotify::CreateFlags::CLOEXEC).context("changes cannot be watched")?;
    let events = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::DELETE_SELF
        | inotify::WatchFlags::ATTRIB;
    inotify::add_watch(&watch, path, events)
        .with_context(|| format!("{} cannot be watched", path.display()))?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&watch, &mut buffer);
    // What came between the first reading and the watch.
    copy(&mut file)?;
    loop {
        // Only that something happened matters; but the file that is gone tells of it by its link count alone.
        match reader.next() {
            Ok(_) | Err(rustix::io::Errno::INTR) => copy(&mut file)?,
            Err(e) => {
                return Err(e).with_context(|| format!("{} cannot be watched", path.display()));
            }
        }
        use std::os::unix::fs::MetadataExt;
        let now = file.metadata()?;
        if now.nlink() == 0 {
            return Ok(());
        }
        // Made empty by a new start: from its beginning again.
        if file.stream_position()? > now.len() {
            file.seek(SeekFrom::Start(0))?;
        }
    }
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
    }
}

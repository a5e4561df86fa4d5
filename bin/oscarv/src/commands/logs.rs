//! `logs`: files that a VM's processes append to.

use crate::args::{Logs, Which};
use crate::context::{Context, print, small_runtime};
use crate::exit::{Code, Failure};
use anyhow::{Context as _, Result};
use rustix::fs::inotify;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use terminal::file::seek_to_last_lines;

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

//! A file is made into a transfer: read, looked at for zeros, hashed, compressed, signed; a little ahead of the
//! furthest child, and no more.

mod bind;
mod make;

use crate::content::Content;
use crate::manifest::{Bad, Header, Id};
use crate::prepared::{self, Half, Stamp};
use crate::sign::Signer;
use crate::transfer::{Stock, Transfer};
use crate::version::Version;
use make::{Maker, Old};
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// So often the file is looked at while it is sent.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error("{} could not be {what}: {why}", file.display())]
    File {
        file: PathBuf,
        what: &'static str,
        why: io::Error,
    },
    #[error("{} is neither a file nor a tree of files", .0.display())]
    NotAFile(PathBuf),
    #[error(transparent)]
    Bad(#[from] Bad),
}

/// What a transfer is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Nothing,
    /// A version that hosts may have.
    Version,
}

/// A file that is made into a transfer. When this is dropped, making it ends; if all of it was made, it is remembered.
pub struct Source {
    pub transfer: Arc<Transfer>,
    threads: Vec<JoinHandle<()>>,
    /// As long as this is there, the file is looked at.
    guarded: Option<mpsc::Sender<()>>,
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.transfer.sealed().is_none() {
            self.transfer.fail("the source has ended");
        }
        self.guarded = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Looks at a file as long as it is sent, because frames are sent from it also after all of them were made.
fn guard(
    transfer: Arc<Transfer>,
    source: &Content,
    stamp: Stamp,
) -> (mpsc::Sender<()>, Option<JoinHandle<()>>) {
    let (guarded, ended) = mpsc::channel();
    // Frames of a tree are sent from what is remembered.
    let Content::File(file) = source else {
        return (guarded, None);
    };
    let file = file.clone();
    let thread = std::thread::spawn(move || {
        while ended.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
            match stamp.difference(&file) {
                Ok(None) => {}
                Ok(Some(how)) => transfer.fail(&changed(&how)),
                Err(why) => transfer.fail(&format!("reading: {why}")),
            }
        }
    });
    (guarded, Some(thread))
}

pub(crate) fn changed(how: &str) -> String {
    format!("the file was changed while it was sent: {how}")
}

/// Makes a transfer of a file, or of a tree of files, and starts to fill it; or finds the one that was made before of the
/// same.
///
/// `name`: what it is called at the receivers. `memory`: the directory where the source remembers what it has made; it
/// may be missing. `threads`: how many compress. `from`: make it from the newest other version of that name that is
/// remembered, for hosts that have that; `None` if there is none.
pub fn open(
    file: &Path,
    name: &str,
    signer: Arc<Signer>,
    memory: &Path,
    threads: usize,
    from: From,
) -> Result<Option<Source>, Wrong> {
    let version = Version::new(file, name, signer, memory);
    let made = version.made()?;
    version.open(made, threads, from)
}

pub(crate) fn open_version(
    version: &Version,
    created: u64,
    threads: usize,
    from: From,
) -> Result<Option<Source>, Wrong> {
    let Version {
        file,
        name,
        memory,
        kin,
        ..
    } = version;
    let signer = version.signer.clone();
    let wrong = |what| {
        move |why| Wrong::File {
            file: file.to_owned(),
            what,
            why,
        }
    };
    let source = Content::open(file).map_err(wrong("opened"))?;
    let source = source.ok_or_else(|| Wrong::NotAFile(file.to_owned()))?;
    let stamp = source.stamp().map_err(wrong("read"))?;
    let size = source.size().map_err(wrong("read"))?;
    let key = signer.key().to_string();
    let is_new = from == From::Version;
    let load = || prepared::load(memory, name, &source, &key, created, is_new);
    let loaded = load().or_else(|| {
        // What was made at another time is the same, but for its time.
        let renewed = !is_new && prepared::renew(memory, name, &source, &signer, created).is_ok();
        renewed.then(load).flatten()
    });
    if let Some(transfer) = loaded {
        let transfer = Arc::new(transfer);
        let (guarded, thread) = guard(transfer.clone(), &source, stamp);
        return Ok(Some(Source {
            transfer,
            threads: thread.into_iter().collect(),
            guarded: Some(guarded),
        }));
    }
    if !is_new
        && let Some((half, transfer)) = prepared::resume(memory, name, &source, &key, created)
    {
        let half = half.of_kin(kin.clone());
        let transfer = Arc::new(transfer);
        return Ok(Some(start(signer, transfer, source, None, half, threads)));
    }
    let base = match from {
        From::Nothing => None,
        From::Version => match prepared::base(memory, name, kin.as_deref(), &source, &key) {
            Some(base) => Some(Old::new(base, &source).map_err(wrong("read"))?),
            None => return Ok(None),
        },
    };
    let mut id = [0; 16];
    fill_random(&mut id).map_err(wrong("given an id"))?;
    let content = base.as_ref().map(Old::content);
    let mut header = Header::new(Id(id), name, size, created, None)?;
    header.base = content;
    if let Content::Tree(tree) = &source {
        header = header.of_tree(&tree.digest());
    }
    let line = header.line()?;
    let proof = signer.sign(line.as_bytes(), "oscarv spread: header");
    let half = Half::new(memory, Id(id), name, stamp).map_err(|why| Wrong::File {
        file: memory.to_owned(),
        what: "written to",
        why,
    })?;
    let mut half = half.of_kin(kin.clone());
    let stock = Stock {
        file: source.handle().map_err(wrong("read"))?,
        spool: half.spool.clone(),
    };
    let transfer = Arc::new(Transfer::new(header, line, proof, stock));
    // What is made from a base is little, and hosts begin anew with it. Without this the next run begins anew, too.
    if base.is_none() {
        let _ = half.begin(&transfer, &key);
    }
    Ok(Some(start(signer, transfer, source, base, half, threads)))
}

/// Starts to make what is not made yet.
fn start(
    signer: Arc<Signer>,
    transfer: Arc<Transfer>,
    source: Content,
    base: Option<Old>,
    half: Half,
    threads: usize,
) -> Source {
    let maker = Arc::new(Maker::new(
        transfer.clone(),
        source,
        base,
        &signer,
        &half,
        threads,
    ));
    let (guarded, thread) = guard(transfer.clone(), &maker.source, half.stamp().clone());
    let mut running = Vec::from_iter(thread);
    for _ in 0..threads.max(1) {
        let maker = maker.clone();
        running.push(std::thread::spawn(move || maker.make()));
    }
    running.push(std::thread::spawn(move || {
        if let Err(why) = maker.bind(&signer, half) {
            maker.transfer.fail(&why.to_string());
        }
    }));
    Source {
        transfer,
        threads: running,
        guarded: Some(guarded),
    }
}

pub(crate) fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    use std::io::Read;
    File::open("/dev/urandom")?.read_exact(bytes)
}

/// Does the file system know that there is nothing?
pub(crate) fn is_hole(file: &File, start: u64, len: u32) -> bool {
    match rustix::fs::seek(file, SeekFrom::Data(start)) {
        Ok(data) => data >= start + u64::from(len),
        Err(e) => e == rustix::io::Errno::NXIO,
    }
}

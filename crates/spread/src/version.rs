//! One version of what is sent: which file, under which name, and when it was made.

use crate::content::Content;
use crate::manifest::{FRAME, Header};
use crate::prepared;
use crate::sign::Signer;
use crate::source::{self, From, Source, Wrong};
use crate::transfer::Transfer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What transfers are made of: what is new in it, and all of it. All of them have the same time, so that none is older than
/// another.
pub struct Version {
    pub(crate) file: PathBuf,
    pub(crate) name: String,
    pub(crate) signer: Arc<Signer>,
    pub(crate) memory: PathBuf,
    pub(crate) kin: Option<String>,
    anew: bool,
}

/// What sending a version would be.
#[derive(Clone)]
pub struct Outlook {
    /// Its bytes.
    pub size: u64,
    /// Header and signature of it, by which hosts say whether they have it.
    pub(crate) offer: (String, String),
    /// Bytes that go to a host that has nothing of it, at most.
    pub(crate) whole: u64,
    /// The same of the version before, and bytes that go to a host that has that, at most.
    pub(crate) base: Option<((String, String), u64)>,
}

impl Outlook {
    /// As if there was no version before.
    pub fn without_base(self) -> Self {
        Self { base: None, ..self }
    }
}

impl Version {
    /// `name`: what it is called at the receivers. `memory`: the directory where the source remembers what it has made; it
    /// may be missing.
    pub fn new(file: &Path, name: &str, signer: Arc<Signer>, memory: &Path) -> Self {
        Self {
            file: file.to_owned(),
            name: name.to_owned(),
            signer,
            memory: memory.to_owned(),
            kin: None,
            anew: false,
        }
    }

    /// What is called otherwise each time: it may be made from whatever is of the same kin, if nothing has its name.
    pub fn of_kin(mut self, kin: &str) -> Self {
        self.kin = Some(kin.to_owned());
        self
    }

    /// As if it was made at this moment, after all that is remembered of this name: it takes the place of newer versions.
    pub fn anew(mut self, anew: bool) -> Self {
        self.anew = anew;
        self
    }

    fn wrong(&self, why: std::io::Error) -> Wrong {
        let file = self.file.clone();
        let what = "opened";
        Wrong::File { file, what, why }
    }

    fn content(&self) -> Result<Content, Wrong> {
        let source = Content::open(&self.file).map_err(|why| self.wrong(why))?;
        source.ok_or_else(|| Wrong::NotAFile(self.file.clone()))
    }

    /// When it was made, in nanoseconds since 1970: what is remembered of it, or now.
    ///
    /// Errors: it cannot be read.
    pub fn made(&self) -> Result<u64, Wrong> {
        let source = self.content()?;
        let stamp = source.stamp().map_err(|why| self.wrong(why))?;
        let key = self.signer.key().to_string();
        let name = &self.name;
        Ok(prepared::made(&self.memory, name, &stamp, &key, self.anew))
    }

    /// May it be called so at all?
    ///
    /// Errors: what is wrong with the name.
    pub fn check_name(name: &str) -> Result<(), Wrong> {
        let header = Header::new(crate::manifest::Id([0; 16]), name, 0, 0, None);
        Ok(header.map(drop)?)
    }

    /// What sending it would be. Nothing is made or written for that.
    ///
    /// Errors: it cannot be read.
    pub fn outlook(&self) -> Result<Outlook, Wrong> {
        let source = self.content()?;
        let size = source.size().map_err(|why| self.wrong(why))?;
        let (made, key) = (self.made()?, self.signer.key().to_string());
        let (memory, name) = (&self.memory, &self.name);
        let load = |news| prepared::load(memory, name, &source, &key, made, news);
        let (whole, news) = (load(false), load(true));
        let id = crate::manifest::Id([0; 16]);
        let mut header = Header::new(id, name, size, made, None)?;
        if let Content::Tree(tree) = &source {
            header = header.of_tree(&tree.digest());
        }
        let offer = match whole.as_ref().or(news.as_ref()) {
            Some(transfer) => (transfer.line.clone(), transfer.proof.clone()),
            // Nobody can have it: it only shows whether they would take it.
            None => {
                let line = header.line()?;
                let proof = self.signer.sign(line.as_bytes(), "oscarv spread: header");
                (line, proof)
            }
        };
        let stored = |transfer: &Transfer| {
            let entries = (0..transfer.header.frames()).filter_map(|index| transfer.entry(index));
            entries.map(|entry| u64::from(entry.stored)).sum()
        };
        let data = || {
            let frames = (0..header.frames()).map(|index| (index, header.frame_len(index)));
            let there = frames
                .filter(|(index, len)| !source.is_hole(u64::from(*index) * u64::from(FRAME), *len));
            there.map(|(_, len)| u64::from(len)).sum()
        };
        let whole: u64 = whole.as_ref().map_or_else(data, stored);
        let base = prepared::base_offer(memory, name, self.kin.as_deref(), &source, &key);
        let base = base.map(|base| (base, news.as_ref().map_or(whole, stored)));
        Ok(Outlook {
            size,
            offer,
            whole,
            base,
        })
    }

    /// A transfer of it, that was made at this time, and starts to fill it; or finds the one that was made before of the
    /// same. `threads`: how many compress. `from`: make it from the newest other version that is remembered, for hosts
    /// that have that; `None` if there is none.
    pub fn open(&self, made: u64, threads: usize, from: From) -> Result<Option<Source>, Wrong> {
        source::open_version(self, made, threads, from)
    }
}

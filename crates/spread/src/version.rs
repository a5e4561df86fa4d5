//! One version of what is sent: which file, under which name, and when it was made.

use crate::content::Content;
use crate::manifest::Header;
use crate::prepared;
use crate::sign::Signer;
use crate::source::{self, From, Source, Wrong};
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

    /// When it was made, in nanoseconds since 1970: what is remembered of it, or now.
    ///
    /// Errors: it cannot be read.
    pub fn made(&self) -> Result<u64, Wrong> {
        let wrong = |why| Wrong::File {
            file: self.file.clone(),
            what: "opened",
            why,
        };
        let source = Content::open(&self.file).map_err(wrong)?;
        let source = source.ok_or_else(|| Wrong::NotAFile(self.file.clone()))?;
        let stamp = source.stamp().map_err(wrong)?;
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

    /// A transfer of it, that was made at this time, and starts to fill it; or finds the one that was made before of the
    /// same. `threads`: how many compress. `from`: make it from the newest other version that is remembered, for hosts
    /// that have that; `None` if there is none.
    pub fn open(&self, made: u64, threads: usize, from: From) -> Result<Option<Source>, Wrong> {
        source::open_version(self, made, threads, from)
    }
}

//! The first line of a manifest: what is sent, by which name, and what it is made from.

use super::{Bad, FRAME, Hash, Id, LARGEST, hex};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "oscarv-spread-1";

/// The first line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: String,
    pub id: Id,
    /// What the file is called at the receivers.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// When the transfer was made, nanoseconds since 1970 by the source's clock. Compared only with others of the same
    /// name: an older one never takes a newer one's place.
    pub created: u64,
    /// The content of the version that this is made from, in hexadecimal digits; none: from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Is it a tree of files, as a tar?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tree: bool,
    /// Of a tree what its source knows this version by, in hexadecimal digits: that is its content for whoever has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Header {
    pub fn new(
        id: Id,
        name: &str,
        size: u64,
        created: u64,
        base: Option<String>,
    ) -> Result<Self, Bad> {
        let header = Self {
            format: FORMAT.to_owned(),
            id,
            name: name.to_owned(),
            size,
            created,
            base,
            tree: false,
            version: None,
        };
        header.check()?;
        Ok(header)
    }

    /// The same, of a tree, which its source knows by this.
    pub fn of_tree(self, version: &Hash) -> Self {
        Self {
            tree: true,
            version: Some(hex(version)),
            ..self
        }
    }

    /// Is it of the same version of the same file, and has the same content? There may be two transfers of one version: what
    /// is new in it, and all of it.
    pub fn same_version(&self, other: &Self) -> bool {
        let alike = (self.created, self.size, self.tree, &self.version)
            == (other.created, other.size, other.tree, &other.version);
        self.id == other.id || (self.name == other.name && alike)
    }

    /// Reads the line, which has come from outside.
    pub fn read(line: &str) -> Result<Self, Bad> {
        let header: Self =
            serde_json::from_str(line).map_err(|e| Bad(format!("not a header: {e}")))?;
        header.check()?;
        Ok(header)
    }

    pub fn line(&self) -> Result<String, Bad> {
        serde_json::to_string(self).map_err(|e| Bad(e.to_string()))
    }

    fn check(&self) -> Result<(), Bad> {
        if self.format != FORMAT {
            return Err(Bad(format!(
                "format {:?} is not known here, only {FORMAT}",
                self.format
            )));
        }
        if self.size > LARGEST {
            return Err(Bad(format!("{} bytes are more than 16 TiB", self.size)));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
        let starts = self.name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts || self.name.len() > 200 || !self.name.chars().all(plain) {
            return Err(Bad(format!(
                "the name {:?} is not letters, digits, '.', '_', '-' and '+', beginning with a letter or digit",
                self.name
            )));
        }
        let digits =
            |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        // Of a tree that is made from another one not all frames have hashes that say what it is.
        let known = self
            .version
            .as_ref()
            .map_or(!self.tree || self.base.is_none(), digits);
        if !known {
            return Err(Bad("a tree without its version".to_owned()));
        }
        Ok(())
    }

    /// How many frames the file has.
    pub fn frames(&self) -> u32 {
        self.size.div_ceil(u64::from(FRAME)) as u32
    }

    /// Bytes of a frame of this file.
    pub fn frame_len(&self, index: u32) -> u32 {
        let start = u64::from(index) * u64::from(FRAME);
        self.size.saturating_sub(start).min(u64::from(FRAME)) as u32
    }
}

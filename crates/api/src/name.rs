//! Names of clusters, groups, nodes and VMs: they become file names, host names and DNS labels.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A DNS label (RFC 1123, lower case): 1 to 63 of `a-z`, `0-9` and `-`; a letter first, no `-` last.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("a name must not be empty")]
    Empty,
    #[error("a name has at most 63 characters, this one has {0}")]
    TooLong(usize),
    #[error("a name starts with a letter a-z, not with {0:?}")]
    First(char),
    #[error("a name has only a-z, 0-9 and '-', not {0:?}")]
    Character(char),
    #[error("a name must not end with '-'")]
    LastDash,
}

impl Name {
    pub fn new(text: &str) -> Result<Self, BadName> {
        let first = text.chars().next().ok_or(BadName::Empty)?;
        if !first.is_ascii_lowercase() {
            return Err(BadName::First(first));
        }
        let bad = |c: &char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-');
        if let Some(c) = text.chars().find(bad) {
            return Err(BadName::Character(c));
        }
        if text.len() > 63 {
            return Err(BadName::TooLong(text.len()));
        }
        if text.ends_with('-') {
            return Err(BadName::LastDash);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl AsRef<std::path::Path> for Name {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_safe_everywhere() {
        for good in ["a", "head", "compute12", "a-b"] {
            assert_eq!(Name::new(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        assert_eq!(Name::new(""), Err(BadName::Empty));
        assert_eq!(Name::new("-a"), Err(BadName::First('-')));
        assert_eq!(Name::new("../x"), Err(BadName::First('.')));
        assert_eq!(Name::new("a/b"), Err(BadName::Character('/')));
        assert_eq!(Name::new("a\nb"), Err(BadName::Character('\n')));
        assert_eq!(Name::new("аb"), Err(BadName::First('а')));
        assert_eq!(Name::new("a-"), Err(BadName::LastDash));
        assert_eq!(Name::new(&"a".repeat(64)), Err(BadName::TooLong(64)));
    }
}

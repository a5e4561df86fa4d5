//! `opkg.toml`: read, checked, every mistake told with its line and column.

use crate::error::{Error, Problem, suggestion};
use crate::reader::{Source, Table};
use api::Name;
use std::path::{Component, Path, PathBuf};
use toml::de::DeTable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No cluster works without it.
    Core,
    Base,
    /// Ships with OSCAR-V, is chosen by the user.
    Included,
    ThirdParty,
}

impl Class {
    const ALL: [(&'static str, Self); 4] = [
        ("core", Self::Core),
        ("base", Self::Base),
        ("included", Self::Included),
        ("third-party", Self::ThirdParty),
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Base => "base",
            Self::Included => "included",
            Self::ThirdParty => "third-party",
        }
    }
}

/// Distribution packages, where the filters (none: anything goes) match.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PackageTable {
    pub distribution: Option<String>,
    pub release: Option<String>,
    pub architecture: Option<String>,
    pub common: Vec<String>,
    pub head: Vec<String>,
    pub compute: Vec<String>,
}

/// Something that is made anew for every cluster, delivered at run time and never part of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    pub name: String,
    /// So many random bytes.
    pub bytes: usize,
    pub path: PathBuf,
    pub owner: String,
    /// Permission bits; nothing for others.
    pub mode: u32,
}

/// systemd units.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Services {
    pub common: Vec<String>,
    pub head: Vec<String>,
    pub compute: Vec<String>,
}

/// A whole `opkg.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub name: Name,
    pub version: String,
    pub class: Class,
    pub summary: String,
    pub description: String,
    pub licence: String,
    pub uri: String,
    pub authors: Vec<String>,
    pub group: String,
    pub requires: Vec<Name>,
    pub provides: Vec<Name>,
    pub conflicts: Vec<Name>,
    pub packages: Vec<PackageTable>,
    pub secrets: Vec<Secret>,
    pub services: Services,
}

impl Manifest {
    /// `file` is for messages only.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        let mut source = Source {
            file,
            text,
            problems: Vec::new(),
        };
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                source.problem(at, error.message().to_owned(), None);
                return Err(Error::Bad(source.problems));
            }
        };
        let mut top = Table::new(document.get_ref(), 0);
        let name = {
            let (text, at) = top.required(&mut source, "name");
            name(&mut source, &text, at)
        };
        let (version, at) = top.required(&mut source, "version");
        if !version.is_empty()
            && !version
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".+~-".contains(&b))
        {
            source.problem(
                at,
                format!("{version:?} is not a version"),
                Some("as in \"1.0\"".into()),
            );
        }
        let class = class(&mut source, &mut top);
        let summary = top.required(&mut source, "summary").0;
        let mut plain = |key| top.text(&mut source, key).map(|t| t.0).unwrap_or_default();
        let (description, licence, uri, group) = (
            plain("description"),
            plain("licence"),
            plain("uri"),
            plain("group"),
        );
        let authors = top
            .texts(&mut source, "authors")
            .into_iter()
            .map(|t| t.0)
            .collect();
        let requires = names(&mut source, &mut top, "requires");
        let provides = names(&mut source, &mut top, "provides");
        let conflicts = names(&mut source, &mut top, "conflicts");
        let packages = top.tables(&mut source, "packages").into_iter();
        let packages = packages
            .map(|table| package_table(&mut source, table))
            .collect();
        let secrets = top.tables(&mut source, "secrets").into_iter();
        let secrets = secrets
            .filter_map(|table| secret(&mut source, table))
            .collect();
        let services = match top.table(&mut source, "services") {
            Some(mut table) => {
                let services = Services {
                    common: checked(&mut source, &mut table, "common", is_unit, UNIT),
                    head: checked(&mut source, &mut table, "head", is_unit, UNIT),
                    compute: checked(&mut source, &mut table, "compute", is_unit, UNIT),
                };
                table.finish(&mut source);
                services
            }
            None => Services::default(),
        };
        top.finish(&mut source);
        source.problems.sort_by_key(|p: &Problem| p.place);
        match (name, class) {
            (Some(name), Some(class)) if source.problems.is_empty() => Ok(Self {
                name,
                version,
                class,
                summary,
                description,
                licence,
                uri,
                authors,
                group,
                requires,
                provides,
                conflicts,
                packages,
                secrets,
                services,
            }),
            _ => Err(Error::Bad(source.problems)),
        }
    }
}

const UNIT: &str = "a systemd unit, as in \"ssh.service\"";
const DEB: &str = "a distribution package, as in \"libopenmpi-dev\"";

fn name(source: &mut Source<'_>, text: &str, at: usize) -> Option<Name> {
    if text.is_empty() {
        return None;
    }
    Name::new(text)
        .map_err(|why| source.problem(at, format!("{text:?}: {why}"), None))
        .ok()
}

fn names(source: &mut Source<'_>, table: &mut Table<'_, '_>, key: &'static str) -> Vec<Name> {
    let texts = table.texts(source, key);
    texts
        .into_iter()
        .filter_map(|(text, at)| name(source, &text, at))
        .collect()
}

fn class(source: &mut Source<'_>, top: &mut Table<'_, '_>) -> Option<Class> {
    let (text, at) = top
        .text(source, "class")
        .unwrap_or(("third-party".to_owned(), 0));
    let found = Class::ALL.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let hint = suggestion(&text, Class::ALL.iter().map(|c| c.0));
        source.problem(at, format!("{text:?} is not a class"), Some(hint));
    }
    found.map(|c| c.1)
}

fn package_table(source: &mut Source<'_>, mut table: Table<'_, '_>) -> PackageTable {
    let mut filter = |key| table.text(source, key).map(|t| t.0);
    let (distribution, release, architecture) = (
        filter("distribution"),
        filter("release"),
        filter("architecture"),
    );
    let packages = PackageTable {
        distribution,
        release,
        architecture,
        common: checked(source, &mut table, "common", is_deb, DEB),
        head: checked(source, &mut table, "head", is_deb, DEB),
        compute: checked(source, &mut table, "compute", is_deb, DEB),
    };
    table.finish(source);
    packages
}

fn checked(
    source: &mut Source<'_>,
    table: &mut Table<'_, '_>,
    key: &'static str,
    good: fn(&str) -> bool,
    form: &str,
) -> Vec<String> {
    let mut list = Vec::new();
    for (text, at) in table.texts(source, key) {
        if good(&text) {
            list.push(text);
        } else {
            source.problem(at, format!("{text:?} is not {form}"), None);
        }
    }
    list
}

/// Debian policy 5.6.1, with an optional version after `=`. What passes cannot be an option of apt.
fn is_deb(text: &str) -> bool {
    let (name, version) = text.split_once('=').unwrap_or((text, "0"));
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        // A trailing + or - asks apt to install or remove; g++ and the like are the exception.
        && (!name.ends_with(['+', '-']) || name.ends_with("++"))
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
        && !version.is_empty()
        && version.bytes().all(|b| b.is_ascii_alphanumeric() || b".+~:-".contains(&b))
}

fn is_unit(text: &str) -> bool {
    let ends = [
        ".service", ".socket", ".timer", ".path", ".target", ".mount",
    ];
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":-_.@\\".contains(&b))
        && ends.iter().any(|end| text.ends_with(end))
}

fn secret(source: &mut Source<'_>, mut table: Table<'_, '_>) -> Option<Secret> {
    let before = source.problems.len();
    let (name, at) = table.required(source, "name");
    if !name.is_empty() && !is_file_name(&name) {
        source.problem(
            at,
            format!("{name:?} is not a file name"),
            Some("letters, digits, '.', '-' and '_'".into()),
        );
    }
    let (bytes, at) = table.integer(source, "bytes").unwrap_or((32, 0));
    if !(16..=65536).contains(&bytes) {
        source.problem(
            at,
            format!("a secret has 16 to 65536 bytes, not {bytes}"),
            None,
        );
    }
    let (path, at) = table.required(source, "path");
    let path = PathBuf::from(path);
    let plain = path
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    let sound = path.is_absolute() && plain && path.file_name().is_some();
    if !sound && !path.as_os_str().is_empty() {
        let hint = "as in \"/etc/munge/munge.key\", without \"..\"".to_owned();
        source.problem(at, format!("{path:?} is not an absolute path"), Some(hint));
    }
    let (owner, at) = table
        .text(source, "owner")
        .unwrap_or(("root".to_owned(), 0));
    if !owner.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') || !is_file_name(&owner) {
        source.problem(at, format!("{owner:?} is not a user"), None);
    }
    let (mode, at) = table.text(source, "mode").unwrap_or(("0400".to_owned(), 0));
    let mode = match u32::from_str_radix(&mode, 8) {
        Ok(bits) if bits & !0o770 == 0 => bits,
        Ok(_) => {
            let hint = "a secret is not for others: 0400, 0440, 0600 or 0640".to_owned();
            source.problem(at, format!("{mode:?} gives a secret away"), Some(hint));
            0
        }
        Err(_) => {
            source.problem(
                at,
                format!("{mode:?} is not an octal mode, as in \"0400\""),
                None,
            );
            0
        }
    };
    table.finish(source);
    (source.problems.len() == before).then(|| Secret {
        name,
        bytes: usize::try_from(bytes).unwrap_or(32),
        path,
        owner,
        mode,
    })
}

fn is_file_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

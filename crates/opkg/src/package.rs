//! One package as it lies in a directory: its manifest, and everything else checked to be what and where it must be.

use crate::error::{Error, Problem, suggestion};
use crate::manifest::{Class, Manifest, PackageTable, Secret, Services};
use crate::phase::Phase;
use api::Name;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// A package whose manifest is right and whose files stay inside its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opkg {
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
    pub scripts: BTreeMap<Phase, PathBuf>,
    /// `testing/ready`
    pub ready: Option<PathBuf>,
    /// `testing/test`
    pub test: Option<PathBuf>,
    /// `files/`
    pub files: Option<PathBuf>,
    pub directory: PathBuf,
    digest: String,
}

/// Distribution packages of one OPKG, on one distribution.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PackageSet {
    pub common: Vec<String>,
    pub head: Vec<String>,
    pub compute: Vec<String>,
}

/// One thing in a package's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the package's directory.
    pub path: PathBuf,
    pub kind: EntryKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Directory,
    /// Only whether it is executable counts: the rest of the mode depends on the umask it was checked out under.
    File {
        executable: bool,
    },
    /// Only below `files/`; a path in the image.
    Symlink(PathBuf),
}

const TOP: [&str; 5] = ["opkg.toml", "scripts", "testing", "doc", "files"];

impl Opkg {
    /// Loads the package in `directory`. It fails if a file is where none may be or a path leads outside.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let file = directory.join("opkg.toml");
        let text = fs::read_to_string(&file).map_err(Error::io(&file))?;
        let manifest = Manifest::parse(&file, &text);
        let mut problems = match &manifest {
            Err(Error::Bad(problems)) => problems.clone(),
            _ => Vec::new(),
        };
        let entries = walk(directory, &mut problems)?;
        let scripts = scripts(directory, &entries, &mut problems);
        let manifest = match manifest {
            Ok(manifest) if problems.is_empty() => manifest,
            Ok(_) | Err(Error::Bad(_)) => return Err(Error::Bad(problems)),
            Err(other) => return Err(other),
        };
        let has = |path: &str| {
            let found = entries.iter().any(|entry| entry.path == Path::new(path));
            found.then(|| directory.join(path))
        };
        Ok(Self {
            name: manifest.name,
            version: manifest.version,
            class: manifest.class,
            summary: manifest.summary,
            description: manifest.description,
            licence: manifest.licence,
            uri: manifest.uri,
            authors: manifest.authors,
            group: manifest.group,
            requires: manifest.requires,
            provides: manifest.provides,
            conflicts: manifest.conflicts,
            packages: manifest.packages,
            secrets: manifest.secrets,
            services: manifest.services,
            scripts,
            ready: has("testing/ready"),
            test: has("testing/test"),
            files: has("files"),
            directory: directory.to_owned(),
            digest: digest(directory, &entries)?,
        })
    }

    /// The distribution packages for this distribution: the lists of all tables that match, joined, each name once.
    pub fn packages_for(
        &self,
        distribution: &str,
        release: &str,
        architecture: &str,
    ) -> PackageSet {
        let fits =
            |filter: &Option<String>, value: &str| filter.as_deref().is_none_or(|f| f == value);
        let mut set = PackageSet::default();
        for table in &self.packages {
            if fits(&table.distribution, distribution)
                && fits(&table.release, release)
                && fits(&table.architecture, architecture)
            {
                join(&mut set.common, &table.common);
                join(&mut set.head, &table.head);
                join(&mut set.compute, &table.compute);
            }
        }
        set
    }

    /// Everything in the package, sorted by path.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let mut problems = Vec::new();
        let entries = walk(&self.directory, &mut problems)?;
        if problems.is_empty() {
            Ok(entries)
        } else {
            Err(Error::Bad(problems))
        }
    }

    /// BLAKE3 over the names, kinds and contents of all files as they were loaded, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What else a good package has. An empty list: nothing to complain about.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut want = |path: &str, given: bool, hint: &str| {
            if !given {
                problems.push(Problem {
                    file: self.directory.join(path),
                    place: None,
                    message: "is missing".to_owned(),
                    hint: Some(hint.to_owned()),
                });
            }
        };
        let readme = self.directory.join("doc/README.md").is_file();
        want(
            "doc/README.md",
            readme,
            "say what the package is for and how it is used",
        );
        let ready = "an executable that ends with 0 when the package works on this node";
        want("testing/ready", self.ready.is_some(), ready);
        if self.directory.file_name() != Some(OsStr::new(self.name.as_str())) {
            problems.push(Problem {
                file: self.directory.clone(),
                place: None,
                message: format!(
                    "the directory of package {} must be named {}",
                    self.name, self.name
                ),
                hint: None,
            });
        }
        for phase in self
            .scripts
            .keys()
            .filter(|phase| !Phase::RUN.contains(phase))
        {
            problems.push(Problem {
                file: self.directory.join("scripts").join(phase.as_str()),
                place: None,
                message: "scripts of this phase are not run by this version".to_owned(),
                hint: Some(format!(
                    "run are: {}",
                    Phase::RUN.map(Phase::as_str).join(", ")
                )),
            });
        }
        problems
    }
}

fn join(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn problem(problems: &mut Vec<Problem>, file: PathBuf, message: &str, hint: Option<String>) {
    problems.push(Problem {
        file,
        place: None,
        message: message.to_owned(),
        hint,
    });
}

/// Everything below `directory` by path; what must not be there becomes a problem.
fn walk(directory: &Path, problems: &mut Vec<Problem>) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let here = directory.join(&relative);
        for found in fs::read_dir(&here).map_err(Error::io(&here))? {
            let found = found.map_err(Error::io(&here))?;
            let path = relative.join(found.file_name());
            let full = found.path();
            // Not followed: a link is judged as a link.
            let meta = fs::symlink_metadata(&full).map_err(Error::io(&full))?;
            let in_files = path.starts_with("files");
            if relative.as_os_str().is_empty() {
                let name = found.file_name().to_string_lossy().into_owned();
                if !TOP.contains(&name.as_str()) {
                    problem(
                        problems,
                        full,
                        "has no place in a package",
                        Some(suggestion(&name, TOP)),
                    );
                    continue;
                }
                if meta.is_dir() == (name == "opkg.toml") || meta.is_symlink() {
                    problem(
                        problems,
                        full,
                        "must be a directory of the package (opkg.toml a file)",
                        None,
                    );
                    continue;
                }
            }
            let kind = if meta.is_dir() {
                todo.push(path.clone());
                EntryKind::Directory
            } else if meta.is_file() {
                EntryKind::File {
                    executable: meta.permissions().mode() & 0o100 != 0,
                }
            } else if meta.is_symlink() && in_files {
                let target = fs::read_link(&full).map_err(Error::io(&full))?;
                if escapes(path.strip_prefix("files").unwrap_or(&path), &target) {
                    let message = format!("is a link out of the image, to {}", target.display());
                    problem(problems, full, &message, None);
                    continue;
                }
                EntryKind::Symlink(target)
            } else {
                let hint =
                    "symbolic links are allowed below files/ only, devices and sockets nowhere";
                problem(
                    problems,
                    full,
                    "is neither a file nor a directory",
                    Some(hint.to_owned()),
                );
                continue;
            };
            entries.push(Entry { path, kind });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// Does a link at `path` (relative to the image's root) climb above the root on its way?
fn escapes(path: &Path, target: &Path) -> bool {
    let mut depth: i64 = if target.is_absolute() {
        0
    } else {
        path.components().count() as i64 - 1
    };
    for component in target.components() {
        match component {
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

fn scripts(
    directory: &Path,
    entries: &[Entry],
    problems: &mut Vec<Problem>,
) -> BTreeMap<Phase, PathBuf> {
    let mut scripts = BTreeMap::new();
    for entry in entries {
        let full = directory.join(&entry.path);
        let top = entry.path.parent().and_then(Path::to_str);
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
        let executable = entry.kind == EntryKind::File { executable: true };
        match top {
            Some("scripts") => match name.parse::<Phase>() {
                Err(unknown) => {
                    let hint = suggestion(&name, Phase::ALL.map(Phase::as_str));
                    problem(problems, full.clone(), &unknown.to_string(), Some(hint));
                }
                Ok(phase) => {
                    scripts.insert(phase, full.clone());
                }
            },
            Some("testing") if name == "ready" || name == "test" => {}
            _ => continue,
        }
        if !executable {
            let hint = format!("chmod +x {}", full.display());
            problem(problems, full, "must be an executable file", Some(hint));
        }
    }
    scripts
}

fn digest(directory: &Path, entries: &[Entry]) -> Result<String, Error> {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for entry in entries {
        field(entry.path.as_os_str().as_bytes());
        match &entry.kind {
            EntryKind::Directory => field(b"d"),
            EntryKind::Symlink(target) => {
                field(b"l");
                field(target.as_os_str().as_bytes());
            }
            EntryKind::File { executable } => {
                field(if *executable { b"x" } else { b"f" });
                let path = directory.join(&entry.path);
                field(&fs::read(&path).map_err(Error::io(path))?);
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

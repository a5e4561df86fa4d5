//! Packages by name, and names to an ordered list of packages.

use crate::error::{Error, nearest};
use crate::package::Opkg;
use api::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Directories of packages; the first that has a name wins.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    packages: BTreeMap<Name, Opkg>,
    notes: Vec<String>,
}

impl Repository {
    /// Loads all packages below the directories, e.g. the user's first and then the shipped ones
    /// ([`crate::unpack_shipped`]). A subdirectory without an `opkg.toml` is no package.
    pub fn open(dirs: &[PathBuf]) -> Result<Self, Error> {
        let mut repository = Self::default();
        let mut problems = Vec::new();
        for dir in dirs {
            for directory in subdirectories(dir)? {
                let name = directory
                    .file_name()
                    .and_then(|n| n.to_str())
                    .and_then(|n| Name::new(n).ok());
                if let Some(winner) = name.and_then(|name| repository.packages.get(&name)) {
                    repository.notes.push(format!(
                        "package {} is taken from {}, not from {}",
                        winner.name,
                        winner.directory.display(),
                        directory.display()
                    ));
                    continue;
                }
                match Opkg::load(&directory) {
                    Ok(package)
                        if directory.file_name() != Some(package.name.as_str().as_ref()) =>
                    {
                        problems.push(crate::Problem {
                            file: directory.join("opkg.toml"),
                            place: None,
                            message: format!(
                                "package {} must lie in a directory of that name",
                                package.name
                            ),
                            hint: Some(format!(
                                "rename {} to {}",
                                directory.display(),
                                package.name
                            )),
                        });
                    }
                    Ok(package) => {
                        repository.packages.insert(package.name.clone(), package);
                    }
                    Err(Error::Bad(more)) => problems.extend(more),
                    Err(other) => return Err(other),
                }
            }
        }
        if problems.is_empty() {
            Ok(repository)
        } else {
            Err(Error::Bad(problems))
        }
    }

    /// What the user should know: which package hides which.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub fn get(&self, name: &Name) -> Option<&Opkg> {
        self.packages.get(name)
    }

    /// All packages by name.
    pub fn packages(&self) -> impl Iterator<Item = &Opkg> {
        self.packages.values()
    }

    /// The packages asked for and those they require, each after what it requires and otherwise as asked. All that is
    /// wrong is told at once.
    pub fn resolve(&self, names: &[Name]) -> Result<Vec<Opkg>, Error> {
        let mut search = Search {
            repository: self,
            asked: names,
            order: Vec::new(),
            done: BTreeSet::new(),
            path: Vec::new(),
            wrong: BTreeSet::new(),
        };
        for name in names {
            search.visit(name);
        }
        search.conflicts();
        if search.wrong.is_empty() {
            Ok(search.order.into_iter().cloned().collect())
        } else {
            Err(Error::Unresolved(search.wrong.into_iter().collect()))
        }
    }
}

struct Search<'a> {
    repository: &'a Repository,
    asked: &'a [Name],
    order: Vec<&'a Opkg>,
    done: BTreeSet<&'a Name>,
    /// From the package asked for to the one at hand.
    path: Vec<&'a Name>,
    wrong: BTreeSet<String>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, name: &Name) {
        let Some(package) = self.find(name) else {
            let by = match self.path.last() {
                Some(by) => format!(", which {by} requires"),
                None => String::new(),
            };
            let known = || self.repository.packages.keys().map(Name::as_str);
            let hint = match nearest(name.as_str(), known()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are: {}", known().collect::<Vec<_>>().join(", ")),
            };
            self.wrong
                .insert(format!("there is no package {name}{by}\n  hint: {hint}"));
            return;
        };
        if let Some(start) = self.path.iter().position(|n| **n == package.name) {
            let mut circle: Vec<&str> = self.path[start..].iter().map(|n| n.as_str()).collect();
            circle.push(package.name.as_str());
            self.wrong.insert(format!(
                "packages require each other in a circle: {}",
                circle.join(" → ")
            ));
            return;
        }
        if !self.done.insert(&package.name) {
            return;
        }
        self.path.push(&package.name);
        for required in &package.requires {
            self.visit(required);
        }
        self.path.pop();
        self.order.push(package);
    }

    /// By name, else a package that provides it: one that is chosen or asked for before any other.
    fn find(&self, name: &Name) -> Option<&'a Opkg> {
        if let Some(package) = self.repository.packages.get(name) {
            return Some(package);
        }
        let providers: Vec<&Opkg> = self
            .repository
            .packages
            .values()
            .filter(|p| p.provides.contains(name))
            .collect();
        let wanted = |p: &&&Opkg| self.done.contains(&p.name) || self.asked.contains(&p.name);
        providers.iter().find(wanted).or(providers.first()).copied()
    }

    fn conflicts(&mut self) {
        for a in &self.order {
            for b in &self.order {
                let hit = a
                    .conflicts
                    .iter()
                    .any(|c| *c == b.name || b.provides.contains(c));
                if hit && a.name != b.name {
                    let (first, second) = if a.name < b.name { (a, b) } else { (b, a) };
                    self.wrong.insert(format!(
                        "packages {} and {} conflict\n  hint: take one of them out",
                        first.name, second.name
                    ));
                }
            }
        }
    }
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        if path.join("opkg.toml").is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

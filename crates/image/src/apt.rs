//! What apt is told, and what it says: counted for progress, read for the reason when it fails.

use crate::sandbox::Failed;
use crate::{Error, Result};
use api::{Progress, Unit};
use std::path::Path;
use std::process::Command;

/// No manual pages, documentation and translations in images; licences stay.
pub(crate) const DPKG_OPTIONS: &str = "force-unsafe-io
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-include=/usr/share/doc/*/examples
path-include=/usr/share/doc/*/examples/*
path-exclude=/usr/share/lintian/*
";

const SETTINGS: &str = r#"APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "root";
APT::Color "false";
APT::Keep-Downloaded-Packages "true";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Use-Pty "false";
"#;

/// mmdebstrap gives apt options for dpkg of its own, and no others may come between them.
const DPKG_SETTINGS: &str = r#"DPkg::Options { "--force-unsafe-io"; "--force-confdef"; "--force-confold"; };
"#;

/// Settings of this machine's apt that decide whether a mirror can be reached and believed.
const OF_THE_MACHINE: [&str; 5] = [
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::ForceIPv4",
];

/// apt's configuration inside an image that is being built: for mmdebstrap, and for apt in the finished base.
pub(crate) fn settings() -> (String, String) {
    let mut text = SETTINGS.to_owned();
    for name in OF_THE_MACHINE {
        // A machine without apt-config has no settings worth keeping.
        let Ok(output) = Command::new("apt-config")
            .args(["dump", "--format", "%v", name])
            .output()
        else {
            continue;
        };
        let value = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !value.is_empty() && !value.contains(['"', '\n', '\\']) {
            text += &format!("{name} \"{value}\";\n");
        }
    }
    let full = text.clone() + DPKG_SETTINGS;
    (text, full)
}

/// Reads the output of apt and dpkg line by line and tells how far they are. Two units for each package: unpacked, set up.
pub(crate) struct Watch<'a> {
    progress: &'a Progress,
    stage: &'a str,
    done: u64,
    total: u64,
    started: bool,
    /// What apt says it will use on disk, in MiB, all runs together.
    pub needed: u64,
}

impl<'a> Watch<'a> {
    pub fn new(progress: &'a Progress, stage: &'a str) -> Self {
        Self {
            progress,
            stage,
            done: 0,
            total: 0,
            started: false,
            needed: 0,
        }
    }

    pub fn line(&mut self, line: &str) {
        if !self.started {
            self.started = true;
            self.progress.started(self.stage, None, Unit::Items);
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let message = match words.as_slice() {
            ["Get:" | "Fetched", ..] => line.to_owned(),
            [get, ..] if get.starts_with("Get:") => {
                format!("downloading {}", words.get(4).unwrap_or(&""))
            }
            ["Unpacking", package, ..] => {
                self.done += 1;
                format!("unpacking {package}")
            }
            ["Setting", "up", package, ..] => {
                self.done += 1;
                format!("setting up {package}")
            }
            ["I:", ..] => line.trim_start_matches("I: ").to_owned(),
            [
                ..,
                "newly",
                "installed,",
                _,
                "to",
                "remove",
                "and",
                _,
                "not",
                "upgraded.",
            ] => {
                let count = words
                    .iter()
                    .position(|w| *w == "newly")
                    .and_then(|i| words.get(i.wrapping_sub(1)));
                self.total += 2 * count.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
                return;
            }
            ["After", "this", "operation,", number, unit, ..] => {
                let number: f64 = number.replace(',', "").parse().unwrap_or(0.0);
                self.needed += match *unit {
                    "kB" => 1,
                    "MB" => number as u64,
                    "GB" => (number * 1000.0) as u64,
                    _ => 0,
                };
                return;
            }
            _ => return,
        };
        let total = (self.total >= self.done && self.total > 0).then_some(self.total);
        self.progress
            .advanced(self.stage, self.done, total, message);
    }
}

/// Where the packages that failed were asked for.
pub(crate) struct Request<'a> {
    pub step: &'a str,
    pub place: &'a str,
    pub distribution: &'a str,
    pub release: &'a str,
    pub state: &'a Path,
    pub needed: u64,
}

/// The reason, in the words of apt where it has some.
pub(crate) fn explain(failed: &Failed, log: &Path, request: &Request<'_>) -> Error {
    let lines = &failed.lines;
    if let Some(error) = disk_full(lines, request.state, request.needed) {
        return error;
    }
    let mut names: Vec<String> = Vec::new();
    let mut said: Vec<&str> = Vec::new();
    let mut download = Vec::new();
    for line in lines {
        if let Some(name) = unknown_package(line) {
            if !names.contains(&name) {
                names.push(name);
                said.push(line);
            }
        } else if [
            "Failed to fetch",
            "Could not connect",
            "Could not resolve",
            "Unable to connect",
            "Hash Sum mismatch",
        ]
        .iter()
        .any(|words| line.contains(words))
            || line.contains("does not have a Release file")
            || line.contains("is not signed")
        {
            download.push(line.as_str());
        }
    }
    if !names.is_empty() {
        return Error::NoPackage {
            names,
            distribution: request.distribution.to_owned(),
            release: request.release.to_owned(),
            place: request.place.to_owned(),
            said: said.join("\n             "),
        };
    }
    if !download.is_empty() {
        download.dedup();
        download.truncate(6);
        return Error::Download {
            said: download.join("\n             "),
        };
    }
    let errors: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|l| is_error(l))
        .collect();
    let said = if errors.is_empty() {
        lines
            .iter()
            .rev()
            .take(8)
            .rev()
            .map(String::as_str)
            .collect()
    } else {
        errors
    };
    Error::Step {
        step: request.step.to_owned(),
        how: failed.status.to_string(),
        said: said.join("\n           "),
        log: log.to_owned(),
    }
}

fn is_error(line: &str) -> bool {
    [
        "E:",
        "W: Fail",
        "dpkg: error",
        "mmdebstrap failed",
        "Errors were",
    ]
    .iter()
    .any(|start| line.starts_with(start))
        || line.contains("Depends:")
        || line.contains("returned error exit status")
}

/// The package in "E: Unable to locate package x", "E: Package 'x' has no installation candidate" and
/// "E: Version '1' for 'x' was not found".
fn unknown_package(line: &str) -> Option<String> {
    if let Some((_, name)) = line.split_once("Unable to locate package ") {
        return Some(name.trim().to_owned());
    }
    let quoted: Vec<&str> = line.split('\'').collect();
    if line.contains("has no installation candidate") {
        return quoted.get(1).map(|n| (*n).to_owned());
    }
    if line.contains("Version '") && line.contains("was not found") {
        return Some(format!("{}={}", quoted.get(3)?, quoted.get(1)?));
    }
    None
}

/// If a program failed because the disk is full, says so with the figures.
pub(crate) fn disk_full(lines: &[String], state: &Path, needed: u64) -> Option<Error> {
    let full = |line: &String| {
        line.contains("No space left on device")
            || line.contains("You don't have enough free space")
            || line.contains("Could not allocate block in ext2")
    };
    lines.iter().any(full).then(|| full_error(state, needed))
}

pub(crate) fn full_error(state: &Path, needed: u64) -> Error {
    Error::DiskFull {
        path: state.to_owned(),
        free: free(state).unwrap_or(0),
        needed: needed.max(1),
    }
}

/// Free space in MiB for this user.
pub(crate) fn free(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path).map_err(|e| Error::io(path)(e.into()))?;
    Ok((stat.f_bavail * stat.f_frsize) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::sync::{Arc, Mutex};

    fn failed(lines: &[&str]) -> Error {
        let failed = Failed {
            status: std::process::ExitStatus::from_raw(100 << 8),
            lines: lines.iter().map(|l| (*l).to_owned()).collect(),
        };
        let request = Request {
            step: "packages",
            place: "the recipe's packages",
            distribution: "debian",
            release: "bookworm",
            state: Path::new("/"),
            needed: 300,
        };
        explain(&failed, Path::new("/log"), &request)
    }

    #[test]
    fn reasons() {
        let error = failed(&[
            "E: Unable to locate package slrum",
            "E: Package 'x' has no installation candidate",
        ]);
        assert!(matches!(error, Error::NoPackage { names, .. } if names == ["slrum", "x"]));
        let error = failed(&["E: Version '9' for 'hello' was not found"]);
        assert!(matches!(error, Error::NoPackage { names, .. } if names == ["hello=9"]));
        let error = failed(&[
            "Err:1 http://x",
            "E: Failed to fetch http://x  Could not resolve 'x'",
        ]);
        assert!(matches!(error, Error::Download { said } if said.contains("Could not resolve")));
        let error = failed(&["tar: x: Cannot write: No space left on device"]);
        assert!(matches!(error, Error::DiskFull { needed: 300, .. }));
        let error = failed(&["noise", "dpkg: error processing package x"]);
        assert!(
            matches!(error, Error::Step { said, .. } if said == "dpkg: error processing package x")
        );
    }

    #[test]
    fn progress_never_goes_backwards() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heard = seen.clone();
        let progress = Progress::new(move |event| {
            if let api::Event::Advanced { done, total, .. } = event {
                heard.lock().unwrap().push((done, total));
            }
        });
        let mut watch = Watch::new(&progress, "packages");
        for line in [
            "0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.",
            "After this operation, 1,284 MB of additional disk space will be used.",
            "Unpacking hello (1) ...",
            "Setting up hello (1) ...",
        ] {
            watch.line(line);
        }
        assert_eq!(*seen.lock().unwrap(), [(1, Some(2)), (2, Some(2))]);
        assert_eq!(watch.needed, 1284);
    }
}

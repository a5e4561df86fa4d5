//! What all our command lines share: how results, messages, progress and errors look, and how a console is joined to a
//! terminal. A program says what it has to say; here it becomes a table or JSON, colours or none.

pub mod console;
pub mod exit;
pub mod file;
pub mod generate;
pub mod progress;
mod screen;
pub mod table;
pub mod time;

pub use exit::printable;
pub use screen::{Form, Output, Screen, When, colors, consent, print};

use anyhow::{Context as _, Result};
use exit::{Code, Failure};
use std::path::PathBuf;

/// Where a program keeps what it makes, if nobody says otherwise: root has the machine's place, others have their own by
/// the XDG Base Directory Specification. `variable` is what to set where neither is known.
pub fn default_state(program: &str, variable: &str) -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib").join(program));
    }
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|p| p.is_absolute())
    };
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    let data = data.ok_or_else(|| {
        Failure::new(Code::Usage, "no place to keep anything in: HOME is not set")
            .hint(format!("name one with --state DIR or {variable}"))
    })?;
    Ok(data.join(program))
}

/// For commands that do many things at once.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    built.context("threads could not be started")
}

/// For commands that mostly wait.
pub fn small_runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    built.context("the event loop could not be started")
}

/// Programs that are not on the path, of these with their packages: what is missing, and what mends it.
pub fn absent(programs: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let missing = programs.iter().filter(|(program, _)| !there(program));
    missing
        .map(|(program, package)| {
            (
                format!("{program} is not installed"),
                Some(format!("sudo apt-get install {package}")),
            )
        })
        .collect()
}

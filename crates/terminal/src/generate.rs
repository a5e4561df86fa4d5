//! What a command line says of itself: completion, man pages, exit codes, version.

use crate::{Screen, print};
use anyhow::{Context as _, Result};
use std::path::Path;

/// The completion of a shell, to standard output.
pub fn completion(
    shell: clap_complete::Shell,
    name: &'static str,
    all: &clap::Command,
) -> Result<()> {
    let mut script = Vec::new();
    // Without what only programs call: completion does not leave hidden commands out by itself.
    let shown = all.get_subcommands().filter(|c| !c.is_hide_set()).cloned();
    let mut visible = clap::Command::new(name)
        .args(all.get_arguments().cloned())
        .subcommands(shown);
    // So that there is a --version to complete.
    if all.get_version().is_some() {
        visible = visible.version("");
    }
    clap_complete::generate(shell, &mut visible, name, &mut script);
    print(script)
}

/// One page for each command, and one for all of it.
pub fn man(screen: &Screen, command: clap::Command, dir: &Path) -> Result<()> {
    let name = command.get_name().to_owned();
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    clap_mangen::generate_to(command.disable_help_subcommand(true), dir)
        .with_context(|| format!("man pages cannot be written into {}", dir.display()))?;
    let dir = dir.display();
    screen.say(format!(
        "man pages are in {dir}; read them with: man {dir}/{name}.1"
    ));
    Ok(())
}

/// A program's version, in words or as a document.
pub fn version(screen: &Screen, name: &str, version: &str) -> Result<()> {
    match screen.json() {
        true => screen.document(&serde_json::json!({ "version": version })),
        false => print(format!("{name} {version}\n")),
    }
}

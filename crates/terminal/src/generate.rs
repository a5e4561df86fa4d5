//! What a command line says of itself: completion and man pages.

use crate::print;
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
pub fn man(command: clap::Command, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    clap_mangen::generate_to(command.disable_help_subcommand(true), dir)
        .with_context(|| format!("man pages cannot be written into {}", dir.display()))
}

//! The original's way to speak: `v2m PROFILE --ACTION`. It becomes a command of today's.

use std::ffi::{OsStr, OsString};

/// The words of the original's actions, and today's.
const ACTIONS: [(&str, &[&str]); 8] = [
    ("--validate-profile", &["validate"]),
    ("--boot-vm", &["start"]),
    ("--create-vm-image-from-cdrom", &["create-image-from-cdrom"]),
    ("--install-vm-with-oscar", &["install-with-oscar"]),
    ("--migrate-vm", &["migrate"]),
    ("--pause-vm", &["pause"]),
    ("--unpause-vm", &["resume"]),
    ("--status", &["status", "--word"]),
];

/// The same in today's words; none where it is today's already. The profile may stand on either side of the action.
pub fn translated(words: &[OsString]) -> Option<Vec<OsString>> {
    let (program, rest) = words.split_first()?;
    let action = |word: &OsStr| ACTIONS.iter().find(|(old, _)| word == *old);
    let (at, (_, new)) = rest
        .iter()
        .enumerate()
        .find_map(|(at, word)| Some((at, action(word)?)))?;
    // After another command it is that command's option.
    let first = rest.first()?;
    let is_path = |word: &OsStr| {
        let text = word.to_string_lossy();
        text.contains(['/', '.']) || std::path::Path::new(word).is_file()
    };
    if at != 0 && !(at == 1 && (is_path(first) || !is_command(first))) {
        return None;
    }
    let mut out = vec![program.clone()];
    out.extend(new.iter().map(OsString::from));
    let before = rest.get(..at).unwrap_or_default();
    let after = rest.get(at + 1..).unwrap_or_default();
    out.extend(before.iter().chain(after).cloned());
    Some(out)
}

fn is_command(word: &OsStr) -> bool {
    use clap::CommandFactory;
    let command = crate::args::Cli::command();
    word.to_str().is_some_and(|word| {
        let is = |c: &clap::Command| c.get_name() == word || c.get_all_aliases().any(|a| a == word);
        word.starts_with('-') || word == "help" || command.get_subcommands().any(is)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today(words: &[&str]) -> Option<Vec<String>> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let new = translated(&words)?;
        Some(
            new.iter()
                .map(|w| w.to_string_lossy().into_owned())
                .collect(),
        )
    }

    #[test]
    fn the_originals_actions() {
        let is = |old: &[&str], new: &[&str]| {
            let new: Vec<String> = new.iter().map(|w| (*w).to_owned()).collect();
            assert_eq!(today(old), Some(new), "{old:?}");
        };
        is(&["v2m", "a.xml", "--boot-vm"], &["v2m", "start", "a.xml"]);
        is(&["v2m", "--boot-vm", "a.xml"], &["v2m", "start", "a.xml"]);
        is(
            &["v2m", "a.xml", "--migrate-vm", "n1"],
            &["v2m", "migrate", "a.xml", "n1"],
        );
        is(
            &["v2m", "a.xml", "--status", "--output", "json"],
            &["v2m", "status", "--word", "a.xml", "--output", "json"],
        );
    }

    #[test]
    fn what_is_todays_stays() {
        assert_eq!(today(&["v2m", "start", "a.xml"]), None);
        assert_eq!(today(&["v2m", "list", "--status"]), None);
        assert_eq!(today(&["v2m"]), None);
    }
}

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

/// Global options that take their value from the next word.
const WITH_VALUE: [&str; 4] = ["--state", "--output", "--progress", "--color"];

/// The same in today's words; none where it is today's already. The profile may stand on either side of the action, and
/// global options anywhere.
pub fn translated(words: &[OsString]) -> Option<Vec<OsString>> {
    let (program, rest) = words.split_first()?;
    let action = |word: &OsStr| ACTIONS.iter().find(|(old, _)| word == *old);
    let (at, (_, new)) = rest
        .iter()
        .enumerate()
        .find_map(|(at, word)| Some((at, action(word)?)))?;
    let before = rest.get(..at).unwrap_or_default();
    // After another command it is that command's option.
    if operand(before).is_some_and(|first| !is_path(first) && is_command(first)) {
        return None;
    }
    let mut out = vec![program.clone()];
    out.extend(new.iter().map(OsString::from));
    let after = rest.get(at + 1..).unwrap_or_default();
    out.extend(before.iter().chain(after).cloned());
    Some(out)
}

/// What to say to who named a profile and nothing to do with it.
pub fn hint(words: &[OsString]) -> Option<String> {
    let first = operand(words.get(1..)?)?;
    let profile = terminal::printable(&first.to_string_lossy());
    is_path(first).then(|| format!("to start what a profile says: v2m start {profile}"))
}

/// The first word that is no option, nor the value of one.
fn operand(words: &[OsString]) -> Option<&OsStr> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if WITH_VALUE.iter().any(|option| word == option) {
            words.next();
        } else if !word.to_string_lossy().starts_with('-') || word == "-" {
            return Some(word);
        }
    }
    None
}

fn is_path(word: &OsStr) -> bool {
    word.to_string_lossy().contains(['/', '.']) || std::path::Path::new(word).is_file()
}

fn is_command(word: &OsStr) -> bool {
    use clap::CommandFactory;
    let command = crate::args::Cli::command();
    word.to_str().is_some_and(|word| {
        let is = |c: &clap::Command| c.get_name() == word || c.get_all_aliases().any(|a| a == word);
        word == "help" || command.get_subcommands().any(is)
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
    fn global_options_may_stand_anywhere() {
        let is = |old: &[&str], new: &[&str]| {
            let new: Vec<String> = new.iter().map(|w| (*w).to_owned()).collect();
            assert_eq!(today(old), Some(new), "{old:?}");
        };
        is(
            &["v2m", "-v", "a.xml", "--boot-vm"],
            &["v2m", "start", "-v", "a.xml"],
        );
        is(
            &["v2m", "a.xml", "-v", "--boot-vm"],
            &["v2m", "start", "a.xml", "-v"],
        );
        is(
            &["v2m", "--output", "json", "a.xml", "--status"],
            &["v2m", "status", "--word", "--output", "json", "a.xml"],
        );
        is(
            &["v2m", "--state", "/list", "vm", "--pause-vm"],
            &["v2m", "pause", "--state", "/list", "vm"],
        );
        assert_eq!(today(&["v2m", "-v", "list", "--status"]), None);
    }

    #[test]
    fn a_profile_alone_gets_advice() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let hint = |all: &[&str]| super::hint(&words(all));
        assert_eq!(
            hint(&["v2m", "-v", "a.toml"]).unwrap(),
            "to start what a profile says: v2m start a.toml"
        );
        assert_eq!(hint(&["v2m", "strat"]), None);
        assert_eq!(hint(&["v2m"]), None);
    }

    #[test]
    fn what_is_todays_stays() {
        assert_eq!(today(&["v2m", "start", "a.xml"]), None);
        assert_eq!(today(&["v2m", "list", "--status"]), None);
        assert_eq!(today(&["v2m"]), None);
    }
}

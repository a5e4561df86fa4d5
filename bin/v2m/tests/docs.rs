//! The examples of docs/v2m.md are true: profiles are written, commands run, and what they say is compared.
//!
//! A block "toml file=NAME" is that file; in a block "console" each line that begins with `$ v2m` is run, and the lines
//! after it are what it says; a line `…` stands for any lines.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::Home;
use std::path::Path;

#[test]
fn the_examples_of_the_page() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/v2m.md");
    let page = std::fs::read_to_string(page).unwrap();
    let home = Home::new();
    let mut commands = 0;
    let mut blocks = page.split("```");
    blocks.next();
    while let (Some(block), _) = (blocks.next(), blocks.next()) {
        let (title, text) = block.split_once('\n').unwrap();
        match title.split_once(" file=") {
            Some(("toml", name)) => home.file(name, text),
            _ => {
                assert_eq!(title, "console", "an unknown kind of block");
                commands += run(&home, text);
            }
        }
    }
    assert!(commands > 15, "only {commands} commands were found");
}

fn run(home: &Home, text: &str) -> usize {
    let mut cases: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ v2m "), cases.last_mut()) {
            (Some(command), _) => cases.push((command, Vec::new())),
            (None, Some((_, said))) => said.push(line),
            (None, None) => panic!("{line:?} comes before a command"),
        }
    }
    for (command, wanted) in &cases {
        let words: Vec<&str> = command.split(' ').collect();
        let answer = home.ok(&words);
        let found = format!("{}{}", answer.err, answer.out);
        let found: Vec<&str> = found.lines().collect();
        assert!(fits(wanted, &found), "$ v2m {command}\n{found:#?}");
    }
    cases.len()
}

fn fits(wanted: &[&str], found: &[&str]) -> bool {
    match (wanted.split_first(), found.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), None) => fits(rest, found),
        (Some((&"…", rest)), Some((_, after))) => fits(rest, found) || fits(wanted, after),
        (Some((line, rest)), Some((said, after))) => line == said && fits(rest, after),
        _ => false,
    }
}

//! What many nodes answered, said once for all that answered the same.

use crate::{Outcome, Status, fold_names};
use api::Name;
use std::collections::HashMap;
use std::hash::Hash;

/// Nodes with the same answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Folded<'a> {
    /// As a node set: `compute[1-3]`.
    pub nodes: String,
    pub count: usize,
    pub status: &'a Status,
    pub stdout: &'a [u8],
    pub stderr: &'a [u8],
}

/// Same status, same output, same errors: one entry, in the order of its first node.
pub fn fold(outcomes: &[Outcome]) -> Vec<Folded<'_>> {
    let groups = group(outcomes, |o| (o.status.key(), &o.stdout, &o.stderr));
    let folded = groups.into_iter().map(|(first, nodes)| Folded {
        count: nodes.len(),
        nodes: fold_names(nodes),
        status: &first.status,
        stdout: &first.stdout,
        stderr: &first.stderr,
    });
    folded.collect()
}

/// The same by status alone: node sets and how it ended there.
pub fn fold_ends(outcomes: &[Outcome]) -> Vec<(String, &Status)> {
    let groups = group(outcomes, |o| o.status.key());
    let folded = groups.into_iter();
    folded
        .map(|(first, nodes)| (fold_names(nodes), &first.status))
        .collect()
}

type Groups<'a> = Vec<(&'a Outcome, Vec<&'a Name>)>;

fn group<'a, K: Hash + Eq>(outcomes: &'a [Outcome], key: impl Fn(&'a Outcome) -> K) -> Groups<'a> {
    let mut places = HashMap::new();
    let mut groups: Groups<'a> = Vec::new();
    for outcome in outcomes {
        let place = *places.entry(key(outcome)).or_insert_with(|| {
            groups.push((outcome, Vec::new()));
            groups.len() - 1
        });
        if let Some((_, nodes)) = groups.get_mut(place) {
            nodes.push(&outcome.node);
        }
    }
    groups
}

impl Status {
    fn key(&self) -> (u8, &str) {
        match self {
            Self::Exited(code) => (*code, ""),
            Self::TimedOut => (0, "timed out"),
            Self::Interrupted => (0, "interrupted"),
            Self::NotStarted(why) => (1, why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(node: &str, code: u8, stdout: &str) -> Outcome {
        Outcome {
            stdout: stdout.into(),
            ..Outcome::of(Name::new(node).unwrap(), Status::Exited(code))
        }
    }

    #[test]
    fn equal_answers_are_said_once() {
        let outcomes = [
            outcome("head", 0, "b\n"),
            outcome("compute1", 0, "a\n"),
            outcome("compute2", 1, "a\n"),
            outcome("compute3", 0, "a\n"),
        ];
        let folded = fold(&outcomes);
        let said: Vec<_> = folded.iter().map(|f| (f.nodes.as_str(), f.count)).collect();
        assert_eq!(
            fold_ends(&outcomes),
            [
                ("compute[1,3],head".to_owned(), &Status::Exited(0)),
                ("compute2".to_owned(), &Status::Exited(1))
            ]
        );
        assert_eq!(said, [("head", 1), ("compute[1,3]", 2), ("compute2", 1)]);
    }
}

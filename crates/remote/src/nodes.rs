//! Node sets: `compute[1-3],head`.

use api::Name;
use nodeset::{IdRangeList, NodeSet, Parser};
use std::collections::BTreeSet;

/// Why a text is not a set of nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNodes {
    #[error("{0:?} is not a node set; write it as in compute[1-3,7] or head,compute2")]
    Form(String),
    #[error("{text:?} is not a node set: {reason}")]
    Name { text: String, reason: api::BadName },
    #[error("a node set names at most {MOST} nodes, {0:?} names more")]
    TooMany(String),
}

/// More than any cluster has.
const MOST: u64 = 100_000;

/// The names in a set, in its order. Purely a matter of text: whether there are such nodes is another question.
pub fn parse_names(text: &str) -> Result<Vec<Name>, BadNodes> {
    let names = expand(text)?.into_iter().map(|name| {
        Name::new(&name).map_err(|reason| BadNodes::Name {
            text: text.to_owned(),
            reason,
        })
    });
    names.collect()
}

/// The same of hosts that are not nodes of ours: names as the system has them, with capital letters, `_` and domains.
pub fn parse_hosts(text: &str) -> Result<Vec<String>, BadNodes> {
    let names = expand(text)?;
    let fits = |name: &String| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        name.len() <= 253
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(plain)
    };
    match names.iter().all(fits) {
        true => Ok(names),
        false => Err(BadNodes::Form(text.to_owned())),
    }
}

/// At least one name, whatever it is.
fn expand(text: &str) -> Result<Vec<String>, BadNodes> {
    let form = || BadNodes::Form(text.to_owned());
    // The parser makes every number of a range at once: bound them before it sees them.
    let mut digits = 0;
    let mut size: u64 = 1;
    for (number, c) in text.chars().enumerate() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > 5 || number > 65_536 {
            return Err(BadNodes::TooMany(text.to_owned()));
        }
    }
    for list in text.split('[').skip(1) {
        let list = list.split(']').next().unwrap_or_default();
        let mut ids: u64 = 0;
        for range in list.split(',') {
            ids += match range.split_once('-') {
                None => 1,
                Some((a, b)) => {
                    let b = b.split('/').next().unwrap_or_default();
                    match (a.trim().parse::<u64>(), b.trim().parse::<u64>()) {
                        (Ok(a), Ok(b)) if a <= b => b - a + 1,
                        _ => return Err(form()),
                    }
                }
            };
        }
        size = size.saturating_mul(ids);
    }
    if size > MOST {
        return Err(BadNodes::TooMany(text.to_owned()));
    }
    // Groups of the host's own configuration files and set arithmetic are not ours.
    if text.contains(['@', '!', '&', '^', '%', '*', ' ']) {
        return Err(form());
    }
    let set: NodeSet<IdRangeList> = Parser::default().parse(text).map_err(|_| form())?;
    let names: Vec<String> = set.iter().collect();
    match names.is_empty() {
        true => Err(form()),
        false => Ok(names),
    }
}

/// The shortest way to write these nodes: `compute[1-3]`.
pub fn fold_names<'a>(names: impl IntoIterator<Item = &'a Name>) -> String {
    let names: BTreeSet<&Name> = names.into_iter().collect();
    let plain = names
        .iter()
        .map(|name| name.as_str())
        .collect::<Vec<_>>()
        .join(",");
    let folded = Parser::default()
        .parse::<IdRangeList>(&plain)
        .map(|set| set.to_string());
    match folded {
        // Only what reads back as the same nodes.
        Ok(folded)
            if parse_names(&folded)
                .is_ok_and(|read| read.iter().collect::<BTreeSet<_>>() == names) =>
        {
            folded
        }
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(text: &str) -> Vec<String> {
        let names = parse_names(text).unwrap();
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sets_are_read() {
        assert_eq!(names("head"), ["head"]);
        assert_eq!(names("compute[1-3]"), ["compute1", "compute2", "compute3"]);
        assert_eq!(names("a[1,3],b2"), ["a1", "a3", "b2"]);
        assert_eq!(names("n[1-9/4]"), ["n1", "n5", "n9"]);
        assert_eq!(names("rack[1-2]-n[1-2]").len(), 4);
    }

    #[test]
    fn hosts_have_names_of_their_own_kind() {
        let hosts = |text| parse_hosts(text).unwrap();
        assert_eq!(
            hosts("node[1-2].example.org"),
            ["node1.example.org", "node2.example.org"]
        );
        assert_eq!(hosts("gpu_[0-1]"), ["gpu_0", "gpu_1"]);
        assert_eq!(hosts("Node[09-10],x"), ["Node09", "Node10", "x"]);
        for bad in ["", "a/b", "../x", "_a", "-a", "a[1-", "a;b", "ä"] {
            assert!(parse_hosts(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bad_sets_are_told() {
        for bad in ["", "a[1-", "a[3-1]", "a b", "@all", "a!b", "a[x]", "a,,b"] {
            assert!(
                matches!(parse_names(bad), Err(BadNodes::Form(_))),
                "{bad:?}"
            );
        }
        for huge in ["a[1-4000000000]", "a[1-999999]", "a[1-9999]b[1-9999]"] {
            assert!(
                matches!(parse_names(huge), Err(BadNodes::TooMany(_))),
                "{huge}"
            );
        }
        assert!(matches!(parse_names("Head"), Err(BadNodes::Name { .. })));
        assert!(matches!(parse_names("../x"), Err(BadNodes::Name { .. })));
    }

    #[test]
    fn nodes_are_folded() {
        let all: Vec<Name> = ["compute10", "head", "compute2", "compute1", "compute3"]
            .map(|n| Name::new(n).unwrap())
            .to_vec();
        assert_eq!(fold_names(&all), "compute[1-3,10],head");
        assert_eq!(fold_names(&all[1..2]), "head");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[a-z0-9,\\-\\[\\]/!@ ]{0,24}") {
            let _ = parse_names(&text);
        }

        #[test]
        fn folding_loses_no_node(texts in prop::collection::btree_set("[a-c][a-c0-9]{0,3}(-[a-c0-9]{1,3})?", 1..12)) {
            let all: Vec<Name> = texts.iter().filter_map(|n| Name::new(n).ok()).collect();
            let folded = fold_names(&all);
            if let Ok(read) = parse_names(&folded) {
                let read: BTreeSet<_> = read.into_iter().collect();
                // Names that a node set cannot write come out as a plain list.
                if folded.contains('[') {
                    prop_assert_eq!(read, all.into_iter().collect::<BTreeSet<_>>());
                }
            }
        }
    }
}

//! Which nodes are meant: `[CLUSTER:]NODESET`.

use crate::exit::{Code, Failure};
use api::Name;

/// As written: the cluster may be missing, an empty set means all nodes.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub cluster: Option<Name>,
    pub set: String,
}

/// Splits a text into a cluster and a set. Without a colon it is a set.
pub fn parse(text: &str) -> Result<Target, Failure> {
    let Some((cluster, set)) = text.split_once(':') else {
        return Ok(Target {
            cluster: None,
            set: text.to_owned(),
        });
    };
    let cluster = Name::new(cluster).map_err(|why| {
        Failure::new(
            Code::Usage,
            format!("{cluster:?} is not a cluster's name: {why}"),
        )
        .hint("write nodes as CLUSTER:NODESET, for instance mpi:compute[1-3]")
    })?;
    Ok(Target {
        cluster: Some(cluster),
        set: set.to_owned(),
    })
}

/// What a set can name: nodes with their groups, in the order of the cluster.
#[derive(Clone, Debug)]
pub struct View {
    pub cluster: Name,
    pub head: Name,
    pub nodes: Vec<(Name, Name)>,
}

/// The nodes of a set in the order of the cluster, each once.
pub fn select(set: &str, view: &View) -> Result<Vec<Name>, Failure> {
    let all = view.nodes.iter().map(|(node, _)| node);
    if set.is_empty() || set == "all" {
        return Ok(all.cloned().collect());
    }
    let mut chosen = vec![false; view.nodes.len()];
    for part in parts(set) {
        let names = match Name::new(part) {
            Ok(name) => vec![name],
            Err(_) => {
                remote::parse_names(part).map_err(|e| Failure::new(Code::Usage, e.to_string()))?
            }
        };
        for name in names {
            if !choose(&name, view, &mut chosen) {
                return Err(unknown(&name, view));
            }
        }
    }
    let nodes = view.nodes.iter().zip(chosen);
    Ok(nodes
        .filter(|(_, chosen)| *chosen)
        .map(|((node, _), _)| node.clone())
        .collect())
}

/// A node before a group, a group before the words of ours.
fn choose(name: &Name, view: &View, chosen: &mut [bool]) -> bool {
    let is_node = view.nodes.iter().any(|(node, _)| node == name);
    let is_group = view.nodes.iter().any(|(_, group)| group == name);
    let mut found = false;
    for ((node, group), chosen) in view.nodes.iter().zip(chosen) {
        let hit = match (is_node, is_group) {
            (true, _) => node == name,
            (false, true) => group == name,
            (false, false) => {
                name.as_str() == "all" || (name.as_str() == "head" && *node == view.head)
            }
        };
        *chosen |= hit;
        found |= hit;
    }
    found
}

/// Exactly one node.
pub fn one(set: &str, view: &View) -> Result<Name, Failure> {
    let mut nodes = select(set, view)?;
    match (nodes.pop(), nodes.len()) {
        (Some(node), 0) => Ok(node),
        (_, others) => Err(Failure::new(
            Code::Usage,
            format!("one node is needed here, {set:?} is {}", others + 1),
        )
        .hint(format!(
            "the nodes are {}",
            remote::fold_names(view.nodes.iter().map(|(n, _)| n))
        ))),
    }
}

fn unknown(name: &Name, view: &View) -> Failure {
    let mut groups: Vec<&str> = view.nodes.iter().map(|(_, group)| group.as_str()).collect();
    groups.dedup();
    let nodes = remote::fold_names(view.nodes.iter().map(|(node, _)| node));
    Failure::new(
        Code::NotFound,
        format!("cluster {} has no node or group {name}", view.cluster),
    )
    .hint(format!("nodes: {nodes}; groups: {}", groups.join(", ")))
}

/// Between the commas that are outside of brackets.
fn parts(set: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    set.split(move |c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let name = |n: &str| Name::new(n).unwrap();
        let nodes = [
            ("head", "head"),
            ("compute1", "compute"),
            ("compute2", "compute"),
            ("compute3", "compute"),
            ("special-1", "gpu"),
        ];
        View {
            cluster: name("mpi"),
            head: name("head"),
            nodes: nodes.map(|(n, g)| (name(n), name(g))).to_vec(),
        }
    }

    fn chosen(set: &str) -> String {
        match select(set, &view()) {
            Ok(nodes) => nodes.iter().map(Name::as_str).collect::<Vec<_>>().join(" "),
            Err(e) => format!("{:?}: {e}", e.code),
        }
    }

    #[test]
    fn targets() {
        let target = |text| parse(text).map(|t| (t.cluster.map(|c| c.to_string()), t.set));
        assert_eq!(
            target("mpi:compute[1-3]").unwrap(),
            (Some("mpi".into()), "compute[1-3]".into())
        );
        assert_eq!(target("mpi:").unwrap(), (Some("mpi".into()), String::new()));
        assert_eq!(target("head").unwrap(), (None, "head".into()));
        assert!(target("../x:head").is_err());
        assert!(target(":head").is_err());
    }

    #[test]
    fn sets_are_chosen_in_the_order_of_the_cluster() {
        assert_eq!(
            chosen("compute[2-3],head,compute3"),
            "head compute2 compute3"
        );
        assert_eq!(chosen("compute"), "compute1 compute2 compute3");
        assert_eq!(chosen("gpu,head"), "head special-1");
        assert_eq!(chosen("special-1"), "special-1");
        assert_eq!(chosen(""), chosen("all"));
        assert_eq!(
            chosen("compute[2-9]"),
            "NotFound: cluster mpi has no node or group compute4"
        );
        assert_eq!(
            chosen("compute[2"),
            "Usage: \"compute[2\" is not a node set; write it as in compute[1-3,7] or head,compute2"
        );
    }

    #[test]
    fn one_node_is_one() {
        assert_eq!(one("head", &view()).unwrap().as_str(), "head");
        let error = one("compute", &view()).unwrap_err();
        assert_eq!(error.message, "one node is needed here, \"compute\" is 3");
    }
}

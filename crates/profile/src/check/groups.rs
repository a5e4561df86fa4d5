//! Groups of nodes: each for itself, then all together.

use super::network::large_enough;
use super::nodes::{Seen, nodes};
use super::{backend, name, one_of, twice};
use crate::error::{Found, Span, quoted};
use crate::model::{Backend, Group, Network, Role};
use crate::raw::{self, At, Field};
use api::{MiB, Name};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Nodes of one group.
const MOST: i64 = 10_000;
/// Nodes of all groups together.
const MOST_IN_ALL: u64 = 100_000;

const LEAST_MEMORY: MiB = MiB(128);
const LEAST_DISK: MiB = MiB(1024);

/// What one group says, as far as it can be read.
pub(super) struct Draft {
    pub(super) raw: raw::Group,
    pub(super) name: Option<Name>,
    pub(super) role: Option<Role>,
    pub(super) count: Option<usize>,
}

pub(super) fn check(
    raw: Field<Vec<raw::Group>>,
    cluster: Option<Backend>,
    network: Option<&Network>,
    found: &mut Found<'_>,
) -> Option<Vec<Group>> {
    let raw = match raw {
        Field::Given(at) if !at.value.is_empty() => at.value,
        Field::Bad => return None,
        Field::Absent | Field::Given(_) => {
            found
                .error(0..0, "the cluster has no group of nodes")
                .hint("a cluster has a head: write [[group]] and below it name = \"head\"")
                .doubtful();
            return None;
        }
    };
    let mut drafts: Vec<Draft> = raw.into_iter().map(|raw| draft(raw, found)).collect();
    unique_groups(&mut drafts, found);
    one_head(&drafts, found);
    let total: u64 = drafts
        .iter()
        .filter_map(|d| d.count)
        .map(|n| n as u64)
        .sum();
    if let (true, Some(last)) = (total > MOST_IN_ALL, drafts.last()) {
        let message = format!("the cluster has {total} nodes; at most {MOST_IN_ALL} are possible");
        let span = last.raw.count.given().map(|at| at.span.clone());
        found.error(span.unwrap_or(last.raw.place.clone()), message);
        return None;
    }
    if let Some(network) = network {
        room(&drafts, total, network, found);
    }
    let mut seen = Seen::default();
    let mut groups = Some(Vec::with_capacity(drafts.len()));
    for draft in drafts {
        match (
            group(draft, cluster, network, &mut seen, found),
            &mut groups,
        ) {
            (Some(group), Some(groups)) => groups.push(group),
            _ => groups = None,
        }
    }
    groups
}

fn draft(raw: raw::Group, found: &mut Found<'_>) -> Draft {
    let name = match &raw.name {
        Field::Given(at) => name(at, "a group", found),
        Field::Bad => None,
        Field::Absent => {
            found
                .error(raw.place.clone(), "this group has no name")
                .hint("write below it: name = \"compute\"")
                .doubtful();
            None
        }
    };
    let role = match (&raw.role, &name) {
        (Field::Given(at), _) => role(at, found),
        (Field::Absent, Some(name)) if name.as_str() == "head" => Some(Role::Head),
        (Field::Absent, Some(_)) => Some(Role::Compute),
        _ => None,
    };
    let pinned = raw.nodes.len();
    let count = match &raw.count {
        Field::Given(at) => count(at, pinned, role, found),
        Field::Bad => None,
        Field::Absent => {
            if let Some(name) = &name {
                let reason = if pinned > 1 {
                    "so many nodes are named"
                } else {
                    "default"
                };
                found.note(format!("group.{name}.count"), pinned.max(1), reason);
            }
            Some(pinned.max(1))
        }
    };
    Draft {
        raw,
        name,
        role,
        count,
    }
}

fn role(at: &At<String>, found: &mut Found<'_>) -> Option<Role> {
    match at.value.as_str() {
        "head" => Some(Role::Head),
        "compute" => Some(Role::Compute),
        _ => {
            one_of(at, "role", &["head", "compute"], &[], found);
            None
        }
    }
}

fn count(at: &At<i64>, pinned: usize, role: Option<Role>, found: &mut Found<'_>) -> Option<usize> {
    let (count, span) = (at.value, at.span.clone());
    if !(1..=MOST).contains(&count) {
        let message = format!("a group has 1 to {MOST} nodes, not {count}");
        let problem = found.error(span, message);
        if count == 0 {
            problem.hint("leave the group out to have none of its nodes");
        }
        return None;
    }
    let count = count as usize;
    if count < pinned {
        let message = format!("the count is {count}, but {pinned} nodes are described below it");
        let problem = found.error(span, message);
        problem.hint(format!("write count = {pinned}, or describe fewer nodes"));
        return None;
    }
    if role == Some(Role::Head) && count != 1 {
        let message = format!("the head is one node, not {count}");
        let problem = found.error(span, message);
        problem.hint("write count = 1; further nodes belong in a group with the role \"compute\"");
        return None;
    }
    Some(count)
}

/// A second group of a name is reported, and then has none, so that its nodes' names are not reported too.
fn unique_groups(drafts: &mut [Draft], found: &mut Found<'_>) {
    let mut seen: HashMap<Name, Span> = HashMap::new();
    for draft in drafts {
        let (Some(name), Field::Given(at)) = (&draft.name, &draft.raw.name) else {
            continue;
        };
        match seen.entry(name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(at.span.clone());
            }
            Entry::Occupied(first) => {
                let message = format!("two groups have the name {name}");
                twice(&at.span, first.get(), message, found);
                draft.name = None;
            }
        }
    }
}

fn one_head(drafts: &[Draft], found: &mut Found<'_>) {
    let place = |draft: &Draft| match (&draft.raw.role, &draft.raw.name) {
        (Field::Given(at), _) | (_, Field::Given(at)) => at.span.clone(),
        _ => draft.raw.place.clone(),
    };
    let mut heads = drafts.iter().filter(|d| d.role == Some(Role::Head));
    match heads.next() {
        Some(head) => {
            // A count that was left out can still be more than one, by its nodes.
            if head.raw.count.is_absent() && head.raw.nodes.len() > 1 {
                let nodes = head.raw.nodes.len();
                found.error(place(head), format!("the head is one node, not {nodes}"));
            }
            for more in heads {
                let message = "a second head: a cluster has exactly one".to_owned();
                let problem = twice(&place(more), &place(head), message, found);
                problem.hint("give one of the two groups role = \"compute\"");
            }
        }
        // A group whose role is not known may have been meant.
        None if drafts.iter().any(|d| d.role.is_none()) => {}
        None => {
            let first = drafts.first().map_or(0..0, place);
            found
                .error(first, "no group is the head")
                .hint("name a group \"head\", or give it role = \"head\"")
                .doubtful();
        }
    }
}

/// Does the subnet hold all nodes and the gateway?
fn room(drafts: &[Draft], total: u64, network: &Network, found: &mut Found<'_>) {
    let capacity = network.capacity();
    if total <= u64::from(capacity) {
        return;
    }
    let largest = drafts.iter().max_by_key(|d| d.count);
    let span = largest.map(|d| match &d.raw.count {
        Field::Given(at) => at.span.clone(),
        _ => d.raw.place.clone(),
    });
    let message = format!("{total} nodes do not fit into {network}: it has room for {capacity}");
    let (address, prefix) = large_enough(total, network.address);
    found
        .error(span.unwrap_or(0..0), message)
        .hint(format!(
            "write below [network]: subnet = \"{address}/{prefix}\""
        ))
        .doubtful();
}

fn group(
    draft: Draft,
    cluster: Option<Backend>,
    network: Option<&Network>,
    seen: &mut Seen,
    found: &mut Found<'_>,
) -> Option<Group> {
    let raw = &draft.raw;
    let label = draft.name.as_ref().map_or("", Name::as_str);
    let backend = match &raw.backend {
        Field::Given(at) => backend(at, found),
        Field::Bad => None,
        Field::Absent => cluster,
    };
    let cpus = match &raw.cpus {
        Field::Given(at) => cpus(at, found),
        Field::Bad => None,
        Field::Absent => {
            found.note(format!("group.{label}.cpus"), 1, "default");
            Some(1)
        }
    };
    let mut size = |key: &str, field: &Field<String>, least: MiB, default: MiB| match field {
        Field::Given(at) => size(at, key, least, found),
        Field::Bad => None,
        Field::Absent => {
            found.note(format!("group.{label}.{key}"), default, "default");
            Some(default)
        }
    };
    let memory = size("memory", &raw.memory, LEAST_MEMORY, MiB(512));
    let disk = size("disk", &raw.disk, LEAST_DISK, MiB(4096));
    let nodes = nodes(&draft, network, seen, found);
    Some(Group {
        role: draft.role?,
        backend: backend?,
        cpus: cpus?,
        memory: memory?,
        disk: disk?,
        nodes: nodes?,
        name: draft.name?,
    })
}

fn cpus(at: &At<i64>, found: &mut Found<'_>) -> Option<u16> {
    let cpus = u16::try_from(at.value).ok();
    let cpus = cpus.filter(|cpus| (1..=255).contains(cpus));
    if cpus.is_none() {
        let message = format!("a node has 1 to 255 CPUs, not {}", at.value);
        found.error(at.span.clone(), message);
    }
    cpus
}

fn size(at: &At<String>, key: &str, least: MiB, found: &mut Found<'_>) -> Option<MiB> {
    let text = quoted(&at.value);
    match at.value.parse::<MiB>() {
        Ok(size) if size >= least => Some(size),
        Ok(size) => {
            let message = format!("{size} of {key} is too little");
            let problem = found.error(at.span.clone(), message);
            problem.hint(format!("a node needs at least {least}"));
            None
        }
        Err(e) => {
            let problem = found.error(at.span.clone(), format!("{text} is not a {key} size: {e}"));
            let digits = at.value.trim();
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                problem.hint(format!("write {key} = \"{digits}M\" or \"{digits}G\""));
            }
            None
        }
    }
}

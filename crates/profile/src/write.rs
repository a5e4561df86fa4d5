//! Checked → TOML or XML: a file that says everything, so that reading it gives the same cluster again.
//!
//! What there is to say is a list of entries; each form is written from that.

use crate::model::{Cluster, Group, Node, Role};
use std::fmt::Write;

/// A key and its value.
pub(crate) struct Entry {
    key: &'static str,
    value: Value,
}

pub(crate) enum Value {
    Text(String),
    /// A number, true or false: without quotes in TOML.
    Bare(String),
    Texts(Vec<String>),
    Table(Vec<Entry>),
    /// None of them is said too.
    Tables(Vec<Vec<Entry>>),
}

impl Entry {
    pub fn new(key: &'static str, value: Value) -> Self {
        Self { key, value }
    }

    pub fn text(key: &'static str, value: impl Into<String>) -> Self {
        Self::new(key, Value::Text(value.into()))
    }

    pub fn number(key: &'static str, value: impl Into<u64>) -> Self {
        Self::new(key, Value::Bare(value.into().to_string()))
    }

    pub fn flag(key: &'static str, value: bool) -> Self {
        Self::new(key, Value::Bare(value.to_string()))
    }
}

/// The cluster as a file in TOML, with all that was filled in.
pub fn to_toml(cluster: &Cluster) -> String {
    toml(&entries(cluster))
}

/// The cluster as a file in XML, with all that was filled in.
pub fn cluster_to_xml(cluster: &Cluster) -> String {
    xml("cluster", &entries(cluster))
}

fn entries(cluster: &Cluster) -> Vec<Entry> {
    let image = &cluster.image;
    let opkgs = image.opkgs.iter().map(ToString::to_string).collect();
    let mut recipe = vec![
        Entry::text("distribution", &image.distribution),
        Entry::text("release", &image.release),
        Entry::new("packages", Value::Texts(image.packages.clone())),
        Entry::new("opkgs", Value::Texts(opkgs)),
    ];
    if let Some(kernel) = &image.kernel {
        recipe.push(Entry::text("kernel", kernel));
    }
    if let Some(mirror) = &image.mirror {
        recipe.push(Entry::text("mirror", mirror));
    }
    let network = vec![
        Entry::text("subnet", cluster.network.to_string()),
        Entry::text("domain", &cluster.network.domain),
        Entry::flag("nat", cluster.network.nat),
    ];
    let groups = cluster.groups.iter().map(|group| group_of(cluster, group));
    vec![
        Entry::text("name", cluster.name.as_str()),
        Entry::text("type", cluster.backend.as_str()),
        Entry::text("user", cluster.user.as_str()),
        Entry::new("image", Value::Table(recipe)),
        Entry::new("network", Value::Table(network)),
        Entry::new("group", Value::Tables(groups.collect())),
    ]
}

fn group_of(cluster: &Cluster, group: &Group) -> Vec<Entry> {
    let mut entries = vec![
        Entry::text("name", group.name.as_str()),
        Entry::text("role", group.role.as_str()),
    ];
    if group.backend != cluster.backend {
        entries.push(Entry::text("type", group.backend.as_str()));
    }
    entries.push(Entry::number("count", group.nodes.len() as u64));
    entries.push(Entry::number("cpus", group.cpus));
    entries.push(Entry::text("memory", group.memory.to_string()));
    entries.push(Entry::text("disk", group.disk.to_string()));
    let named = |at: usize, node: &Node| match group.role {
        Role::Head => node.name != group.name,
        Role::Compute => node.name.as_str() != format!("{}{}", group.name, at + 1),
    };
    let pinned = |(at, node): (usize, &Node)| {
        named(at, node) || node.mac.is_some() || node.address.is_some()
    };
    // The nth entry is the nth node: all are written up to the last one that says something.
    let last = group.nodes.iter().enumerate().rposition(pinned);
    let described = group.nodes.iter().enumerate();
    let nodes = described
        .take(last.map_or(0, |last| last + 1))
        .map(|(at, node)| {
            let mut entries = Vec::new();
            if named(at, node) {
                entries.push(Entry::text("name", node.name.as_str()));
            }
            if let Some(mac) = node.mac {
                entries.push(Entry::text("mac", mac.to_string()));
            }
            if let Some(address) = node.address {
                entries.push(Entry::text("address", address.to_string()));
            }
            entries
        });
    let nodes: Vec<_> = nodes.collect();
    if !nodes.is_empty() {
        entries.push(Entry::new("node", Value::Tables(nodes)));
    }
    entries
}

/// As TOML. Keys come before sections wherever a section could swallow them.
pub(crate) fn toml(entries: &[Entry]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = toml_table(&mut out, "", entries);
    out
}

fn toml_table(out: &mut String, path: &str, entries: &[Entry]) -> std::fmt::Result {
    let inner = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    for Entry { key, value } in entries {
        match value {
            Value::Text(text) => writeln!(out, "{key} = {}", quoted(text))?,
            Value::Bare(text) => writeln!(out, "{key} = {text}")?,
            Value::Texts(items) => {
                let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
                writeln!(out, "{key} = [{}]", items.join(", "))?;
            }
            Value::Tables(tables) if tables.is_empty() => writeln!(out, "{key} = []")?,
            Value::Table(_) | Value::Tables(_) => {}
        }
    }
    for Entry { key, value } in entries {
        match value {
            Value::Table(table) => {
                let path = inner(key);
                writeln!(out, "\n[{path}]")?;
                toml_table(out, &path, table)?;
            }
            Value::Tables(tables) => {
                let path = inner(key);
                for table in tables {
                    writeln!(out, "\n[[{path}]]")?;
                    toml_table(out, &path, table)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// As XML: each value an element.
pub(crate) fn xml(root: &str, entries: &[Entry]) -> String {
    let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    xml_table(&mut out, 0, root, entries);
    out
}

fn xml_table(out: &mut String, depth: usize, name: &str, entries: &[Entry]) {
    let indent = "  ".repeat(depth);
    if entries.is_empty() {
        out.push_str(&format!("{indent}<{name}/>\n"));
        return;
    }
    out.push_str(&format!("{indent}<{name}>\n"));
    for Entry { key, value } in entries {
        match value {
            Value::Text(text) | Value::Bare(text) => xml_text(out, depth + 1, key, text),
            Value::Texts(items) => {
                for item in items {
                    xml_text(out, depth + 1, key, item);
                }
            }
            Value::Table(table) => xml_table(out, depth + 1, key, table),
            Value::Tables(tables) if tables.is_empty() => {
                out.push_str(&format!("{indent}  <no-{key}/>\n"));
            }
            Value::Tables(tables) => {
                for table in tables {
                    xml_table(out, depth + 1, key, table);
                }
            }
        }
    }
    out.push_str(&format!("{indent}</{name}>\n"));
}

fn xml_text(out: &mut String, depth: usize, key: &str, text: &str) {
    // The reader drops the line end after the tag of a text of lines.
    let first = if text.contains('\n') { "\n" } else { "" };
    let indent = "  ".repeat(depth);
    out.push_str(&format!(
        "{indent}<{key}>{first}{}</{key}>\n",
        escaped(text)
    ));
}

/// Nothing of it is taken for markup, and no line end is changed by a parser.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#13;"),
            c => out.push(c),
        }
    }
    out
}

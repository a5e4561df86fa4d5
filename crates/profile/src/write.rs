//! Checked → TOML: a file that says everything, so that reading it gives the same cluster again.

use crate::model::{Cluster, Group, Node, Role};
use std::fmt::Write;

/// The cluster as a file, with all that was filled in.
pub fn to_toml(cluster: &Cluster) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_cluster(&mut out, cluster);
    out
}

fn write_cluster(out: &mut String, cluster: &Cluster) -> std::fmt::Result {
    writeln!(out, "name = {}", text(cluster.name.as_str()))?;
    writeln!(out, "type = {}", text(cluster.backend.as_str()))?;
    writeln!(out, "user = {}", text(cluster.user.as_str()))?;
    let image = &cluster.image;
    writeln!(out, "\n[image]")?;
    writeln!(out, "distribution = {}", text(&image.distribution))?;
    writeln!(out, "release = {}", text(&image.release))?;
    writeln!(out, "packages = {}", list(image.packages.iter()))?;
    let opkgs = image.opkgs.iter().map(|opkg| opkg.as_str());
    writeln!(out, "opkgs = {}", list(opkgs))?;
    if let Some(kernel) = &image.kernel {
        writeln!(out, "kernel = {}", text(kernel))?;
    }
    if let Some(mirror) = &image.mirror {
        writeln!(out, "mirror = {}", text(mirror))?;
    }
    let network = &cluster.network;
    writeln!(out, "\n[network]")?;
    writeln!(out, "subnet = {}", text(&network.to_string()))?;
    writeln!(out, "domain = {}", text(&network.domain))?;
    writeln!(out, "nat = {}", network.nat)?;
    for group in &cluster.groups {
        write_group(out, cluster, group)?;
    }
    Ok(())
}

fn write_group(out: &mut String, cluster: &Cluster, group: &Group) -> std::fmt::Result {
    writeln!(out, "\n[[group]]")?;
    writeln!(out, "name = {}", text(group.name.as_str()))?;
    writeln!(out, "role = {}", text(group.role.as_str()))?;
    if group.backend != cluster.backend {
        writeln!(out, "type = {}", text(group.backend.as_str()))?;
    }
    writeln!(out, "count = {}", group.nodes.len())?;
    writeln!(out, "cpus = {}", group.cpus)?;
    writeln!(out, "memory = {}", text(&group.memory.to_string()))?;
    writeln!(out, "disk = {}", text(&group.disk.to_string()))?;
    let named = |at: usize, node: &Node| match group.role {
        Role::Head => node.name != group.name,
        Role::Compute => node.name.as_str() != format!("{}{}", group.name, at + 1),
    };
    let pinned = |(at, node): (usize, &Node)| {
        named(at, node) || node.mac.is_some() || node.address.is_some()
    };
    // The nth entry is the nth node: all are written up to the last one that says something.
    let entries = group.nodes.iter().enumerate().rposition(pinned);
    let entries = entries.map_or(0, |last| last + 1);
    for (at, node) in group.nodes.iter().enumerate().take(entries) {
        writeln!(out, "\n[[group.node]]")?;
        if named(at, node) {
            writeln!(out, "name = {}", text(node.name.as_str()))?;
        }
        if let Some(mac) = node.mac {
            writeln!(out, "mac = {}", text(&mac.to_string()))?;
        }
        if let Some(address) = node.address {
            writeln!(out, "address = {}", text(&address.to_string()))?;
        }
    }
    Ok(())
}

fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list<T: AsRef<str>>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<_> = items.map(|item| text(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

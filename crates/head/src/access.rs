//! How to reach the nodes of a cluster: an ssh configuration of its own; nothing in `~/.ssh` is read or written.

use crate::Result;
use crate::identity::{self, Shared};
use crate::keys;
use crate::layout::{Layout, write};
use crate::record::Record;
use api::Name;
use profile::Role;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// What `ssh`, `exec`, `push` and the like need to know.
#[derive(Clone, Debug)]
pub struct Access {
    pub cluster: Name,
    pub ssh_config: PathBuf,
    pub user: Name,
    pub head: Name,
    /// In the order of the file.
    pub nodes: Vec<AccessNode>,
    /// The cluster's OPKGs in order.
    pub opkgs: Vec<Name>,
    /// The network's directory, for [`net::dial`].
    pub net: PathBuf,
}

#[derive(Clone, Debug)]
pub struct AccessNode {
    pub name: Name,
    pub group: Name,
    pub role: Role,
    pub address: Ipv4Addr,
}

impl Access {
    pub(crate) fn new(layout: &Layout, record: &Record) -> Self {
        let nodes = record.cluster.nodes().filter_map(|(group, node)| {
            Some(AccessNode {
                name: node.name.clone(),
                group: group.name.clone(),
                role: group.role,
                address: record.assigned(&node.name)?.address,
            })
        });
        Self {
            cluster: record.cluster.name.clone(),
            ssh_config: layout.ssh_config(),
            user: record.cluster.user.clone(),
            head: identity::head(record),
            nodes: nodes.collect(),
            opkgs: record.opkgs.clone(),
            net: layout.net(),
        }
    }
}

/// Writes `ssh_config` and `known_hosts` of a cluster.
pub(crate) fn write_files(
    layout: &Layout,
    record: &Record,
    shared: &Shared,
    state: &Path,
    program: &Path,
) -> Result<()> {
    write(
        &layout.known_hosts(),
        shared.known_hosts().as_bytes(),
        0o600,
    )?;
    let mut text = String::new();
    let _ = write!(
        text,
        "# ssh -F {config} NODE: the nodes of cluster {cluster}. Written by oscarv up.\n\
         Host *\n\
         \x20   User {user}\n\
         \x20   IdentityFile {key}\n\
         \x20   IdentitiesOnly yes\n\
         \x20   UserKnownHostsFile {known}\n\
         \x20   GlobalKnownHostsFile /dev/null\n\
         \x20   StrictHostKeyChecking yes\n\
         \x20   UpdateHostKeys no\n\
         \x20   PasswordAuthentication no\n\
         \x20   ConnectTimeout 60\n\
         \x20   ServerAliveInterval 30\n\
         \x20   LogLevel ERROR\n\
         \x20   ProxyCommand {program} --state {state} dial {cluster} %h %p\n\
         \x20   ProxyUseFdpass yes\n",
        config = layout.ssh_config().display(),
        cluster = record.cluster.name,
        user = record.cluster.user,
        key = quoted(&layout.keys().join(keys::ADMIN)),
        known = quoted(&layout.known_hosts()),
        program = for_shell(program),
        state = for_shell(state),
    );
    write(&layout.ssh_config(), text.as_bytes(), 0o600)
}

/// As ssh_config(5) takes an argument with blanks; `%` begins a token there.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

/// ssh hands the ProxyCommand to a shell, after it has replaced its `%` tokens.
fn for_shell(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%");
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_shell_of_the_proxy_command() {
        assert_eq!(for_shell(Path::new("/a b/it's 5%")), "'/a b/it'\\''s 5%%'");
    }
}

//! What makes a node itself, as a small disk in NoCloud form (label CIDATA, FAT).
//!
//! For foreign cloud images: `meta-data`, `user-data` and `network-config`, as cloud-init's NoCloud data source reads
//! them (https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html). For our own images the
//! directory `oscarv`, which `oscarv-init` installs before systemd starts: `facts` (`key=value`), `index` (one line a
//! file: `SOURCE MODE OWNER GROUP PATH`) and the files themselves.

use crate::keys::Missing;
use crate::layout::Layout;
use crate::record::Record;
use crate::{Error, Result, keys};
use api::Name;
use opkg::Opkg;
use profile::{Group, Node, Role};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Sparse, and large enough for the tables of 10,000 nodes: a running node's disk cannot grow.
const DISK: u64 = 8 << 20;
/// The cluster's user has this id on every node.
const USER_ID: u32 = 1000;

/// One file to be installed in a node.
#[derive(Clone)]
struct Entry {
    mode: u32,
    owner: String,
    path: String,
    content: Vec<u8>,
}

/// All that a node is told about itself.
#[derive(Clone)]
pub struct Identity {
    entries: Vec<Entry>,
    facts: String,
    cloud: [(&'static str, String); 3],
    /// Changes when anything of it does.
    pub digest: String,
}

/// What all nodes of a cluster are told alike; made once for all of them.
pub struct Shared {
    hosts: String,
    nodes: String,
    known_hosts: String,
    admin: keys::KeyPair,
    user: keys::KeyPair,
    secrets: Vec<Entry>,
    missing: Missing,
}

impl Shared {
    pub fn new(layout: &Layout, record: &Record, opkgs: &[Opkg], missing: Missing) -> Result<Self> {
        let cluster = &record.cluster;
        let mut shared = Self {
            hosts: "127.0.0.1 localhost\n".to_owned(),
            nodes: String::new(),
            known_hosts: String::new(),
            admin: keys::ssh_key(
                layout,
                keys::ADMIN,
                &format!("oscarv@{}", cluster.name),
                missing,
            )?,
            user: keys::ssh_key(
                layout,
                keys::USER,
                &format!("{}@{}", cluster.user, cluster.name),
                missing,
            )?,
            secrets: Vec::new(),
            missing,
        };
        let head = head(record);
        for (group, node) in cluster.nodes() {
            let Some(given) = record.assigned(&node.name) else {
                continue;
            };
            let name = &node.name;
            let alias = if *name == head && name.as_str() != "head" {
                " head"
            } else {
                ""
            };
            let _ = writeln!(
                shared.hosts,
                "{} {name}.{} {name}{alias}",
                given.address, cluster.network.domain
            );
            let _ = writeln!(
                shared.nodes,
                "{name} {} {} {} {} {} {}",
                given.address,
                given.mac,
                group.role.as_str(),
                group.name,
                group.cpus,
                group.memory.0
            );
            let key = host_key(layout, name, missing)?.bare();
            let _ = writeln!(
                shared.known_hosts,
                "{name},{name}.{},{} {key}",
                cluster.network.domain, given.address
            );
        }
        for opkg in opkgs {
            for secret in &opkg.secrets {
                shared.secrets.push(Entry {
                    mode: secret.mode,
                    owner: secret.owner.clone(),
                    path: secret.path.display().to_string(),
                    content: keys::secret(layout, &opkg.name, secret, missing)?,
                });
            }
        }
        Ok(shared)
    }

    /// For ssh on this host and on every node.
    pub fn known_hosts(&self) -> &str {
        &self.known_hosts
    }
}

fn host_key(layout: &Layout, node: &Name, missing: Missing) -> Result<keys::KeyPair> {
    keys::ssh_key(layout, &format!("host-{node}"), node.as_str(), missing)
}

/// The name of the head node.
pub fn head(record: &Record) -> Name {
    let mut nodes = record.cluster.nodes();
    let head = nodes
        .find(|(group, _)| group.role == Role::Head)
        .or_else(|| record.cluster.nodes().next());
    head.map_or_else(
        || record.cluster.name.clone(),
        |(_, node)| node.name.clone(),
    )
}

impl Identity {
    pub fn new(
        layout: &Layout,
        record: &Record,
        shared: &Shared,
        group: &Group,
        node: &Node,
    ) -> Result<Self> {
        let cluster = &record.cluster;
        let network = &cluster.network;
        let name = &node.name;
        let head = head(record);
        let given = record.assigned(name).ok_or_else(|| Error::NoSuchNode {
            name: cluster.name.clone(),
            node: name.clone(),
        })?;
        let head_address = record
            .assigned(&head)
            .map_or(given.address, |head| head.address);
        let host_key = host_key(layout, name, shared.missing)?;
        let machine =
            blake3::hash(format!("{}/{name}/{}", cluster.name, host_key.public).as_bytes())
                .to_hex();

        // Values are names, numbers and addresses only: scripts source this file.
        let mut facts = String::new();
        for (key, value) in [
            ("cluster", cluster.name.to_string()),
            ("hostname", name.to_string()),
            ("role", group.role.as_str().to_owned()),
            ("group", group.name.to_string()),
            ("head", head.to_string()),
            ("head_address", head_address.to_string()),
            ("user", cluster.user.to_string()),
            ("uid", USER_ID.to_string()),
            ("mac", given.mac.to_string()),
            ("address", given.address.to_string()),
            ("prefix", network.prefix.to_string()),
            ("gateway", network.gateway().to_string()),
            ("domain", network.domain.clone()),
            ("subnet", format!("{}/{}", network.address, network.prefix)),
            ("cpus", group.cpus.to_string()),
            ("memory", group.memory.0.to_string()),
        ] {
            let _ = writeln!(facts, "{key}={value}");
        }

        let authorized = format!("{}\n{}\n", shared.admin.public, shared.user.public);
        let resolv = format!(
            "search {}\nnameserver {}\n",
            network.domain,
            network.gateway()
        );
        let user_keys = format!("/etc/ssh/authorized_keys.d/{}", cluster.user);
        let entry = |mode: u32, path: &str, content: &str| Entry {
            mode,
            owner: "root".to_owned(),
            path: path.to_owned(),
            content: content.as_bytes().to_vec(),
        };
        let mut entries = vec![
            entry(0o644, "/etc/oscarv/facts", &facts),
            entry(0o644, "/etc/oscarv/nodes", &shared.nodes),
            entry(0o644, "/etc/hosts", &shared.hosts),
            entry(0o644, "/etc/hostname", &format!("{name}\n")),
            entry(0o444, "/etc/machine-id", &format!("{}\n", &machine[..32])),
            entry(0o644, "/etc/resolv.conf", &resolv),
            entry(0o644, "/etc/ssh/ssh_known_hosts", &shared.known_hosts),
            entry(0o600, "/etc/ssh/ssh_host_ed25519_key", &host_key.private),
            entry(
                0o644,
                "/etc/ssh/ssh_host_ed25519_key.pub",
                &format!("{}\n", host_key.public),
            ),
            entry(
                0o644,
                "/etc/ssh/authorized_keys.d/root",
                &format!("{}\n", shared.admin.public),
            ),
            entry(0o644, &user_keys, &authorized),
        ];
        if *name == head {
            entries.push(entry(0o600, "/etc/oscarv/user_key", &shared.user.private));
            entries.push(entry(
                0o644,
                "/etc/oscarv/user_key.pub",
                &format!("{}\n", shared.user.public),
            ));
        }
        entries.extend(shared.secrets.iter().map(|secret| Entry {
            mode: secret.mode,
            owner: secret.owner.clone(),
            path: secret.path.clone(),
            content: secret.content.clone(),
        }));

        let mut hash = blake3::Hasher::new();
        for entry in &entries {
            hash.update(
                format!(
                    "{:o} {} {} {}\n",
                    entry.mode,
                    entry.owner,
                    entry.path,
                    entry.content.len()
                )
                .as_bytes(),
            );
            hash.update(&entry.content);
        }
        let digest = hash.finalize().to_hex().to_string();
        let _ = writeln!(facts, "digest={digest}");
        let cloud = [
            (
                "meta-data",
                format!("instance-id: {}\nlocal-hostname: {name}\n", &digest[..32]),
            ),
            ("user-data", user_data(record, &host_key, shared)),
            ("network-config", network_config(record, given)),
        ];
        Ok(Self {
            entries,
            facts,
            cloud,
            digest,
        })
    }

    /// Writes the disk: a new one by rename, that of a running node in place, because QEMU has it open.
    pub fn write(&self, path: &Path, running: bool) -> Result<()> {
        let mut half = path.as_os_str().to_owned();
        half.push(".new");
        let half = Path::new(&half);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(half)
            .map_err(Error::io(half))?;
        self.fill(file).map_err(Error::io(half))?;
        if running {
            let new = fs::read(half).map_err(Error::io(half))?;
            rewrite(path, &new).map_err(Error::io(path))?;
            return fs::remove_file(half).map_err(Error::io(half));
        }
        fs::rename(half, path).map_err(Error::io(path))
    }

    fn fill(&self, mut disk: File) -> std::io::Result<()> {
        disk.set_len(DISK)?;
        fatfs::format_volume(
            &mut disk,
            fatfs::FormatVolumeOptions::new().volume_label(*b"CIDATA     "),
        )?;
        let volume = fatfs::FileSystem::new(disk, fatfs::FsOptions::new())?;
        let root = volume.root_dir();
        for (name, content) in &self.cloud {
            root.create_file(name)?.write_all(content.as_bytes())?;
        }
        let ours = root.create_dir("oscarv")?;
        ours.create_file("facts")?
            .write_all(self.facts.as_bytes())?;
        let mut index = String::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let source = format!("f{number}");
            let Entry {
                mode, owner, path, ..
            } = entry;
            // The group of a system user has the user's name on every distribution we build.
            let _ = writeln!(index, "{source} {mode:04o} {owner} {owner} {path}");
            ours.create_file(&source)?.write_all(&entry.content)?;
        }
        ours.create_file("index")?.write_all(index.as_bytes())
    }
}

/// Writes what differs, in place. Killed in between, the next `up` finds that the node was not told and writes again.
fn rewrite(path: &Path, new: &[u8]) -> std::io::Result<()> {
    const BLOCK: usize = 64 << 10;
    let disk = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut old = vec![0; BLOCK];
    for (number, block) in new.chunks(BLOCK).enumerate() {
        let at = (number * BLOCK) as u64;
        let old = &mut old[..block.len()];
        if disk.read_exact_at(old, at).is_err() || old != block {
            disk.write_all_at(block, at)?;
        }
    }
    Ok(())
}

/// For cloud-init in foreign images. JSON is YAML, and quotes every string safely.
fn user_data(record: &Record, host_key: &keys::KeyPair, shared: &Shared) -> String {
    let user = serde_json::json!({
        "name": record.cluster.user,
        "uid": USER_ID,
        "shell": "/bin/bash",
        "ssh_authorized_keys": [shared.admin.public, shared.user.public],
    });
    let data = serde_json::json!({
        "disable_root": false,
        "users": [
            { "name": "root", "ssh_authorized_keys": [shared.admin.public] },
            user,
        ],
        "ssh_keys": { "ed25519_private": host_key.private, "ed25519_public": host_key.public },
        "ssh_deletekeys": true,
        "manage_etc_hosts": false,
        "write_files": [{ "path": "/etc/hosts", "content": shared.hosts }],
    });
    format!("#cloud-config\n{data:#}\n")
}

fn network_config(record: &Record, given: &plan::Assigned) -> String {
    let network = &record.cluster.network;
    let data = serde_json::json!({
        "version": 2,
        "ethernets": { "nic0": {
            "match": { "macaddress": given.mac },
            "addresses": [format!("{}/{}", given.address, network.prefix)],
            "routes": [{ "to": "0.0.0.0/0", "via": network.gateway() }],
            "nameservers": { "addresses": [network.gateway()], "search": [network.domain] },
        }},
    });
    format!("{data:#}\n")
}

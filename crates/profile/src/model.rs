//! The checked model. A value of these types cannot be wrong; whether a host can run it is another question.

use api::{Mac, MiB, Name};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Which hypervisor runs a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The best that works on the host: KVM, then QEMU.
    Auto,
    /// QEMU's own translation (TCG): works everywhere.
    Qemu,
    Kvm,
    /// No VM at all: states only, for tests and rehearsals.
    Fake,
}

impl Backend {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Qemu => "qemu",
            Self::Kvm => "kvm",
            Self::Fake => "fake",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A virtual cluster: what should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    pub name: Name,
    pub backend: Backend,
    /// The ordinary user inside the cluster.
    pub user: Name,
    pub image: Recipe,
    pub network: Network,
    /// In the order of the file; never empty; exactly one group has the role head, with one node.
    pub groups: Vec<Group>,
}

impl Cluster {
    /// All nodes with their groups, in the order of the file.
    pub fn nodes(&self) -> impl Iterator<Item = (&Group, &Node)> {
        self.groups
            .iter()
            .flat_map(|group| group.nodes.iter().map(move |node| (group, node)))
    }
}

/// What an image is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// `debian`.
    pub distribution: String,
    /// `bookworm`.
    pub release: String,
    /// Distribution packages, sorted, each once.
    pub packages: Vec<String>,
    /// OPKGs by name, in the order of the file.
    pub opkgs: Vec<Name>,
    /// The distribution's kernel package; none: the distribution's default for VMs.
    pub kernel: Option<String>,
    /// Where packages come from instead of the distribution's default, e.g. `http://deb.debian.org/debian`.
    pub mirror: Option<String>,
}

/// The cluster's private network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Network address and prefix length; the first usable address is the gateway's.
    pub address: Ipv4Addr,
    pub prefix: u8,
    /// DNS domain of the nodes.
    pub domain: String,
    /// May nodes reach the world?
    pub nat: bool,
}

impl Network {
    /// The first usable address.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits().saturating_add(1))
    }

    /// The last address of the subnet.
    pub fn broadcast(&self) -> Ipv4Addr {
        let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        Ipv4Addr::from_bits(self.address.to_bits() | hosts)
    }

    /// What nodes can have: all of the subnet but its own address, the gateway and the broadcast address.
    pub fn node_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        let first = self.gateway().to_bits().saturating_add(1);
        (first..self.broadcast().to_bits()).map(Ipv4Addr::from_bits)
    }

    /// How many nodes can have an address.
    pub fn capacity(&self) -> u32 {
        let first = self.gateway().to_bits().saturating_add(1);
        self.broadcast().to_bits().saturating_sub(first)
    }

    /// Can a node have this address?
    pub fn is_node_address(&self, address: Ipv4Addr) -> bool {
        self.gateway() < address && address < self.broadcast()
    }
}

/// As in the file: `10.77.0.0/24`.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Head,
    Compute,
}

impl Role {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Compute => "compute",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Nodes that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub name: Name,
    pub role: Role,
    pub backend: Backend,
    pub cpus: u16,
    pub memory: MiB,
    pub disk: MiB,
    pub nodes: Vec<Node>,
}

/// One virtual node; what is `None` is assigned when the cluster is made, and stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: Name,
    pub mac: Option<Mac>,
    pub address: Option<Ipv4Addr>,
}

/// One VM, as a driver gets it: complete, nothing left to guess.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vm {
    pub name: Name,
    pub backend: Backend,
    pub cpus: u16,
    pub memory: MiB,
    pub boot: Boot,
    pub disks: Vec<Disk>,
    pub nics: Vec<Nic>,
    /// Ports on which the guest reports to the host, one line a message.
    pub channels: Vec<Channel>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// Direct kernel boot: no firmware, no boot loader.
    Kernel {
        kernel: PathBuf,
        initrd: Option<PathBuf>,
        arguments: String,
    },
    /// From the first disk, by its own boot loader.
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    Raw,
    Qcow2,
}

/// A virtio disk. The format is told, never probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub path: PathBuf,
    pub format: DiskFormat,
    pub read_only: bool,
}

/// A virtio NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    pub mac: Mac,
    pub link: Link,
}

/// What a NIC is plugged into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// A port of a cluster network: the directory of that network (crate `net`) and the port's name.
    Network { directory: PathBuf, port: String },
    /// The hypervisor's own user-mode NAT.
    User,
}

/// A virtio-serial port named `name` in the guest; what the guest writes is appended to `log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    pub name: String,
    pub log: PathBuf,
}

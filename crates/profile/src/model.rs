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
    pub cpu: Cpu,
    pub memory: MiB,
    pub huge_pages: bool,
    /// Empty: one node with everything. Otherwise their CPUs and memory are the VM's, all of them.
    pub numa: Vec<NumaNode>,
    pub firmware: Firmware,
    pub boot: Boot,
    /// CD drives too, in the order of the file.
    pub disks: Vec<Disk>,
    pub nics: Vec<Nic>,
    /// Ports on which the guest reports to the host, one line a message.
    pub channels: Vec<Channel>,
    pub display: Display,
    /// For a guest with cloud-init: becomes a small disk in NoCloud form.
    pub cloud_init: Option<CloudInit>,
    /// Devices of the host that are passed through, by PCI address (`0000:3b:00.0`).
    pub devices: Vec<String>,
    /// Arguments for the hypervisor's own program, unchecked: whoever writes them may do what that program may.
    pub extra: Vec<String>,
}

impl Vm {
    /// A VM with the defaults of everything but these: direct boot and virtio devices come from the caller.
    pub fn new(name: Name, backend: Backend, cpus: u16, memory: MiB, boot: Boot) -> Self {
        Self {
            name,
            backend,
            cpus,
            cpu: Cpu::default(),
            memory,
            huge_pages: false,
            numa: Vec::new(),
            firmware: Firmware::Bios,
            boot,
            disks: Vec::new(),
            nics: Vec::new(),
            channels: Vec::new(),
            display: Display::None,
            cloud_init: None,
            devices: Vec::new(),
            extra: Vec::new(),
        }
    }
}

/// What the guest sees of its processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// As the hypervisor names it (`host`, `max`, `EPYC`); none: the best for the back-end.
    pub model: Option<String>,
    /// None: one socket with `Vm::cpus` cores. Otherwise the product is `Vm::cpus`.
    pub topology: Option<Topology>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    pub sockets: u16,
    pub cores: u16,
    pub threads: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    /// CPU numbers, from 0, each in one node.
    pub cpus: Vec<u16>,
    pub memory: MiB,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    #[default]
    Bios,
    Uefi,
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
    /// By the firmware, from the first of these that has something to boot; never empty.
    Firmware { order: Vec<BootDevice> },
}

/// What the firmware may boot from: the first disk, the first CD drive, the first NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootDevice {
    Disk,
    Cdrom,
    Network,
}

impl BootDevice {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Cdrom => "cdrom",
            Self::Network => "network",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    Raw,
    Qcow2,
    Vmdk,
    Vdi,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    #[default]
    Virtio,
    Scsi,
    Sata,
    Ide,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Medium {
    #[default]
    Disk,
    /// An ISO image or a drive of the host's; always read only.
    Cdrom,
}

/// A disk or a CD. The format is told, never probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub path: PathBuf,
    pub format: DiskFormat,
    pub bus: Bus,
    pub medium: Medium,
    pub read_only: bool,
    /// If the file is missing it may be made, of this size; none: it has to be there.
    pub size: Option<MiB>,
}

impl Disk {
    /// A virtio disk whose file has to be there.
    pub fn new(path: PathBuf, format: DiskFormat, read_only: bool) -> Self {
        Self {
            path,
            format,
            bus: Bus::Virtio,
            medium: Medium::Disk,
            read_only,
            size: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    #[default]
    Virtio,
    /// For guests without virtio.
    E1000,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    pub mac: Mac,
    pub model: NicModel,
    pub link: Link,
}

/// What a NIC is plugged into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// A port of a cluster network: the directory of that network (crate `net`) and the port's name.
    Network { directory: PathBuf, port: String },
    /// The hypervisor's own user-mode NAT: out, not in.
    Nat,
    /// A bridge of the host's: the VM is a machine of the network behind it.
    Bridged { bridge: String },
    /// A network of this name among the VMs of one owner, without the host and without a way out.
    Private { network: String },
    /// As `Private`, with the host in it.
    HostOnly { network: String },
    /// As `Bridged`, with this VLAN tag (1 to 4094).
    Vlan { bridge: String, tag: u16 },
    /// There is a NIC, and no cable in it.
    Unplugged,
}

/// A virtio-serial port named `name` in the guest; what the guest writes is appended to `log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    pub name: String,
    pub log: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Display {
    /// The serial console is all there is.
    #[default]
    None,
    /// A graphics card, shown by VNC on a unix socket in the VM's directory.
    Vnc,
}

/// What cloud-init is given (NoCloud); each is the text of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudInit {
    pub user_data: String,
    pub network_config: Option<String>,
}

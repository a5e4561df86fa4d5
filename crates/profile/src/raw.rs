//! The cluster file and the VM profile as they were written: texts and numbers with their places, nothing filled in,
//! nothing checked.
//!
//! Every format has a reader of its own that makes this model and reports only what the format itself decides: syntax,
//! unknown keys, wrong types. What the values mean is checked once for all formats.

use crate::error::Span;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub value: T,
    pub span: Span,
}

/// A key of the file.
#[derive(Clone, Debug, Default)]
pub(crate) enum Field<T> {
    #[default]
    Absent,
    /// It was given, but not as a `T`: the reader has reported that.
    Bad,
    Given(At<T>),
}

impl<T> Field<T> {
    pub fn given(&self) -> Option<&At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Bad => None,
        }
    }

    /// Something was meant by the key, but it is not there.
    pub fn or_bad(&mut self) {
        if self.is_absent() {
            *self = Self::Bad;
        }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub name: Field<String>,
    pub backend: Field<String>,
    pub user: Field<String>,
    pub image: Image,
    pub network: Network,
    pub groups: Field<Vec<Group>>,
}

#[derive(Debug, Default)]
pub(crate) struct Image {
    pub distribution: Field<String>,
    pub release: Field<String>,
    pub packages: Field<Vec<At<String>>>,
    pub opkgs: Field<Vec<At<String>>>,
    pub kernel: Field<String>,
    pub mirror: Field<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    pub subnet: Field<String>,
    pub domain: Field<String>,
    pub nat: Field<bool>,
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Where to say that a key is missing.
    pub place: Span,
    pub name: Field<String>,
    pub role: Field<String>,
    pub backend: Field<String>,
    pub count: Field<i64>,
    pub cpus: Field<i64>,
    pub memory: Field<String>,
    pub disk: Field<String>,
    /// The first of them is the first node of the group, and so on.
    pub nodes: Vec<Node>,
}

#[derive(Debug, Default)]
pub(crate) struct Node {
    pub name: Field<String>,
    pub mac: Field<String>,
    pub address: Field<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Vm {
    /// Where to say that a key is missing.
    pub place: Span,
    pub name: Field<String>,
    pub backend: Field<String>,
    pub cpus: Field<i64>,
    pub memory: Field<String>,
    pub firmware: Field<String>,
    pub huge_pages: Field<bool>,
    pub display: Field<String>,
    pub devices: Field<Vec<At<String>>>,
    pub extra: Field<Vec<At<String>>>,
    pub cpu: Cpu,
    pub numa: Vec<Numa>,
    pub boot: Boot,
    pub disks: Vec<Disk>,
    pub nics: Field<Vec<Nic>>,
    pub cloud_init: Option<CloudInit>,
    /// A libv3m profile: what it leaves out is what libv3m did without it.
    pub libv3m: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Cpu {
    pub model: Field<String>,
    pub sockets: Field<i64>,
    pub cores: Field<i64>,
    pub threads: Field<i64>,
}

#[derive(Debug, Default)]
pub(crate) struct Numa {
    pub place: Span,
    pub cpus: Field<String>,
    pub memory: Field<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Boot {
    pub order: Field<Vec<At<String>>>,
    pub kernel: Field<String>,
    pub initrd: Field<String>,
    pub arguments: Field<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub place: Span,
    pub path: Field<String>,
    pub size: Field<String>,
    pub format: Field<String>,
    pub bus: Field<String>,
    pub read_only: Field<bool>,
    pub cdrom: Field<bool>,
}

#[derive(Debug, Default)]
pub(crate) struct Nic {
    pub place: Span,
    pub kind: Field<String>,
    pub network: Field<String>,
    pub bridge: Field<String>,
    pub tag: Field<i64>,
    pub mac: Field<String>,
    pub model: Field<String>,
}

#[derive(Debug, Default)]
pub(crate) struct CloudInit {
    pub place: Span,
    pub user_data: Field<String>,
    pub ssh_keys: Field<Vec<At<String>>>,
    pub network_config: Field<String>,
}

//! What a cluster file and a VM profile may say: the sections and their keys, for messages and for the XML reader.

/// A table of the file: what it is called in messages, how it is opened, and the keys it may have, each with an
/// example (for those who wrote something else), which also tells its type.
pub(crate) struct Section {
    pub what: &'static str,
    pub opened: &'static str,
    pub keys: &'static [(&'static str, &'static str)],
}

pub(crate) const CLUSTER: Section = Section {
    what: "the file",
    opened: "at the top of the file, before the first [section]",
    keys: &[
        ("name", r#"name = "mpi""#),
        ("type", r#"type = "auto""#),
        ("user", r#"user = "oscar""#),
        ("image", "[image]"),
        ("network", "[network]"),
        ("group", "[[group]]"),
    ],
};

pub(crate) const IMAGE: Section = Section {
    what: "[image]",
    opened: "below [image]",
    keys: &[
        ("distribution", r#"distribution = "debian""#),
        ("release", r#"release = "bookworm""#),
        ("packages", r#"packages = ["hpcc"]"#),
        ("opkgs", r#"opkgs = ["base", "slurm"]"#),
        ("kernel", r#"kernel = "linux-image-cloud-amd64""#),
        ("mirror", r#"mirror = "http://deb.debian.org/debian""#),
    ],
};

pub(crate) const NETWORK: Section = Section {
    what: "[network]",
    opened: "below [network]",
    keys: &[
        ("subnet", r#"subnet = "10.77.0.0/24""#),
        ("domain", r#"domain = "cluster""#),
        ("nat", "nat = true"),
    ],
};

pub(crate) const GROUP: Section = Section {
    what: "[[group]]",
    opened: "below a [[group]]",
    keys: &[
        ("name", r#"name = "compute""#),
        ("role", r#"role = "compute""#),
        ("type", r#"type = "auto""#),
        ("count", "count = 3"),
        ("cpus", "cpus = 1"),
        ("memory", r#"memory = "512M""#),
        ("disk", r#"disk = "4G""#),
        ("node", "[[group.node]]"),
    ],
};

pub(crate) const NODE: Section = Section {
    what: "[[group.node]]",
    opened: "below a [[group.node]]",
    keys: &[
        ("name", r#"name = "special""#),
        ("mac", r#"mac = "52:54:00:12:34:56""#),
        ("address", r#"address = "10.77.0.50""#),
    ],
};

pub(crate) const VM: Section = Section {
    what: "the file",
    opened: "at the top of the file, before the first [section]",
    keys: &[
        ("name", r#"name = "web""#),
        ("type", r#"type = "auto""#),
        ("cpus", "cpus = 1"),
        ("memory", r#"memory = "512M""#),
        ("huge-pages", "huge-pages = false"),
        ("firmware", r#"firmware = "bios""#),
        ("display", r#"display = "none""#),
        ("devices", r#"devices = ["0000:3b:00.0"]"#),
        ("extra", r#"extra = ["-device", "virtio-rng-pci"]"#),
        ("cpu", "[cpu]"),
        ("numa", "[[numa]]"),
        ("boot", "[boot]"),
        ("disk", "[[disk]]"),
        ("nic", "[[nic]]"),
        ("cloud-init", "[cloud-init]"),
    ],
};

pub(crate) const CPU: Section = Section {
    what: "[cpu]",
    opened: "below [cpu]",
    keys: &[
        ("model", r#"model = "host""#),
        ("sockets", "sockets = 1"),
        ("cores", "cores = 4"),
        ("threads", "threads = 2"),
    ],
};

pub(crate) const NUMA: Section = Section {
    what: "[[numa]]",
    opened: "below a [[numa]]",
    keys: &[("cpus", r#"cpus = "0-3""#), ("memory", r#"memory = "1G""#)],
};

pub(crate) const BOOT: Section = Section {
    what: "[boot]",
    opened: "below [boot]",
    keys: &[
        ("order", r#"order = ["disk", "cdrom"]"#),
        ("kernel", r#"kernel = "vmlinuz""#),
        ("initrd", r#"initrd = "initrd.img""#),
        ("arguments", r#"arguments = "console=ttyS0""#),
    ],
};

pub(crate) const DISK: Section = Section {
    what: "[[disk]]",
    opened: "below a [[disk]]",
    keys: &[
        ("path", r#"path = "web.qcow2""#),
        ("format", r#"format = "qcow2""#),
        ("size", r#"size = "8G""#),
        ("bus", r#"bus = "virtio""#),
        ("read-only", "read-only = true"),
        ("cdrom", "cdrom = true"),
    ],
};

pub(crate) const NIC: Section = Section {
    what: "[[nic]]",
    opened: "below a [[nic]]",
    keys: &[
        ("kind", r#"kind = "nat""#),
        ("network", r#"network = "lab""#),
        ("bridge", r#"bridge = "br0""#),
        ("tag", "tag = 12"),
        ("mac", r#"mac = "52:54:00:12:34:56""#),
        ("model", r#"model = "virtio""#),
    ],
};

pub(crate) const CLOUD_INIT: Section = Section {
    what: "[cloud-init]",
    opened: "below [cloud-init]",
    keys: &[
        ("user-data", r##"user-data = "#cloud-config""##),
        ("ssh-keys", r#"ssh-keys = ["ssh-ed25519 AAAA…"]"#),
        ("network-config", r#"network-config = "version: 2""#),
    ],
};

/// All sections of a cluster file, the top first.
pub(crate) const CLUSTER_SECTIONS: &[&Section] = &[&CLUSTER, &IMAGE, &NETWORK, &GROUP, &NODE];

/// All sections of a VM profile, the top first.
pub(crate) const VM_SECTIONS: &[&Section] = &[&VM, &CPU, &NUMA, &BOOT, &DISK, &NIC, &CLOUD_INIT];

/// What others call it, and what it is called here.
const OTHER_WORDS: [(&str, &str); 18] = [
    ("distro", "distribution"),
    ("file", "path"),
    ("hostname", "name"),
    ("image", "path"),
    ("ip", "address"),
    ("mem", "memory"),
    ("nodes", "count"),
    ("nodes", "group"),
    ("os", "distribution"),
    ("processors", "cpus"),
    ("ram", "memory"),
    ("readonly", "read-only"),
    ("source", "path"),
    ("type", "format"),
    ("type", "kind"),
    ("vcpu", "cpus"),
    ("vcpus", "cpus"),
    ("vlan", "tag"),
];

/// The type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Boolean,
    Texts,
    Table,
    Tables,
}

impl Section {
    /// By its example; none if it has no such key.
    pub fn kind(&self, key: &str) -> Option<Kind> {
        let example = self.written(key)?;
        let value = example.split_once(" = ").map(|(_, value)| value);
        Some(match value.and_then(|value| value.bytes().next()) {
            Some(b'[') => Kind::Texts,
            Some(b'0'..=b'9') => Kind::Integer,
            Some(b't' | b'f') => Kind::Boolean,
            Some(_) => Kind::Text,
            None if example.starts_with("[[") => Kind::Tables,
            None => Kind::Table,
        })
    }

    /// The section that a key of this one opens: `node` is `[[group.node]]`.
    pub fn inner(all: &[&'static Section], key: &str) -> Option<&'static Section> {
        all.iter().copied().find(|section| {
            let name = section.what.trim_matches(['[', ']']);
            name.rsplit('.').next() == Some(key)
        })
    }

    /// The key that is called so elsewhere.
    pub fn otherwise(&self, word: &str) -> Option<&'static str> {
        let known = OTHER_WORDS.iter().filter(|(theirs, _)| *theirs == word);
        known
            .map(|(_, ours)| *ours)
            .find(|ours| self.written(ours).is_some())
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|(name, _)| *name)
    }

    fn written(&self, key: &str) -> Option<&'static str> {
        let found = self.keys.iter().find(|(name, _)| *name == key);
        found.map(|(_, example)| *example)
    }

    /// How a key is written.
    pub fn example(&self, key: &str) -> String {
        let written = self.written(key).unwrap_or_default();
        let how = match self.kind(key) {
            Some(Kind::Table) => " on a line of its own, its keys below",
            Some(Kind::Tables) => " on a line of its own, with two brackets, its keys below",
            _ => "",
        };
        format!("{written}{how}")
    }
}

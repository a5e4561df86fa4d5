//! What a cluster file may say, for messages: the sections and their keys.

/// A table of the file: what it is called in messages, how it is opened, and the keys it may have, each with an
/// example (for those who wrote something else).
pub(super) struct Section {
    pub what: &'static str,
    pub opened: &'static str,
    pub keys: &'static [(&'static str, &'static str)],
}

pub(super) const CLUSTER: Section = Section {
    what: "the file",
    opened: "at the top of the file, before the first [section]",
    keys: &[
        ("name", r#"name = "mpi""#),
        ("type", r#"type = "auto""#),
        ("user", r#"user = "oscar""#),
        ("image", "[image] on a line of its own, its keys below"),
        ("network", "[network] on a line of its own, its keys below"),
        (
            "group",
            "[[group]] on a line of its own, with two brackets, its keys below",
        ),
    ],
};

pub(super) const IMAGE: Section = Section {
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

pub(super) const NETWORK: Section = Section {
    what: "[network]",
    opened: "below [network]",
    keys: &[
        ("subnet", r#"subnet = "10.77.0.0/24""#),
        ("domain", r#"domain = "cluster""#),
        ("nat", "nat = true"),
    ],
};

pub(super) const GROUP: Section = Section {
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
        (
            "node",
            "[[group.node]] on a line of its own, with two brackets, its keys below",
        ),
    ],
};

pub(super) const NODE: Section = Section {
    what: "[[group.node]]",
    opened: "below a [[group.node]]",
    keys: &[
        ("name", r#"name = "special""#),
        ("mac", r#"mac = "52:54:00:12:34:56""#),
        ("address", r#"address = "10.77.0.50""#),
    ],
};

pub(super) const SECTIONS: [&Section; 5] = [&CLUSTER, &IMAGE, &NETWORK, &GROUP, &NODE];

impl Section {
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|(name, _)| *name)
    }

    pub fn example(&self, key: &str) -> &'static str {
        let found = self.keys.iter().find(|(name, _)| *name == key);
        found.map_or("", |(_, example)| example)
    }
}

//! A tree → the raw cluster.

use super::Reader;
use super::sections::{CLUSTER, GROUP, IMAGE, NETWORK, NODE};
use crate::error::Span;
use crate::raw::{Cluster, Field, Group, Image, Network, Node};
use toml::de::DeTable;

impl Reader<'_, '_> {
    pub(super) fn cluster(&mut self, table: &DeTable<'_>) -> Cluster {
        let mut raw = Cluster::default();
        for (key, value) in table {
            match &**key.get_ref() {
                "name" => raw.name = self.string(&CLUSTER, key, value),
                "type" => raw.backend = self.string(&CLUSTER, key, value),
                "user" => raw.user = self.string(&CLUSTER, key, value),
                "image" => raw.image = self.table(&CLUSTER, key, value, Self::image),
                "network" => raw.network = self.table(&CLUSTER, key, value, Self::network),
                "group" => raw.groups = self.tables(&CLUSTER, key, value, Self::group),
                _ => match self.unknown(&CLUSTER, key, value) {
                    // It is there, but misspelt: it is not missing as well.
                    Some("name") => raw.name.or_bad(),
                    Some("group") => raw.groups.or_bad(),
                    _ => {}
                },
            }
        }
        raw
    }

    fn image(&mut self, table: &DeTable<'_>, _: Span) -> Image {
        let mut raw = Image::default();
        for (key, value) in table {
            match &**key.get_ref() {
                "distribution" => raw.distribution = self.string(&IMAGE, key, value),
                "release" => raw.release = self.string(&IMAGE, key, value),
                "packages" => raw.packages = self.strings(&IMAGE, key, value),
                "opkgs" => raw.opkgs = self.strings(&IMAGE, key, value),
                "kernel" => raw.kernel = self.string(&IMAGE, key, value),
                "mirror" => raw.mirror = self.string(&IMAGE, key, value),
                _ => {
                    self.unknown(&IMAGE, key, value);
                }
            }
        }
        raw
    }

    fn network(&mut self, table: &DeTable<'_>, _: Span) -> Network {
        let mut raw = Network::default();
        for (key, value) in table {
            match &**key.get_ref() {
                "subnet" => raw.subnet = self.string(&NETWORK, key, value),
                "domain" => raw.domain = self.string(&NETWORK, key, value),
                "nat" => raw.nat = self.boolean(&NETWORK, key, value),
                _ => {
                    self.unknown(&NETWORK, key, value);
                }
            }
        }
        raw
    }

    fn group(&mut self, table: &DeTable<'_>, place: Span) -> Group {
        let mut raw = Group {
            place,
            ..Group::default()
        };
        for (key, value) in table {
            match &**key.get_ref() {
                "name" => raw.name = self.string(&GROUP, key, value),
                "role" => raw.role = self.string(&GROUP, key, value),
                "type" => raw.backend = self.string(&GROUP, key, value),
                "count" => raw.count = self.integer(&GROUP, key, value),
                "cpus" => raw.cpus = self.integer(&GROUP, key, value),
                "memory" => raw.memory = self.string(&GROUP, key, value),
                "disk" => raw.disk = self.string(&GROUP, key, value),
                "node" => {
                    if let Field::Given(nodes) = self.tables(&GROUP, key, value, Self::node) {
                        raw.nodes = nodes.value;
                    }
                }
                _ => {
                    if self.unknown(&GROUP, key, value) == Some("name") {
                        raw.name.or_bad();
                    }
                }
            }
        }
        raw
    }

    fn node(&mut self, table: &DeTable<'_>, _: Span) -> Node {
        let mut raw = Node::default();
        for (key, value) in table {
            match &**key.get_ref() {
                "name" => raw.name = self.string(&NODE, key, value),
                "mac" => raw.mac = self.string(&NODE, key, value),
                "address" => raw.address = self.string(&NODE, key, value),
                _ => {
                    self.unknown(&NODE, key, value);
                }
            }
        }
        raw
    }
}

//! A tree → the raw VM.

use super::Reader;
use super::sections::{BOOT, CLOUD_INIT, CPU, DISK, NIC, NUMA, VM};
use crate::error::Span;
use crate::raw::{Boot, CloudInit, Cpu, Disk, Field, Nic, Numa, Vm};
use toml::de::DeTable;

impl Reader<'_, '_> {
    pub(super) fn vm(&mut self, table: &DeTable<'_>, place: Span) -> Vm {
        let mut raw = Vm {
            place,
            ..Vm::default()
        };
        for (key, value) in table {
            match &**key.get_ref() {
                "name" => raw.name = self.string(&VM, key, value),
                "type" => raw.backend = self.string(&VM, key, value),
                "cpus" => raw.cpus = self.integer(&VM, key, value),
                "memory" => raw.memory = self.string(&VM, key, value),
                "huge-pages" => raw.huge_pages = self.boolean(&VM, key, value),
                "firmware" => raw.firmware = self.string(&VM, key, value),
                "display" => raw.display = self.string(&VM, key, value),
                "devices" => raw.devices = self.strings(&VM, key, value),
                "extra" => raw.extra = self.strings(&VM, key, value),
                "cpu" => raw.cpu = self.table(&VM, key, value, Self::cpu),
                "numa" => {
                    if let Field::Given(list) = self.tables(&VM, key, value, Self::numa) {
                        raw.numa = list.value;
                    }
                }
                "boot" => {
                    let meant = !raw.boot.order.is_absent();
                    raw.boot = self.table(&VM, key, value, Self::boot);
                    if meant {
                        raw.boot.order.or_bad();
                    }
                }
                "disk" => {
                    match self.tables(&VM, key, value, Self::disk) {
                        Field::Given(list) => raw.disks = list.value,
                        // What it would boot from is not known, not missing.
                        _ => raw.boot.order.or_bad(),
                    }
                }
                "nic" => raw.nics = self.tables(&VM, key, value, Self::nic),
                "cloud-init" => {
                    raw.cloud_init = self.table(&VM, key, value, |reader, table, place| {
                        Some(reader.cloud_init(table, place))
                    });
                }
                _ => match self.unknown(&VM, key, value) {
                    // It is there, but misspelt: it is not missing as well.
                    Some("name") => raw.name.or_bad(),
                    Some("nic") => raw.nics.or_bad(),
                    Some("memory") => raw.memory.or_bad(),
                    Some("disk" | "boot") => raw.boot.order.or_bad(),
                    _ => {}
                },
            }
        }
        raw
    }

    fn cpu(&mut self, table: &DeTable<'_>, _: Span) -> Cpu {
        let mut raw = Cpu::default();
        for (key, value) in table {
            match &**key.get_ref() {
                "model" => raw.model = self.string(&CPU, key, value),
                "sockets" => raw.sockets = self.integer(&CPU, key, value),
                "cores" => raw.cores = self.integer(&CPU, key, value),
                "threads" => raw.threads = self.integer(&CPU, key, value),
                _ => {
                    self.unknown(&CPU, key, value);
                }
            }
        }
        raw
    }

    fn numa(&mut self, table: &DeTable<'_>, place: Span) -> Numa {
        let mut raw = Numa {
            place,
            ..Numa::default()
        };
        for (key, value) in table {
            match &**key.get_ref() {
                "cpus" => raw.cpus = self.string(&NUMA, key, value),
                "memory" => raw.memory = self.string(&NUMA, key, value),
                _ => match self.unknown(&NUMA, key, value) {
                    Some("cpus") => raw.cpus.or_bad(),
                    Some("memory") => raw.memory.or_bad(),
                    _ => {}
                },
            }
        }
        raw
    }

    fn boot(&mut self, table: &DeTable<'_>, _: Span) -> Boot {
        let mut raw = Boot::default();
        for (key, value) in table {
            match &**key.get_ref() {
                "order" => raw.order = self.strings(&BOOT, key, value),
                "kernel" => raw.kernel = self.string(&BOOT, key, value),
                "initrd" => raw.initrd = self.string(&BOOT, key, value),
                "arguments" => raw.arguments = self.string(&BOOT, key, value),
                _ => match self.unknown(&BOOT, key, value) {
                    Some("order") => raw.order.or_bad(),
                    Some("kernel") => raw.kernel.or_bad(),
                    _ => {}
                },
            }
        }
        raw
    }

    fn disk(&mut self, table: &DeTable<'_>, place: Span) -> Disk {
        let mut raw = Disk {
            place,
            ..Disk::default()
        };
        for (key, value) in table {
            match &**key.get_ref() {
                "path" => raw.path = self.string(&DISK, key, value),
                "format" => raw.format = self.string(&DISK, key, value),
                "size" => raw.size = self.string(&DISK, key, value),
                "bus" => raw.bus = self.string(&DISK, key, value),
                "read-only" => raw.read_only = self.boolean(&DISK, key, value),
                "cdrom" => raw.cdrom = self.boolean(&DISK, key, value),
                _ => match self.unknown(&DISK, key, value) {
                    Some("path") => raw.path.or_bad(),
                    Some("format") => raw.format.or_bad(),
                    _ => {}
                },
            }
        }
        raw
    }

    fn nic(&mut self, table: &DeTable<'_>, place: Span) -> Nic {
        let mut raw = Nic {
            place,
            ..Nic::default()
        };
        for (key, value) in table {
            match &**key.get_ref() {
                "kind" => raw.kind = self.string(&NIC, key, value),
                "network" => raw.network = self.string(&NIC, key, value),
                "bridge" => raw.bridge = self.string(&NIC, key, value),
                "tag" => raw.tag = self.integer(&NIC, key, value),
                "mac" => raw.mac = self.string(&NIC, key, value),
                "model" => raw.model = self.string(&NIC, key, value),
                _ => match self.unknown(&NIC, key, value) {
                    Some("kind") => raw.kind.or_bad(),
                    Some("network") => raw.network.or_bad(),
                    Some("bridge") => raw.bridge.or_bad(),
                    Some("tag") => raw.tag.or_bad(),
                    _ => {}
                },
            }
        }
        raw
    }

    fn cloud_init(&mut self, table: &DeTable<'_>, place: Span) -> CloudInit {
        let mut raw = CloudInit {
            place,
            ..CloudInit::default()
        };
        for (key, value) in table {
            match &**key.get_ref() {
                "user-data" => raw.user_data = self.string(&CLOUD_INIT, key, value),
                "ssh-keys" => raw.ssh_keys = self.strings(&CLOUD_INIT, key, value),
                "network-config" => raw.network_config = self.string(&CLOUD_INIT, key, value),
                _ => match self.unknown(&CLOUD_INIT, key, value) {
                    Some("user-data") => raw.user_data.or_bad(),
                    Some("ssh-keys") => raw.ssh_keys.or_bad(),
                    _ => {}
                },
            }
        }
        raw
    }
}

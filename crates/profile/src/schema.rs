//! Descriptions of the forms for other programs: editors that check while one types, validators.
//!
//! They are generated from the same tables that the reader goes by (`toml/sections.rs`), and a test keeps them so:
//! `UPDATE=1 cargo test -p oscarv-profile --lib` writes them anew.

/// DTD of VM profiles: the modern `<vm>` and libv3m's `<profile>` in both dialects, in any order of elements.
pub const DTD: &str = include_str!("../v3m.dtd");
/// DTD of cluster files in XML.
pub const CLUSTER_DTD: &str = include_str!("../cluster.dtd");
/// JSON Schema of VM profiles in TOML.
pub const VM_SCHEMA: &str = include_str!("../schema/vm.json");
/// JSON Schema of cluster files in TOML.
pub const CLUSTER_SCHEMA: &str = include_str!("../schema/cluster.json");

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may end so")]
mod tests {
    use crate::toml::sections::{CLUSTER_SECTIONS, Kind, Section, VM_SECTIONS};
    use serde_json::{Map, Value, json};
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write;
    use std::fs;
    use std::path::Path;

    const SIZE: &str = "^ *[0-9]+ *[MGT](i?B)? *$";
    const NAME: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";

    /// Of a text, more than that it is one.
    fn text(section: &Section, key: &str) -> Value {
        let word = |words: &[&str]| json!({ "enum": words });
        let pattern = |pattern: &str| json!({ "type": "string", "pattern": pattern });
        match (section.what, key) {
            ("the file" | "[[group]]", "type") => word(&["auto", "qemu", "kvm", "fake"]),
            (_, "firmware") => word(&["bios", "uefi"]),
            (_, "display") => word(&["none", "vnc"]),
            (_, "format") => word(&["raw", "qcow2", "vmdk", "vdi"]),
            (_, "bus") => word(&["virtio", "scsi", "sata", "ide"]),
            (_, "kind") => word(&["nat", "bridged", "private", "host-only", "vlan", "none"]),
            ("[[nic]]", "model") => word(&["virtio", "e1000"]),
            (_, "role") => word(&["head", "compute"]),
            (_, "memory" | "size" | "disk") => pattern(SIZE),
            (_, "name" | "user") | ("[[nic]]", "network") => pattern(NAME),
            (_, "mac") => pattern("^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$"),
            ("[[numa]]", "cpus") => pattern("^ *[0-9]+(-[0-9]+)?( *, *[0-9]+(-[0-9]+)?)*$"),
            (_, "subnet") => pattern("^[0-9.]+/[0-9]+$"),
            _ => json!({ "type": "string" }),
        }
    }

    fn number(key: &str) -> Value {
        let most = match key {
            "count" => 10_000,
            "tag" => 4094,
            _ => 255,
        };
        json!({ "type": "integer", "minimum": 1, "maximum": most })
    }

    fn object(section: &'static Section, all: &[&'static Section]) -> Value {
        let mut properties = Map::new();
        for key in section.names() {
            let inner = || object(Section::inner(all, key).unwrap(), all);
            let value = match section.kind(key).unwrap() {
                Kind::Text => text(section, key),
                Kind::Integer => number(key),
                Kind::Boolean => json!({ "type": "boolean" }),
                Kind::Texts if key == "order" => {
                    json!({ "type": "array", "minItems": 1, "uniqueItems": true,
                        "items": { "enum": ["disk", "cdrom", "network"] } })
                }
                Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
                Kind::Table => inner(),
                Kind::Tables => json!({ "type": "array", "items": inner() }),
            };
            properties.insert(key.to_owned(), value);
        }
        let required: &[&str] = match section.what {
            "the file" if properties.contains_key("group") => &["name", "group"],
            "the file" | "[[group]]" => &["name"],
            "[[numa]]" => &["cpus", "memory"],
            "[[disk]]" => &["path"],
            _ => &[],
        };
        json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    fn schema(title: &str, all: &[&'static Section]) -> String {
        let mut schema = object(all[0], all);
        let top = schema.as_object_mut().unwrap();
        top.insert(
            "$schema".into(),
            "http://json-schema.org/draft-07/schema#".into(),
        );
        top.insert("title".into(), title.into());
        serde_json::to_string_pretty(&schema).unwrap() + "\n"
    }

    /// What an element may have in it; those of one name in several places have all of it.
    #[derive(Default)]
    struct Element {
        text: bool,
        children: BTreeSet<String>,
        attributes: BTreeSet<String>,
    }

    fn elements(root: &str, all: &[&'static Section]) -> BTreeMap<String, Element> {
        let mut elements: BTreeMap<String, Element> = BTreeMap::new();
        for section in all {
            let name = section.what.trim_matches(['[', ']']);
            let name = if name == "the file" {
                root
            } else {
                name.rsplit('.').next().unwrap()
            };
            for key in section.names() {
                let kind = section.kind(key).unwrap();
                let element = elements.entry(name.to_owned()).or_default();
                element.children.insert(key.to_owned());
                if !matches!(kind, Kind::Table | Kind::Tables) {
                    element.attributes.insert(key.to_owned());
                    elements.entry(key.to_owned()).or_default().text = true;
                }
                if kind == Kind::Tables {
                    elements
                        .get_mut(name)
                        .unwrap()
                        .children
                        .insert(format!("no-{key}"));
                    elements.entry(format!("no-{key}")).or_default();
                }
            }
        }
        elements
    }

    fn dtd(head: &str, elements: &BTreeMap<String, Element>) -> String {
        let mut out = format!(
            "<!-- {head}\n     Generated from the tables of the reader: see src/schema.rs. -->\n"
        );
        for (name, element) in elements {
            let children: Vec<_> = element.children.iter().map(String::as_str).collect();
            let children = children.join(" | ");
            let content = match (element.text, children.as_str()) {
                (false, "") => "EMPTY".to_owned(),
                (true, "") => "(#PCDATA)".to_owned(),
                (false, children) => format!("({children})*"),
                (true, children) => format!("(#PCDATA | {children})*"),
            };
            writeln!(out, "<!ELEMENT {name} {content}>").unwrap();
            for attribute in &element.attributes {
                writeln!(out, "<!ATTLIST {name} {attribute} CDATA #IMPLIED>").unwrap();
            }
        }
        out
    }

    /// libv3m's, beside the modern ones: facts about the format, and what files in use do with it.
    fn libv3m(elements: &mut BTreeMap<String, Element>) {
        for (name, children, attribute) in [
            ("profiles", "profile", ""),
            (
                "profile",
                "name type cpu memory image virtual_disks cdrom nic1 nic2",
                "",
            ),
            ("virtual_disks", "virtual_disk", ""),
            ("nic1", "type mac", ""),
            ("nic2", "type mac", ""),
            ("image", "#", "size"),
            ("virtual_disk", "#", "id"),
            ("cdrom", "#", ""),
            ("type", "#", "option"),
            ("cpu", "#", ""),
        ] {
            let element = elements.entry(name.to_owned()).or_default();
            for child in children.split(' ') {
                match child {
                    "#" => element.text = true,
                    child => {
                        element.children.insert(child.to_owned());
                    }
                }
            }
            if !attribute.is_empty() {
                element.attributes.insert(attribute.to_owned());
            }
        }
    }

    #[test]
    fn descriptions_are_fresh() {
        let mut vm = elements("vm", VM_SECTIONS);
        libv3m(&mut vm);
        let files = [
            (
                "v3m.dtd",
                dtd(
                    "VM profiles: <vm>, and libv3m's <profile> and <profiles>.",
                    &vm,
                ),
            ),
            (
                "cluster.dtd",
                dtd("Cluster files.", &elements("cluster", CLUSTER_SECTIONS)),
            ),
            (
                "schema/vm.json",
                schema("A VM profile of OSCAR-V", VM_SECTIONS),
            ),
            (
                "schema/cluster.json",
                schema("A cluster file of OSCAR-V", CLUSTER_SECTIONS),
            ),
        ];
        for (name, content) in files {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, content).unwrap();
            } else {
                assert_eq!(
                    fs::read_to_string(&path).unwrap(),
                    content,
                    "{name} is stale"
                );
            }
        }
    }
}

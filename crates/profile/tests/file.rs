//! Good files: what they mean, what is filled in, and that the documentation and the examples are true.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use api::{MiB, Name};
use profile::{Backend, Cluster, Role, cluster};
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

fn project(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn good(text: &str) -> Cluster {
    cluster(text, "good.toml")
        .unwrap_or_else(|e| panic!("{e}"))
        .value
}

fn names(cluster: &Cluster) -> Vec<&str> {
    cluster
        .nodes()
        .map(|(_, node)| node.name.as_str())
        .collect()
}

#[test]
fn smallest() {
    let checked = cluster("name = \"a\"\n[[group]]\nname = \"head\"", "x.toml").unwrap();
    let value = &checked.value;
    assert_eq!(
        (value.backend, value.user.as_str()),
        (Backend::Auto, "oscar")
    );
    assert_eq!(value.image.distribution, "debian");
    assert_eq!(value.image.release, "bookworm");
    assert_eq!(value.image.opkgs, [Name::new("base").unwrap()]);
    assert_eq!(value.network.to_string(), "10.77.0.0/24");
    assert_eq!(value.network.gateway(), Ipv4Addr::new(10, 77, 0, 1));
    assert_eq!(
        (value.network.domain.as_str(), value.network.nat),
        ("cluster", true)
    );
    let group = &value.groups[0];
    assert_eq!((group.role, group.backend), (Role::Head, Backend::Auto));
    assert_eq!(
        (group.cpus, group.memory, group.disk),
        (1, MiB(512), MiB(4096))
    );
    assert_eq!(names(value), ["head"]);
    let notes: Vec<String> = checked.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "type = auto (default: the best that works on the host)",
            "user = oscar (default)",
            "image.distribution = debian (default)",
            "image.release = bookworm (default)",
            "image.opkgs = base (default)",
            "network.subnet = 10.77.0.0/24 (default)",
            "network.domain = cluster (default)",
            "network.nat = true (default: nodes may reach the world)",
            "group.head.count = 1 (default)",
            "group.head.cpus = 1 (default)",
            "group.head.memory = 512M (default)",
            "group.head.disk = 4G (default)",
        ]
    );
}

#[test]
fn names_of_nodes() {
    let text = r#"
        name = "a"
        [[group]]
        name = "login"
        role = "head"
        [[group]]
        name = "one"
        [[group]]
        name = "many"
        [[group.node]]
        [[group.node]]
        name = "special"
        [[group.node]]
        address = "10.77.0.9"
    "#;
    let cluster = good(text);
    assert_eq!(
        names(&cluster),
        ["login", "one1", "many1", "special", "many3"]
    );
    assert_eq!(
        cluster.groups[2].nodes[2].address,
        Some(Ipv4Addr::new(10, 77, 0, 9))
    );
}

#[test]
fn base_comes_first() {
    let with = |opkgs: &str| {
        let text = format!("name = \"a\"\n[image]\nopkgs = [{opkgs}]\n[[group]]\nname = \"head\"");
        let checked = cluster(&text, "x.toml").unwrap();
        let note = checked.notes.iter().find(|note| note.key == "image.opkgs");
        let opkgs: Vec<String> = checked
            .value
            .image
            .opkgs
            .iter()
            .map(ToString::to_string)
            .collect();
        (opkgs.join(" "), note.map(ToString::to_string))
    };
    let note = |text: &str| Some(text.to_owned());
    let added = note("image.opkgs = base (added: every node needs it)");
    assert_eq!(with(r#""slurm""#), ("base slurm".to_owned(), added.clone()));
    assert_eq!(with(""), ("base".to_owned(), added));
    let moved = note("image.opkgs = base first (the others build on it)");
    assert_eq!(with(r#""z", "base", "a""#), ("base z a".to_owned(), moved));
    assert_eq!(with(r#""base", "z", "a""#), ("base z a".to_owned(), None));
}

#[test]
fn subnets() {
    let with = |subnet: &str| {
        good(&format!(
            "name = \"a\"\n[network]\nsubnet = \"{subnet}\"\n[[group]]\nname = \"head\""
        ))
        .network
    };
    let large = with("10.0.0.0/8");
    assert_eq!(large.capacity(), (1 << 24) - 3);
    assert_eq!(large.broadcast(), Ipv4Addr::new(10, 255, 255, 255));
    let small = with("192.168.1.8/29");
    assert_eq!(small.capacity(), 5);
    let all: Vec<u8> = small.node_addresses().map(|a| a.octets()[3]).collect();
    assert_eq!(all, [10, 11, 12, 13, 14]);
    assert!(small.node_addresses().all(|a| small.is_node_address(a)));
    assert!(!small.is_node_address(small.gateway()) && !small.is_node_address(small.broadcast()));
}

#[test]
fn examples() {
    let mpi = good(&project("examples/mpi.toml"));
    assert_eq!(names(&mpi), ["head", "compute1", "compute2", "compute3"]);
    assert_eq!(mpi.image.packages, ["hpcc"]);
    assert!(
        mpi.groups
            .iter()
            .all(|g| (g.cpus, g.memory) == (1, MiB(512)))
    );
    assert_eq!(names(&good(&project("examples/tiny.toml"))), ["head"]);
}

#[test]
fn as_data() {
    let errors = cluster("name = \"mpi\"\n[[group]]\nname = \"é\"", "dir/x.toml").unwrap_err();
    assert_eq!(
        serde_json::to_value(&errors).unwrap(),
        serde_json::json!({
            "source": "dir/x.toml",
            "errors": [{
                "message": "\"é\" cannot be the name of a group: a name starts with a letter a-z, not with 'é'",
                "hint": null,
                "line": 3,
                "column": 8,
                "start": 30,
                "end": 34,
                "text": "\"é\"",
            }],
            "more": 0,
        })
    );
}

/// The blocks of a page that are fenced with ```` ```KIND ````.
fn blocks<'t>(page: &'t str, kind: &str) -> Vec<&'t str> {
    let fence = format!("\n```{kind}\n");
    let parts = page.split(&fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap())
        .collect()
}

#[test]
fn documentation() {
    let page = project("docs/cluster-file.md");
    for whole in blocks(&page, "toml") {
        good(whole);
    }
    let parts = blocks(&page, "toml part");
    assert!(parts.len() >= 4);
    for part in parts {
        good(&format!(
            "name = \"mpi\"\n{part}\n[[group]]\nname = \"head\"\n"
        ));
    }
    for (wrong, said) in blocks(&page, "toml wrong")
        .iter()
        .zip(blocks(&page, "text"))
    {
        let errors = cluster(wrong, "mpi.toml").unwrap_err();
        assert_eq!(format!("{errors}\n"), said);
    }
}

/// Every key that is known is in the documentation, and the other way round.
#[test]
fn every_key_is_documented() {
    let page = project("docs/cluster-file.md");
    let mut documented: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(key, _)| key)
        .filter(|key| key.bytes().all(|b| b.is_ascii_lowercase()))
        .collect();
    documented.sort_unstable();
    // An unknown key in each section makes the reader tell what it knows there.
    let probe = "zzzzzzzz = 1\n";
    let text = format!(
        "{probe}[image]\n{probe}[network]\n{probe}[[group]]\n{probe}[[group.node]]\n{probe}"
    );
    let errors = cluster(&text, "x.toml").unwrap_err();
    let mut known: Vec<&str> = errors
        .iter()
        .filter_map(|error| error.hint.as_deref()?.strip_prefix("known here: "))
        .flat_map(|keys| keys.split(", "))
        .filter(|key| !matches!(*key, "image" | "network" | "group" | "node"))
        .collect();
    known.sort_unstable();
    assert_eq!(documented, known);
}

//! The examples are good by the reader and by the descriptions that are shipped for other programs.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The examples with an ending, by name.
fn examples(ending: &str) -> Vec<PathBuf> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let entries = fs::read_dir(examples)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect();
    paths.sort();
    paths
}

#[test]
fn every_example_is_good() {
    let all = [examples("toml"), examples("xml")].concat();
    assert!(all.len() >= 8, "{all:?}");
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        let cluster = text.contains("[[group]]") || text.contains("<cluster");
        let said = match cluster {
            true => profile::cluster(&text, "x").map(|_| ()),
            false => profile::vms(&text, "x").map(|_| ()),
        };
        assert_eq!(
            said.map_err(|e| e.to_string()),
            Ok(()),
            "{}",
            path.display()
        );
    }
}

/// Without another's program there is nothing to compare with, but where all tests must run.
fn skipped(program: &str, package: &str) -> Option<String> {
    let said = format!("there is no {program} (Debian: {package})");
    assert!(std::env::var_os("OSCARV_TEST_MUST").is_none(), "{said}");
    println!("skipped: {said}");
    None
}

/// By another's parser: xmllint of Debian's libxml2-utils.
fn xmllint(file: &Path, dtd: &str) -> Option<String> {
    let dtd = Path::new(env!("CARGO_MANIFEST_DIR")).join(dtd);
    let run = Command::new("xmllint")
        .args(["--nonet", "--noout", "--dtdvalid"])
        .args([&dtd, file])
        .output();
    let Ok(run) = run else {
        return skipped("xmllint", "libxml2-utils");
    };
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    Some(if run.status.success() {
        String::new()
    } else {
        said + "not valid"
    })
}

#[test]
fn examples_are_valid_by_the_dtds() {
    let mut files = examples("xml");
    files.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/full.xml"));
    for file in files {
        let cluster = fs::read_to_string(&file).unwrap().contains("<cluster");
        let dtd = if cluster { "cluster.dtd" } else { "v3m.dtd" };
        match xmllint(&file, dtd) {
            Some(said) => assert_eq!(said, "", "{}", file.display()),
            None => return,
        }
    }
}

#[test]
fn what_is_written_is_valid_by_the_dtds() {
    let directory = std::env::temp_dir().join(format!("oscarv-dtd-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let vm = profile::vm(include_str!("vm/full.toml"), "x")
        .unwrap()
        .value;
    let cluster = "name = \"a\"\n[[group]]\nname = \"head\"\n[[group]]\nname = \"b\"\ncount = 2\n[[group.node]]\n[[group.node]]\nname = \"c\"";
    let cluster = profile::cluster(cluster, "x").unwrap().value;
    let mut all = Vec::new();
    for (name, text, dtd) in [
        ("vm.xml", profile::vm_to_xml(&vm).unwrap(), "v3m.dtd"),
        (
            "cluster.xml",
            profile::cluster_to_xml(&cluster),
            "cluster.dtd",
        ),
        ("wrong.xml", "<vm><colour/></vm>".to_owned(), "v3m.dtd"),
    ] {
        let file = directory.join(name);
        fs::write(&file, text).unwrap();
        all.push(xmllint(&file, dtd));
    }
    fs::remove_dir_all(&directory).unwrap();
    if let [Some(vm), Some(cluster), Some(wrong)] = &all[..] {
        assert_eq!((vm.as_str(), cluster.as_str()), ("", ""));
        assert!(wrong.contains("colour"), "{wrong}");
    }
}

/// What is said of some files in TOML by another's validator: `jsonschema` of Debian's python3-jsonschema. It reads JSON.
fn by_schema(texts: &[&str], schema: &str) -> Option<String> {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let directory = format!("oscarv-schema-{}-{call}", std::process::id());
    let directory = std::env::temp_dir().join(directory);
    fs::create_dir_all(&directory).unwrap();
    let mut program = Command::new("jsonschema");
    for (at, text) in texts.iter().enumerate() {
        let value: serde_json::Value = toml::from_str(text).unwrap();
        let file = directory.join(format!("{at}.json"));
        fs::write(&file, value.to_string()).unwrap();
        program.arg("--instance").arg(file);
    }
    program.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(schema));
    let run = program.output();
    fs::remove_dir_all(&directory).unwrap();
    let Ok(run) = run else {
        return skipped("jsonschema", "python3-jsonschema");
    };
    Some(match run.status.success() {
        true => String::new(),
        false => format!("not valid: {}", String::from_utf8_lossy(&run.stderr)),
    })
}

#[test]
fn toml_is_valid_by_the_schemas() {
    let full = include_str!("vm/full.toml");
    let written = profile::vm_to_toml(&profile::vm(full, "x").unwrap().value).unwrap();
    let mpi = "name = \"a\"\n[[group]]\nname = \"head\"\n";
    let cluster = profile::to_toml(&profile::cluster(mpi, "x").unwrap().value);
    let examples = examples("toml");
    let examples: Vec<String> = examples
        .iter()
        .map(|example| fs::read_to_string(example).unwrap())
        .collect();
    let (mut clusters, mut vms): (Vec<&str>, Vec<&str>) = examples
        .iter()
        .map(String::as_str)
        .partition(|text| text.contains("[[group]]"));
    clusters.extend([mpi, &cluster]);
    vms.extend([full, &written]);
    for (texts, schema) in [(clusters, "schema/cluster.json"), (vms, "schema/vm.json")] {
        assert!(texts.len() > 3, "{texts:?}");
        if let Some(said) = by_schema(&texts, schema) {
            assert_eq!(said, "");
        }
    }
}

#[test]
fn wrong_toml_is_not_valid_by_the_schemas() {
    let wrong = [
        ("name = \"web\"\ncolour = 1", "colour"),
        ("name = \"web\"\nmemory = \"1\"", "'1' does not match"),
        ("name = \"web\"\ncpus = 256", "256 is greater"),
        ("name = \"web\"\ndisk = [{}]", "'path' is a required"),
        ("memory = \"1G\"", "'name' is a required"),
    ];
    let texts = wrong.map(|(text, _)| text);
    if let Some(said) = by_schema(&texts, "schema/vm.json") {
        for (_, why) in wrong {
            assert!(said.contains(why), "{why}: {said}");
        }
    }
}

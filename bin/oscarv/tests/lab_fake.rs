//! The commands on a whole cluster, with the fake back-end: everything but VMs. The image is real: the first run builds
//! it, and it is kept with the build's own files, so that the next run takes seconds.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A home with one cluster, which is taken down however the test ends.
struct Home {
    dir: TempDir,
    cluster: &'static str,
}

impl Home {
    fn new(cluster: &'static str, compute: u32) -> Self {
        let home = Self {
            dir: tempfile::tempdir().unwrap(),
            cluster,
        };
        home.write(compute);
        home
    }

    fn write(&self, compute: u32) {
        let text = format!(
            "name = \"{}\"\ntype = \"fake\"\n[[group]]\nname = \"head\"\n[[group]]\nname = \"compute\"\ncount = {compute}\n",
            self.cluster
        );
        std::fs::write(self.dir.path().join("c.toml"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_oscarv"))
            .args(arguments)
            .env_remove("OSCARV_CLUSTER")
            .env("OSCARV_STATE", state())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn code(&self, arguments: &[&str], code: i32) -> (String, String) {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            output.status.code(),
            Some(code),
            "oscarv {arguments:?}\n{out}\n{err}"
        );
        (out, err)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--output", "json"]);
        let (out, _) = self.code(&arguments, 0);
        serde_json::from_str(&out).unwrap()
    }
}

/// One for all tests: the clusters have names of their own.
fn state() -> std::path::PathBuf {
    let user = std::fs::metadata("/proc/self").unwrap();
    let user = std::os::unix::fs::MetadataExt::uid(&user);
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("state-{user}"))
}

/// A cluster in the list.
fn listed(home: &Home) -> Option<Value> {
    let list = home.json(&["list"]);
    let clusters = list["clusters"].as_array().unwrap();
    clusters.iter().find(|c| c["name"] == home.cluster).cloned()
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run(&["down", self.cluster, "--yes", "--grace", "0s"]);
    }
}

#[test]
fn up_status_and_down() {
    let home = Home::new("fakea", 3);
    let plan = home.json(&["up", "c.toml", "--dry-run"]);
    assert!(!plan["steps"].as_array().unwrap().is_empty());
    assert_eq!(listed(&home), None);

    let (out, err) = home.code(&["up", "c.toml"], 0);
    assert_eq!(out, "");
    assert!(err.contains("fakea is ready: 4 nodes after"), "{err}");
    let list = home.json(&["list"]);
    assert_eq!(
        (&list["clusters"][0]["name"], &list["clusters"][0]["ready"]),
        (&"fakea".into(), &4.into())
    );
    let status = home.json(&["status", "fakea"]);
    assert_eq!(status["clusters"][0]["nodes"][3]["name"], "compute3");
    let (table, _) = home.code(&["status", "fakea"], 0);
    assert!(
        table.contains("compute3") && table.contains("running"),
        "{table}"
    );
    let (config, _) = home.code(&["ssh-config", "fakea"], 0);
    assert!(config.contains("ProxyCommand"), "{config}");

    let again = home.json(&["up", "c.toml", "--dry-run"]);
    assert_eq!(again["steps"], serde_json::json!([]));

    let (_, err) = home.code(&["down", "fakea"], 2);
    assert!(err.contains("--yes"), "{err}");
    let (_, err) = home.code(&["down", "fakea", "--yes"], 0);
    assert!(err.contains("fakea is down"), "{err}");
    home.code(&["down", "fakea", "--yes"], 0);
    home.code(&["status", "fakea"], 4);
}

#[test]
fn what_loses_data_needs_a_yes() {
    let home = Home::new("fakeb", 2);
    home.code(&["up", "c.toml"], 0);
    home.write(1);
    let (_, err) = home.code(&["up", "c.toml"], 2);
    assert!(err.contains("--yes") && err.contains("compute2"), "{err}");
    assert_eq!(listed(&home).unwrap()["nodes"], 3);
    home.code(&["up", "c.toml", "--yes"], 0);
    assert_eq!(listed(&home).unwrap()["nodes"], 2);
}

#[test]
fn nodes_that_are_not_there_are_named_with_those_that_are() {
    let home = Home::new("fakec", 2);
    home.code(&["up", "c.toml"], 0);
    let (_, err) = home.code(&["exec", "fakec:compute[1-3]", "--", "true"], 125);
    assert!(
        err.contains("no node or group compute3") && err.contains("compute[1-2]"),
        "{err}"
    );
    let (_, err) = home.code(&["logs", "fakec:compute"], 2);
    assert!(err.contains("one node is needed"), "{err}");
    let (_, err) = home.code(&["status", "other"], 4);
    assert!(err.contains("fakec"), "{err}");
}

#[test]
fn progress_as_json_lines() {
    let home = Home::new("faked", 1);
    let (_, err) = home.code(&["-q", "--progress", "json", "up", "c.toml"], 0);
    assert_eq!(err, "", "quiet is quiet");
    let (_, err) = home.code(&["down", "faked", "--yes", "--progress", "json"], 0);
    let lines: Vec<Value> = err
        .lines()
        .filter(|l| l.starts_with('{'))
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .all(|l| l["event"].is_string() && l["elapsed"].is_number()),
        "{err}"
    );
}

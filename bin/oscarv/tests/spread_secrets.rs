//! Keys, certificates and private content with `oscarv spread`.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::spread::{command, make, receiver, send};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use tempfile::TempDir;

#[test]
fn private_content_needs_a_bundle_on_both_sides() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let bytes = make(home, "disk.raw", 3);
    let fails = |output: Output, words: &[&str]| {
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "{said}");
        }
    };
    let without = send(home, &["disk.raw", "--to", "127.0.0.1", "--private"]);
    fails(without, &["no bundle", "oscarv spread bundle HOST"]);
    let bundle = |arguments: &[&str]| {
        let made = command(home)
            .args(["spread", "bundle"])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        // Secrets are in files, and nowhere else.
        assert!(!said.contains("PRIVATE") && !made.stdout.windows(7).any(|w| w == b"PRIVATE"));
    };
    bundle(&["127.0.0.1", "node[1-2]", "--into", "bundles"]);
    for file in ["127.0.0.1.pem", "node1.pem", "node2.pem"] {
        let file = std::fs::metadata(home.join("bundles").join(file)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
    let options = ["--private", "--bundle", "bundles/127.0.0.1.pem"];
    let one = receiver(home, "one", &options);
    let sent = send(home, &["disk.raw", "--to", &one.address, "--private"]);
    assert!(sent.status.success(), "{sent:?}");
    assert!(std::fs::read(one.into.join("disk.raw")).unwrap() == bytes);
    let plain = send(
        home,
        &["disk.raw", "--to", &one.address, "--output", "json"],
    );
    let report: Value = serde_json::from_slice(&plain.stdout).unwrap();
    let note = report["hosts"][0]["notes"][0].as_str().unwrap();
    assert!(
        note.contains("only what is sent with --private"),
        "{report}"
    );
    bundle(&["--revoke", "127.0.0.1"]);
    let revoked = send(
        home,
        &[
            "disk.raw",
            "--to",
            &one.address,
            "--private",
            "--output",
            "json",
        ],
    );
    let report: Value = serde_json::from_slice(&revoked.stdout).unwrap();
    assert_eq!(report["hosts"][0]["state"], "refused", "{report}");
    let file = home.join("bundles/node1.pem");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let open = [
        "disk.raw",
        "--to",
        "127.0.0.1",
        "--private",
        "--bundle",
        "bundles/node1.pem",
    ];
    fails(
        send(home, &open),
        &["bundles/node1.pem", "0644", "chmod 600"],
    );
}

/// A file with a secret was quoted as a whole, and a path with a slip in it was "not a public key".
#[test]
fn a_secret_key_is_never_shown() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let made = command(home).args(["spread", "key"]).output().unwrap();
    assert!(made.status.success());
    let file = home.join("state/spread/key");
    let text = std::fs::read_to_string(&file).unwrap();
    let secret = text.lines().nth(1).unwrap();
    let path = file.to_str().unwrap();
    for (key, words) in [
        (path, "this is a secret key"),
        (secret, "this is a secret key"),
        ("state/spread/kye", "there is no file state/spread/kye"),
        ("/etc/passwd", "/etc/passwd: this is not a public key"),
    ] {
        let mut receive = command(home);
        receive.args([
            "spread",
            "receive",
            "--listen",
            "127.0.0.1:0",
            "--key",
            key,
            "in",
        ]);
        let output = receive.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(
            !said.contains(&secret[..20]) && !said.contains("root:"),
            "{said}"
        );
    }
}

/// What was a host's newest certificate is so until the file with the next one is there.
#[test]
fn a_bundle_that_cannot_be_saved_revokes_nothing() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let bundle = |into: &str| {
        let mut command = command(home);
        command.args(["spread", "bundle", "node1", "--into", into]);
        command.output().unwrap().status.code()
    };
    let newest = || std::fs::read_to_string(home.join("state/spread/ca/hosts/node1.pem")).unwrap();
    assert_eq!(bundle("bundles"), Some(0));
    let before = newest();
    std::fs::create_dir_all(home.join("full/node1.pem")).unwrap();
    assert_eq!(bundle("full"), Some(1));
    assert_eq!(newest(), before);
    assert_eq!(bundle("bundles"), Some(0));
    assert_ne!(newest(), before);
}

/// What was sent lately, and to whom bundles were made, is nobody else's business.
#[test]
fn what_a_source_remembers_is_for_its_owner_only() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    make(home, "disk.raw", 1);
    let receiver = receiver(home, "a", &[]);
    assert!(
        send(home, &["disk.raw", "--to", &receiver.address])
            .status
            .success()
    );
    let mut bundle = command(home);
    bundle.args(["spread", "bundle", "node1", "--into", "bundles"]);
    assert!(bundle.output().unwrap().status.success());
    for directory in ["spread", "spread/sent", "spread/ca"] {
        let data = std::fs::metadata(home.join("state").join(directory)).unwrap();
        assert_eq!(data.permissions().mode() & 0o777, 0o700, "{directory}");
    }
}

#[test]
fn a_bundle_is_for_a_host_and_not_for_a_port() {
    let home = TempDir::new().unwrap();
    for host in ["node[1-2]:7117", "node1:7117", "node[1-", "[::1]:7117"] {
        let mut command = command(home.path());
        let output = command.args(["spread", "bundle", host]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("and without ports"), "{said}");
    }
}

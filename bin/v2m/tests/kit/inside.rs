//! Tests that run themselves again in namespaces of their own, an ordinary user's in a user namespace as well, in which he is
//! root.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const INSIDE: &str = "V2M_TEST_INSIDE";

/// True where the test has to go on: inside. Outside it runs the test inside, in the namespaces that these options of
/// unshare(1) make, and fails with it.
pub fn inside(test: &str, namespaces: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(namespaces);
        if !rustix::process::geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        unshare
    };
    let possible = unshare().arg("true").status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no namespaces can be made here");
        return false;
    }
    // Removed from out here, where nothing is mounted in it.
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let mut again = unshare();
    again.arg(std::env::current_exe().unwrap());
    again.args(["--exact", test, "--nocapture"]);
    again.env(INSIDE, "1").env("TMPDIR", place.path());
    assert!(again.status().unwrap().success(), "inside");
    false
}

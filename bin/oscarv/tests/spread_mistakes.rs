//! What `oscarv spread send` says where something is missing or mistaken, and what it says to do.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::spread::{make, nobody, reported};
use tempfile::TempDir;

/// It only said that the connection was refused, and ports were folded like numbers of hosts.
#[test]
fn where_nothing_listens_it_is_said_what_to_start() {
    let home = TempDir::new().unwrap();
    make(home.path(), "disk.raw", 1);
    let (one, two) = (nobody(), nobody());
    let port = two.rsplit(':').next().unwrap();
    let to = format!("{one},localhost:{port}");
    let arguments = ["disk.raw", "--to", &to, "--patience", "1s"];
    let (code, report, said) = reported(home.path(), &arguments);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("do not have it: {to}")), "{said}");
    let own = one.rsplit(':').next().unwrap();
    let start =
        format!("hint: start `oscarv spread receive DIRECTORY --listen [::]:{own}` on 127.0.0.1,");
    assert!(said.contains(&start), "{said}");
    let note = report["hosts"][0]["notes"][0].as_str().unwrap();
    let why = format!("not reached: nothing listens at {one}: ");
    assert!(note.contains(&why), "{note}");
    let (_, _, said) = reported(home.path(), &[&arguments[..], &["--dry-run"]].concat());
    assert!(said.contains(&start), "{said}");
}

#[test]
fn what_is_neither_a_file_nor_an_image_is_said_to_be_neither() {
    let home = TempDir::new().unwrap();
    let (code, _, said) = reported(home.path(), &["disk", "--to", "127.0.0.1"]);
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("there is neither a file nor an image \"disk\""),
        "{said}"
    );
}

#[test]
fn a_limit_is_in_bytes_and_says_so() {
    let home = TempDir::new().unwrap();
    make(home.path(), "disk.raw", 1);
    let limited = |limit| {
        let arguments = [
            "disk.raw",
            "--to",
            "127.0.0.1:1",
            "--dry-run",
            "--limit",
            limit,
        ];
        let (code, _, said) = reported(home.path(), &arguments);
        (code, said)
    };
    assert_eq!(limited("512K").0, 1);
    let (code, said) = limited("100Mbit");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("are bits") && said.contains("11M"), "{said}");
}

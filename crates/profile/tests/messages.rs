//! Every message, as a person sees it: `bad/NAME.toml` is the file, `bad/NAME.txt` what is said of it.
//!
//! After a change that is meant: `UPDATE=1 cargo test -p oscarv-profile --test messages`, then read the difference.

use std::fs;
use std::path::Path;

#[test]
fn messages_are_as_expected() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        count += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        let said = match profile::cluster_bytes(&fs::read(&path).unwrap(), name) {
            Ok(checked) => panic!("{name} was taken: {:#?}", checked.value),
            Err(errors) => format!("{errors}\n"),
        };
        let expected = path.with_extension("txt");
        if update {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("=== {name} now says:\n{said}"));
        }
    }
    assert!(count > 40, "only {count} files were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

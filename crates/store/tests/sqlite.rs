//! What is particular to the store in a file: other processes, sudden death, files that are not as they should be.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use store::{Error, Expected, Sqlite, Store, StoreJson};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sqlite");
    (directory, path)
}

/// Runs `work` of this test program as a process of its own.
fn process(work: &str, store: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            work,
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("OSCARV_TEST_STORE", store)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn told_store() -> Option<Sqlite> {
    let path = std::env::var_os("OSCARV_TEST_STORE")?;
    Some(Sqlite::open(Path::new(&path)).unwrap())
}

const STEPS: u64 = 40;

#[test]
#[ignore = "the work of other tests, in a process of its own"]
fn count_up() {
    let Some(store) = told_store() else { return };
    let mut done = 0;
    while done < STEPS {
        let (number, generation) = store.get_json::<u64>("n").unwrap().unwrap();
        match store.put_json("n", &(number + 1), Expected::Generation(generation)) {
            Ok(_) => done += 1,
            Err(e) => assert!(e.is_conflict(), "{e}"),
        }
    }
}

#[test]
fn processes_do_not_overwrite_each_other() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    store.put_json("n", &0, Expected::Absent).unwrap();
    let children: Vec<Child> = (0..4).map(|_| process("count_up", &path)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(store.get_json::<u64>("n").unwrap().unwrap().0, 4 * STEPS);
}

/// Two entries that must always agree in size, written one after the other, each told as soon as it is safe.
#[test]
#[ignore = "the work of other tests, in a process of its own"]
fn write_for_ever() {
    let Some(store) = told_store() else { return };
    for number in 0u64.. {
        let value = vec![number as u8; 1 + (number as usize * 997) % 60_000];
        store
            .put(&format!("k{}", number % 5), &value, Expected::Any)
            .unwrap();
        println!("done {number}");
    }
}

#[test]
fn what_was_told_survives_kill() {
    let (_directory, path) = place();
    for round in 0..12 {
        let mut child = process("write_for_ever", &path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = None;
        let mut heard = 0;
        for line in lines.by_ref() {
            // The first line comes from the test harness, on the line that names the test.
            if let Some((_, number)) = line.unwrap().rsplit_once("done ") {
                told = Some(number.parse::<u64>().unwrap());
                heard += 1;
                // Each round dies at another moment of a write.
                if heard > 3 + round {
                    break;
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            if let Some(number) = line
                .unwrap()
                .strip_prefix("done ")
                .and_then(|n| n.parse().ok())
            {
                told = Some(number);
            }
        }
        let told = told.expect("the writer wrote");
        let store = Sqlite::open(&path).unwrap();
        for number in told.saturating_sub(4)..=told {
            let entry = store.get(&format!("k{}", number % 5)).unwrap().unwrap();
            let size = |number: u64| 1 + (number as usize * 997) % 60_000;
            // The one write that was under way may be there or not, but never half.
            let next = told + 1;
            let fits =
                |n: u64| entry.value.len() == size(n) && entry.value.iter().all(|b| *b == n as u8);
            assert!(
                fits(number) || (next % 5 == number % 5 && fits(next)),
                "entry {number} after {told}"
            );
        }
        drop(store);
        let raw = rusqlite::Connection::open(&path).unwrap();
        let check: String = raw
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok");
    }
}

#[test]
fn nobody_else_can_read_it() {
    let (directory, path) = place();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let store = Sqlite::open(&path).unwrap();
    store.put("k", b"secret", Expected::Any).unwrap();
    let files: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert!(!files.is_empty());
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    Sqlite::open(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
}

fn message(error: &Error) -> String {
    let source = std::error::Error::source(error);
    format!(
        "{error}{}",
        source.map(|s| format!(": {s}")).unwrap_or_default()
    )
}

#[test]
fn no_directory() {
    let (directory, _) = place();
    let error = Sqlite::open(&directory.path().join("no/store.sqlite")).unwrap_err();
    assert!(matches!(error, Error::NoDirectory { .. }), "{error:?}");
    assert!(message(&error).contains("mkdir -p"), "{error}");
    let error = Sqlite::open(directory.path()).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
}

#[test]
fn damaged() {
    let (_directory, path) = place();
    fs::write(
        &path,
        "this is not a database at all, but long enough to be looked at ".repeat(100),
    )
    .unwrap();
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    let said = message(&error);
    assert!(
        said.contains(path.to_str().unwrap()) && said.contains("mv "),
        "{said}"
    );
}

#[test]
fn damaged_in_the_middle() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    for number in 0..100 {
        store
            .put(&format!("k{number}"), &[7; 2000], Expected::Any)
            .unwrap();
    }
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    for byte in &mut bytes[4096..] {
        *byte = 0xa5;
    }
    fs::write(&path, bytes).unwrap();
    let store = Sqlite::open(&path).unwrap();
    let error = store.list("").unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
}

#[test]
fn cut_off() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    store.put("k", &[7; 20_000], Expected::Any).unwrap();
    drop(store);
    let length = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(length / 2).unwrap();
    let error = Sqlite::open(&path)
        .and_then(|store| store.list(""))
        .unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
}

#[test]
fn newer_and_foreign() {
    let (_directory, path) = place();
    drop(Sqlite::open(&path).unwrap());
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch("PRAGMA user_version = 7").unwrap();
    let error = Sqlite::open(&path).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Newer {
                found: 7,
                known: 1,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(message(&error).contains("newer version"), "{error}");
    drop(raw);

    for setup in [
        "CREATE TABLE theirs (x)",
        "CREATE TABLE theirs (x); PRAGMA user_version = 1",
    ] {
        fs::remove_file(&path).unwrap();
        let raw = rusqlite::Connection::open(&path).unwrap();
        raw.execute_batch(setup).unwrap();
        drop(raw);
        let before = fs::read(&path).unwrap();
        let error = Sqlite::open(&path).unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{error:?}");
        assert_eq!(
            fs::read(&path).unwrap(),
            before,
            "another program's file was changed"
        );
    }
}

/// In a mount namespace of its own, with the store's directory on a disk of 256 KiB.
#[test]
#[ignore = "the work of other tests, in a process of its own"]
fn fill_the_disk() {
    let Some(path) = std::env::var_os("OSCARV_TEST_STORE") else {
        return;
    };
    let path = PathBuf::from(path);
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(path.parent().unwrap())
        .status();
    assert!(mounted.unwrap().success());
    let store = Sqlite::open(&path).unwrap();
    let generation = store.put("k", b"old", Expected::Any).unwrap();
    let result = store.put("k", &[7; 1 << 20], Expected::Generation(generation));
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(message(&error).contains("is full"), "{error}");
    // Nothing was lost, and both this handle and the next one work on.
    for store in [&store, &Sqlite::open(&path).unwrap()] {
        let entry = store.get("k").unwrap().unwrap();
        assert_eq!(entry.value, b"old");
        store
            .put("k", b"old", Expected::Generation(entry.generation))
            .unwrap();
    }
    // No room even for the file itself.
    let filler = fs::write(path.with_extension("filler"), vec![0; 1 << 20]);
    assert!(filler.is_err());
    let other = path.with_extension("other");
    let error = Sqlite::open(&other).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    println!("filled");
}

#[test]
fn a_full_disk_loses_nothing() {
    let (_directory, path) = place();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["fill_the_disk", "--exact", "--ignored", "--nocapture"])
        .env("OSCARV_TEST_STORE", &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("filled"),
        "{said}{errors}"
    );
}

/// What a command pays for the store: opened, listed, closed.
#[test]
fn opening_is_fast() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).unwrap();
    for number in 0..100 {
        store
            .put(&format!("clusters/c{number}"), &[b'x'; 2000], Expected::Any)
            .unwrap();
    }
    drop(store);
    let mut times: Vec<_> = (0..51)
        .map(|_| {
            let begun = std::time::Instant::now();
            assert_eq!(
                Sqlite::open(&path)
                    .unwrap()
                    .list("clusters/")
                    .unwrap()
                    .len(),
                100
            );
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!(
        "open and list 100 entries: {median:?} (worst {:?})",
        times[times.len() - 1]
    );
    // A debug build's SQLite is not optimised.
    let limit = if cfg!(debug_assertions) { 30 } else { 3 };
    assert!(median.as_millis() < limit, "{median:?}");
}

//! A daemon is found while it lives and not afterwards, whatever becomes of the process that started it.

use daemon::Spawned;
use std::process::{Command, Stdio};
use std::time::Duration;

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command
        .arg("600")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn found_while_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("x.lock");
    assert_eq!(daemon::running(&lock).unwrap(), None);
    let Spawned::Started(mut child) = daemon::spawn(&lock, sleeper()).unwrap() else {
        panic!("nothing ran before")
    };
    assert_eq!(daemon::running(&lock).unwrap(), Some(child.id()));
    assert!(
        matches!(daemon::spawn(&lock, sleeper()).unwrap(), Spawned::AlreadyRunning(pid) if pid == child.id())
    );
    assert!(!daemon::wait(&lock, Duration::ZERO).unwrap());
    daemon::kill(&lock, Duration::from_secs(10)).unwrap();
    assert_eq!(daemon::running(&lock).unwrap(), None);
    assert!(!child.wait().unwrap().success());
    daemon::kill(&lock, Duration::from_secs(10)).unwrap();
}

#[test]
fn a_program_that_is_not_there_leaves_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("x.lock");
    assert!(daemon::spawn(&lock, Command::new("/nonexistent/program")).is_err());
    // A child that another thread of ours forks just now has a copy of our descriptors, until it executes its program.
    assert!(daemon::wait(&lock, Duration::from_secs(10)).unwrap());
    assert_eq!(daemon::running(&lock).unwrap(), None);
    assert!(matches!(
        daemon::spawn(&lock, sleeper()).unwrap(),
        Spawned::Started(_)
    ));
    daemon::kill(&lock, Duration::from_secs(10)).unwrap();
}

#[test]
fn a_recycled_pid_is_not_taken_for_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("x.lock");
    // Somebody else's process under the pid that an old file names: ours, which is certainly alive.
    std::fs::write(&lock, std::process::id().to_string()).unwrap();
    assert_eq!(daemon::running(&lock).unwrap(), None);
    assert!(!daemon::signal(&lock, rustix::process::Signal::KILL).unwrap());
}

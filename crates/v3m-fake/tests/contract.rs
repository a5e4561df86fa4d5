//! The fake driver keeps the contract, and fails as it is told to.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use api::{MiB, Name};
use async_trait::async_trait;
use profile::{Backend, Boot, Channel, Vm};
use std::fs;
use std::path::Path;
use std::time::Duration;
use v3m::model_test::{Subject, run};
use v3m::{Driver, Error, Result, State, Status};
use v3m_fake::{Failure, FakeDriver};

fn vm(name: &str, dir: &Path) -> Vm {
    let boot = Boot::Firmware {
        order: vec![profile::BootDevice::Disk],
    };
    Vm {
        channels: vec![Channel {
            name: "org.oscarv.events".to_owned(),
            log: dir.join(format!("{name}.events")),
        }],
        ..Vm::new(Name::new(name).unwrap(), Backend::Fake, 1, MiB(16), boot)
    }
}

struct Place(tempfile::TempDir);

#[async_trait]
impl Subject for Place {
    fn open(&self) -> Result<Box<dyn Driver>> {
        Ok(Box::new(FakeDriver::open(&self.0.path().join("vms"))?))
    }

    fn vm(&self, name: &Name) -> Vm {
        vm(name.as_str(), self.0.path())
    }

    async fn kill(&self, _: &dyn Driver, status: &Status) {
        FakeDriver::open(&self.0.path().join("vms"))
            .unwrap()
            .crash(&status.name, "killed")
            .unwrap();
    }
}

#[test]
fn does_what_the_table_says() {
    run(|| Place(tempfile::tempdir().unwrap()), 200, 40);
}

#[test]
fn capabilities_agree_with_what_is_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let driver = FakeDriver::open(dir.path()).unwrap();
    for capabilities in driver.capabilities() {
        assert_eq!(capabilities.snapshot, driver.snapshots().is_some());
        assert_eq!(capabilities.stats, driver.stats().is_some());
    }
}

#[tokio::test]
async fn says_ready_on_its_channels() {
    let dir = tempfile::tempdir().unwrap();
    let driver = FakeDriver::open(&dir.path().join("vms")).unwrap();
    let vm = vm("a", dir.path());
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    driver.stop(&vm.name, Duration::ZERO).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    assert_eq!(
        fs::read_to_string(&vm.channels[0].log).unwrap(),
        "0.00 boot kernel\n0.00 ready\n0.00 boot kernel\n0.00 ready\n"
    );
}

/// A start that is cut off before the guest has spoken left a VM that ran, and never became ready.
#[tokio::test]
async fn a_start_that_is_cut_off_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let driver = FakeDriver::open(&dir.path().join("vms")).unwrap();
    let vm = vm("a", dir.path());
    let log = &vm.channels[0].log;
    driver.define(&vm).await.unwrap();
    // Nothing can be said here, which is where the start ends.
    fs::create_dir(log).unwrap();
    driver.start(&vm.name).await.unwrap_err();
    let state = driver.status(&vm.name).await.unwrap().state;
    assert_eq!(state, State::Defined);
    fs::remove_dir(log).unwrap();
    driver.start(&vm.name).await.unwrap();
    assert_eq!(
        fs::read_to_string(log).unwrap(),
        "0.00 boot kernel\n0.00 ready\n"
    );
}

#[tokio::test]
async fn fails_as_told() {
    let dir = tempfile::tempdir().unwrap();
    let driver = FakeDriver::open(&dir.path().join("vms")).unwrap();
    let vm = vm("a", dir.path());
    driver
        .fail(&vm.name, Some(Failure::Start("no memory".to_owned())))
        .unwrap();
    driver.define(&vm).await.unwrap();
    assert!(
        matches!(driver.start(&vm.name).await, Err(Error::StartFailed { reason, .. }) if reason == "no memory")
    );
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!(status.state, State::Crashed);
    assert_eq!(status.reason.as_deref(), Some("no memory"));

    driver.fail(&vm.name, Some(Failure::NeverReady)).unwrap();
    driver.start(&vm.name).await.unwrap();
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Running);
    let said = || fs::read_to_string(&vm.channels[0].log).unwrap();
    assert_eq!(said(), "0.00 boot kernel\n");
    driver.stop(&vm.name, Duration::ZERO).await.unwrap();

    driver
        .fail(&vm.name, Some(Failure::Crash("panic".to_owned())))
        .unwrap();
    driver.start(&vm.name).await.unwrap();
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Crashed);

    driver.fail(&vm.name, None).unwrap();
    driver.start(&vm.name).await.unwrap();
    assert!(said().ends_with("0.00 ready\n"));
}

#[tokio::test]
async fn leaves_what_it_did_not_make() {
    let dir = tempfile::tempdir().unwrap();
    let driver = FakeDriver::open(dir.path()).unwrap();
    let vm = vm("a", dir.path());
    driver.define(&vm).await.unwrap();
    let disk = dir.path().join("a/disk.qcow2");
    fs::write(&disk, "x").unwrap();
    driver.undefine(&vm.name).await.unwrap();
    assert!(disk.exists());
    assert_eq!(driver.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_broken_file_is_told_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let driver = FakeDriver::open(dir.path()).unwrap();
    let vm = vm("a", dir.path());
    driver.define(&vm).await.unwrap();
    fs::write(dir.path().join("a/state.json"), "{").unwrap();
    let error = driver.status(&vm.name).await.unwrap_err().to_string();
    assert!(error.contains("state.json"), "{error}");
}

//! The driver for QEMU keeps the contract, with real VMs under TCG.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod guests;

use api::Name;
use async_trait::async_trait;
use guests::{Guest, Place};
use profile::Vm;
use std::time::Duration;
use v3m::model_test::{Subject, run};
use v3m::{Driver, Result, Status};

struct Real(Place);

#[async_trait]
impl Subject for Real {
    fn open(&self) -> Result<Box<dyn Driver>> {
        Ok(Box::new(self.0.driver()))
    }

    fn vm(&self, name: &Name) -> Vm {
        self.0.vm(name.as_str(), Guest::Dots)
    }

    async fn kill(&self, _: &dyn Driver, status: &Status) {
        let lock = self.0.vms().join(&status.name).join("qemu.lock");
        assert!(status.pid.is_some(), "{status:?}");
        daemon::kill(&lock, Duration::from_secs(10)).unwrap();
    }
}

#[test]
fn does_what_the_table_says() {
    run(|| Real(Place::new()), 80, 40);
}

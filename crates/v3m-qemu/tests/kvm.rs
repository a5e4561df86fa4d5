//! VMs under KVM, as far as the machine goes. A guest in real mode runs on more of them than the probe's guest, which
//! has to be fast as well: so where the probe says no, its verdict is set aside once, and the guest gets its chance.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod guests;

use guests::{Guest, Place, eventually, length};
use profile::{Backend, Vm};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use v3m::{Driver, Error, State};
use v3m_qemu::QemuDriver;

const NOW: Duration = Duration::ZERO;
/// How long a guest may take to its first sign of life, where the probe says that KVM does not work.
const CHANCE: Duration = Duration::from_secs(20);

fn kvm_vm(place: &Place) -> Vm {
    let mut vm = place.vm("a", Guest::Dots);
    vm.backend = Backend::Kvm;
    vm
}

#[tokio::test]
async fn a_vm_of_type_kvm_lives_or_is_refused() {
    let place = Place::new();
    let driver = place.driver();
    let vm = kvm_vm(&place);
    driver.define(&vm).await.unwrap();
    let probe = driver.probe(Backend::Kvm).await;
    if probe.usable {
        driver.start(&vm.name).await.unwrap();
    } else {
        let missing = &probe.missing[0];
        refused(&driver, &vm, missing).await;
        let cure = missing.remedy.as_deref().unwrap_or("none");
        eprintln!(
            "the probe says no to KVM: {}; its cure: {cure}",
            missing.what
        );
        let kept = place.vms().join("kvm-probe.json");
        if !set_aside(&kept) {
            eprintln!("skipped: KVM cannot be opened here");
            return;
        }
        if let Err(why) = driver.start(&vm.name).await {
            eprintln!("skipped: no VM starts under KVM here: {why}");
            return;
        }
    }
    let log = driver.console(&vm.name).await.unwrap().log;
    if !probe.usable && !prints(&log) {
        eprintln!("skipped: under KVM nothing was printed in {CHANCE:?}");
        driver.stop(&vm.name, NOW).await.unwrap();
        return;
    }
    eventually("the guest counts", || length(&log) > 2);
    let pid = driver.status(&vm.name).await.unwrap().pid.unwrap();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let arguments: Vec<_> = arguments.split(|b| *b == 0).collect();
    let accelerator = [&b"-accel"[..], b"kvm"];
    assert!(arguments.windows(2).any(|pair| pair == accelerator));

    driver.pause(&vm.name).await.unwrap();
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!((status.state, status.pid), (State::Paused, Some(pid)));
    let stood = length(&log);
    driver.resume(&vm.name).await.unwrap();
    eventually("the guest counts on", || length(&log) > stood);
    driver.reboot(&vm.name, NOW).await.unwrap();
    let before = length(&log);
    eventually("and after a reset", || length(&log) > before);
    driver.stop(&vm.name, NOW).await.unwrap();
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!((status.state, status.pid), (State::Stopped, None));
    driver.undefine(&vm.name).await.unwrap();
    assert!(!place.vms().join("a").exists());
}

/// Without a KVM that works, a VM of `type = "kvm"` is not quietly translated: it is refused, and is as it was.
async fn refused(driver: &QemuDriver, vm: &Vm, missing: &v3m::Missing) {
    let error = driver.start(&vm.name).await.unwrap_err();
    let Error::Unusable { backend, reason } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*backend, Backend::Kvm);
    assert!(reason.starts_with(&missing.what), "{reason}");
    if let Some(remedy) = &missing.remedy {
        assert!(reason.ends_with(remedy), "{reason}");
    }
    let status = driver.status(&vm.name).await.unwrap();
    assert_eq!((status.state, status.pid), (State::Defined, None));
}

/// Keeps another verdict than the probe's. None is kept where the device itself is no good.
fn set_aside(kept: &Path) -> bool {
    let Ok(bytes) = fs::read(kept) else {
        return false;
    };
    let mut verdict: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert!(verdict["fault"].take().is_string());
    fs::write(kept, verdict.to_string()).unwrap();
    true
}

fn prints(log: &Path) -> bool {
    let end = Instant::now() + CHANCE;
    while length(log) == 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    length(log) > 0
}

//! QEMU as a user without any right: what it has to write it can, and what it has not it cannot. And memory in huge pages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod guests;

use api::MiB;
use guests::{Guest, Place, eventually, length};
use profile::{Disk, DiskFormat, Display, Firmware};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;
use v3m::{Driver, State};
use v3m_qemu::{Options, QemuDriver};

const NOW: Duration = Duration::ZERO;
const NOBODY: u32 = 65534;

#[tokio::test]
async fn a_machine_with_everything_runs_as_nobody() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let owner = Some((NOBODY, NOBODY));
    let driver = QemuDriver::open(&place.vms(), Options { owner }).unwrap();
    for dir in [place.dir.path(), &place.vms()] {
        fs::set_permissions(dir, Permissions::from_mode(0o711)).unwrap();
    }
    let mut vm = place.vm("a", Guest::Dots);
    fs::set_permissions(&vm.disks[0].path, Permissions::from_mode(0o644)).unwrap();
    let made = place.dir.path().join("made.qcow2");
    vm.disks.push(Disk {
        size: Some(MiB(64)),
        ..Disk::new(made.clone(), DiskFormat::Qcow2, false)
    });
    if fs::exists("/usr/share/OVMF/OVMF_CODE_4M.fd").unwrap() {
        vm.firmware = Firmware::Uefi;
        vm.memory = MiB(128);
    }
    vm.display = Display::Vnc;
    vm.cloud_init = Some(profile::CloudInit {
        user_data: "#cloud-config\n".to_owned(),
        network_config: None,
    });
    driver.define(&vm).await.unwrap();
    driver.start(&vm.name).await.unwrap();
    let home = place.vms().join("a");
    let owner_of = |path: &std::path::Path| fs::metadata(path).unwrap().uid();
    assert_eq!(owner_of(&made), NOBODY);
    assert_eq!(owner_of(&home.join("vnc")), NOBODY);
    assert_eq!(owner_of(&home), 0);
    let mode = fs::metadata(home.join("vnc")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let mut vnc = v3m::connect(&home.join("vnc/vnc.sock")).unwrap();
    std::io::Read::read_exact(&mut vnc, &mut [0; 4]).unwrap();
    let log = driver.console(&vm.name).await.unwrap().log;
    eventually("the firmware or the guest speaks", || length(&log) > 3);
    driver.stop(&vm.name, NOW).await.unwrap();
    // Once more, with what is there already.
    driver.start(&vm.name).await.unwrap();
    driver.stop(&vm.name, NOW).await.unwrap();
    driver.undefine(&vm.name).await.unwrap();
    assert!(!home.exists() && made.exists());
}

#[tokio::test]
async fn roots_rights_are_given_to_no_qemu() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    for owner in [(0, NOBODY), (NOBODY, 0)] {
        let options = Options { owner: Some(owner) };
        let driver = QemuDriver::open(&place.vms(), options).unwrap();
        let vm = place.vm("a", Guest::Dots);
        driver.define(&vm).await.unwrap();
        let error = driver.start(&vm.name).await.unwrap_err().to_string();
        assert!(error.contains("root's rights are not given"), "{error}");
        assert_eq!(driver.status(&vm.name).await.unwrap().pid, None);
    }
}

/// A disk that became a user's stays his, whoever the VM runs as.
#[tokio::test]
async fn a_users_disk_is_not_taken_from_him() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let owner = Some((0x7000_1000, 0x7000_1000));
    let driver = QemuDriver::open(&place.vms(), Options { owner }).unwrap();
    for dir in [place.dir.path(), &place.vms()] {
        fs::set_permissions(dir, Permissions::from_mode(0o711)).unwrap();
    }
    let mut vm = place.vm("a", Guest::Dots);
    vm.disks[0].read_only = false;
    let disk = vm.disks[0].path.clone();
    std::os::unix::fs::chown(&disk, Some(NOBODY), None).unwrap();
    driver.define(&vm).await.unwrap();
    let error = driver.start(&vm.name).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("is not taken away"), "{error}: {source}");
    assert_eq!(fs::metadata(&disk).unwrap().uid(), NOBODY);
    // Another VM's it may have.
    std::os::unix::fs::chown(&disk, Some(0x7000_1001), None).unwrap();
    driver.start(&vm.name).await.unwrap();
    assert_eq!(fs::metadata(&disk).unwrap().uid(), 0x7000_1000);
    driver.stop(&vm.name, NOW).await.unwrap();
}

/// Where the host has some free, and the refusal where it has none.
#[tokio::test]
async fn memory_in_huge_pages() {
    let place = Place::new();
    let driver = place.driver();
    let mut vm = place.vm("a", Guest::Dots);
    vm.huge_pages = true;
    driver.define(&vm).await.unwrap();
    let findings = driver.findings(&vm).await.unwrap();
    let started = driver.start(&vm.name).await;
    if let [finding] = &findings[..] {
        assert!(finding.contains("huge pages") && finding.contains("sysctl vm.nr_hugepages="));
        assert!(started.unwrap_err().to_string().contains(finding.as_str()));
        return;
    }
    started.unwrap();
    assert_eq!(driver.status(&vm.name).await.unwrap().state, State::Running);
    let pid = driver.status(&vm.name).await.unwrap().pid.unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("HugetlbPages:"));
    assert!(line.is_some_and(|l| l.contains("16384 kB")), "{line:?}");
    driver.stop(&vm.name, NOW).await.unwrap();
}

//! The probe where guests boot, where they do not, and where something is missing.

use super::*;

#[test]
fn the_guest_boots_where_guests_boot() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(boots(&Programs::new(dir.path()), "tcg"), Ok(()));
}

#[test]
fn a_qemu_that_cannot_do_it_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let fault = boots(&Programs::new(dir.path()), "no-such-accelerator").unwrap_err();
    assert!(fault.contains("no-such-accelerator"), "{fault}");
}

#[test]
fn a_missing_program_comes_with_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let mut programs = Programs::new(dir.path());
    programs.qemu = "/nonexistent/qemu".into();
    for backend in [Backend::Qemu, Backend::Kvm, Backend::Auto] {
        let found = probe(&programs, backend);
        assert_eq!((found.usable, found.backend), (false, backend));
        let remedy = "sudo apt-get install qemu-system-x86";
        assert_eq!(found.missing[0].remedy.as_deref(), Some(remedy));
    }
}

#[test]
fn a_device_that_is_not_there_or_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    assert!(device(&dir.path().join("kvm")).is_some());
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    assert!(device(&path).is_none());
}

#[test]
fn a_verdict_is_kept_for_what_it_was_reached_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut programs = Programs::new(dir.path());
    let fault = Some("it hung".to_owned());
    let key = key(&programs);
    let kept = Verdict {
        key,
        fault: fault.clone(),
    };
    write(&programs.cache, &kept).unwrap();
    assert_eq!(verdict(&programs), fault, "no boot was made");
    // A program that is another: the boot is made again, and fails for its own reason.
    programs.qemu = "/nonexistent/qemu".into();
    assert!(verdict(&programs).unwrap().contains("could not be made"));
}

//! Debian's own installer from a CD, driven over its serial console.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::Home;
use kit::lab::{ANSWER, BOOT, LabHome, Person, has};
use std::process::Command;

const ISOLINUX: &str = "/usr/lib/ISOLINUX/isolinux.bin";
const LDLINUX: &str = "/usr/lib/syslinux/modules/bios/ldlinux.c32";
const KERNEL: &str = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux";
const INITRD: &str =
    "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/initrd.gz";
const NEEDS: [(&str, &str); 5] = [
    ("xorriso", "xorriso"),
    (ISOLINUX, "isolinux"),
    (LDLINUX, "syslinux-common"),
    (KERNEL, "debian-installer-12-netboot-amd64"),
    (INITRD, "debian-installer-12-netboot-amd64"),
];
/// All questions, the first one too, as lines of text.
const MENU: &str = "SERIAL 0 115200\nDEFAULT install\nPROMPT 0\nLABEL install\n  KERNEL /linux\n  INITRD /initrd.gz\n  \
    APPEND console=ttyS0,115200n8 DEBIAN_FRONTEND=text priority=low ---\n";

fn make_iso(home: &Home) {
    std::fs::create_dir_all(home.path("cd/isolinux")).unwrap();
    for (from, to) in [
        (KERNEL, "cd/linux"),
        (INITRD, "cd/initrd.gz"),
        (ISOLINUX, "cd/isolinux/isolinux.bin"),
        (LDLINUX, "cd/isolinux/ldlinux.c32"),
    ] {
        std::fs::copy(from, home.path(to)).unwrap();
    }
    home.file("cd/isolinux/isolinux.cfg", MENU);
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-as", "mkisofs", "-quiet", "-r", "-V", "DEBIAN"]);
    xorriso.args(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"]);
    xorriso.args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]);
    xorriso.args(["-o", "debian.iso", "cd"]);
    let output = xorriso.current_dir(home.path(".")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// It asks, hears what is typed, and asks on; so from a second terminal, too.
#[test]
fn debians_installer_asks_and_is_answered() {
    if !has(&NEEDS) {
        return;
    }
    let home = LabHome::new();
    make_iso(&home);
    home.file(
        "fresh.toml",
        "name = \"fresh\"\nmemory = \"1G\"\nnic = []\n\
         [[disk]]\npath = \"fresh.qcow2\"\nsize = \"4G\"\n\
         [[disk]]\npath = \"debian.iso\"\ncdrom = true\n",
    );
    let mut person = Person::at(&home, &["create-image-from-cdrom", "fresh.toml"]);
    let prompt = "Prompt: '?' for help";
    person.sees("Choose the next step in the install process", BOOT);
    person.sees("1: Choose language", ANSWER);
    person.sees(prompt, ANSWER);
    person.asks("1", "Select a language");
    person.sees(prompt, ANSWER);
    let answer = person.detaches().is(0);
    answer
        .says("fresh boots from its CD")
        .says("detached; fresh goes on");

    assert_eq!(home.state_of("fresh"), "running");
    assert!(home.printed("fresh").contains("Booting from DVD/CD"));
    let mut person = Person::at(&home, &["console", "fresh"]);
    // "C" is the first language.
    person.asks("1", "Select your location");
    person.sees(prompt, ANSWER);
    person.detaches().is(0);

    // The installer does not hear its power button.
    home.ok(&["stop", "fresh", "--grace", "0"]);
    home.ok(&["destroy", "fresh", "--yes", "--disks"]);
    assert!(!home.path("fresh.qcow2").exists());
    assert!(home.path("debian.iso").exists());
}

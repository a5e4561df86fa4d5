//! A cloud image, from its own boot loader and without it.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::Home;
use kit::cloud_image::{CloudImage, NEEDS};
use kit::lab::{ANSWER, BOOT, LabHome, Person, UP, has};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7ZJzYJ0n0H6Zc1vY5u5n5fQe3B1rWn8b1m6q2o4Y0k me@home";
/// A variable of the firmware, as Linux shows it.
const VARIABLE: &str = "/sys/firmware/efi/efivars/V2mLab-5d5a4a56-2c4e-4f0c-9d2c-2b8a7a1c0e11";

/// A home with `disk.qcow2`, which stands on the cloud image and is larger.
fn home() -> Option<(LabHome, CloudImage)> {
    if !has(&NEEDS) {
        return None;
    }
    let image = CloudImage::get(&kit::program());
    let home = LabHome::new();
    let backing = image.disk.to_str().unwrap();
    home.ok(&["image", "create", "disk.qcow2", "3G", "--backing", backing]);
    Some((home, image))
}

/// The six lines of docs/v2m.md.
#[test]
fn six_lines_boot_a_cloud_image_and_let_its_owner_in() {
    let Some((home, _)) = home() else { return };
    let text = format!(
        "name = \"cloud\"\nmemory = \"1G\"\ndisk = [{{ path = \"disk.qcow2\", format = \"qcow2\" }}]\n\
         nic = [{{ kind = \"nat\" }}]\n[cloud-init]\nssh-keys = [\"{KEY}\"]\n"
    );
    assert_eq!(text.lines().count(), 6);
    home.file("cloud.toml", text);
    home.ok(&["start", "cloud.toml", "--wait-ready", "--time-limit", UP]);
    // Debian's kernel has a driver for the balloon, which says what the guest uses.
    let used = kit::until("the guest says what it uses", || {
        home.json(&["top", "--once"])["vms"][0]["memory_used"].as_u64()
    });
    assert!((16 << 20..1 << 30).contains(&used), "{used}");
    let printed = home.printed("cloud");
    assert!(printed.contains("GRUB for pc"), "{printed}");
    // The VM's own name, not the image's.
    assert!(printed.contains("cloud login:"), "{printed}");
    let keys = "Authorized keys from /home/debian/.ssh/authorized_keys for user debian";
    home.prints("cloud", keys, BOOT);
    home.prints("cloud", "me@home", BOOT);
    // It hears its power button.
    home.ok(&["stop", "cloud", "--grace", UP])
        .says("cloud is stopped");
    home.ended_by_itself("cloud");
    assert!(home.printed("cloud").contains("reboot: Power down"));
    home.ok(&["image", "check", "disk.qcow2"]);
    home.ok(&["destroy", "cloud", "--yes"]);
}

/// The same disk under UEFI: user data, a login by hand, a reboot, and a stop and start, over which the firmware keeps
/// what the guest wrote.
#[test]
fn the_same_by_uefi_through_a_reboot_and_a_stop() {
    let Some((home, _)) = home() else { return };
    home.file(
        "uefi.toml",
        "name = \"uefi\"\nmemory = \"1G\"\nfirmware = \"uefi\"\ndisk = [{ path = \"disk.qcow2\" }]\n\
         [cloud-init]\nuser-data = \"\"\"\n#cloud-config\npassword: opensesame\nchpasswd: { expire: false }\n\
         runcmd:\n- [sh, -c, \"echo what $(hostname) was told is done >/dev/console\"]\n\"\"\"\n",
    );
    let done = "--wait-ready=what uefi was told is done";
    home.ok(&["start", "uefi.toml", done, "--time-limit", UP]);
    assert!(home.printed("uefi").contains("GRUB for efi"));

    let prompt = "debian@uefi:";
    let mut person = Person::at(&home, &["console", "uefi"]);
    person.logs_in("debian", "opensesame", prompt);
    // No answer may be in its question: that is shown, too.
    person.asks(
        "echo by-$(test -d /sys/firmware/efi && echo uefi)",
        "by-uefi",
    );
    person.asks(
        "echo root-$(df --output=size -BG / | tail -n 1 | tr -d ' ')",
        "root-3G",
    );
    // Four bytes of attributes come first: kept, and there at boot and later.
    let write = format!(
        r"printf '\007\000\000\000kept' | sudo tee {VARIABLE} >/dev/null && echo wrote-$((6*7))"
    );
    person.asks(&write, "wrote-42");
    person.detaches().is(0).says("detached; uefi goes on");

    home.ok(&["reboot", "uefi", "--grace", UP]);
    // Logged in before is not logged in now.
    still_there(&home, prompt);
    home.ok(&["stop", "uefi", "--grace", UP]);
    home.ended_by_itself("uefi");
    home.ok(&["start", "uefi", "--wait-ready", "--time-limit", UP]);
    still_there(&home, prompt);
    home.ok(&["stop", "uefi", "--grace", "0"]);
    home.ok(&["image", "check", "disk.qcow2"]);
    home.ok(&["destroy", "uefi", "--yes"]);
}

/// What the guest wrote into its firmware is there after another boot.
#[track_caller]
fn still_there(home: &Home, prompt: &str) {
    home.ok(&["start", "uefi", "--wait-ready", "--time-limit", UP]);
    let mut person = Person::at(home, &["console", "uefi"]);
    person.logs_in("debian", "opensesame", prompt);
    let read = format!("echo still-$(tail -c 4 {VARIABLE})");
    person.asks(&read, "still-kept");
    person.detaches().is(0);
}

/// Kernel, initramfs and arguments from outside of the disk, which is only looked at.
#[test]
fn a_kernel_with_an_initramfs_boots_directly() {
    let Some((home, image)) = home() else { return };
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let text = format!(
        "name = \"direct\"\nmemory = \"512M\"\nnic = []\n\
         [boot]\nkernel = \"{}\"\ninitrd = \"{}\"\n\
         arguments = \"root=LABEL=cloud-root console=ttyS0 break=bottom\"\n\
         [[disk]]\npath = \"{}\"\nread-only = true\n",
        path(&image.kernel),
        path(&image.initrd),
        path(&image.disk)
    );
    home.file("direct.toml", text);
    let shell = "--wait-ready=(initramfs)";
    home.ok(&["start", "direct.toml", shell, "--time-limit", UP]);
    assert!(!home.printed("direct").contains("GRUB"));
    let mut person = Person::at(&home, &["console", "direct"]);
    person.asks("echo is-$((6*7))", "is-42");
    // The root file system is mounted there.
    person.asks("cat /root/etc/hostname", "nobody");
    person.asks("cat /proc/cmdline", "break=bottom");
    person.types("poweroff -f\r");
    person.sees("reboot: Power down", ANSWER);
    person.ends().is(0).says("the console of direct has ended");
    home.ended_by_itself("direct");
    home.ok(&["destroy", "direct", "--yes"]);
}

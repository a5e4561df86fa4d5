//! A cloud image like those that distributions give away: a whole disk with GPT, GRUB for BIOS and for UEFI, a root file
//! system that grows, and cloud-init. Made of Debian packages as whoever runs the tests, without loop devices and mounts:
//! mmdebstrap and `mke2fs -d` in a user namespace, mtools for the EFI system partition, and GRUB's two pieces written to
//! where its firmware code expects them.
//!
//! It takes a minute or two and is kept from run to run, by the digest of this file.

use super::lab;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const RELEASE: &str = "bookworm";
const PACKAGES: &str = "linux-image-cloud-amd64,systemd-sysv,udev,dbus,cloud-init,cloud-guest-utils,\
    fdisk,e2fsprogs,openssh-server,iproute2,login,sudo";
/// What no test reads.
const WITHOUT: [&str; 3] = [
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/doc/*",
];
pub const NEEDS: [(&str, &str); 9] = [
    ("mmdebstrap", "mmdebstrap"),
    ("unshare", "util-linux"),
    ("mke2fs", "e2fsprogs"),
    ("sfdisk", "fdisk"),
    ("mformat", "mtools"),
    ("qemu-img", "qemu-utils"),
    ("grub-mkimage", "grub-common"),
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ("/usr/lib/grub/x86_64-efi/linux.mod", "grub-efi-amd64-bin"),
];

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Where GRUB's core for BIOS begins, in its partition.
const CORE: u64 = MIB;
const ESP: u64 = 2 * MIB;
const ROOT: u64 = 6 * MIB;
const ROOT_MIB: u64 = 1024;
/// The order on the disk is Debian's: the root file system is last, with room behind it to grow into.
const PARTITIONS: &str = "label: gpt\n\
    14: start=2048, size=1MiB, type=21686148-6449-6E6F-744E-656564454649\n\
    15: start=4096, size=4MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n\
    1: start=12288, size=1024MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n";

/// In GRUB itself: how it finds its configuration.
const EARLY: &str = "serial --unit=0 --speed=115200\n\
    terminal_output serial\n\
    terminal_input serial\n\
    echo \"GRUB for $grub_platform\"\n\
    search --set=root --label cloud-root\n\
    configfile /boot/grub/grub.cfg\n";
const MODULES: [&str; 10] = [
    "part_gpt",
    "ext2",
    "search",
    "search_label",
    "configfile",
    "normal",
    "linux",
    "serial",
    "terminal",
    "echo",
];
/// What is in the tree besides packages.
const FILES: [(&str, &str); 6] = [
    (
        "boot/grub/grub.cfg",
        "linux /vmlinuz root=LABEL=cloud-root ro console=ttyS0,115200n8\ninitrd /initrd.img\nboot\n",
    ),
    ("etc/fstab", "LABEL=cloud-root / ext4 rw 0 1\n"),
    // Empty: systemd makes its own at the first boot.
    ("etc/machine-id", ""),
    ("etc/hostname", "nobody\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    (
        "etc/cloud/cloud.cfg.d/90_lab.cfg",
        "datasource_list: [NoCloud, None]\nssh_genkeytypes: [ed25519]\nlocale: C.UTF-8\n",
    ),
];

/// The image, and its kernel and initramfs for a start without its boot loader.
pub struct CloudImage {
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

impl CloudImage {
    /// The one of the run before, or a new one. `v2m` is the program under test, which makes the qcow2.
    pub fn get(v2m: &Path) -> Self {
        let place = lab::place();
        let lock = File::create(place.join("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let mut key = DefaultHasher::new();
        include_str!("cloud_image.rs").hash(&mut key);
        let whole = place.join(format!("cloud-{:016x}", key.finish()));
        if !whole.exists() {
            // What a build that was killed left, and images of other days.
            for old in fs::read_dir(&place).unwrap().flatten() {
                if old.file_name().to_string_lossy().starts_with("cloud-") {
                    inside("rm", [OsStr::new("-rf"), old.path().as_os_str()]);
                }
            }
            let half = place.join("cloud-half");
            fs::create_dir(&half).unwrap();
            build(&half, v2m);
            fs::rename(&half, &whole).unwrap();
        }
        Self {
            disk: whole.join("disk.qcow2"),
            kernel: whole.join("vmlinuz"),
            initrd: whole.join("initrd.img"),
        }
    }
}

fn build(work: &Path, v2m: &Path) {
    let started = std::time::Instant::now();
    let (tree, raw) = (work.join("tree"), work.join("disk.raw"));
    let mut arguments: Vec<String> = [
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.extend(WITHOUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    arguments.push("--aptopt=Acquire::Languages \"none\"".to_owned());
    arguments.push(format!("--include={PACKAGES}"));
    arguments.extend([RELEASE.to_owned(), tree.display().to_string()]);
    inside("mmdebstrap", &arguments);
    // Its files are ours; in the namespace we are root.
    for (name, text) in FILES {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    for name in ["vmlinuz", "initrd.img"] {
        fs::copy(tree.join(name), work.join(name)).unwrap();
    }

    let mut disk = File::create_new(&raw).unwrap();
    disk.set_len(ROOT + ROOT_MIB * MIB + MIB).unwrap();
    let mut sfdisk = command("sfdisk");
    sfdisk.args(["--quiet", "--no-reread", "--no-tell-kernel"]);
    run(sfdisk.arg(&raw), PARTITIONS);
    let offset = format!("offset={ROOT}");
    let size = format!("{ROOT_MIB}M");
    let mut mke2fs: Vec<&OsStr> = ["-q", "-F", "-t", "ext4", "-L", "cloud-root", "-E", &offset]
        .map(OsStr::new)
        .to_vec();
    mke2fs.extend([OsStr::new("-d"), tree.as_os_str(), raw.as_os_str()]);
    mke2fs.push(OsStr::new(&size));
    inside("mke2fs", mke2fs);
    inside("rm", [OsStr::new("-rf"), tree.as_os_str()]);

    fs::write(work.join("early.cfg"), EARLY).unwrap();
    boots_by_bios(work, &mut disk);
    boots_by_uefi(work, &raw);
    drop(disk);
    let qcow2 = work.join("disk.qcow2");
    let mut convert = Command::new(v2m);
    run(convert.args(["image", "convert"]).args([&raw, &qcow2]), "");
    for name in ["disk.raw", "early.cfg", "core.img", "BOOTX64.EFI"] {
        fs::remove_file(work.join(name)).unwrap();
    }
    eprintln!("the cloud image took {} s", started.elapsed().as_secs());
}

fn grub(work: &Path, format: &str, modules: &[&str], output: &str) -> Vec<u8> {
    let output = work.join(output);
    let mut command = command("grub-mkimage");
    command.args(["--format", format, "--prefix", "/boot/grub"]);
    command.args(["--directory", &format!("/usr/lib/grub/{format}")]);
    command.arg("--config").arg(work.join("early.cfg"));
    command.arg("--output").arg(&output);
    run(command.args(modules).args(MODULES), "");
    fs::read(output).unwrap()
}

/// The first sector loads GRUB's core, whose first sector loads the rest. Both are told where that is, as grub-install
/// does it (GRUB, `include/grub/i386/pc/boot.h`: kernel sector at 0x5c; `grub-core/boot/i386/pc/diskboot.S`: the list of
/// blocks ends with the sector, its first entry begins 12 bytes before the end).
fn boots_by_bios(work: &Path, disk: &mut File) {
    let mut core = grub(work, "i386-pc", &["biosdisk"], "core.img");
    assert!(core.len() as u64 <= ESP - CORE);
    let mut boot = fs::read("/usr/lib/grub/i386-pc/boot.img").unwrap();
    let first = CORE / SECTOR;
    boot[0x5c..0x64].copy_from_slice(&first.to_le_bytes());
    core[0x1f4..0x1fc].copy_from_slice(&(first + 1).to_le_bytes());
    // Behind the code are the disk's signature and the protecting partition table.
    disk.write_all_at(&boot[..440], 0).unwrap();
    disk.write_all_at(&core, CORE).unwrap();
}

fn boots_by_uefi(work: &Path, raw: &Path) {
    grub(work, "x86_64-efi", &["fat"], "BOOTX64.EFI");
    let image = format!("{}@@{ESP}", raw.display());
    let sectors = ((ROOT - ESP) / SECTOR).to_string();
    let mut mformat = command("mformat");
    mformat.args(["-i", &image, "-T", &sectors, "-h", "16", "-s", "32", "::"]);
    run(&mut mformat, "");
    run(
        command("mmd").args(["-i", &image, "::/EFI", "::/EFI/BOOT"]),
        "",
    );
    let mut mcopy = command("mcopy");
    mcopy.args(["-i", &image]).arg(work.join("BOOTX64.EFI"));
    run(mcopy.arg("::/EFI/BOOT/BOOTX64.EFI"), "");
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Runs a program as root of namespaces of its own, with all of our ids; it ends with us.
fn inside<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) {
    let mut command = command("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    command.args(["--mount", "--pid", "--fork", "--kill-child=KILL"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.arg("--").arg(program).args(arguments);
    run(&mut command, "");
}

fn run(command: &mut Command, input: &str) {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

//! Can this host run QEMU, and with KVM? `/dev/kvm` being there says little: so a tiny guest is booted with a time
//! limit (`probe_guest.s` says what it does and why), and then a Linux kernel, if one is given.
//!
//! The verdict of the boot is kept in a file with what it was reached for: kernel release, boot id, QEMU and the
//! probe's kernel by size and time. Whether the programs and the rights are there is looked at each time.

use crate::home::{read, write};
use profile::Backend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use v3m::{Missing, Probe};

const KVM: &str = "/dev/kvm";
/// The command that brings QEMU.
pub const INSTALL: &str = "sudo apt-get install qemu-system-x86";
/// A healthy host takes 0.2 s for the probe's guest.
const GUEST: Duration = Duration::from_secs(3);
/// And 1 s to Linux's first lines.
const LINUX: Duration = Duration::from_secs(10);
/// The guest's 0x31 through the debug exit device: QEMU exits with `value << 1 | 1`.
const PASSED: i32 = 0x63;

std::arch::global_asm!(include_str!("probe_guest.s"), options(att_syntax));

unsafe extern "C" {
    static oscarv_probe_guest: [u8; 512];
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Programs {
    pub qemu: PathBuf,
    pub cache: PathBuf,
    pub kernel: Option<PathBuf>,
}

impl Programs {
    pub fn new(dir: &Path) -> Self {
        Self {
            qemu: PathBuf::from("qemu-system-x86_64"),
            cache: dir.join("kvm-probe.json"),
            kernel: None,
        }
    }

    /// The program's file, found as exec(3) finds it.
    fn qemu_file(&self) -> Option<PathBuf> {
        if self.qemu.components().count() > 1 {
            return self.qemu.is_file().then(|| self.qemu.clone());
        }
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|dir| dir.join(&self.qemu))
            .find(|file| file.is_file())
    }
}

/// The kept verdict.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    key: Vec<String>,
    /// Why KVM cannot be used.
    fault: Option<String>,
}

pub fn probe(programs: &Programs, backend: Backend) -> Probe {
    match backend {
        Backend::Qemu => tcg(programs),
        Backend::Kvm => kvm(programs),
        Backend::Auto => {
            let best = kvm(programs);
            let best = if best.usable { best } else { tcg(programs) };
            Probe { backend, ..best }
        }
        Backend::Fake => unusable(
            backend,
            "the driver for QEMU runs real VMs only".to_owned(),
            None,
        ),
    }
}

pub fn unusable(backend: Backend, what: String, remedy: Option<String>) -> Probe {
    Probe {
        backend,
        usable: false,
        found: String::new(),
        missing: vec![Missing { what, remedy }],
    }
}

/// What is missing, as one sentence.
pub fn in_words(missing: &Missing) -> String {
    match &missing.remedy {
        Some(remedy) => format!("{}; try: {remedy}", missing.what),
        None => missing.what.clone(),
    }
}

fn tcg(programs: &Programs) -> Probe {
    let backend = Backend::Qemu;
    match version(programs) {
        Ok(version) => Probe {
            backend,
            usable: true,
            found: format!("{version}, TCG"),
            missing: Vec::new(),
        },
        Err(missing) => Probe {
            backend,
            usable: false,
            found: String::new(),
            missing: vec![missing],
        },
    }
}

pub fn kvm(programs: &Programs) -> Probe {
    let mut probe = Probe {
        backend: Backend::Kvm,
        usable: false,
        found: String::new(),
        missing: Vec::new(),
    };
    match version(programs) {
        Ok(version) => probe.found = format!("{version}, KVM"),
        Err(missing) => probe.missing.push(missing),
    }
    probe.missing.extend(device(Path::new("/dev/kvm")));
    if probe.missing.is_empty() {
        let fault = verdict(programs);
        probe
            .missing
            .extend(fault.map(|what| Missing { what, remedy: None }));
    }
    probe.usable = probe.missing.is_empty();
    probe
}

/// Why KVM cannot be used, without asking QEMU for its version: fit for every start, once a verdict is kept.
pub fn kvm_fault(programs: &Programs) -> Option<Missing> {
    device(Path::new(KVM)).or_else(|| verdict(programs).map(|what| Missing { what, remedy: None }))
}

/// The first line of `--version`.
fn version(programs: &Programs) -> Result<String, Missing> {
    let missing = |what| Missing {
        what,
        remedy: Some(INSTALL.to_owned()),
    };
    let name = programs.qemu.display();
    let Some(file) = programs.qemu_file() else {
        return Err(missing(format!("the program {name} is not there")));
    };
    let output = Command::new(file).arg("--version").output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.lines().next().unwrap_or("QEMU").to_owned())
        }
        Ok(output) => Err(missing(format!(
            "the program {name} does not run: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
        Err(e) => Err(missing(format!("the program {name} does not run: {e}"))),
    }
}

/// What is wrong with the device itself.
fn device(path: &Path) -> Option<Missing> {
    let error = OpenOptions::new().read(true).write(true).open(path).err()?;
    let missing = |what: String, remedy: Option<&str>| {
        Some(Missing {
            what,
            remedy: remedy.map(str::to_owned),
        })
    };
    match error.kind() {
        ErrorKind::PermissionDenied => missing(
            format!("you may not use {}", path.display()),
            Some("sudo usermod -aG kvm $USER    (and log in again)"),
        ),
        ErrorKind::NotFound => {
            let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let has = |flag| cpus.split_whitespace().any(|word| word == flag);
            if has("vmx") {
                missing(
                    "KVM's module is not loaded".to_owned(),
                    Some("sudo modprobe kvm_intel"),
                )
            } else if has("svm") {
                missing(
                    "KVM's module is not loaded".to_owned(),
                    Some("sudo modprobe kvm_amd"),
                )
            } else {
                missing(
                    "this machine has no virtualization; switch it on in the firmware, or, where this is itself a VM, \
                     allow nested virtualization on its host"
                        .to_owned(),
                    None,
                )
            }
        }
        _ => missing(format!("{}: {error}", path.display()), None),
    }
}

/// Boots, or remembers that it did: why KVM cannot be used.
fn verdict(programs: &Programs) -> Option<String> {
    let key = key(programs);
    if let Ok(Some(Verdict { key: old, fault })) = read::<Verdict>(&programs.cache)
        && old == key
    {
        return fault;
    }
    let fault = boots(programs, "kvm").err();
    // A verdict that cannot be kept is reached again next time.
    let _ = write(
        &programs.cache,
        &Verdict {
            key,
            fault: fault.clone(),
        },
    );
    fault
}

/// All that the verdict depends on.
fn key(programs: &Programs) -> Vec<String> {
    let of_kernel = |file: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(file));
        text.unwrap_or_default().trim().to_owned()
    };
    let of_file = |path: Option<&Path>| {
        let found = path.and_then(|path| Some((path, fs::metadata(path).ok()?)));
        found.map_or(String::new(), |(path, m)| {
            format!(
                "{} {} {}.{}",
                path.display(),
                m.size(),
                m.mtime(),
                m.mtime_nsec()
            )
        })
    };
    vec![
        of_kernel("osrelease"),
        of_kernel("random/boot_id"),
        of_file(programs.qemu_file().as_deref()),
        of_file(programs.kernel.as_deref()),
    ]
}

/// Boots the probe's guests; what went wrong.
pub fn boots(programs: &Programs, accelerator: &str) -> Result<(), String> {
    let failed = |e: io::Error| format!("the probe boot could not be made: {e}");
    let disk = boot_disk().map_err(failed)?;
    let mut small = qemu(programs, accelerator);
    small.args(["-m", "32", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]);
    small.arg("-blockdev");
    small.arg(
        "driver=raw,node-name=boot,read-only=on,file.driver=file,file.filename=/proc/self/fd/0",
    );
    small.args(["-device", "virtio-blk-pci,drive=boot"]);
    small.stdin(disk).stdout(Stdio::null());
    let mut child = small.spawn().map_err(failed)?;
    match ended(&mut child, GUEST).map_err(failed)? {
        Some(PASSED) => {}
        Some(_) => return Err(format!("a probe guest did not boot: {}", words(child))),
        None => {
            return Err(format!(
                "a probe guest that takes 0.2 s elsewhere had not booted after {} s",
                GUEST.as_secs()
            ));
        }
    }
    match &programs.kernel {
        Some(kernel) => linux(programs, accelerator, kernel).map_err(failed)?,
        None => Ok(()),
    }
}

/// Boots a Linux kernel without a root, which panics: that it comes so far is what is asked.
fn linux(programs: &Programs, accelerator: &str, kernel: &Path) -> io::Result<Result<(), String>> {
    let mut command = qemu(programs, accelerator);
    command.args(["-m", "256", "-no-reboot", "-kernel"]);
    command.arg(kernel).arg("-append");
    command
        .arg("console=ttyS0 panic=-1")
        .args(["-serial", "stdio"]);
    let console = tempfile_unnamed()?;
    command.stdin(Stdio::null()).stdout(console.try_clone()?);
    let mut child = command.spawn()?;
    let in_time = ended(&mut child, LINUX)?.is_some();
    let mut text = Vec::new();
    read_all(console, &mut text)?;
    let panicked = String::from_utf8_lossy(&text).contains("Kernel panic");
    Ok(match (in_time, panicked) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("Linux did not boot: {}", words(child))),
        (false, _) => Err(format!("Linux had not booted after {} s", LINUX.as_secs())),
    })
}

fn qemu(programs: &Programs, accelerator: &str) -> Command {
    let mut command = Command::new(&programs.qemu);
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-machine", crate::arguments::MACHINE]);
    command.args(["-accel", accelerator, "-cpu"]);
    command.arg(if accelerator == "kvm" { "host" } else { "max" });
    command.stderr(Stdio::piped());
    let parent = std::process::id();
    // SAFETY: two system calls between fork and exec. The probe dies with the thread that waits for it, which waits
    // as long as it runs: a caller that is killed leaves no guest behind.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    command
}

/// The exit status, or `None` when the limit passed and the child was killed.
fn ended(child: &mut Child, limit: Duration) -> io::Result<Option<i32>> {
    let end = Instant::now() + limit;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let handle = pidfd_open(pid.ok_or(ErrorKind::InvalidInput)?, PidfdFlags::empty())?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code().unwrap_or(-1)));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos() as i64,
        };
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// What QEMU said, on one line.
fn words(mut child: Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = child.stderr.take() {
        // Bounded, and lossy on purpose: it is for a message.
        let mut bytes = Vec::new();
        let _ = stderr.take(4096).read_to_end(&mut bytes);
        text = String::from_utf8_lossy(&bytes).trim().replace('\n', "; ");
    }
    if text.is_empty() {
        text.push_str("QEMU said nothing");
    }
    text
}

/// The guest's boot sector at the start of a disk: SeaBIOS boots from no disk of a single sector.
fn boot_disk() -> io::Result<File> {
    let mut file = tempfile_unnamed()?;
    // SAFETY: the assembler made exactly these 512 bytes, and nothing writes to them.
    file.write_all(unsafe { &oscarv_probe_guest })?;
    file.set_len(1 << 20)?;
    Ok(file)
}

/// A file in memory that has no name and goes with its descriptors.
fn tempfile_unnamed() -> io::Result<File> {
    let fd = rustix::fs::memfd_create("oscarv-probe", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(File::from(fd))
}

fn read_all(mut file: File, text: &mut Vec<u8>) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::Start(0))?;
    file.take(1 << 20).read_to_end(text)?;
    Ok(())
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;

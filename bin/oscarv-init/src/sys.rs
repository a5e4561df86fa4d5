//! The system calls that std does not have.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
pub const MS_RDONLY: c_ulong = 1;
pub const MS_NOATIME: c_ulong = 1024;
const MS_BIND: c_ulong = 4096;
const MS_MOVE: c_ulong = 8192;
const SYS_FINIT_MODULE: c_long = 313;
const EEXIST: i32 = 17;
const EBUSY: i32 = 16;

unsafe extern "C" {
    #[link_name = "mount"]
    fn c_mount(
        source: *const c_char,
        at: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    #[link_name = "umount"]
    fn c_umount(at: *const c_char) -> c_int;
    #[link_name = "chroot"]
    fn c_chroot(path: *const c_char) -> c_int;
    #[link_name = "sethostname"]
    fn c_sethostname(name: *const c_char, length: usize) -> c_int;
    #[link_name = "syscall"]
    fn c_syscall(number: c_long, ...) -> c_long;
    #[link_name = "ioctl"]
    fn c_ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    #[link_name = "socket"]
    fn c_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    #[link_name = "close"]
    fn c_close(fd: c_int) -> c_int;
    #[link_name = "reboot"]
    fn c_reboot(command: c_int) -> c_int;
    #[link_name = "sync"]
    fn c_sync();
}

fn c(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} has a NUL"))
}

fn check(result: c_int, what: impl FnOnce() -> String) -> Result<(), String> {
    if result == 0 {
        Ok(())
    } else {
        Err(format!("cannot {}: {}", what(), io::Error::last_os_error()))
    }
}

pub fn mount(source: &str, at: &str, kind: &str, flags: c_ulong, data: &str) -> Result<(), String> {
    let (s, a, k, d) = (c(source)?, c(at)?, c(kind)?, c(data)?);
    // SAFETY: all pointers are to NUL-terminated strings that live over the call.
    check(
        unsafe { c_mount(s.as_ptr(), a.as_ptr(), k.as_ptr(), flags, d.as_ptr().cast()) },
        || format!("mount {source} on {at} as {kind}"),
    )
}

pub fn bind(from: &str, at: &str) -> Result<(), String> {
    mount(from, at, "none", MS_BIND, "")
}

pub fn move_mount(from: &str, at: &str) -> Result<(), String> {
    mount(from, at, "none", MS_MOVE, "")
}

pub fn unmount(at: &str) -> Result<(), String> {
    let a = c(at)?;
    // SAFETY: a NUL-terminated string that lives over the call.
    check(unsafe { c_umount(a.as_ptr()) }, || format!("unmount {at}"))
}

pub fn set_host_name(name: &str) -> Result<(), String> {
    // SAFETY: pointer and length are of one live string.
    check(
        unsafe { c_sethostname(name.as_ptr().cast(), name.len()) },
        || format!("set the host name {name:?}"),
    )
}

pub fn load_module(path: &str) -> Result<(), String> {
    let file = File::open(path).map_err(|e| format!("cannot open {path}: {e}"))?;
    // SAFETY: finit_module(fd, parameters, flags) with an open file and an empty string.
    let result = unsafe { c_syscall(SYS_FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), 0) };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        problem if matches!(problem.raw_os_error(), Some(EEXIST | EBUSY)) => Ok(()),
        problem => Err(format!("cannot load {path}: {problem}")),
    }
}

/// Lets the mounted ext4 fill its disk. `EXT4_IOC_RESIZE_FS` (fs/ext4/ext4.h) takes the new count of blocks.
pub fn grow(device: &str, at: &str) -> Result<(), String> {
    const BLOCK: u64 = 4096;
    const EXT4_IOC_RESIZE_FS: c_ulong = 0x4008_6610;
    let name = device.trim_start_matches("/dev/");
    let sectors =
        fs::read_to_string(format!("/sys/class/block/{name}/size")).map_err(|e| e.to_string())?;
    let sectors: u64 = sectors
        .trim()
        .parse()
        .map_err(|_| format!("size of {device} is {sectors:?}"))?;
    let blocks = sectors * 512 / BLOCK;
    let root = File::open(at).map_err(|e| e.to_string())?;
    // SAFETY: the ioctl reads one u64 from the pointer, which lives over the call.
    check(
        unsafe { c_ioctl(root.as_raw_fd(), EXT4_IOC_RESIZE_FS, &blocks as *const u64) },
        || format!("resize to {blocks} blocks"),
    )
}

/// `struct ifreq` of netdevice(7), with a socket address as its value.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    value: [u8; 24],
}

/// `struct rtentry` of route(7) on 64-bit Linux.
#[repr(C)]
#[derive(Default)]
struct RouteEntry {
    pad1: c_ulong,
    destination: [u8; 16],
    gateway: [u8; 16],
    mask: [u8; 16],
    flags: u16,
    pad2: i16,
    pad3: c_ulong,
    pad4: [u8; 4],
    metric: i16,
    device: usize,
    mtu: c_ulong,
    window: c_ulong,
    irtt: u16,
}

/// `struct sockaddr_in`: family in the host's order, port, address.
fn socket_address(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&2u16.to_ne_bytes());
    bytes[4..8].copy_from_slice(&address.octets());
    bytes
}

fn with_socket(act: impl FnOnce(c_int) -> Result<(), String>) -> Result<(), String> {
    // SAFETY: plain integers: AF_INET, SOCK_DGRAM.
    let fd = unsafe { c_socket(2, 2, 0) };
    if fd < 0 {
        return Err(format!(
            "cannot open a socket: {}",
            io::Error::last_os_error()
        ));
    }
    let result = act(fd);
    // SAFETY: the descriptor is ours.
    unsafe { c_close(fd) };
    result
}

pub fn configure_interface(name: &str, address: Ipv4Addr, mask: Ipv4Addr) -> Result<(), String> {
    const SIOCSIFFLAGS: c_ulong = 0x8914;
    const SIOCSIFADDR: c_ulong = 0x8916;
    const SIOCSIFNETMASK: c_ulong = 0x891c;
    const IFF_UP_RUNNING: u16 = 0x41;
    let mut request = InterfaceRequest {
        name: [0; 16],
        value: [0; 24],
    };
    let length = name.len().min(15);
    request.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    with_socket(|fd| {
        let mut set = |what: c_ulong, value: &[u8]| {
            request.value = [0; 24];
            request.value[..value.len()].copy_from_slice(value);
            // SAFETY: the ioctl reads a struct ifreq (40 bytes) that lives over the call.
            check(
                unsafe { c_ioctl(fd, what, &request as *const InterfaceRequest) },
                || format!("configure {name}"),
            )
        };
        set(SIOCSIFADDR, &socket_address(address))?;
        set(SIOCSIFNETMASK, &socket_address(mask))?;
        set(SIOCSIFFLAGS, &IFF_UP_RUNNING.to_ne_bytes())
    })
}

pub fn default_route(gateway: Ipv4Addr) -> Result<(), String> {
    const SIOCADDRT: c_ulong = 0x890b;
    const RTF_UP_GATEWAY: u16 = 0x3;
    let any = socket_address(Ipv4Addr::UNSPECIFIED);
    let entry = RouteEntry {
        destination: any,
        gateway: socket_address(gateway),
        mask: any,
        flags: RTF_UP_GATEWAY,
        ..RouteEntry::default()
    };
    with_socket(|fd| {
        // SAFETY: the ioctl reads a struct rtentry that lives over the call.
        check(
            unsafe { c_ioctl(fd, SIOCADDRT, &entry as *const RouteEntry) },
            || format!("route to {gateway}"),
        )
    })
}

fn chroot(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a NUL-terminated string that lives over the call.
    if unsafe { c_chroot(path.as_ptr()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The command, to be run with `root` as its root.
pub fn in_root<'a>(command: &'a mut Command, root: &str) -> &'a mut Command {
    let root = Path::new(root).to_owned();
    // SAFETY: between fork and exec of a single-threaded program; chroot and chdir only.
    unsafe {
        command.pre_exec(move || {
            chroot(&root)?;
            std::env::set_current_dir("/")
        })
    }
}

/// Makes `root` the root and executes `program` there; returns only on failure.
pub fn switch_root(root: &str, program: &str) -> Result<(), String> {
    // The initrd's files are memory: give it back.
    for name in ["/modules", "/init"] {
        let _ = fs::remove_dir_all(name).or_else(|_| fs::remove_file(name));
    }
    std::env::set_current_dir(root).map_err(|e| format!("cannot enter {root}: {e}"))?;
    move_mount(".", "/")?;
    chroot(Path::new(".")).map_err(|e| format!("cannot make {root} the root: {e}"))?;
    std::env::set_current_dir("/").map_err(|e| e.to_string())?;
    let problem = Command::new(program)
        .env_clear()
        .env("PATH", PATH)
        .env("TERM", "vt100")
        .exec();
    Err(format!("cannot execute {program}: {problem}"))
}

pub fn sync() {
    // SAFETY: no arguments.
    unsafe { c_sync() }
}

/// A node that cannot boot ends, so that its hypervisor and whoever waits for it see that.
pub fn power_off() -> ! {
    const POWER_OFF: c_int = 0x4321_fedc;
    // SAFETY: a plain integer; only PID 1 gets here.
    unsafe { c_reboot(POWER_OFF) };
    std::process::exit(1)
}

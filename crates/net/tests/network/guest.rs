//! Helper processes of the tests: a guest, and an `up` to be killed.
//!
//! A guest is a network namespace with the whole kernel's TCP/IP in it. Its NIC is a tap of its own; a pump copies
//! frames between that and the tap that the holder has handed out, as QEMU would. It is told what to do on its
//! standard input, one line a command, and answers with one line each.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

pub fn act(words: &[&str]) -> ExitCode {
    match *words {
        ["up", dir] => {
            let spec: net::Spec = serde_json::from_reader(std::io::stdin().lock()).unwrap();
            match net::up(Path::new(dir), &spec, &holder()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    println!("{e}");
                    ExitCode::FAILURE
                }
            }
        }
        ["fd"] => {
            let file = File::open("/proc/self/comm").unwrap();
            net::send_fd_over_stdout(&file).unwrap();
            ExitCode::SUCCESS
        }
        ["guest", dir, port, mac] => guest(Path::new(dir), port, mac),
        _ => panic!("{words:?}"),
    }
}

/// What runs this program as a holder.
pub fn holder() -> Vec<OsString> {
    let exe: PathBuf = std::env::current_exe().unwrap();
    vec![exe.into(), "net-holder".into()]
}

fn guest(dir: &Path, port: &str, mac: &str) -> ExitCode {
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    if uid != 0 {
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWUSER) }, 0);
        std::fs::write("/proc/self/setgroups", "deny").unwrap();
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
        // As QEMU is: found by others of its user.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
    }
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    let outer = match net::tap(dir, port) {
        Ok(tap) => tap,
        Err(e) => {
            println!("failed {:?} {e}", e.kind());
            return ExitCode::FAILURE;
        }
    };
    ip("link set lo up");
    let inner = open_tap("eth0");
    ip(&format!("link set eth0 address {mac} up"));
    for (from, to) in [(&outer, &inner), (&inner, &outer)] {
        let (mut from, mut to) = (
            File::from(from.try_clone().unwrap()),
            File::from(to.try_clone().unwrap()),
        );
        std::thread::spawn(move || pump(&mut from, &mut to));
    }
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        println!("{}", obey(&words).unwrap_or_else(|e| format!("error {e}")));
    }
    ExitCode::SUCCESS
}

fn obey(words: &[&str]) -> std::io::Result<String> {
    let limit = Duration::from_millis(1500);
    Ok(match *words {
        ["dhcp", mac] => dhcp(mac)?,
        ["use", address, gateway] => {
            ip(&format!("address add {address} dev eth0"));
            ip(&format!("route add default via {gateway}"));
            "done".to_owned()
        }
        ["dns", server, name] => dns(server, name)?,
        ["tcp", to] => {
            let to: SocketAddr = to.parse().unwrap();
            let mut stream = TcpStream::connect_timeout(&to, limit)?;
            stream.set_read_timeout(Some(limit))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            text
        }
        ["listen", port, text] => {
            let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
            let text = text.to_owned();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let _ = stream.unwrap().write_all(text.as_bytes());
                }
            });
            "done".to_owned()
        }
        _ => panic!("{words:?}"),
    })
}

fn ip(arguments: &str) {
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    let status = Command::new("ip")
        .env("PATH", path)
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A frame is one read and one write.
fn pump(from: &mut File, to: &mut File) {
    let mut frame = vec![0; 70_000];
    loop {
        match from.read(&mut frame) {
            Ok(count) => {
                let _ = to.write(&frame[..count]);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let mut poll = libc::pollfd {
                    fd: from.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                unsafe { libc::poll(&raw mut poll, 1, -1) };
            }
            Err(_) => return,
        }
    }
}

fn open_tap(name: &str) -> OwnedFd {
    let tun = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    assert_eq!(
        unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) },
        0
    );
    unsafe { OwnedFd::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(tun)) }
}

/// Codes and values.
type Options = Vec<(u8, Vec<u8>)>;

/// DISCOVER and REQUEST (RFC 2131); "address router resolver", with `-` for what was not given.
fn dhcp(mac: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:68")?;
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    let device = c"eth0".to_bytes_with_nul();
    let bound = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            device.as_ptr().cast(),
            device.len() as libc::socklen_t,
        )
    };
    assert_eq!(bound, 0);
    let mac: Vec<u8> = mac
        .split(':')
        .map(|b| u8::from_str_radix(b, 16).unwrap())
        .collect();
    let ask = |options: &[u8]| -> std::io::Result<(Ipv4Addr, Options)> {
        let mut packet = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0x80, 0];
        packet.resize(28, 0);
        packet.extend(&mac);
        packet.resize(236, 0);
        packet.extend([99, 130, 83, 99]);
        packet.extend(options);
        packet.extend([55, 3, 1, 3, 6, 255]);
        packet.resize(320, 0);
        socket.send_to(&packet, "255.255.255.255:67")?;
        let mut answer = [0; 1500];
        let count = socket.recv(&mut answer)?;
        let (mut at, mut found) = (240, Vec::new());
        while at < count && answer[at] != 255 {
            let length = usize::from(answer[at + 1]);
            found.push((answer[at], answer[at + 2..at + 2 + length].to_vec()));
            at += 2 + length;
        }
        Ok((
            Ipv4Addr::new(answer[16], answer[17], answer[18], answer[19]),
            found,
        ))
    };
    let option = |options: &[(u8, Vec<u8>)], wanted: u8| {
        let value = options
            .iter()
            .find(|(code, value)| *code == wanted && value.len() >= 4);
        value.map(|(_, v)| Ipv4Addr::new(v[0], v[1], v[2], v[3]))
    };
    let text = |address: Option<Ipv4Addr>| address.map_or("-".to_owned(), |a| a.to_string());
    // The server may be starting still: it is asked again, as any client does.
    let (offered, options) = (0..10)
        .find_map(|_| ask(&[53, 1, 1]).ok())
        .ok_or(std::io::ErrorKind::TimedOut)?;
    let server = option(&options, 54).unwrap().octets();
    let wanted = offered.octets();
    let mut request = vec![53, 1, 3, 50, 4];
    request.extend(wanted);
    request.extend([54, 4]);
    request.extend(server);
    let (given, options) = ask(&request)?;
    assert_eq!(
        options.iter().find(|(code, _)| *code == 53).unwrap().1,
        [5],
        "not acknowledged"
    );
    Ok(format!(
        "{given} {} {}",
        text(option(&options, 3)),
        text(option(&options, 6))
    ))
}

/// The address of a name; "none" if there is no such name.
fn dns(server: &str, name: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    let mut answer = [0; 1500];
    let mut ask = || {
        socket.send_to(&packet, format!("{server}:53"))?;
        socket.recv(&mut answer)
    };
    let count = (0..10)
        .find_map(|_| ask().ok())
        .ok_or(std::io::ErrorKind::TimedOut)?;
    let answers = u16::from_be_bytes([answer[6], answer[7]]);
    if answers == 0 {
        return Ok("none".to_owned());
    }
    let address: [u8; 4] = answer[count - 4..count].try_into().unwrap();
    // The last record is the address: nothing follows, for our question had no EDNS.
    Ok(Ipv4Addr::from(address).to_string())
}

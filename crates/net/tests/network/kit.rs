//! The bench: a world to reach, networks, guests, and a look at what is left.

use crate::guest::holder;
use api::{Mac, Name};
use net::{Host, Spec};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub type Case = (&'static str, fn());

/// Runs the cases one after another: they share what a machine has once.
pub fn run(options: &[&str], cases: &[Case]) -> ExitCode {
    let filters: Vec<_> = options.iter().filter(|o| !o.starts_with('-')).collect();
    let chosen = cases
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(**f)));
    if options.contains(&"--list") {
        chosen.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    // SAFETY: there is no other thread yet. By this mark our processes are found again.
    unsafe { std::env::set_var(MARK, std::process::id().to_string()) };
    if is_root() {
        private_host();
    }
    let mut failed = 0;
    for (name, case) in chosen {
        let begun = Instant::now();
        let before = Rest::look();
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            case();
            let after = Rest::look();
            assert_eq!(before, after, "something is left behind");
        }));
        println!(
            "test {name} ... {} ({:.2} s)",
            if result.is_ok() { "ok" } else { "FAILED" },
            begun.elapsed().as_secs_f64()
        );
        failed += u8::from(result.is_err());
    }
    println!(
        "as {}: {failed} failed",
        if is_root() {
            "root"
        } else {
            "an ordinary user"
        }
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

const MARK: &str = "OSCARV_NET_TEST";

pub fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

/// As root, this process moves into a network namespace that plays the host, so that nothing of the real one is
/// touched, and sees a resolv.conf that names the world's resolver.
fn private_host() {
    assert_eq!(
        unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) },
        0
    );
    sh("mount", "--make-rslave /");
    let file = std::env::temp_dir().join(format!("resolv.{}", std::process::id()));
    std::fs::write(&file, format!("nameserver {WORLD}\n")).unwrap();
    sh(
        "mount",
        &format!("--bind {} /etc/resolv.conf", file.display()),
    );
    std::fs::remove_file(&file).unwrap();
    sh("ip", "link set lo up");
    // A new namespace inherits this from the machine, where a cluster may be up.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
}

const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A TCP server that tells a client who it sees, on a machine beyond this one (for root), or on an address of this
/// machine (else); for root with a resolver that knows one name.
pub fn world() -> Option<SocketAddrV4> {
    static SERVER: OnceLock<Option<SocketAddrV4>> = OnceLock::new();
    *SERVER.get_or_init(|| {
        if !is_root() {
            // No packet is sent by this: it asks for the address towards the world.
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((WORLD, 9)).ok()?;
            let IpAddr::V4(own) = socket.local_addr().unwrap().ip() else {
                unreachable!()
            };
            let listener = TcpListener::bind((own, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            std::thread::spawn(move || tell_who(&listener));
            return Some(SocketAddrV4::new(own, port));
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            sender.send(unsafe { libc::gettid() }).unwrap();
            wait.recv().unwrap();
            sh("ip", "link set lo up");
            sh("ip", &format!("address add {WORLD}/24 dev world"));
            sh("ip", "link set world up");
            let listener = TcpListener::bind((WORLD, 80)).unwrap();
            let resolver = UdpSocket::bind((WORLD, 53)).unwrap();
            sender.send(0).unwrap();
            std::thread::spawn(move || resolve(&resolver));
            tell_who(&listener);
        });
        let tid = receiver.recv().unwrap();
        sh(
            "ip",
            &format!("link add wan mtu 1400 type veth peer name world mtu 1400 netns {tid}"),
        );
        sh("ip", "address add 198.51.100.2/24 dev wan");
        sh("ip", "link set wan up");
        sh("ip", &format!("route add default via {WORLD}"));
        go.send(()).unwrap();
        receiver.recv().unwrap();
        Some(SocketAddrV4::new(WORLD, 80))
    })
}

fn tell_who(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let peer = stream.peer_addr().unwrap().ip();
        let _ = stream.write_all(format!("seen {peer}").as_bytes());
    }
}

/// Every question has the answer 192.0.2.77.
fn resolve(socket: &UdpSocket) {
    let mut packet = [0; 1500];
    loop {
        let (count, from) = socket.recv_from(&mut packet).unwrap();
        // The question without what may follow it (EDNS).
        let end = 12 + packet[12..count].iter().position(|b| *b == 0).unwrap() + 5;
        let mut answer = packet[..end].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
        let _ = socket.send_to(&answer, from);
    }
}

pub fn sh(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What a network could leave behind.
#[derive(Debug, PartialEq)]
pub struct Rest {
    links: BTreeSet<String>,
    tables: BTreeSet<String>,
    forwarding: String,
    processes: BTreeSet<String>,
}

impl Rest {
    pub fn look() -> Self {
        // What all cases share is not a rest.
        let _ = world();
        let names = std::fs::read_dir("/proc/self/net/dev_snmp6")
            .into_iter()
            .flatten();
        let links = match is_root() {
            true => sh("ip", "-brief link")
                .lines()
                .filter_map(|l| l.split_whitespace().next())
                .map(str::to_owned)
                .collect(),
            false => names
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect(),
        };
        let tables = if is_root() {
            sh("nft", "list tables")
                .lines()
                .map(str::to_owned)
                .collect()
        } else {
            BTreeSet::new()
        };
        Self {
            links,
            tables,
            forwarding: std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(),
            processes: marked().into_iter().map(|(_, line)| line).collect(),
        }
    }
}

/// Processes with our mark, but ourselves: number and command line.
fn marked() -> Vec<(i32, String)> {
    let mark = format!("{MARK}={}\0", std::process::id());
    let own = std::process::id() as i32;
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .windows(mark.len())
                .any(|window| window == mark.as_bytes())
        })
        .map(|pid| {
            (
                pid,
                std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .unwrap_or_default()
                    .replace('\0', " "),
            )
        })
        .collect()
}

/// Kills those of our processes that run a program; how many.
pub fn kill_marked(program: &str) -> usize {
    let ours = marked()
        .into_iter()
        .filter(|(_, line)| line.split(' ').next().is_some_and(|p| p.ends_with(program)));
    ours.inspect(|(pid, _)| assert_eq!(unsafe { libc::kill(*pid, libc::SIGKILL) }, 0))
        .count()
}

/// A network of the tests; taken down at the end.
pub struct Net {
    pub spec: Spec,
    pub dir: PathBuf,
    _home: tempfile::TempDir,
}

pub fn mac(number: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 1, 2, number]).unwrap()
}

pub fn host(number: u8) -> Host {
    Host {
        name: Name::new(&format!("n{number}")).unwrap(),
        mac: mac(number),
        address: Ipv4Addr::new(10, 77, 0, number),
        aliases: vec![format!("alias{number}")],
    }
}

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

impl Net {
    /// A specification and a place; nothing is up.
    pub fn new(cluster: &str, slot: u16) -> Self {
        let home = tempfile::tempdir().unwrap();
        // Longer than the name of a unix socket may be.
        let dir = home.path().join("x".repeat(120)).join("net");
        Self {
            spec: Spec {
                cluster: Name::new(cluster).unwrap(),
                slot,
                address: Ipv4Addr::new(10, 77, 0, 0),
                prefix: 24,
                gateway: GATEWAY,
                domain: format!("{cluster}.test"),
                nat: true,
                hosts: (1..=3).map(host).collect(),
            },
            dir,
            _home: home,
        }
    }

    pub fn up(cluster: &str, slot: u16) -> Self {
        let net = Self::new(cluster, slot);
        net.ensure().unwrap();
        net
    }

    pub fn ensure(&self) -> Result<(), net::Error> {
        net::up(&self.dir, &self.spec, &holder())
    }

    pub fn settle(&self) {
        let warnings = net::settled(&self.dir, Duration::from_secs(20)).unwrap();
        assert_eq!(warnings, Vec::<String>::new(), "{}", self.logs());
    }

    pub fn logs(&self) -> String {
        ["holder", "dnsmasq", "pasta"]
            .iter()
            .map(|name| {
                std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default()
            })
            .collect()
    }

    /// An `up` in a process of its own.
    pub fn up_elsewhere(&self) -> Child {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["act", "up"])
            .arg(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let text = serde_json::to_vec(&self.spec).unwrap();
        child.stdin.take().unwrap().write_all(&text).unwrap();
        child
    }

    pub fn guest(&self, number: u8) -> Guest {
        let mut guest = Guest::start(&self.dir, &format!("n{number}"), mac(number));
        assert_eq!(guest.read(), "ready");
        guest
    }

    /// With the address that it should have.
    pub fn configured(&self, number: u8) -> Guest {
        let mut guest = self.guest(number);
        assert_eq!(
            guest.ask(&format!("use 10.77.0.{number}/24 {GATEWAY}")),
            "done"
        );
        guest
    }

    pub fn kill_holder(&self) {
        daemon::kill(&self.dir.join("holder.lock"), Duration::from_secs(10)).unwrap();
    }

    pub fn down(&self) {
        net::down(&self.dir).unwrap();
        assert!(!self.dir.exists());
        assert_eq!(net::status(&self.dir), net::Status::Absent);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = net::down(&self.dir);
    }
}

pub struct Guest {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub mac: Mac,
}

impl Guest {
    pub fn start(dir: &Path, port: &str, mac: Mac) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["act", "guest"])
            .arg(dir)
            .args([port, &mac.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            mac,
        }
    }

    pub fn read(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.read()
    }

    pub fn dhcp(&mut self) -> String {
        self.ask(&format!("dhcp {}", self.mac))
    }

    pub fn dns(&mut self, name: &str) -> String {
        self.ask(&format!("dns {GATEWAY} {name}"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Repeats until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn read_all(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

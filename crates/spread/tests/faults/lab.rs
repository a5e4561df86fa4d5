//! Sources and receivers as processes of their own: this program once more, in a role.

use crate::kit::{LONG, Place, options};
use serde_json::Value;
use spread::receive::{self, Event};
use spread::send::{self, Host};
use spread::sign::{Key, Signer};
use spread::source::{self, From};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

impl Place {
    /// Nothing is there but the file, and what is known of it.
    pub fn is_tidy(&self, host: &str) {
        let names = |dir: &Path| -> BTreeSet<String> {
            let entries = std::fs::read_dir(dir).unwrap();
            entries
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let dir = self.path(host);
        assert_eq!(names(&dir), set(&[".spread", "disk.raw"]), "{host}");
        let beside = [
            "disk.raw.lock",
            "disk.raw.manifest",
            "disk.raw.manifest.minisig",
            "disk.raw.seen",
        ];
        assert_eq!(names(&dir.join(".spread")), set(&beside), "{host}");
    }

    /// A receiver as a process. `listen`: port 0 for any. `settings`: of its role.
    pub fn start_receiver(&self, name: &str, listen: &str, settings: &[(&str, String)]) -> Process {
        let mut all = vec![
            ("SPREAD_DIR", self.path(name).display().to_string()),
            ("SPREAD_LISTEN", listen.to_owned()),
            ("SPREAD_KEY", self.signer.key().to_string()),
        ];
        all.extend(settings.iter().cloned());
        let mut process = Process::start("receive", &all);
        let line = process.wait(|line| line.starts_with("listening "));
        process.address = line.split_once(' ').unwrap().1.parse().unwrap();
        process
    }

    /// A source as a process.
    pub fn start_source(&self, file: &Path, hosts: &[(&str, SocketAddr)], limit: u64) -> Process {
        self.start_source_for(file, hosts, limit, 5000)
    }

    /// `patience`: how many ms hosts that are not there are waited for.
    pub fn start_source_for(
        &self,
        file: &Path,
        hosts: &[(&str, SocketAddr)],
        limit: u64,
        patience: u64,
    ) -> Process {
        self.start_source_with(file, hosts, limit, patience, &[])
    }

    /// `settings`: of its role. Of several files in a row, with `:` between them, each is sent.
    pub fn start_source_with(
        &self,
        file: &Path,
        hosts: &[(&str, SocketAddr)],
        limit: u64,
        patience: u64,
        settings: &[(&str, String)],
    ) -> Process {
        let hosts: Vec<String> = hosts.iter().map(|(n, a)| format!("{n}={a}")).collect();
        let place = self.path("").display().to_string();
        let mut all = vec![
            ("SPREAD_PLACE", place),
            ("SPREAD_FILE", file.display().to_string()),
            ("SPREAD_HOSTS", hosts.join(",")),
            ("SPREAD_LIMIT", limit.to_string()),
            ("SPREAD_PATIENCE", patience.to_string()),
        ];
        all.extend(settings.iter().cloned());
        Process::start("send", &all)
    }
}

/// A child process in a role; what it prints comes as lines. Ends when this is dropped, or the tests are gone.
pub struct Process {
    pub child: Child,
    lines: Receiver<String>,
    pub address: SocketAddr,
    role: &'static str,
}

impl Process {
    fn start(role: &'static str, settings: &[(&str, String)]) -> Self {
        let this = std::env::current_exe().unwrap();
        let mounts = settings.iter().any(|(name, _)| *name == "SPREAD_MOUNT");
        let mut command = match mounts {
            true => Command::new("unshare"),
            false => Command::new(&this),
        };
        if mounts {
            // Mounts of its own, which go with it.
            command
                .args(["--mount", "--propagation", "private", "--"])
                .arg(&this);
        }
        command.args(["--exact", "faults::lab::role", "--nocapture", "--quiet"]);
        command.env("SPREAD_ROLE", role);
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (say, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        let address = "0.0.0.0:0".parse().unwrap();
        Self {
            child,
            lines,
            address,
            role,
        }
    }

    /// The first line of which this is true.
    pub fn wait(&mut self, is: impl FnMut(&str) -> bool) -> String {
        tokio::task::block_in_place(|| self.wait_for(is))
    }

    fn wait_for(&mut self, mut is: impl FnMut(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            match self
                .lines
                .recv_timeout(LONG.saturating_sub(begin.elapsed()))
            {
                Ok(line) if is(&line) => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("{}: it takes too long", self.role),
                Err(RecvTimeoutError::Disconnected) => panic!("{}: it has ended", self.role),
            }
        }
    }

    /// Waits until a source says something of its hosts.
    pub fn hosts(&mut self, mut is: impl FnMut(&Value) -> bool) -> Value {
        let line = self.wait(|line| {
            let hosts = line.strip_prefix("hosts ");
            hosts.is_some_and(|hosts| is(&serde_json::from_str(hosts).unwrap()))
        });
        serde_json::from_str(&line["hosts ".len()..]).unwrap()
    }

    /// What a source reports in the end.
    pub fn report(&mut self) -> Value {
        let line = self.wait(|line| line.starts_with("report "));
        serde_json::from_str(&line["report ".len()..]).unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Most KiB that it has had in memory.
    pub fn memory(&self) -> u64 {
        memory(self.child.id()).unwrap()
    }

    /// Files and connections that it has open.
    pub fn open_files(&self) -> usize {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        fds.unwrap().count()
    }
}

/// Most KiB that a process has had in memory, if it is still there.
pub fn memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Not a test but what processes of the tests do.
#[test]
fn role() {
    let Some(role) = set("SPREAD_ROLE") else {
        return;
    };
    std::thread::spawn(|| {
        // Its end is that of whoever started this.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let dir = set("SPREAD_DIR").unwrap_or_default();
    if let Some(how) = set("SPREAD_MOUNT") {
        std::fs::create_dir_all(&dir).unwrap();
        let mut mount = Command::new("mount");
        match how.starts_with('/') {
            // An image; its loop device goes with the last mount.
            true => mount.args(["-o", "loop", &how, &dir]),
            false => mount.args(["-t", "tmpfs", "-o", &how, "tmpfs", &dir]),
        };
        assert!(mount.status().unwrap().success());
    }
    if let Some(user) = set("SPREAD_USER") {
        let user = rustix::process::Uid::from_raw(user.parse().unwrap());
        // Threads that begin from here on are this user's, too.
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    match role.as_str() {
        "receive" => runtime.block_on(receiving(Path::new(&dir))),
        _ => runtime.block_on(sending()),
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{what}");
    let _ = out.flush();
}

async fn receiving(dir: &Path) {
    let begin = Instant::now();
    let listen = set("SPREAD_LISTEN").unwrap();
    let listener = loop {
        match TcpListener::bind(&listen).await {
            Ok(listener) => break listener,
            Err(e) => assert!(begin.elapsed() < LONG, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    // A line of its own, after what the test harness prints.
    say(&format!("\nlistening {}", listener.local_addr().unwrap()));
    let options = receive::Options {
        tls: None,
        into: dir.to_owned(),
        keys: vec![Key::read(&set("SPREAD_KEY").unwrap()).unwrap()],
        replace: false,
        in_place: set("SPREAD_IN_PLACE").is_some(),
    };
    let told = |event: Event| match event {
        Event::Begun { .. } => say("begun"),
        Event::Done { .. } => say("done"),
        Event::Failed { why, .. } => say(&format!("failed {why}")),
        Event::Refused { why, .. } => say(&format!("refused {why}")),
    };
    receive::receive(listener, options, told).await.unwrap();
}

async fn sending() {
    let place = PathBuf::from(set("SPREAD_PLACE").unwrap());
    let signer = Arc::new(Signer::load_or_make(&place.join("key")).unwrap());
    let memory = place.join("memory");
    let hosts = set("SPREAD_HOSTS").unwrap();
    let hosts: Vec<(&str, SocketAddr)> = hosts
        .split(',')
        .map(|host| host.split_once('=').unwrap())
        .map(|(name, address)| (name, address.parse().unwrap()))
        .collect();
    let limit = set("SPREAD_LIMIT").unwrap().parse().unwrap();
    say("");
    let line = |what: &str, hosts: &[Host]| {
        say(&format!("{what} {}", serde_json::to_string(hosts).unwrap()));
    };
    for file in set("SPREAD_FILE").unwrap().split(':').map(Path::new) {
        let mut options = options(&hosts, (limit > 0).then_some(limit));
        options.patience = Duration::from_millis(set("SPREAD_PATIENCE").unwrap().parse().unwrap());
        let source = source::open(file, "disk.raw", signer.clone(), &memory, 2, From::Nothing);
        let source = source.unwrap().unwrap();
        let sent = send::send(source.transfer.clone(), options, |hosts| {
            line("hosts", hosts)
        });
        let report = sent.await.unwrap();
        drop(source);
        line("report", &report);
    }
}

/// Says so, if only root can do this and we are not.
pub fn may_not(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("not tested, because this is not root: {what}");
    }
    !root
}

/// An XFS, which can share blocks between files; none, with a line, where it cannot be made.
pub fn xfs(place: &Place) -> Option<String> {
    let image = place.path("xfs");
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(400 << 20).unwrap();
    let made = std::process::Command::new("mkfs.xfs")
        .args(["-q", "-m", "reflink=1"])
        .arg(&image)
        .status();
    if made.is_ok_and(|made| made.success()) {
        return Some(image.display().to_string());
    }
    println!("not tested, because there is no mkfs.xfs (Debian: xfsprogs): a receiver on XFS");
    None
}

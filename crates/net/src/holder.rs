//! The holder: the process that lives in the cluster's network namespace for as long as the network is up.
//!
//! It is given its directory, its lock as standard input and its listening socket as standard output (crate::up). It
//! makes the namespaces, starts the keeper, makes the bridge, and then answers; dnsmasq, rules and the way out are
//! made meanwhile. It has one thread, and must: user namespaces ask for it, and once it has a process namespace for
//! its children it cannot have a second one.

use crate::files::{APPLIED, Dir, STATUS, is_root, program};
use crate::keeper;
use crate::links::{BRIDGE, Links};
use crate::services::{Hand, Service, State};
use crate::space::{self, Found};
use crate::wire::{self, LIMIT, Reply, Request};
use crate::{Error, Spec, dnsmasq, host, tap};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, UnixListener, UnixStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// What `status` reads.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Health {
    pub warnings: Vec<String>,
}

/// The holder process of the network in `dir`. To be called first thing in `main`, before any thread or descriptor is
/// made: descriptors that were inherited are closed.
pub fn holder_main(dir: &Path) -> ExitCode {
    match prepare().and_then(|listener| hold(dir, listener)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}", e.chain());
            ExitCode::FAILURE
        }
    }
}

/// Checks what we were given; the listening socket.
fn prepare() -> Result<StdListener, Error> {
    let cannot = || Error::io("the holder of a network is started by `oscarv up` only");
    let threads = fs::read_dir("/proc/self/task").map_err(cannot())?.count();
    if threads != 1 {
        return Err(cannot()(io::Error::other("it has threads already")));
    }
    // SAFETY: nothing of this process has opened anything yet, so nobody's descriptor is closed under him.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
    let (stdin, stdout) = (io::stdin(), io::stdout());
    for fd in [stdin.as_fd(), stdout.as_fd()] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)
            .map_err(|e| cannot()(e.into()))?;
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdout, 3).map_err(|e| cannot()(e.into()))?;
    if !rustix::net::sockopt::socket_acceptconn(&socket).unwrap_or(false) {
        return Err(cannot()(io::Error::other(
            "its standard output is not a listening socket",
        )));
    }
    let listener = StdListener::from(socket);
    listener.set_nonblocking(true).map_err(cannot())?;
    Ok(listener)
}

fn hold(path: &Path, listener: StdListener) -> Result<(), Error> {
    let dir = Dir::open(path).map_err(Error::at("cannot open", path))?;
    let spec = dir.spec()?.ok_or_else(|| Error::Damaged {
        path: dir.join(crate::files::SPEC),
        problem: "it is missing".to_owned(),
    })?;
    spec.check()?;
    let root = is_root();
    let found = space::find(&dir, spec.slot)?;
    if found.is_some()
        && let Some(what) = dir
            .read::<Spec>(APPLIED)?
            .and_then(|old| old.fixed_difference(&spec))
    {
        return Err(Error::Changed {
            cluster: spec.cluster,
            what,
        });
    }
    dnsmasq::write(&dir, &spec)?;
    dnsmasq::prune(&dir, &spec)?;
    space::enter_user(root, found.as_ref())?;
    let keeper = keeper::fork(&dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("cannot start the holder"))?;
    LocalSet::new().block_on(&runtime, async move {
        // A netlink socket belongs to the namespace in which it was opened: this one to the host's.
        let outside = match root {
            true => Some((Links::open()?, host::mtu())),
            false => None,
        };
        space::enter_net(&dir, found.as_ref())?;
        let holder = Rc::new(Holder::new(dir, spec, outside, keeper)?);
        holder.clone().serve(listener, found.as_ref()).await
    })
}

pub(crate) struct Holder {
    pub(crate) dir: Rc<Dir>,
    pub(crate) spec: RefCell<Spec>,
    pub(crate) links: Links,
    /// As root: links of the host, and the MTU of its way out.
    pub(crate) outside: Option<(Links, u32)>,
    pub(crate) space: OwnedFd,
    pub(crate) hand: Rc<Hand>,
    pub(crate) dns: Rc<Service>,
    pub(crate) way: Rc<Service>,
    /// Works on the way out.
    pub(crate) way_task: RefCell<Option<JoinHandle<()>>>,
}

impl Holder {
    fn new(
        dir: Dir,
        spec: Spec,
        outside: Option<(Links, u32)>,
        keeper: OwnedFd,
    ) -> Result<Self, Error> {
        let dir = Rc::new(dir);
        let hand = Rc::new(Hand::new(keeper).map_err(Error::io("cannot reach the keeper"))?);
        let name = if outside.is_some() { "nat" } else { "pasta" };
        Ok(Self {
            dns: Service::new("dnsmasq", true, &hand, &dir),
            way: Service::new(name, false, &hand, &dir),
            links: Links::open()?,
            space: space::current()?,
            spec: RefCell::new(spec),
            way_task: RefCell::default(),
            dir,
            outside,
            hand,
        })
    }

    pub(crate) fn spec(&self) -> Spec {
        self.spec.borrow().clone()
    }

    async fn serve(
        self: Rc<Self>,
        listener: StdListener,
        found: Option<&Found>,
    ) -> Result<(), Error> {
        let spec = self.spec();
        self.inside(&spec).await?;
        if spec.nat {
            self.link_out(&spec, found.is_some()).await?;
        }
        let bridge = self.links.index(BRIDGE).await?;
        self.dns.set(State::Starting);
        self.way.set(State::Starting);
        self.report()?;
        self.dir.write(APPLIED, &spec)?;
        let cannot = || Error::io("the holder's socket does not work");
        let listener = UnixListener::from_std(listener).map_err(cannot())?;
        let hand = self.hand.clone();
        let mut keeper = spawn_local(async move { hand.listen().await });
        // Who waits for the first tap is served before all that.
        let holder = self.clone();
        spawn_local(async move {
            tokio::task::yield_now().await;
            holder.start().await;
        });
        loop {
            tokio::select! {
                end = &mut keeper => {
                    let why = end.map_err(io::Error::other).and_then(|result| result).err();
                    return Err(Error::io("the keeper of services has ended")(why.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())));
                }
                client = listener.accept() => {
                    // Of one client's trouble the others must not suffer.
                    if let Ok((socket, _)) = client {
                        let holder = self.clone();
                        spawn_local(async move { holder.answer(socket, bridge).await });
                    }
                }
            }
        }
    }

    async fn start(self: Rc<Self>) {
        if let Err(e) = self.hand.space(self.space.as_fd()).await {
            // Then the keeper has ended, and so shall we.
            eprintln!("cannot reach the keeper: {e}");
            return;
        }
        spawn_local(self.clone().run_dns());
        self.start_way();
        self.watch().await;
    }

    /// What needs nothing but our namespace. All of it may be there already.
    async fn inside(&self, spec: &Spec) -> Result<(), Error> {
        // Neither bridge nor taps shall speak IPv6 of their own. There may be none at all.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        self.links.set_up("lo").await?;
        let [high, low] = spec.slot.to_be_bytes();
        self.links.bridge([0x02, 0x6f, 0x76, 0, high, low]).await?;
        self.links.address(BRIDGE, spec.gateway, spec.prefix).await
    }

    async fn run_dns(self: Rc<Self>) {
        let argv = async || {
            let path = program("dnsmasq")
                .ok_or("is not installed; run: sudo apt-get install dnsmasq-base")?;
            let spec = self.spec();
            dnsmasq::prune(&self.dir, &spec).map_err(|e| e.chain())?;
            let root = self.outside.is_some();
            Ok(dnsmasq::arguments(&path, &spec, root, dnsmasq::resolvers()))
        };
        self.dns
            .supervise(argv, |line| line.contains(": started, version"))
            .await;
    }

    /// Keeps status.json up to date.
    async fn watch(&self) {
        let (mut dns, mut way) = (self.dns.state.subscribe(), self.way.state.subscribe());
        loop {
            let changed = tokio::select! {
                changed = dns.changed() => changed,
                changed = way.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            if let Err(e) = self.report() {
                eprintln!("{}", e.chain());
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        let named = [
            (&self.dns, "nodes have no DHCP and no DNS"),
            (&self.way, "nodes reach each other, but not the world"),
        ];
        let mut warnings: Vec<_> = named
            .into_iter()
            .filter_map(|(service, effect)| Some(format!("{effect}: {}", service.warning()?)))
            .collect();
        if self.spec.borrow().nat && dnsmasq::resolvers().is_none() {
            warnings.push(
                "nodes can resolve only each other's names: this machine's resolver is on its loopback, which nodes \
                 cannot reach; name another one in /etc/resolv.conf"
                    .to_owned(),
            );
        }
        warnings
    }

    fn report(&self) -> Result<(), Error> {
        let warnings = self.warnings();
        self.dir.write(STATUS, &Health { warnings })
    }

    async fn answer(self: &Rc<Self>, mut socket: UnixStream, bridge: u32) {
        // A question comes at once or not at all.
        let Ok(Some(request)) =
            tokio::time::timeout(Duration::from_secs(5), question(&mut socket)).await
        else {
            return;
        };
        let (reply, fd) = match self.act(request, bridge).await {
            Ok((warnings, fd)) => (Reply::Done { warnings }, fd),
            Err(e) => (Reply::failed(&e), None),
        };
        if let Ok(bytes) = wire::line(&reply)
            && let Err(e) = reply_with(&socket, &bytes, fd.as_ref().map(AsFd::as_fd)).await
        {
            eprintln!("cannot answer: {e}");
        }
    }

    async fn act(
        self: &Rc<Self>,
        request: Request,
        bridge: u32,
    ) -> io::Result<(Vec<String>, Option<OwnedFd>)> {
        match request {
            Request::Ready => Ok((Vec::new(), None)),
            Request::Settled => {
                self.dns.settled().await;
                self.way.settled().await;
                Ok((self.warnings(), None))
            }
            Request::Reload => {
                self.reload()
                    .await
                    .map_err(|e| io::Error::other(e.chain()))?;
                Ok((Vec::new(), None))
            }
            Request::Tap { port } => {
                let slot = self.spec.borrow().slot;
                let tap = tap::open_port(&self.links, bridge, slot, &port).await?;
                Ok((Vec::new(), Some(tap)))
            }
            Request::Dial { to, limit_ms } => {
                let socket = connect(to, Duration::from_millis(limit_ms)).await?;
                Ok((Vec::new(), Some(socket)))
            }
        }
    }
}

/// One line; none if the client has gone or talks nonsense.
async fn question(socket: &mut UnixStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    while !bytes.ends_with(b"\n") {
        let count = socket.read(&mut buffer).await.ok()?;
        if count == 0 || bytes.len() > LIMIT {
            return None;
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
    serde_json::from_slice(&bytes).ok()
}

/// The descriptor goes with the first byte.
async fn reply_with(
    socket: &UnixStream,
    mut bytes: &[u8],
    mut fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_io(tokio::io::Interest::WRITABLE, || {
            wire::send(socket, bytes, fd)
        }) {
            Ok(count) => {
                bytes = &bytes[count..];
                fd = None;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn connect(to: SocketAddrV4, limit: Duration) -> io::Result<OwnedFd> {
    let attempt = TcpSocket::new_v4()?.connect(to.into());
    match tokio::time::timeout(limit, attempt).await {
        Ok(stream) => Ok(stream?.into_std()?.into()),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{to} did not answer in {limit:?}"),
        )),
    }
}

impl Holder {
    /// spec.json has changed: hosts, domain, NAT.
    async fn reload(self: &Rc<Self>) -> Result<(), Error> {
        let old = self.spec();
        let new = self.dir.spec()?.unwrap_or_else(|| old.clone());
        new.check()?;
        if let Some(what) = old.fixed_difference(&new) {
            return Err(Error::Changed {
                cluster: new.cluster,
                what,
            });
        }
        dnsmasq::write(&self.dir, &new)?;
        if new.nat && !old.nat {
            self.link_out(&new, true).await?;
        }
        *self.spec.borrow_mut() = new.clone();
        if dnsmasq::needs_restart(&old, &new) {
            self.dns.restart().await;
        } else {
            self.dns.hang_up().await;
        }
        if new.nat != old.nat {
            self.change_way(&new).await?;
        }
        self.dir.write(APPLIED, &new)
    }
}

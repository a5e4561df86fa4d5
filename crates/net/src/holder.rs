//! The holder: the process that lives in the cluster's network namespace for as long as the network is up.
//!
//! It is given its directory, its lock as standard input and its listening socket as standard output (crate::up). It
//! makes the namespaces, starts the keeper, makes the bridge, and then answers; dnsmasq, rules and the way out are
//! made meanwhile. It has one thread, and must: user namespaces ask for it, and once it has a process namespace for
//! its children it cannot have a second one.

use crate::files::{APPLIED, Dir, STATUS, is_root, program};
use crate::keeper::{self, Order};
use crate::links::{BRIDGE, Links, UPLINK};
use crate::services::{Hand, Service, State};
use crate::space::{self, Found};
use crate::wire::{self, LIMIT, Reply, Request};
use crate::{Error, Spec, dnsmasq, host, rules, tap};
use rtnetlink::MulticastGroup;
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

struct Holder {
    dir: Rc<Dir>,
    spec: RefCell<Spec>,
    links: Links,
    /// As root: links of the host, and the MTU of its way out.
    outside: Option<(Links, u32)>,
    space: OwnedFd,
    hand: Rc<Hand>,
    dns: Rc<Service>,
    way: Rc<Service>,
    /// Works on the way out.
    way_task: RefCell<Option<JoinHandle<()>>>,
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

    fn spec(&self) -> Spec {
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
        self.report()?;
        self.dir.write(APPLIED, &spec)?;
        let cannot = || Error::io("the holder's socket does not work");
        let listener = UnixListener::from_std(listener).map_err(cannot())?;
        let hand = self.hand.clone();
        let mut keeper = spawn_local(async move { hand.listen().await });
        self.hand
            .space(self.space.as_fd())
            .await
            .map_err(Error::io("cannot reach the keeper"))?;
        spawn_local(self.clone().watch());
        spawn_local(self.clone().run_dns());
        self.start_way();
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

    /// What needs nothing but our namespace. All of it may be there already.
    async fn inside(&self, spec: &Spec) -> Result<(), Error> {
        // Neither bridge nor taps shall speak IPv6 of their own. There may be none at all.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        self.links.set_up("lo").await?;
        let [high, low] = spec.slot.to_be_bytes();
        self.links.bridge([0x02, 0x6f, 0x76, 0, high, low]).await?;
        self.links.address(BRIDGE, spec.gateway, spec.prefix).await
    }

    /// As root: the pair of links. Its host's end stays down until its rules are there.
    async fn link_out(&self, spec: &Spec, found: bool) -> Result<(), Error> {
        let Some((host, mtu)) = &self.outside else {
            return Ok(());
        };
        let keep = found && self.links.find(UPLINK).await?.is_some();
        host::make_link(host, &self.dir, spec, self.space.as_fd(), keep, *mtu).await?;
        let (inner, outer) = spec.link();
        self.links.set_up(UPLINK).await?;
        self.links.address(UPLINK, inner, 30).await?;
        self.links.default_route(outer).await
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

    fn start_way(self: &Rc<Self>) {
        self.way.set(State::Starting);
        let holder = self.clone();
        let task = spawn_local(async move {
            let spec = holder.spec();
            if let Err(reason) = holder.rules(&spec).await {
                holder
                    .way
                    .set(State::Failed(format!("the way out: {reason}")));
            } else if !spec.nat {
                holder.way.set(State::Off);
            } else if let Some((host, _)) = &holder.outside {
                holder
                    .way
                    .set(match holder.open_as_root(host, &spec).await {
                        Ok(()) => State::Up,
                        Err(reason) => State::Failed(format!("the way out: {reason}")),
                    });
            } else {
                tokio::join!(holder.run_pasta(&spec), holder.watch_routes());
            }
        });
        if let Some(old) = self.way_task.borrow_mut().replace(task) {
            old.abort();
        }
    }

    /// Rules first, forwarding after them.
    async fn rules(&self, spec: &Spec) -> Result<(), String> {
        let mtu = self.outside.as_ref().map_or(1500, |(_, mtu)| *mtu);
        let text = if spec.nat {
            rules::inside(mtu)
        } else {
            rules::INSIDE_CLOSED.to_owned()
        };
        self.hand
            .order(|id| Order::Rules { id, text }, None)
            .await?;
        let switch = "/proc/sys/net/ipv4/ip_forward";
        fs::write(switch, if spec.nat { "1" } else { "0" })
            .map_err(|e| format!("cannot write {switch}: {e}"))
    }

    async fn open_as_root(&self, host: &Links, spec: &Spec) -> Result<(), String> {
        let text = host::rules(&self.dir, spec);
        self.hand
            .order(|id| Order::Forward { id, text }, None)
            .await?;
        host::open_link(host, spec).await.map_err(|e| e.chain())
    }

    async fn run_pasta(&self, spec: &Spec) {
        let (inner, outer) = spec.link();
        let argv = async || {
            let path =
                program("pasta").ok_or("is not installed; run: sudo apt-get install passt")?;
            let mut argv = vec![path.to_string_lossy().into_owned()];
            // Its own addresses and not a copy of the host's: those may be the cluster's, too.
            for text in [
                "--foreground",
                "--stderr",
                "--ipv4-only",
                "--config-net",
                "--no-map-gw",
                "--no-netns-quit",
            ] {
                argv.push(text.to_owned());
            }
            let options = [
                ("--netns", "/tmp/netns".to_owned()),
                ("--tcp-ports", "none".to_owned()),
                ("--udp-ports", "none".to_owned()),
                ("--tcp-ns", "none".to_owned()),
                ("--udp-ns", "none".to_owned()),
                ("--ns-ifname", UPLINK.to_owned()),
                ("--mtu", "1500".to_owned()),
                ("--address", inner.to_string()),
                ("--netmask", "30".to_owned()),
                ("--gateway", outer.to_string()),
            ];
            argv.extend(
                options
                    .into_iter()
                    .flat_map(|(name, value)| [name.to_owned(), value]),
            );
            Ok(argv)
        };
        // It says nothing when it is ready; the route that it makes does.
        self.way.supervise(argv, |_| false).await;
    }

    async fn watch_routes(&self) {
        let Ok((connection, _, mut news)) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Ipv4Route])
        else {
            return;
        };
        let connection = spawn_local(connection);
        while futures_util::StreamExt::next(&mut news).await.is_some() {
            if self.links.has_default_route().await.unwrap_or(false) {
                self.way.set(State::Up);
            }
        }
        connection.abort();
    }

    /// Keeps status.json up to date.
    async fn watch(self: Rc<Self>) {
        let (mut dns, mut way) = (self.dns.state.subscribe(), self.way.state.subscribe());
        loop {
            if let Err(e) = self.report() {
                eprintln!("{}", e.chain());
            }
            let changed = tokio::select! {
                changed = dns.changed() => changed,
                changed = way.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<_> = [&self.dns, &self.way]
            .into_iter()
            .filter_map(|s| s.warning())
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

    async fn change_way(self: &Rc<Self>, new: &Spec) -> Result<(), Error> {
        if let Some(task) = self.way_task.borrow_mut().take() {
            task.abort();
        }
        self.way.end().await;
        if let (Some((host, _)), false) = (&self.outside, new.nat)
            && let Some(link) = host.find(&host::link_name(new.slot)).await?
        {
            host.remove(&link).await?;
        }
        self.start_way();
        Ok(())
    }
}

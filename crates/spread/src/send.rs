//! The source's side: it offers a transfer to hosts, and leads them.

mod leader;
mod link;

use crate::chain::Chains;
use crate::gate::{self, Gate};
use crate::layout::Layout;
use crate::limit::Limit;
use crate::manifest::Id;
use crate::serve;
use crate::speed;
use crate::standing::Standing;
use crate::stream::Door;
use crate::tls::Tls;
use crate::topology::Topology;
use crate::transfer::Transfer;
use crate::wire::{self, CONNECT, Hello};
use leader::Leader;
use link::Link;
use serde::Serialize;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// A host that is silent for so long has gone.
const GONE: Duration = Duration::from_millis(1500);

/// Connections that the kernel has taken and this process not yet.
const BACKLOG: u32 = 1024;

pub struct Options {
    /// Names, for the report, and addresses.
    pub hosts: Vec<(String, SocketAddr)>,
    /// How many chains go out from the source.
    pub chains: usize,
    /// How long hosts that are not there are waited for, after the others have it.
    pub patience: Duration,
    pub limit: Option<Limit>,
    /// All connections are private; none: all are plain.
    pub tls: Option<Arc<Tls>>,
}

/// What else is known of the hosts.
#[derive(Default)]
pub struct Plan {
    /// Names and addresses of hosts that have it, and from which others can have it, too.
    pub from: Vec<(String, SocketAddr)>,
    /// Which switches hosts are at, and the source's own name.
    pub topology: Option<(Topology, String)>,
}

impl Plan {
    fn layout(&self, hosts: &[(String, SocketAddr)]) -> Layout {
        let bare = |(name, address): &'_ (String, SocketAddr)| match name.parse::<SocketAddr>() {
            Ok(_) => address.ip().to_string(),
            Err(_) => name.clone(),
        };
        let names: Vec<String> = hosts.iter().map(bare).collect();
        match &self.topology {
            Some((topology, own)) => topology.layout(names.iter().map(String::as_str), own),
            None => Layout::flat(hosts.len()),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not reached, or not any more.
    #[default]
    Away,
    Receiving,
    Done,
    Refused,
    /// It has not the version that this is made from.
    NoBase,
    Failed,
}

/// What is known of a host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Host {
    pub name: String,
    pub state: State,
    /// Bytes that came over the network.
    pub received: u64,
    /// Frames that are whole there.
    pub frames: u32,
    /// Name of the host that it has them from; none: from the source.
    pub parent: Option<String>,
    /// When it was done, from the beginning.
    pub seconds: Option<f64>,
    /// What happened to it, in order.
    pub notes: Vec<String>,
}

/// Offers a transfer to hosts, and returns when each of them has it, or will not have it.
///
/// `told` is called some ten times a second with the hosts as they are.
///
/// Errors: no port can be listened on.
pub async fn send(
    transfer: Arc<Transfer>,
    options: Options,
    told: impl FnMut(&[Host]),
) -> io::Result<Vec<Host>> {
    send_by(transfer, options, Plan::default(), told).await
}

/// As [`send`], with what else is known. The report has the hosts of `plan.from` last, as far as they are not among
/// those that are to get it.
pub async fn send_by(
    transfer: Arc<Transfer>,
    mut options: Options,
    plan: Plan,
    told: impl FnMut(&[Host]),
) -> io::Result<Vec<Host>> {
    let needy = options.hosts.len();
    for (name, address) in &plan.from {
        if options.hosts.iter().all(|(_, known)| known != address) {
            options.hosts.push((name.clone(), *address));
        }
    }
    let layout = plan.layout(&options.hosts);
    let mut chains = Chains::ordered(layout, options.hosts.len(), options.chains);
    let most = options.limit.as_ref().map(Limit::rate);
    if let Some(rate) = most.into_iter().chain(speed::of_links()).reduce(f64::min) {
        chains.expect(rate);
    }
    gate::allow_files();
    let listener = listen()?;
    let port = listener.local_addr()?.port();
    let limit = options.limit.map(Arc::new);
    let door = Door(options.tls);
    let mut tasks = JoinSet::new();
    let children = 64 + 4 * options.hosts.len();
    tasks.spawn(serve_all(
        listener,
        transfer.clone(),
        limit,
        door.clone(),
        children,
    ));
    let mut run = [0; 16];
    crate::source::fill_random(&mut run)?;
    let run = Id(run).to_string();
    let (say, said) = mpsc::channel(leader::SAID);
    let mut orders = Vec::new();
    let stranded = stranded(&options.hosts);
    for (index, (name, address)) in options.hosts.iter().enumerate() {
        let (order, ordered) = mpsc::unbounded_channel();
        orders.push(order);
        if stranded.contains(&index) {
            continue;
        }
        let link = Link {
            host: index,
            name: link::host_of(name),
            run: run.clone(),
            address: *address,
            door: door.clone(),
            port,
            ask: index >= needy,
            transfer: transfer.clone(),
            say: say.clone(),
        };
        tasks.spawn(link.keep(ordered));
    }
    let mut hosts: Vec<Host> = options
        .hosts
        .iter()
        .map(|(name, _)| Host {
            name: name.clone(),
            ..Host::default()
        })
        .collect();
    for index in stranded {
        let address = options.hosts[index].1.ip();
        hosts[index].state = State::Refused;
        hosts[index].notes = vec![format!(
            "0.0 s: {address} is an address of this host alone, and others are to have it from there: list it by its \
             address in the network"
        )];
    }
    let leader = Leader {
        chains,
        needy,
        hosts,
        heard: vec![None; options.hosts.len()],
        standing: vec![Standing::default(); options.hosts.len()],
        sources: vec![None; options.hosts.len()],
        marks: vec![None; options.hosts.len()],
        own_mark: door.mark(),
        addresses: options.hosts.iter().map(|(_, address)| *address).collect(),
        orders,
        begin: Instant::now(),
        patience: options.patience,
        transfer,
    };
    let hosts = leader.lead(said, told).await;
    // Those who have it hear so before the connections close.
    let _ = timeout(CONNECT, async {
        while let Some(ended) = tasks.join_next().await {
            drop(ended);
            if tasks.len() <= 1 {
                break;
            }
        }
    })
    .await;
    Ok(hosts)
}

/// Those that are named by an address that only this host can reach, if there are others: a host's own name may well be
/// 127.0.1.1 to itself.
fn stranded(hosts: &[(String, SocketAddr)]) -> Vec<usize> {
    let here = |index: &usize| hosts[*index].1.ip().to_canonical().is_loopback();
    let all: Vec<usize> = (0..hosts.len()).filter(here).collect();
    match all.len() < hosts.len() {
        true => all,
        false => Vec::new(),
    }
}

/// Hosts may have addresses of either kind, and reach this one by its own of the same kind.
fn listen() -> io::Result<TcpListener> {
    let both = || {
        let socket = TcpSocket::new_v6()?;
        // Whatever the system's default is.
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
        socket.bind((Ipv6Addr::UNSPECIFIED, 0).into())?;
        socket.listen(BACKLOG)
    };
    both().or_else(|_: io::Error| {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
        socket.listen(BACKLOG)
    })
}

async fn serve_all(
    listener: TcpListener,
    transfer: Arc<Transfer>,
    limit: Option<Arc<Limit>>,
    door: Door,
    most: usize,
) {
    let gate = Gate::new(most);
    let mut children = JoinSet::new();
    loop {
        tokio::select! {
            child = listener.accept() => {
                let Ok((stream, from)) = child else {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let (transfer, limit, door) = (transfer.clone(), limit.clone(), door.clone());
                let guest = gate.guest().await;
                children.spawn(async move {
                    gate::watch_over(&stream);
                    let who = from.ip().to_canonical().to_string();
                    let accepted = timeout(GONE, door.accept(stream, &who));
                    let Some(Ok(Ok(mut stream))) = guest.says(accepted).await else {
                        return;
                    };
                    let hello = {
                        let mut reader = BufReader::with_capacity(1 << 10, &mut stream);
                        guest.says(timeout(GONE, wire::read_line::<Hello>(&mut reader))).await
                    };
                    if let Some(Ok(Ok(Some(Hello::Want(want))))) = hello
                        && want.id == transfer.header.id
                        && let Some(_place) = guest.enter()
                    {
                        let _ = serve::serve(&mut stream, &transfer, want, limit.as_deref()).await;
                    }
                });
            }
            Some(_) = children.join_next() => {}
        }
    }
}

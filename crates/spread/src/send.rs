//! The source's side: it offers a transfer to hosts, and leads them.

mod ask;
mod house;
mod leader;
mod link;
mod versions;

use crate::chain::Chains;
use crate::layout::Layout;
use crate::limit::Limit;
use crate::manifest::Id;
use crate::places::Places;
use crate::speed;
use crate::standing::Standing;
use crate::stream::Door;
use crate::tls::Tls;
use crate::topology::Topology;
use crate::transfer::Transfer;
use crate::wire::CONNECT;
pub use ask::{Asked, Has, ask};
use house::House;
use leader::Leader;
use link::Link;
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use versions::Company;
pub use versions::{Sent, What, send_version};

/// A host that is silent for so long has gone.
const GONE: Duration = Duration::from_millis(1500);

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

/// What else is known of the hosts, and of this one.
#[derive(Clone, Default)]
pub struct Plan {
    /// Names and addresses of hosts that have it, and from which others can have it, too.
    pub from: Vec<(String, SocketAddr)>,
    /// Which switches hosts are at, and the source's own name.
    pub topology: Option<(Topology, String)>,
    /// Where hosts find the source; none: on all addresses, and any port.
    pub listen: Option<SocketAddr>,
}

impl Plan {
    fn layout(&self, hosts: &[(String, SocketAddr)]) -> Layout {
        let bare = |(name, address): &'_ (String, SocketAddr)| match name.parse::<SocketAddr>() {
            Ok(_) => address.ip().to_string(),
            Err(_) => link::host_of(name),
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
    /// It may get what is new, and otherwise all of it: this is about all of it, and that is not known yet.
    Waiting,
    /// It has, or will have, what is new.
    Elsewhere,
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

impl Host {
    /// It failed, and has said that it did not get through to the source.
    pub fn is_shut_out(&self) -> bool {
        let said = |note: &String| note.contains("left the source: it cannot be reached");
        self.state == State::Failed && self.notes.iter().any(said)
    }

    /// It has not got it: it is there, and nothing listens at its port.
    pub fn is_closed(&self) -> bool {
        self.state != State::Done && self.notes.iter().any(|note| link::is_closed(note))
    }
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
    let places = Places::of_hosts(options.hosts.iter().chain(&plan.from).map(|(_, at)| *at));
    let door = Door(options.tls.clone());
    let house = House::open(plan.listen, options.limit.take(), door, places).await?;
    send_in(&house, transfer, options, plan, Part::default(), told).await
}

/// What one of several transfers of a run has for itself.
#[derive(Default)]
struct Part {
    company: Company,
    /// For each host: when its turn comes. If that is dropped, it never does. None: at once.
    turns: Vec<oneshot::Receiver<()>>,
    /// How long the run has lasted before this began.
    before: Duration,
}

async fn send_in(
    house: &House,
    transfer: Arc<Transfer>,
    mut options: Options,
    plan: Plan,
    part: Part,
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
    let first = options.hosts.first().map(|(_, address)| *address);
    if let Some(rate) = house
        .rate
        .into_iter()
        .chain(speed::towards(first))
        .reduce(f64::min)
    {
        chains.expect(rate);
    }
    house.give(&transfer);
    let door = house.door.clone();
    let mut tasks = JoinSet::new();
    let mut run = [0; 16];
    crate::source::fill_random(&mut run)?;
    let run = Id(run).to_string();
    let (say, said) = mpsc::channel(leader::SAID);
    let mut orders = Vec::new();
    let mut turns = part.turns.into_iter();
    let mut states = vec![State::Away; options.hosts.len()];
    let stranded = stranded(&options.hosts);
    for (index, (name, address)) in options.hosts.iter().enumerate() {
        let (order, ordered) = mpsc::unbounded_channel();
        orders.push(order);
        let turn = turns.next();
        if stranded.contains(&index) {
            continue;
        }
        let link = Link {
            host: index,
            name: link::host_of(name),
            run: run.clone(),
            address: *address,
            door: door.clone(),
            port: house.port,
            ask: index >= needy,
            transfer: transfer.clone(),
            say: say.clone(),
        };
        match turn {
            Some(turn) => {
                states[index] = State::Waiting;
                tasks.spawn(link.in_turn(turn, ordered));
            }
            None => {
                tasks.spawn(link.keep(ordered));
            }
        }
    }
    let named = options.hosts.iter().zip(states);
    let mut hosts: Vec<Host> = named
        .map(|((name, _), state)| Host {
            name: name.clone(),
            state,
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
        before: part.before,
        company: part.company,
        patience: options.patience,
        transfer,
    };
    let hosts = leader.lead(said, told).await;
    // Those who have it hear so before the connections close.
    let _ = timeout(CONNECT, async {
        while tasks.join_next().await.is_some() {}
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

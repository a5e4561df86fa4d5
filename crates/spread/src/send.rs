//! The source's side: it offers a transfer to hosts, and leads them.

use crate::chain::{Chains, Parent};
use crate::gate::{self, Gate};
use crate::layout::Layout;
use crate::limit::Limit;
use crate::manifest::{Hash, Id, hex};
use crate::serve;
use crate::speed;
use crate::standing::{STRIKES, Standing};
use crate::stream::Door;
use crate::tls::{self, Tls};
use crate::topology::Topology;
use crate::transfer::Transfer;
use crate::wire::{self, CONNECT, FromReceiver, Hello, Offer, Report, ToReceiver};
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

/// A host that is silent for so long has gone.
const GONE: Duration = Duration::from_millis(1500);

/// So often a host that is not there is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// So often it is looked how all are doing.
const LOOK: Duration = Duration::from_millis(100);

/// A host that has said nothing for so long is not believed to be there, if its child misses it, too.
const QUIET: Duration = Duration::from_millis(250);

/// Notes of a host, and characters of a note.
const NOTES: usize = 50;
const NOTE: usize = 400;

/// At the beginning the next host is waited for so long, and all of them so long.
const NEXT_COMES: Duration = Duration::from_millis(20);
const ALL_COME: Duration = Duration::from_millis(250);

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
    let listener = TcpListener::bind(("0.0.0.0", 0)).await?;
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
    let (say, said) = mpsc::unbounded_channel();
    let mut orders = Vec::new();
    for (index, (name, address)) in options.hosts.iter().enumerate() {
        let (order, ordered) = mpsc::unbounded_channel();
        orders.push(order);
        let link = Link {
            host: index,
            name: host_of(name),
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
    let leader = Leader {
        chains,
        needy,
        hosts: options
            .hosts
            .iter()
            .map(|(name, _)| Host {
                name: name.clone(),
                ..Host::default()
            })
            .collect(),
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
                    let who = from.ip().to_string();
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

/// A host's name, as it is listed, without its port.
fn host_of(listed: &str) -> String {
    let port = |end: &str| !end.is_empty() && end.bytes().all(|b| b.is_ascii_digit());
    match listed.rsplit_once(':') {
        Some((name, end)) if port(end) && listed.parse::<std::net::IpAddr>().is_err() => {
            name.trim_matches(['[', ']']).to_owned()
        }
        _ => listed.to_owned(),
    }
}

/// What a link says of its host.
enum Said {
    /// It is there; this is how it reaches the source, and the hash of its certificate.
    Here(SocketAddr, Option<Hash>),
    Line(FromReceiver),
    Gone(String),
}

/// The connection to a host, made again whenever it breaks.
struct Link {
    host: usize,
    name: String,
    /// Which run of the source this is.
    run: String,
    address: SocketAddr,
    door: Door,
    port: u16,
    /// It is only asked whether it has it.
    ask: bool,
    transfer: Arc<Transfer>,
    say: mpsc::UnboundedSender<(usize, Said)>,
}

impl Link {
    async fn keep(self, mut orders: mpsc::UnboundedReceiver<ToReceiver>) {
        loop {
            match self.once(&mut orders).await {
                Ok(()) => return,
                Err(why) => {
                    let why = self.door.explain(why, &self.name);
                    if tls::is_final(&why) {
                        let reason = why.to_string();
                        let refused = Said::Line(FromReceiver::Refuse { reason });
                        let _ = self.say.send((self.host, refused));
                        return;
                    }
                    if self
                        .say
                        .send((self.host, Said::Gone(why.to_string())))
                        .is_err()
                    {
                        return;
                    }
                }
            }
            sleep(RETRY).await;
            while let Ok(order) = orders.try_recv() {
                if order == ToReceiver::Bye {
                    return;
                }
            }
        }
    }

    /// Ends well when there is nothing more to be said to this host.
    async fn once(&self, orders: &mut mpsc::UnboundedReceiver<ToReceiver>) -> io::Result<()> {
        let stream = timeout(GONE, TcpStream::connect(self.address)).await??;
        gate::watch_over(&stream);
        let source = SocketAddr::new(stream.local_addr()?.ip(), self.port);
        let (stream, mark) = timeout(GONE, self.door.to_host(stream, &self.name)).await??;
        let (reader, mut writer) = tokio::io::split(stream);
        let mut lines = wire::Lines::new(BufReader::new(reader));
        let offer = Offer {
            header: self.transfer.line.clone(),
            signature: self.transfer.proof.clone(),
            ask: self.ask,
            run: self.run.clone(),
            host: self.name.clone(),
        };
        wire::write_line(&mut writer, &Hello::Offer(offer)).await?;
        let _ = self.say.send((self.host, Said::Here(source, mark)));
        // Looking at what is there from earlier may take long.
        let mut patience = Duration::from_secs(600);
        let mut accepted = false;
        loop {
            tokio::select! {
                line = timeout(patience, lines.next::<FromReceiver>()) => {
                    let Some(line) = line?? else {
                        return Err(io::Error::other("it has closed the connection"));
                    };
                    patience = match line {
                        FromReceiver::Done => Duration::from_secs(86400),
                        _ => GONE,
                    };
                    let accepts = matches!(line, FromReceiver::Accept { .. });
                    let looks = line == FromReceiver::Looking;
                    let refuses = matches!(line, FromReceiver::Refuse { .. });
                    // First it looks, then it accepts, and once. That a tree is no base may show later.
                    let fails = matches!(line, FromReceiver::Failed { .. } | FromReceiver::NoBase);
                    let early = accepts || refuses || looks;
                    if accepted && early || !(accepted || early || fails) {
                        return Err(io::Error::other("it does not keep to the protocol"));
                    }
                    accepted |= accepts;
                    let last = matches!(line, FromReceiver::Refuse { .. } | FromReceiver::NoBase | FromReceiver::Failed { .. });
                    let _ = self.say.send((self.host, Said::Line(line)));
                    if last {
                        return Ok(());
                    }
                }
                order = orders.recv() => {
                    let Some(order) = order else {
                        return Ok(());
                    };
                    let bye = order == ToReceiver::Bye;
                    wire::write_line(&mut writer, &order).await?;
                    if bye {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Before the first host is told whom to ask, as many as come at once are waited for: whoever gets another parent a moment
/// later has had for nothing what was on its way by then.
#[derive(Default)]
struct Gathering {
    here: usize,
    /// When the first one came, and the last one.
    came: Option<(Instant, Instant)>,
}

impl Gathering {
    /// So many of all have answered. Is it worth while to go on?
    fn look(&mut self, here: usize, all: usize) -> bool {
        if here > self.here {
            let now = Instant::now();
            self.here = here;
            self.came = Some((self.came.map_or(now, |(first, _)| first), now));
        }
        here < all
    }

    /// When it is enough; nothing while nobody is there.
    fn end(&self) -> Option<Instant> {
        let (first, last) = self.came?;
        Some((last + NEXT_COMES).min(first + ALL_COME))
    }
}

struct Leader {
    chains: Chains,
    /// So many of the hosts are to get it; the others have it.
    needy: usize,
    hosts: Vec<Host>,
    /// When each was heard last.
    heard: Vec<Option<Instant>>,
    standing: Vec<Standing>,
    /// How each reaches the source.
    sources: Vec<Option<SocketAddr>>,
    /// Hashes of their certificates, and of ours.
    marks: Vec<Option<Hash>>,
    own_mark: Option<Hash>,
    addresses: Vec<SocketAddr>,
    orders: Vec<mpsc::UnboundedSender<ToReceiver>>,
    begin: Instant,
    patience: Duration,
    transfer: Arc<Transfer>,
}

impl Leader {
    fn tell_progress(&mut self) {
        let header = &self.transfer.header;
        let frames = self.hosts.iter().map(|host| host.frames).max();
        let part = f64::from(frames.unwrap_or(0)) / f64::from(header.frames().max(1));
        let received = self.hosts.iter().map(|host| host.received).max();
        let left = header.size.saturating_sub(received.unwrap_or(0));
        self.chains.progress(part, left as f64);
    }

    async fn lead(
        mut self,
        mut said: mpsc::UnboundedReceiver<(usize, Said)>,
        mut told: impl FnMut(&[Host]),
    ) -> Vec<Host> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Since when there is nobody who still receives.
        let mut idle = None;
        let mut gathering = Some(Gathering::default());
        loop {
            let enough = gathering.as_ref().and_then(Gathering::end);
            tokio::select! {
                () = sleep_until(enough.unwrap_or_else(Instant::now)), if enough.is_some() => {
                    gathering = None;
                }
                next = said.recv() => {
                    let Some((host, said_now)) = next else { break };
                    self.chains.time(self.begin.elapsed().as_secs_f64());
                    self.hear(host, said_now);
                    while let Ok((host, more)) = said.try_recv() {
                        self.hear(host, more);
                    }
                }
                _ = looks.tick() => {
                    self.chains.time(self.begin.elapsed().as_secs_f64());
                    self.tell_progress();
                    self.chains.look();
                    self.give_up();
                    told(&self.hosts);
                }
            }
            let away = |host: &Host| host.state == State::Away && host.notes.is_empty();
            let away = self.hosts.iter().filter(|host| away(host)).count();
            if let Some(gathered) = &mut gathering
                && !gathered.look(self.hosts.len() - away, self.hosts.len())
            {
                gathering = None;
            }
            if gathering.is_none() {
                self.order();
            }
            let open = |state: State| matches!(state, State::Away | State::Receiving);
            let needy = &self.hosts[..self.needy];
            if !needy.iter().any(|host| open(host.state)) || self.transfer.failed().is_some() {
                break;
            }
            let mut known = needy.iter().zip(&self.standing);
            let at_work = known.any(|(host, standing)| match host.state {
                State::Receiving => true,
                State::Away => standing.is_looking(Instant::now()),
                _ => false,
            });
            if at_work {
                idle = None;
            } else if idle.get_or_insert_with(Instant::now).elapsed() > self.patience {
                break;
            }
        }
        for host in 0..self.hosts.len() {
            let _ = self.orders[host].send(ToReceiver::Bye);
            let open = matches!(self.hosts[host].state, State::Away | State::Receiving);
            if open && host < self.needy {
                self.hosts[host].state = State::Failed;
                match self.transfer.failed() {
                    Some(why) => self.hosts[host].notes.push(why.to_string()),
                    None if self.hosts[host].notes.is_empty() => {
                        self.note(host, "it has not answered".to_owned());
                    }
                    None => {}
                }
            }
        }
        told(&self.hosts);
        self.hosts
    }

    fn hear(&mut self, host: usize, said: Said) {
        let now = self.begin.elapsed().as_secs_f64();
        self.heard[host] = Some(Instant::now());
        match said {
            Said::Here(source, mark) => {
                self.sources[host] = Some(source);
                self.marks[host] = mark;
            }
            Said::Gone(why) => {
                self.heard[host] = None;
                self.chains.leave(host);
                match self.hosts[host].state {
                    State::Receiving => {
                        self.note(host, format!("gone: {why}"));
                        self.hosts[host].state = State::Away;
                        if self.standing[host].gone() {
                            self.hosts[host].state = State::Failed;
                            self.note(
                                host,
                                format!("it came and went {STRIKES} times for nothing"),
                            );
                            let _ = self.orders[host].send(ToReceiver::Bye);
                        }
                    }
                    // Said once, not with every attempt.
                    State::Away if self.hosts[host].notes.is_empty() => {
                        self.note(host, format!("not reached: {why}"));
                    }
                    _ => {}
                }
            }
            Said::Line(line) => self.line(host, line, now),
        }
    }

    fn line(&mut self, host: usize, line: FromReceiver, now: f64) {
        match line {
            FromReceiver::Looking => self.standing[host].looks(Instant::now()),
            FromReceiver::Accept { frames, gives } => {
                if now > 1.0 {
                    self.note(host, format!("joined with {frames} frames"));
                } else if frames > 0 {
                    self.note(host, format!("had {frames} frames"));
                }
                if self.hosts[host].state == State::Failed {
                    return;
                }
                self.hosts[host].frames = frames;
                let received = self.hosts[host].received;
                self.standing[host].heard(received, frames, Instant::now());
                if self.hosts[host].state != State::Done {
                    self.hosts[host].state = State::Receiving;
                }
                match gives {
                    None => self.chains.join(host),
                    Some(true) => self.chains.whole(host),
                    // It was started anew since: the file is there, but not what goes over the network.
                    Some(false) => self.chains.done(host),
                }
            }
            FromReceiver::Refuse { reason } => {
                self.hosts[host].state = State::Refused;
                self.note(host, reason);
            }
            FromReceiver::NoBase => {
                self.chains.leave(host);
                self.hosts[host].state = State::NoBase;
            }
            FromReceiver::Report(report) => self.report(host, &report),
            FromReceiver::Lost { parent, why } => {
                self.note(host, format!("left {}: {why}", self.name(parent)));
                let its = |parent: &usize| {
                    let all = self.chains.parents(host);
                    all.contains(&Parent::Host(*parent))
                };
                if let Some(parent) = self.host_at(parent).filter(its)
                    && self.standing[host].complains()
                {
                    let quiet = |at: Instant| at.elapsed() > QUIET;
                    match self.heard[parent].is_none_or(quiet) {
                        true => self.chains.leave(parent),
                        false => self.chains.complain(host, parent),
                    }
                }
            }
            FromReceiver::Spoilt { parent, frame } => {
                let name = self.name(parent);
                self.note(host, format!("frame {frame} was spoilt by {name}"));
                if let Some(parent) = self.host_at(parent)
                    && self.standing[host].complains()
                {
                    let child = self.hosts[host].name.clone();
                    self.note(parent, format!("spoilt frame {frame} for {child}"));
                }
            }
            FromReceiver::Done if self.hosts[host].state == State::Failed => {}
            FromReceiver::Done => {
                self.chains.done(host);
                let one = &mut self.hosts[host];
                one.state = State::Done;
                one.frames = self.transfer.header.frames();
                one.seconds.get_or_insert(now);
            }
            FromReceiver::Failed { reason } => {
                self.chains.leave(host);
                self.hosts[host].state = State::Failed;
                self.note(host, reason);
            }
        }
    }

    fn report(&mut self, host: usize, report: &Report) {
        if self.hosts[host].state == State::Failed {
            return;
        }
        self.chains.report(host, report.received);
        self.standing[host].heard(report.received, report.good, Instant::now());
        let parent = report.parent.and_then(|parent| self.host_at(parent));
        let parent = parent.map(|parent| self.hosts[parent].name.clone());
        let one = &mut self.hosts[host];
        one.received = report.received;
        one.frames = report.good;
        one.parent = parent;
        // It was only quiet for a while, and taken out.
        if one.state == State::Receiving {
            self.chains.stay(host);
        }
    }

    /// Tells hosts their parents, where these are others than before.
    fn order(&mut self) {
        for host in self.chains.changes() {
            let parents = self.chains.parents(host).into_iter();
            let known = parents.filter_map(|parent| match parent {
                Parent::Host(parent) => Some((self.addresses[parent], self.marks[parent])),
                Parent::Source => self.sources[host].map(|address| (address, self.own_mark)),
            });
            let known: Vec<_> = known.collect();
            let marks = known
                .iter()
                .filter_map(|(address, mark)| Some((*address, hex(&(*mark)?))));
            let marks: Vec<_> = marks.collect();
            if !marks.is_empty() {
                let _ = self.orders[host].send(ToReceiver::Certificates(marks));
            }
            let addresses = known.into_iter().map(|(address, _)| address).collect();
            let _ = self.orders[host].send(ToReceiver::Parents(addresses));
        }
    }

    /// Hosts that are there, and to which nothing comes.
    fn give_up(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].state != State::Receiving {
                continue;
            }
            let whole = self.hosts[host].frames == self.transfer.header.frames();
            if let Some(most) = self.standing[host].stalled(whole, Instant::now()) {
                self.chains.leave(host);
                self.hosts[host].state = State::Failed;
                let seconds = most.as_secs();
                self.note(host, format!("nothing has come to it for {seconds} s"));
                let _ = self.orders[host].send(ToReceiver::Bye);
            }
        }
    }

    /// What a host says of itself and of others is shown to people: it is kept short, and has no control characters.
    fn note(&mut self, host: usize, what: String) {
        let seconds = self.begin.elapsed().as_secs_f64();
        let notes = &mut self.hosts[host].notes;
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let what: String = what.chars().take(NOTE).map(plain).collect();
        let said = |note: &String| note.split_once(": ").is_some_and(|(_, said)| said == what);
        if notes.len() < NOTES && !notes.last().is_some_and(said) {
            notes.push(format!("{seconds:.1} s: {what}"));
        }
    }

    fn host_at(&self, address: SocketAddr) -> Option<usize> {
        self.addresses.iter().position(|one| *one == address)
    }

    fn name(&self, address: SocketAddr) -> String {
        match self.host_at(address) {
            Some(host) => self.hosts[host].name.clone(),
            None => "the source".to_owned(),
        }
    }
}

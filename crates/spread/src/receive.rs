//! A host that takes what sources offer, and passes it on.

use crate::authority;
use crate::gate::{self, Gate, Guest};
use crate::keeper::{self, Inflow, News, Work};
use crate::manifest::{Header, Id};
use crate::mend::Mender;
use crate::place::{self, Files};
use crate::pull::{self, Lost};
use crate::serve;
use crate::sign::Key;
use crate::stream::{Door, Stream, Trust};
use crate::tls::{self, Tls};
use crate::transfer::Transfer;
use crate::wire::{self, FromReceiver, Hello, Offer, Report, ToReceiver};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout};

/// A first line that takes longer is none.
const HELLO: Duration = Duration::from_secs(5);

/// So often the source is told how far it is.
const REPORT: Duration = Duration::from_millis(100);

/// Without source and parents, a transfer waits so long for one of them.
const ORPHAN: Duration = Duration::from_secs(10);

/// A parent that sends less than so many bytes in [`PACE`] is left, if there is another one.
const LEAST: u64 = 20 << 10;
const PACE: Duration = Duration::from_secs(5);

/// A parent that has sent so many spoilt frames as good ones is asked no more.
const SPOILT: u32 = 3;

/// What the source does not take in this time, it will not.
const SAY: Duration = Duration::from_secs(2);

/// What another process, or what was displaced, does with a file is waited for so long.
const BUSY: Duration = Duration::from_secs(60);

/// Children that are served at once.
const CHILDREN: usize = 192;

/// As long as the source is there, it may still name somebody; but not for ever.
const ALONE: Duration = Duration::from_secs(30);

/// Transfers that are whole and can still be had from here.
const KEPT: usize = 8;

pub struct Options {
    /// Where files go.
    pub into: PathBuf,
    /// Whose transfers are taken.
    pub keys: Vec<Key>,
    /// May a file that did not come from a source be replaced?
    pub replace: bool,
    /// All connections are private; none: all are plain.
    pub tls: Option<Arc<Tls>>,
}

/// What happens, for whoever shows it.
#[derive(Debug)]
pub enum Event {
    Begun { header: Header, from: SocketAddr },
    Done { header: Header },
    Failed { header: Header, why: String },
    Refused { name: String, why: String },
}

struct Hub {
    options: Options,
    told: Box<dyn Fn(Event) + Send + Sync>,
    transfers: Mutex<Vec<(Id, Arc<Transfer>)>>,
    coming: Mutex<HashMap<String, Comes>>,
}

/// What comes under a name.
struct Comes {
    created: u64,
    /// Which run of the source brings it, and what that calls this host.
    run: String,
    host: String,
    /// Ends it.
    ended: Arc<Notify>,
}

impl Hub {
    fn door(&self) -> Door {
        Door(self.options.tls.clone())
    }

    fn transfer(&self, id: Id) -> Option<Arc<Transfer>> {
        let transfers = self
            .transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        transfers
            .iter()
            .find(|(one, _)| *one == id)
            .map(|(_, transfer)| transfer.clone())
    }

    /// What comes under this name is over, unless something newer has taken its place.
    fn forget(&self, name: &str, ended: &Arc<Notify>) {
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if coming
            .get(name)
            .is_some_and(|now| Arc::ptr_eq(&now.ended, ended))
        {
            coming.remove(name);
        }
    }

    fn add(&self, transfer: &Arc<Transfer>) {
        let mut transfers = self
            .transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let id = transfer.header.id;
        transfers.retain(|(one, _)| *one != id);
        transfers.push((id, transfer.clone()));
        let whole = |(_, transfer): &(Id, Arc<Transfer>)| {
            transfer.complete() || transfer.failed().is_some()
        };
        while transfers.len() > KEPT
            && let Some(oldest) = transfers.iter().position(whole)
        {
            transfers.remove(oldest);
        }
    }
}

/// Takes what comes, until it is dropped.
pub async fn receive(
    listener: TcpListener,
    options: Options,
    told: impl Fn(Event) + Send + Sync + 'static,
) -> io::Result<()> {
    let hub = Arc::new(Hub {
        options,
        told: Box::new(told),
        transfers: Mutex::default(),
        coming: Mutex::default(),
    });
    let mut connections = JoinSet::new();
    let gate = Gate::new(CHILDREN);
    loop {
        tokio::select! {
            connection = listener.accept() => match connection {
                Ok((stream, from)) => {
                    let (hub, guest) = (hub.clone(), gate.guest().await);
                    connections.spawn(async move {
                        // Whoever breaks off has gone; others tell the source, if it concerns it.
                        let _ = connection_from(&hub, guest, stream, from).await;
                    });
                }
                // Too many open files, or the like: it passes.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection_from(
    hub: &Arc<Hub>,
    guest: Guest,
    stream: TcpStream,
    from: SocketAddr,
) -> io::Result<()> {
    gate::watch_over(&stream);
    let who = from.ip().to_string();
    let Some(accepted) = guest
        .says(timeout(HELLO, hub.door().accept(stream, &who)))
        .await
    else {
        return Ok(());
    };
    let mut stream = match accepted? {
        Ok(stream) => stream,
        Err(e) => {
            if tls::is_final(&e) {
                let (name, why) = (from.to_string(), e.to_string());
                (hub.told)(Event::Refused { name, why });
            }
            return Err(e);
        }
    };
    let hello = {
        let mut reader = BufReader::with_capacity(1 << 10, &mut stream);
        let hello = guest.says(timeout(HELLO, wire::read_line::<Hello>(&mut reader)));
        match hello.await {
            Some(hello) => hello??,
            None => return Ok(()),
        }
    };
    match hello {
        Some(Hello::Want(want)) => match (hub.transfer(want.id), guest.enter()) {
            (Some(transfer), Some(_place)) => {
                serve::serve(&mut stream, &transfer, want, None).await
            }
            _ => Ok(()),
        },
        Some(Hello::Offer(offer)) => {
            drop(guest);
            let (reader, mut writer) = tokio::io::split(stream);
            let lines = Lines::new(BufReader::new(reader));
            if let Err(why) = offered(hub, lines, &mut writer, &offer, from).await {
                let reason = why.to_string();
                wire::write_line(&mut writer, &FromReceiver::Refuse { reason }).await?;
                writer.shutdown().await?;
            }
            Ok(())
        }
        None => Ok(()),
    }
}

type Lines = wire::Lines<BufReader<ReadHalf<Stream>>>;

/// Looks at an offer, and takes it. An error is a refusal.
async fn offered(
    hub: &Arc<Hub>,
    lines: Lines,
    writer: &mut WriteHalf<Stream>,
    offer: &Offer,
    from: SocketAddr,
) -> io::Result<()> {
    let title = "oscarv spread: header";
    let refuse = |name: &str, why: String| {
        (hub.told)(Event::Refused {
            name: name.to_owned(),
            why: why.clone(),
        });
        Err(io::Error::other(why))
    };
    let key = hub.options.keys.iter().find(|key| {
        key.check(offer.header.as_bytes(), &offer.signature, title)
            .is_ok()
    });
    let Some(key) = key.cloned() else {
        return refuse(
            "",
            "it is signed by none of the keys that are trusted here".to_owned(),
        );
    };
    let header = match Header::read(&offer.header) {
        Ok(header) => header,
        Err(why) => return refuse("", why.to_string()),
    };
    let directory = hub.options.into.clone();
    let target = directory.join(&header.name);
    let there = {
        let (directory, name) = (directory.clone(), header.name.clone());
        let there = spawn_blocking(move || {
            let begin = Instant::now();
            while !place::recover(&directory, &name) && begin.elapsed() < BUSY {
                std::thread::sleep(Duration::from_millis(10));
            }
            place::there(&directory, &name)
        });
        looking(writer, there).await??
    };
    // Not even to be replaced: there may be more in it than somebody thinks of.
    if there.is_none() && std::fs::symlink_metadata(&target).is_ok_and(|data| data.is_dir()) {
        return refuse(&header.name, format!("{} is a directory", target.display()));
    }
    match &there {
        Some((old, true)) if old.id == header.id => {
            return has_it(hub, &header, lines, writer).await;
        }
        _ if offer.ask => return Err(io::Error::other("it does not have it")),
        Some((old, true)) if old.created > header.created => {
            let when = |header: &Header| authority::when_nanos(header.created);
            return refuse(
                &header.name,
                format!(
                    "what is here is newer: made {} by its source's clock, this one {}",
                    when(old),
                    when(&header)
                ),
            );
        }
        Some((_, true)) => {}
        Some((_, false)) | None if hub.options.replace || !target.exists() => {}
        _ => {
            return refuse(
                &header.name,
                format!(
                    "{} is there and did not come from here; --replace puts this in its place",
                    target.display()
                ),
            );
        }
    }
    let ended = Arc::new(Notify::new());
    // A newer offer, or the same again, displaces what is coming; an older one does not, nor does one by which the source
    // offers it to this host under a second name.
    {
        let mut coming = hub.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let known = coming.get(&header.name);
        let why = match known {
            Some(now) if now.created > header.created => Some("what is coming is newer".to_owned()),
            Some(now) if now.run == offer.run && now.host != offer.host => {
                Some(format!("this is the same host as {}", now.host))
            }
            _ => None,
        };
        if let Some(why) = why {
            drop(coming);
            return refuse(&header.name, why);
        }
        if let Some(before) = known {
            before.ended.notify_one();
        }
        let comes = Comes {
            created: header.created,
            run: offer.run.clone(),
            host: offer.host.clone(),
            ended: ended.clone(),
        };
        coming.insert(header.name.clone(), comes);
    }
    let opened = looking(writer, open(&directory, &header, offer, &key)).await;
    let session = match opened.and_then(|opened| opened) {
        // While this waited, what was displaced came to its end.
        Ok(Opened::Whole) => {
            hub.forget(&header.name, &ended);
            return has_it(hub, &header, lines, writer).await;
        }
        Ok(Opened::NoBase) => {
            hub.forget(&header.name, &ended);
            wire::write_line(writer, &FromReceiver::NoBase).await?;
            return Ok(());
        }
        Ok(Opened::Files(files, transfer, end)) => {
            Session::new(transfer, *files, end, Trust::new(key, hub.door()))
        }
        Err(e) => Err(e),
    };
    let session = match session {
        Ok(session) => session,
        Err(e) => {
            hub.forget(&header.name, &ended);
            let directory = directory.display();
            let why = match e.kind() {
                io::ErrorKind::WouldBlock => {
                    format!("another process receives {} into {directory}", header.name)
                }
                _ => format!("{directory} cannot be written to: {e}"),
            };
            return refuse(&header.name, why);
        }
    };
    let transfer = session.transfer.clone();
    hub.add(&transfer);
    (hub.told)(Event::Begun {
        header: header.clone(),
        from,
    });
    let result = tokio::select! {
        result = session.run(lines, writer, &directory) => result,
        () = ended.notified() => {
            let reason = "it was offered again, and goes on with that offer".to_owned();
            let failed = FromReceiver::Failed { reason: reason.clone() };
            // Whoever is still there must not take it for a connection that broke, and offer it once more.
            let _ = timeout(SAY, wire::write_line(writer, &failed)).await;
            Err(reason)
        }
    };
    hub.forget(&header.name, &ended);
    if let Err(why) = &result {
        transfer.fail(why);
    }
    (hub.told)(match result {
        Ok(()) => Event::Done { header },
        Err(why) => Event::Failed { header, why },
    });
    Ok(())
}

/// Says that all of it is here, and stays until the source ends it.
async fn has_it(
    hub: &Hub,
    header: &Header,
    mut lines: Lines,
    writer: &mut WriteHalf<Stream>,
) -> io::Result<()> {
    let frames = header.frames();
    let gives = Some(hub.transfer(header.id).is_some_and(|t| t.complete()));
    wire::write_line(writer, &FromReceiver::Accept { frames, gives }).await?;
    wire::write_line(writer, &FromReceiver::Done).await?;
    // As long as the connection is there, the source knows that this host is.
    while let Ok(Some(ToReceiver::Parents(_) | ToReceiver::Certificates(_))) = lines.next().await {}
    Ok(())
}

/// Lets the source know that this is being worked at: it may take a while.
async fn looking<T>(
    writer: &mut WriteHalf<Stream>,
    work: impl Future<Output = T>,
) -> io::Result<T> {
    tokio::pin!(work);
    let mut beats = interval_at(Instant::now() + REPORT, REPORT);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = beats.tick() => wire::write_line(writer, &FromReceiver::Looking).await?,
        }
    }
}

/// What there is to receive a transfer with.
enum Opened {
    Files(Box<Files>, Arc<Transfer>, u64),
    /// It is there by now.
    Whole,
    /// What it is made from is not here.
    NoBase,
}

/// Opens the files; what was displaced may take a moment to let go of them.
async fn open(directory: &Path, header: &Header, offer: &Offer, key: &Key) -> io::Result<Opened> {
    let begin = Instant::now();
    loop {
        let (directory, header, offer, key) = (
            directory.to_owned(),
            header.clone(),
            offer.clone(),
            key.clone(),
        );
        let opened = spawn_blocking(move || {
            let base = match &header.base {
                None => None,
                Some(base) => match place::base(&directory, base, header.tree) {
                    None => return Ok(Opened::NoBase),
                    base => base,
                },
            };
            let (line, signature) = (&offer.header, &offer.signature);
            match Files::open(&directory, &header, line, signature, &key, base) {
                Err(e) if place::is_there(&e) => Ok(Opened::Whole),
                other => other
                    .map(|(files, transfer, end)| Opened::Files(Box::new(files), transfer, end)),
            }
        });
        match opened.await? {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < BUSY => {
                sleep(Duration::from_millis(10)).await;
            }
            other => return other,
        }
    }
}

/// One transfer that comes.
struct Session {
    transfer: Arc<Transfer>,
    trust: Arc<Trust>,
    /// Until the flow begins.
    inflow: Option<Inflow>,
    work: mpsc::Sender<Work>,
    news: mpsc::UnboundedReceiver<News>,
    /// Whom the source has named, and who of them is asked: those that have not spoilt frames.
    named: Vec<SocketAddr>,
    parents: watch::Sender<Vec<SocketAddr>>,
    spoilers: HashMap<SocketAddr, u32>,
    /// Whom it comes from at the moment.
    parent: watch::Sender<Option<SocketAddr>>,
}

impl Session {
    fn new(
        transfer: Arc<Transfer>,
        files: Files,
        spool_end: u64,
        trust: Trust,
    ) -> io::Result<Self> {
        let (inflow, work, news) = keeper::start(transfer.clone(), files, spool_end)?;
        Ok(Self {
            transfer,
            trust: Arc::new(trust),
            inflow: Some(inflow),
            work,
            news,
            named: Vec::new(),
            parents: watch::Sender::default(),
            spoilers: HashMap::new(),
            parent: watch::Sender::default(),
        })
    }

    /// Returns when the file is there under its name and the source has heard of it, or why not.
    async fn run(
        mut self,
        mut lines: Lines,
        writer: &mut WriteHalf<Stream>,
        directory: &Path,
    ) -> Result<(), String> {
        let (say, mut said) = mpsc::unbounded_channel();
        let (again, mut repairs) = mpsc::unbounded_channel();
        let frames = self.transfer.count().0;
        let _ = say.send(FromReceiver::Accept {
            frames,
            gives: None,
        });
        let mut tasks = JoinSet::new();
        let (_stop, stopped) = oneshot::channel();
        if let Some(inflow) = self.inflow.take() {
            let flow = Flow {
                transfer: self.transfer.clone(),
                trust: self.trust.clone(),
                inflow,
                again: again.clone(),
                parents: self.parents.subscribe(),
                current: self.parent.clone(),
                say: say.clone(),
            };
            tasks.spawn(flow.thread(stopped).map_err(|e| e.to_string())?);
        }
        let mut mender = Mender {
            transfer: self.transfer.clone(),
            trust: self.trust.clone(),
            work: self.work.clone(),
            parents: self.parents.subscribe(),
            say: say.clone(),
            waiting: VecDeque::new(),
            running: JoinSet::new(),
        };
        let mut reports = interval(REPORT);
        reports.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut whole = self.transfer.whole();
        let mut source = true;
        let mut naming = JoinSet::new();
        let (mut complete_here, mut finished) = (false, false);
        let (mut progress, mut since) = ((0, 0), Instant::now());
        loop {
            tokio::select! {
                line = lines.next::<ToReceiver>(), if source => match line {
                    Ok(Some(ToReceiver::Certificates(list))) => self.trust.meet(list),
                    Ok(Some(ToReceiver::Parents(list))) => self.name(list),
                    Ok(Some(ToReceiver::Bye)) if finished => return Ok(()),
                    Ok(Some(ToReceiver::Bye)) => return Err("the source has ended it".to_owned()),
                    // The chain may well go on without it.
                    Ok(None) | Err(_) => source = false,
                },
                Some(message) = said.recv() => {
                    if let FromReceiver::Spoilt { parent, .. } = message {
                        self.spoilt(parent);
                    }
                    if source {
                        let written = timeout(SAY, wire::write_line(writer, &message)).await;
                        source = matches!(written, Ok(Ok(())));
                    }
                    if let FromReceiver::Failed { reason } = message {
                        return Err(reason);
                    }
                }
                Some(news) = self.news.recv() => match news {
                    News::Bad(index) => mender.add(index, *self.parent.borrow()),
                    // The source sends all of it then.
                    News::Stuck(why) if why.kind() == io::ErrorKind::InvalidData && self.transfer.header.base.is_some() => {
                        let _ = wire::write_line(writer, &FromReceiver::NoBase).await;
                        return Err(why.to_string());
                    }
                    News::Stuck(why) => {
                        let reason = place::why_stuck(&why, directory, &self.transfer);
                        let _ = say.send(FromReceiver::Failed { reason });
                    }
                },
                Some(index) = repairs.recv() => mender.add(index, None),
                ended = mender.ended() => {
                    if let Err(reason) = ended {
                        let _ = say.send(FromReceiver::Failed { reason });
                    }
                }
                Some(ended) = tasks.join_next() => {
                    if let Ok(Err(reason)) = ended {
                        let _ = say.send(FromReceiver::Failed { reason });
                    }
                }
                Some(named) = naming.join_next() => match named {
                    Ok(Ok(())) => {
                        finished = true;
                        let _ = say.send(FromReceiver::Report(self.report()));
                        let _ = say.send(FromReceiver::Done);
                    }
                    Ok(Err(reason)) => {
                        let _ = say.send(FromReceiver::Failed { reason });
                    }
                    Err(e) => return Err(e.to_string()),
                },
                _ = reports.tick(), if !finished => {
                    let _ = say.send(FromReceiver::Report(self.report()));
                    let now = (self.transfer.received(), self.transfer.count().0);
                    if now != progress || complete_here {
                        (progress, since) = (now, Instant::now());
                    }
                    if since.elapsed() > ORPHAN && (!source || self.named.is_empty()) {
                        let reason = match source {
                            true => "the source has named nobody to ask".to_owned(),
                            false => format!("for {} s nobody had more of it", ORPHAN.as_secs()),
                        };
                        let _ = say.send(FromReceiver::Failed { reason });
                    }
                }
                () = complete(&mut whole), if !complete_here => {}
            }
            if !complete_here && self.transfer.complete() {
                complete_here = true;
                // The disk may take long, and the source has to hear that we are here.
                naming.spawn(self.finish(directory));
            }
            if finished && !source {
                return Ok(());
            }
        }
    }

    /// The source names whom to ask.
    fn name(&mut self, list: Vec<SocketAddr>) {
        self.named = list;
        let spoilt = |parent: &SocketAddr| self.spoilers.get(parent).copied().unwrap_or(0);
        let asked = self.named.iter().filter(|parent| spoilt(parent) < SPOILT);
        let asked: Vec<SocketAddr> = asked.copied().collect();
        // Better one of those than nobody.
        self.parents.send_replace(match asked.is_empty() {
            true => self.named.clone(),
            false => asked,
        });
    }

    /// This parent sent a spoilt frame as a good one.
    fn spoilt(&mut self, parent: SocketAddr) {
        let times = self.spoilers.entry(parent).or_default();
        *times += 1;
        if *times == SPOILT {
            let list = std::mem::take(&mut self.named);
            self.name(list);
        }
    }

    fn report(&self) -> Report {
        Report {
            frame: self.transfer.position().0,
            received: self.transfer.received(),
            good: self.transfer.count().0,
            parent: *self.parent.borrow(),
        }
    }

    fn finish(&self, directory: &Path) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let (work, transfer) = (self.work.clone(), self.transfer.clone());
        let directory = directory.to_owned();
        async move {
            let (answer, result) = oneshot::channel();
            let sent = work.send(Work::Finish(answer)).await;
            let gone = || "what came could not be kept".to_owned();
            sent.map_err(|_| gone())?;
            let result = result.await.map_err(|_| gone())?;
            result.map_err(|e| {
                let why = place::why_stuck(&e, &directory, &transfer);
                format!("it could not be given its name: {why}")
            })
        }
    }
}

/// Returns when this became true.
async fn complete(whole: &mut watch::Receiver<bool>) {
    while !*whole.borrow_and_update() {
        if whole.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What has come in bytes; a page counts as much as has to come in a while.
fn progress(transfer: &Transfer) -> u64 {
    transfer.received() + u64::from(transfer.known().0) * LEAST
}

/// The flow: from the best parent that there is, at any time.
struct Flow {
    transfer: Arc<Transfer>,
    trust: Arc<Trust>,
    inflow: Inflow,
    again: mpsc::UnboundedSender<u32>,
    parents: watch::Receiver<Vec<SocketAddr>>,
    current: watch::Sender<Option<SocketAddr>>,
    say: mpsc::UnboundedSender<FromReceiver>,
}

impl Flow {
    /// Begins it in a thread of its own, because it writes to disk. Ends when `stopped` is gone.
    fn thread(
        self,
        mut stopped: oneshot::Receiver<()>,
    ) -> io::Result<impl Future<Output = Result<(), String>> + use<>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (answer, result) = oneshot::channel();
        std::thread::Builder::new()
            .name("flow".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        result = self.run() => drop(answer.send(result)),
                        _ = &mut stopped => {}
                    }
                });
            })?;
        Ok(async { result.await.unwrap_or(Ok(())) })
    }

    async fn run(self) -> Result<(), String> {
        let Self {
            transfer,
            trust,
            mut inflow,
            again,
            mut parents,
            current,
            say,
        } = self;
        let mut next = 0;
        // Parents in a row from which nothing came.
        let mut barren = 0;
        let mut heard = Instant::now();
        let mut received = 0;
        loop {
            let list = parents.borrow_and_update().clone();
            let Some(parent) = list.get(next % list.len().max(1)).copied() else {
                let _ = parents.changed().await;
                continue;
            };
            current.send_replace(Some(parent));
            let result = {
                let pull = pull::follow(parent, &transfer, &trust, &mut inflow, &again);
                tokio::pin!(pull);
                let mut paces = interval_at(Instant::now() + PACE, PACE);
                let mut before = progress(&transfer);
                loop {
                    tokio::select! {
                        result = &mut pull => break Some(result),
                        _ = paces.tick() => {
                            let now = progress(&transfer);
                            if now - before < LEAST && parents.borrow().len() > 1 {
                                break Some(Err(Lost::Slow));
                            }
                            before = now;
                        }
                        Ok(()) = parents.changed() => {
                            let list = parents.borrow_and_update();
                            if list.first() != Some(&parent) {
                                break None;
                            }
                        }
                    }
                }
            };
            if transfer.received() > received {
                received = transfer.received();
                heard = Instant::now();
                barren = 0;
            }
            match result {
                // The source knows of a better one.
                None => next = 0,
                Some(Ok(())) => return Ok(()),
                Some(Err(Lost::Stuck(why))) => {
                    inflow.stuck(why);
                    return Ok(());
                }
                Some(Err(lost)) => {
                    let why = lost.to_string();
                    let _ = say.send(FromReceiver::Lost { parent, why });
                    next += 1;
                    barren += 1;
                    if heard.elapsed() > ALONE && barren >= list.len() {
                        return Err(format!(
                            "for {} s nobody had more of it; the last one, {parent}: {lost}",
                            ALONE.as_secs()
                        ));
                    }
                    // Once around, and nobody: not at full speed.
                    if next % list.len() == 0 {
                        sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    }
}

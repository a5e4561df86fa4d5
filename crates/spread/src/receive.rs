//! A host that takes what sources offer, and passes it on.

use crate::keeper::{self, Inflow, News, Work};
use crate::manifest::{Header, Id};
use crate::place::{self, Files};
use crate::pull::{self, Lost};
use crate::serve;
use crate::sign::Key;
use crate::transfer::Transfer;
use crate::wire::{self, FromReceiver, Hello, Offer, Report, ToReceiver};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
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

/// Transfers that are whole and can still be had from here.
const KEPT: usize = 8;

pub struct Options {
    /// Where files go.
    pub into: PathBuf,
    /// Whose transfers are taken.
    pub keys: Vec<Key>,
    /// May a file that did not come from a source be replaced?
    pub replace: bool,
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
    /// Names that are coming, since when they are made, and how to end that.
    coming: Mutex<HashMap<String, (u64, Arc<Notify>)>>,
}

impl Hub {
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
            .is_some_and(|(_, now)| Arc::ptr_eq(now, ended))
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
    loop {
        tokio::select! {
            connection = listener.accept() => match connection {
                Ok((stream, from)) => {
                    let hub = hub.clone();
                    connections.spawn(async move {
                        // Whoever breaks off has gone; others tell the source, if it concerns it.
                        let _ = connection_from(&hub, stream, from).await;
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
    mut stream: TcpStream,
    from: SocketAddr,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let hello = {
        let mut reader = BufReader::with_capacity(1 << 10, &mut stream);
        timeout(HELLO, wire::read_line::<Hello>(&mut reader)).await??
    };
    match hello {
        Some(Hello::Want(want)) => match hub.transfer(want.id) {
            Some(transfer) => serve::serve(&mut stream, &transfer, want, None).await,
            None => Ok(()),
        },
        Some(Hello::Offer(offer)) => {
            let (reader, mut writer) = stream.into_split();
            if let Err(why) = offered(hub, BufReader::new(reader), &mut writer, &offer, from).await
            {
                let reason = why.to_string();
                wire::write_line(&mut writer, &FromReceiver::Refuse { reason }).await?;
                writer.shutdown().await?;
            }
            Ok(())
        }
        None => Ok(()),
    }
}

type Lines = BufReader<OwnedReadHalf>;

/// Looks at an offer, and takes it. An error is a refusal.
async fn offered(
    hub: &Arc<Hub>,
    mut lines: Lines,
    writer: &mut OwnedWriteHalf,
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
        let there = spawn_blocking(move || place::there(&directory, &name));
        looking(writer, there).await??
    };
    match &there {
        Some((old, true)) if old.id == header.id => {
            let frames = header.frames();
            let gives = Some(hub.transfer(header.id).is_some_and(|t| t.complete()));
            wire::write_line(writer, &FromReceiver::Accept { frames, gives }).await?;
            wire::write_line(writer, &FromReceiver::Done).await?;
            // As long as the connection is there, the source knows that this host is.
            while let Ok(Some(ToReceiver::Parents(_))) = wire::read_line(&mut lines).await {}
            return Ok(());
        }
        _ if offer.ask => return Err(io::Error::other("it does not have it")),
        Some((old, true)) if old.created > header.created => {
            return refuse(&header.name, "what is here is newer".to_owned());
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
    // A newer offer, or the same again, displaces what is coming; an older one does not.
    {
        let mut coming = hub.coming.lock().unwrap_or_else(PoisonError::into_inner);
        match coming.get(&header.name) {
            Some((created, _)) if *created > header.created => {
                drop(coming);
                return refuse(&header.name, "what is coming is newer".to_owned());
            }
            Some((_, before)) => before.notify_one(),
            None => {}
        }
        coming.insert(header.name.clone(), (header.created, ended.clone()));
    }
    let opened = looking(writer, open(&directory, &header, offer, &key)).await;
    let (files, transfer, spool_end) = match opened.and_then(|opened| opened) {
        Ok(Some(opened)) => opened,
        Ok(None) => {
            hub.forget(&header.name, &ended);
            wire::write_line(writer, &FromReceiver::NoBase).await?;
            return Ok(());
        }
        Err(e) => {
            hub.forget(&header.name, &ended);
            return refuse(
                &header.name,
                format!("{} cannot be written to: {e}", directory.display()),
            );
        }
    };
    hub.add(&transfer);
    (hub.told)(Event::Begun {
        header: header.clone(),
        from,
    });
    let session = Session::new(transfer.clone(), files, spool_end, key)?;
    let result = tokio::select! {
        result = session.run(lines, writer) => result,
        () = ended.notified() => Err("a newer offer has come".to_owned()),
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

/// Lets the source know that this is being worked at: it may take a while.
async fn looking<T>(writer: &mut OwnedWriteHalf, work: impl Future<Output = T>) -> io::Result<T> {
    tokio::pin!(work);
    let mut beats = interval_at(Instant::now() + REPORT, REPORT);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = beats.tick() => wire::write_line(writer, &FromReceiver::Looking).await?,
        }
    }
}

/// Opens the files; what was displaced may take a moment to let go of them. `None`: the base is not here.
async fn open(
    directory: &Path,
    header: &Header,
    offer: &Offer,
    key: &Key,
) -> io::Result<Option<(Files, Arc<Transfer>, u64)>> {
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
                    None => return Ok(None),
                    base => base,
                },
            };
            let (line, signature) = (&offer.header, &offer.signature);
            Files::open(&directory, &header, line, signature, &key, base).map(Some)
        });
        match opened.await? {
            Err(e)
                if e.kind() == io::ErrorKind::WouldBlock
                    && begin.elapsed() < Duration::from_secs(5) =>
            {
                sleep(Duration::from_millis(10)).await;
            }
            other => return other,
        }
    }
}

/// One transfer that comes.
struct Session {
    transfer: Arc<Transfer>,
    key: Key,
    /// Until the flow begins.
    inflow: Option<Inflow>,
    work: mpsc::Sender<Work>,
    news: mpsc::UnboundedReceiver<News>,
    parents: watch::Sender<Vec<SocketAddr>>,
    /// Whom it comes from at the moment.
    parent: watch::Sender<Option<SocketAddr>>,
}

impl Session {
    fn new(transfer: Arc<Transfer>, files: Files, spool_end: u64, key: Key) -> io::Result<Self> {
        let (inflow, work, news) = keeper::start(transfer.clone(), files, spool_end)?;
        Ok(Self {
            transfer,
            key,
            inflow: Some(inflow),
            work,
            news,
            parents: watch::Sender::default(),
            parent: watch::Sender::default(),
        })
    }

    /// Returns when the file is there under its name and the source has heard of it, or why not.
    async fn run(mut self, mut lines: Lines, writer: &mut OwnedWriteHalf) -> Result<(), String> {
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
                key: self.key.clone(),
                inflow,
                again: again.clone(),
                parents: self.parents.subscribe(),
                current: self.parent.clone(),
                say: say.clone(),
            };
            tasks.spawn(flow.thread(stopped).map_err(|e| e.to_string())?);
        }
        let mut reports = interval(REPORT);
        reports.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut whole = self.transfer.whole();
        let mut source = true;
        let mut finished = false;
        let (answer, mut named) = oneshot::channel();
        let (mut answer, mut finishing) = (Some(answer), false);
        let gone = || "what came could not be kept".to_owned();
        loop {
            tokio::select! {
                line = wire::read_line::<ToReceiver>(&mut lines), if source => match line {
                    Ok(Some(ToReceiver::Parents(list))) => {
                        self.parents.send_replace(list);
                    }
                    Ok(Some(ToReceiver::Bye)) if finished => return Ok(()),
                    Ok(Some(ToReceiver::Bye)) => return Err("the source has ended it".to_owned()),
                    // The chain may well go on without it.
                    Ok(None) | Err(_) => source = false,
                },
                Some(message) = said.recv() => {
                    if source && wire::write_line(writer, &message).await.is_err() {
                        source = false;
                    }
                    if let FromReceiver::Failed { reason } = message {
                        return Err(reason);
                    }
                }
                Some(news) = self.news.recv() => match news {
                    News::Bad(index) => {
                        let by = *self.parent.borrow();
                        tasks.spawn(self.repair(index, by, say.clone()));
                    }
                    // The source sends all of it then.
                    News::Stuck(why) if why.kind() == io::ErrorKind::InvalidData && self.transfer.header.base.is_some() => {
                        let _ = wire::write_line(writer, &FromReceiver::NoBase).await;
                        return Err(why.to_string());
                    }
                    News::Stuck(why) => {
                        let reason = format!("what came could not be kept: {why}");
                        let _ = say.send(FromReceiver::Failed { reason });
                    }
                },
                Some(index) = repairs.recv() => {
                    tasks.spawn(self.repair(index, None, say.clone()));
                }
                Some(ended) = tasks.join_next() => {
                    if let Ok(Err(reason)) = ended {
                        let _ = say.send(FromReceiver::Failed { reason });
                    }
                }
                _ = reports.tick(), if !finished => {
                    let _ = say.send(FromReceiver::Report(self.report()));
                }
                () = complete(&mut whole), if answer.is_some() => {}
                result = &mut named, if finishing => {
                    finishing = false;
                    match result.map_err(|_| gone()) {
                        Ok(Ok(())) => {
                            finished = true;
                            let _ = say.send(FromReceiver::Report(self.report()));
                            let _ = say.send(FromReceiver::Done);
                        }
                        Ok(Err(e)) => {
                            let reason = format!("it could not be given its name: {e}");
                            let _ = say.send(FromReceiver::Failed { reason });
                        }
                        Err(reason) => drop(say.send(FromReceiver::Failed { reason })),
                    }
                }
            }
            // Until it is on the disk may take long: the source goes on hearing from here.
            if self.transfer.complete()
                && let Some(answer) = answer.take()
            {
                finishing = true;
                let work = self.work.clone();
                tasks.spawn(async move {
                    let sent = work.send(Work::Finish(answer)).await;
                    sent.map_err(|_| gone())
                });
            }
            if finished && !source {
                return Ok(());
            }
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

    /// Asks for a frame until it is here and good. `by`: who sent it as good.
    fn repair(
        &self,
        index: u32,
        mut by: Option<SocketAddr>,
        say: mpsc::UnboundedSender<FromReceiver>,
    ) -> impl Future<Output = Result<(), String>> + use<> {
        let transfer = self.transfer.clone();
        let work = self.work.clone();
        let parents = self.parents.subscribe();
        async move {
            for attempt in 0.. {
                let list = parents.borrow().clone();
                if transfer.failed().is_some() || transfer.is_good(index) {
                    break;
                }
                let Some(parent) = list.get(attempt % list.len().max(1)).copied() else {
                    sleep(REPORT).await;
                    continue;
                };
                match pull::fetch(parent, &transfer, index).await {
                    Ok((pieces, bad_there)) => {
                        // Who says that it was bad there as well is not to blame.
                        if let Some(parent) = by.take().filter(|by| *by != parent || !bad_there) {
                            let _ = say.send(FromReceiver::Spoilt {
                                parent,
                                frame: index,
                            });
                        }
                        let (good, result) = oneshot::channel();
                        if work.send(Work::Frame(index, pieces, good)).await.is_err() {
                            break;
                        }
                        if result.await == Ok(true) {
                            break;
                        }
                        by = Some(parent);
                    }
                    Err(Lost::Failed(why)) if list.last() == Some(&parent) => return Err(why),
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
            Ok(())
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

/// The flow: from the best parent that there is, at any time.
struct Flow {
    transfer: Arc<Transfer>,
    key: Key,
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
            key,
            mut inflow,
            again,
            mut parents,
            current,
            say,
        } = self;
        let mut next = 0;
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
                let pull = pull::follow(parent, &transfer, &key, &mut inflow, &again);
                tokio::pin!(pull);
                loop {
                    tokio::select! {
                        result = &mut pull => break Some(result),
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
            }
            match result {
                // The source knows of a better one.
                None => next = 0,
                Some(Ok(())) => return Ok(()),
                // Others may have failed by themselves.
                Some(Err(Lost::Failed(why))) if list.last() == Some(&parent) => return Err(why),
                Some(Err(Lost::Stuck(why))) => {
                    return Err(format!("what came could not be kept: {why}"));
                }
                Some(Err(lost)) => {
                    let why = lost.to_string();
                    let _ = say.send(FromReceiver::Lost { parent, why });
                    next += 1;
                    if heard.elapsed() > ORPHAN {
                        return Err(format!(
                            "for {} s nobody had more of it; the last one, {parent}: {lost}",
                            ORPHAN.as_secs()
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

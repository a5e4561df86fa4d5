//! One transfer that comes, from the offer that was taken to the name that the file gets.

use super::flow::Flow;
use super::{Hub, Lines, REPORT, SAY};
use crate::keeper::{self, Inflow, News, Work};
use crate::mend::Mender;
use crate::place::{self, Files};
use crate::stream::{Stream, Trust};
use crate::transfer::Transfer;
use crate::wire::{self, FromReceiver, Report, ToReceiver};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::WriteHalf;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Without source and parents, a transfer waits so long for one of them.
const ORPHAN: Duration = Duration::from_secs(10);

/// A parent that has sent so many spoilt frames as good ones is asked no more.
const SPOILT: u32 = 3;

/// One transfer that comes.
pub(super) struct Session {
    pub transfer: Arc<Transfer>,
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
    pub fn new(
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
    pub async fn run(
        mut self,
        mut lines: Lines,
        writer: &mut WriteHalf<Stream>,
        hub: &Hub,
    ) -> Result<(), String> {
        let directory = hub.options.into.as_path();
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
                    Ok(Some(ToReceiver::Certificates(list))) => self.trust.meet(list, &self.named),
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
                    News::Bad(index) => mender.add(index, self.transfer.sender(index)),
                    // The source sends all of it then.
                    News::Stuck(why) if why.kind() == io::ErrorKind::InvalidData && self.transfer.header.base.is_some() => {
                        let _ = timeout(SAY, wire::write_line(writer, &FromReceiver::NoBase)).await;
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
                        hub.settled(&self.transfer);
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

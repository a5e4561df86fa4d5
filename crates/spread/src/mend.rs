//! Frames that have to be fetched by themselves, a few at a time, whoever says how many of them there are.

use crate::keeper::Work;
use crate::pull;
use crate::stream::Trust;
use crate::transfer::Transfer;
use crate::wire::FromReceiver;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Frames that are fetched at once.
const AT_ONCE: usize = 2;

/// A parent that does not send a frame in this time is asked no more for it; the next one is.
const FRAME_IN: Duration = Duration::from_secs(30);

/// So often each parent may send a frame that is not what the manifest says; then the manifest is wrong.
const MOST_BAD: usize = 3;

pub struct Mender {
    pub transfer: Arc<Transfer>,
    pub trust: Arc<Trust>,
    pub work: mpsc::Sender<Work>,
    /// Whom to ask.
    pub parents: watch::Receiver<Vec<SocketAddr>>,
    pub say: mpsc::UnboundedSender<FromReceiver>,
    pub waiting: VecDeque<(u32, Option<SocketAddr>)>,
    pub running: JoinSet<Result<(), String>>,
}

impl Mender {
    /// This frame has to come again. `by`: whose bytes were wrong, if all of them came from one parent.
    pub fn add(&mut self, index: u32, by: Option<SocketAddr>) {
        self.waiting.push_back((index, by));
        self.start();
    }

    fn start(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some((index, by)) = self.waiting.pop_front()
        {
            self.running.spawn(self.fetch(index, by));
        }
    }

    /// Waits while there is something to do. Errors: why it cannot be done at all.
    pub async fn ended(&mut self) -> Result<(), String> {
        match self.running.join_next().await {
            Some(ended) => {
                self.start();
                ended.unwrap_or(Ok(()))
            }
            None => std::future::pending().await,
        }
    }

    /// Asks for a frame until it is here and good; first whoever has passed it on: it may have had it so itself, and says
    /// so then. Who is not there any more is not blamed.
    fn fetch(
        &self,
        index: u32,
        mut passed_on: Option<SocketAddr>,
    ) -> impl Future<Output = Result<(), String>> + use<> {
        let transfer = self.transfer.clone();
        let trust = self.trust.clone();
        let work = self.work.clone();
        let parents = self.parents.clone();
        let say = self.say.clone();
        async move {
            let mut wrong = 0;
            // Who sent it by itself, which only those do who have it whole and good.
            let mut gave = None;
            for attempt in 0.. {
                let list = parents.borrow().clone();
                if transfer.failed().is_some() || transfer.is_good(index) {
                    break;
                }
                let asked = passed_on.take().filter(|one| list.contains(one));
                let next = list.get(attempt % list.len().max(1)).copied();
                let Some(parent) = asked.or(next) else {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                };
                match timeout(FRAME_IN, pull::fetch(parent, &transfer, &trust, index)).await {
                    Ok(Ok((pieces, bad_there))) => {
                        let lied = asked.filter(|_| !bad_there);
                        if let Some(parent) = lied.or(gave.take()) {
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
                        wrong += 1;
                        if wrong >= MOST_BAD * list.len() {
                            return Err(format!(
                                "frame {index} is not what the manifest says, from whomever it comes"
                            ));
                        }
                        gave = Some(parent);
                    }
                    Ok(Err(_)) => sleep(Duration::from_millis(20)).await,
                    Err(_) => {}
                }
            }
            Ok(())
        }
    }
}

//! The flow of a transfer: all that a parent has, from the best one that there is at any time.

use crate::keeper::Inflow;
use crate::pull::{self, Lost};
use crate::stream::Trust;
use crate::transfer::Transfer;
use crate::wire::FromReceiver;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval_at, sleep};

/// A parent that sends less than so many bytes in [`PACE`] is left, if there is another one.
const LEAST: u64 = 20 << 10;
const PACE: Duration = Duration::from_secs(5);

/// As long as the source is there, it may still name somebody; but not for ever.
const ALONE: Duration = Duration::from_secs(30);

/// What has come in bytes; a page counts as much as has to come in a while.
fn progress(transfer: &Transfer) -> u64 {
    transfer.flowed() + u64::from(transfer.known().0) * LEAST
}

/// The flow: from the best parent that there is, at any time.
pub(super) struct Flow {
    pub transfer: Arc<Transfer>,
    pub trust: Arc<Trust>,
    pub inflow: Inflow,
    pub again: mpsc::UnboundedSender<u32>,
    pub parents: watch::Receiver<Vec<SocketAddr>>,
    pub current: watch::Sender<Option<SocketAddr>>,
    pub say: mpsc::UnboundedSender<FromReceiver>,
}

impl Flow {
    /// Begins it in a thread of its own, because it writes to disk. Ends when `stopped` is gone.
    pub fn thread(
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
                    let unreached = matches!(lost, Lost::Connect(_));
                    let _ = say.send(FromReceiver::Lost {
                        parent,
                        why,
                        unreached,
                    });
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

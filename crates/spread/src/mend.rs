//! Frames that have to be fetched by themselves, a few at a time, whoever says how many of them there are.

use crate::keeper::Work;
use crate::pull;
use crate::stream::Trust;
use crate::transfer::Transfer;
use crate::wire::FromReceiver;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Frames that are fetched at once.
const AT_ONCE: usize = 2;

/// As long as there are others that were not asked, a parent that does not send a frame in this time is left.
const FRAME_IN: Duration = Duration::from_secs(30);

/// If nobody has sent it in that time, as with a small `--limit`, each is left that sends less than so many bytes of it in
/// the same time; in twice the time with each round, so often.
const LEAST: u32 = 20 << 10;
const ROUNDS: u32 = 4;

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
            let mut slow = 0;
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
                let came = AtomicU32::new(0);
                let pull = pull::fetch(parent, &transfer, &trust, index, &came);
                match while_it_comes(pull, &came, slow, list.len()).await {
                    Some(Ok((pieces, bad_there))) => {
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
                    Some(Err(_)) => sleep(Duration::from_millis(20)).await,
                    None => slow += 1,
                }
            }
            Ok(())
        }
    }
}

/// What a parent sends; none if it sends too little. `came`: how much that is. So many of `all` parents were left for that.
async fn while_it_comes<T>(
    pull: impl Future<Output = T>,
    came: &AtomicU32,
    slow: u32,
    all: usize,
) -> Option<T> {
    let round = slow / (all as u32).max(1);
    let others = round == 0 && all > 1;
    let time = FRAME_IN * (1 << round.min(ROUNDS));
    let mut before = 0;
    tokio::pin!(pull);
    loop {
        if let Ok(ended) = timeout(time, &mut pull).await {
            return Some(ended);
        }
        let now = came.load(Ordering::Relaxed);
        if others || now - before < LEAST {
            return None;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::{Encoding, Entry, FRAME, Header, Id, Page};
    use crate::sign::Signer;
    use crate::stream::Door;
    use crate::transfer::Stock;
    use crate::wire::Kind;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    /// A parent that sends so many bytes of a frame in each fifth of a second.
    async fn parent(piece: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut child, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let head = [&Kind::Frame.head(8)[..], &[0; 8]].concat();
                    child.write_all(&head).await.unwrap();
                    let mut left = FRAME as usize;
                    while left > 0 {
                        let len = left.min(piece);
                        let data = [&Kind::Data.head(len)[..], &vec![7; len]].concat();
                        if child.write_all(&data).await.is_err() {
                            return;
                        }
                        left -= len;
                        sleep(Duration::from_millis(200)).await;
                    }
                });
            }
        });
        address
    }

    /// Seconds until a frame of 1 MiB has come from parents that send so many bytes in each fifth of a second, and how many
    /// bytes came in all. None: not within a day.
    async fn mended(pieces: &[usize]) -> (Option<f64>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::load_or_make(&dir.path().join("key")).unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let header = Header::new(Id([0; 16]), "disk", u64::from(FRAME), 1, None).unwrap();
        let stock = Stock {
            file: file.clone(),
            spool: file,
        };
        let transfer = Arc::new(Transfer::new(header, String::new(), String::new(), stock));
        let entry = Entry {
            encoding: Encoding::Raw,
            stored: FRAME,
            stored_hash: [0; 32],
            hash: [0; 32],
        };
        let page = Page {
            first: 0,
            entries: vec![entry],
        };
        transfer.add_page(&page, Vec::new().into());
        let mut list = Vec::new();
        for piece in pieces {
            list.push(parent(*piece).await);
        }
        let (work, mut keeper) = mpsc::channel(1);
        let mut mender = Mender {
            transfer: transfer.clone(),
            trust: Arc::new(Trust::new(signer.key(), Door(None))),
            work,
            parents: watch::Sender::new(list).subscribe(),
            say: mpsc::unbounded_channel().0,
            waiting: VecDeque::new(),
            running: JoinSet::new(),
        };
        let begin = Instant::now();
        mender.add(0, None);
        let came = async {
            match keeper.recv().await {
                Some(Work::Frame(0, pieces, good)) => {
                    let all: usize = pieces.iter().map(bytes::Bytes::len).sum();
                    assert_eq!(all, FRAME as usize);
                    good.send(true).unwrap();
                }
                _ => panic!("no frame"),
            }
        };
        let day = Duration::from_secs(86400);
        let took = timeout(day, came).await.ok();
        (
            took.map(|()| begin.elapsed().as_secs_f64()),
            transfer.received(),
        )
    }

    /// With `--limit 20K` no frame ever came by itself, as each attempt was broken off after 30 s.
    #[tokio::test(start_paused = true)]
    async fn a_frame_that_takes_longer_than_half_a_minute_comes() {
        let (took, received) = mended(&[4096]).await;
        let took = took.unwrap();
        assert!((51.0..53.0).contains(&took), "{took}");
        assert_eq!(received, u64::from(FRAME), "what is fetched counts");
        // At 500 bytes a second it takes another attempt, with more patience.
        let (took, _) = mended(&[100]).await;
        assert!(took.is_some_and(|took| took < 2500.0), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_is_left_if_there_is_another_one() {
        let (took, _) = mended(&[4096, 1 << 20]).await;
        let took = took.unwrap();
        assert!((29.0..31.5).contains(&took), "{took}");
        // And who sends next to nothing, whoever else there is.
        let (took, _) = mended(&[1, 4096]).await;
        let took = took.unwrap();
        assert!(took < 30.0 + 30.0 + 60.0 + 53.0, "{took}");
    }
}

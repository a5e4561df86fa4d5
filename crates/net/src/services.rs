//! dnsmasq and pasta as the holder sees them: started through the keeper, watched, started again with growing pauses.

use crate::files::Dir;
use crate::keeper::{Event, Order};
use crate::wire;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{Notify, oneshot, watch};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A program that ran for so long is well; its next end is a new story.
const LONG_RUN: Duration = Duration::from_secs(60);
const LOG_LIMIT: u64 = 1 << 20;

/// How a part of the network is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Off,
    Starting,
    Up,
    Failed(String),
}

/// The holder's end of the keeper's socket.
pub(crate) struct Hand {
    socket: AsyncFd<OwnedFd>,
    last: Cell<u32>,
    answers: RefCell<HashMap<u32, oneshot::Sender<Result<(), String>>>>,
    ends: RefCell<HashMap<u32, oneshot::Sender<String>>>,
}

struct Running {
    id: u32,
    output: Receiver,
    end: oneshot::Receiver<String>,
}

impl Hand {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            // SAFETY: the descriptor is owned by what is registered, and closed only after it is taken out.
            socket: unsafe { AsyncFd::register(socket) }?,
            last: Cell::new(0),
            answers: RefCell::default(),
            ends: RefCell::default(),
        })
    }

    /// Takes in what the keeper tells, until it ends.
    pub async fn listen(&self) -> io::Result<()> {
        let mut bytes = vec![0; wire::LIMIT];
        loop {
            let mut guard = self.socket.readable().await?;
            let count = match guard.try_io(|socket| wire::receive(socket, &mut bytes)) {
                Ok(received) => received?.0,
                Err(_would_block) => continue,
            };
            if count == 0 {
                return Ok(());
            }
            match serde_json::from_slice(&bytes[..count])? {
                Event::Done { id } => self.answer(id, Ok(())),
                Event::Failed { id, reason } => self.answer(id, Err(reason)),
                Event::Ended { id, how } => {
                    if let Some(waiting) = self.ends.borrow_mut().remove(&id) {
                        let _ = waiting.send(how);
                    }
                }
            }
        }
    }

    fn answer(&self, id: u32, result: Result<(), String>) {
        if let Some(waiting) = self.answers.borrow_mut().remove(&id) {
            let _ = waiting.send(result);
        }
    }

    async fn send(&self, order: &Order, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(order)?;
        loop {
            let mut guard = self.socket.writable().await?;
            match guard.try_io(|socket| wire::send(socket, &bytes, fd)) {
                Ok(sent) => return sent.map(drop),
                Err(_would_block) => {}
            }
        }
    }

    pub async fn space(&self, space: BorrowedFd<'_>) -> io::Result<()> {
        self.send(&Order::Space, Some(space)).await
    }

    pub async fn signal(&self, id: u32, signal: i32) -> io::Result<()> {
        self.send(&Order::Signal { id, signal }, None).await
    }

    /// Gives an order and waits until it is done.
    pub async fn order(
        &self,
        order: impl FnOnce(u32) -> Order,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), String> {
        let id = self.next();
        self.order_as(id, &order(id), fd).await
    }

    async fn order_as(
        &self,
        id: u32,
        order: &Order,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), String> {
        let (sender, receiver) = oneshot::channel();
        self.answers.borrow_mut().insert(id, sender);
        self.send(order, fd).await.map_err(|e| e.to_string())?;
        receiver
            .await
            .map_err(|_| "the keeper has ended".to_owned())?
    }

    fn next(&self) -> u32 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    async fn start(&self, argv: Vec<String>, inside: bool) -> Result<Running, String> {
        let text = |e: io::Error| e.to_string();
        let (read, write) = io::pipe().map_err(text)?;
        let output = Receiver::from_owned_fd(read.into()).map_err(text)?;
        let (id, (sender, end)) = (self.next(), oneshot::channel());
        self.ends.borrow_mut().insert(id, sender);
        let started = self
            .order_as(id, &Order::Start { id, argv, inside }, Some(write.as_fd()))
            .await;
        if started.is_err() {
            self.ends.borrow_mut().remove(&id);
        }
        started.map(|()| Running { id, output, end })
    }
}

/// One program that should always run.
pub(crate) struct Service {
    name: &'static str,
    inside: bool,
    hand: Rc<Hand>,
    dir: Rc<Dir>,
    pub state: watch::Sender<State>,
    /// What runs now.
    id: Cell<Option<u32>>,
    again: Cell<bool>,
    hurry: Notify,
}

impl Service {
    pub fn new(name: &'static str, inside: bool, hand: &Rc<Hand>, dir: &Rc<Dir>) -> Rc<Self> {
        Rc::new(Self {
            name,
            inside,
            hand: hand.clone(),
            dir: dir.clone(),
            state: watch::Sender::new(State::Off),
            id: Cell::new(None),
            again: Cell::new(false),
            hurry: Notify::new(),
        })
    }

    pub fn set(&self, state: State) {
        self.state.send_if_modified(|old| {
            let differs = *old != state;
            *old = state;
            differs
        });
    }

    /// Runs for ever. `argv` is made for each start; `is_ready` sees each line of the program's output.
    pub async fn supervise(
        &self,
        argv: impl AsyncFn() -> Result<Vec<String>, String>,
        is_ready: impl Fn(&str) -> bool,
    ) {
        let mut pause = FIRST_PAUSE;
        self.set(State::Starting);
        loop {
            let begun = Instant::now();
            self.again.set(false);
            let why = match self.run(&argv, &is_ready).await {
                Ok(how) => how,
                Err(reason) => reason,
            };
            self.id.set(None);
            if self.again.get() {
                self.set(State::Starting);
                pause = FIRST_PAUSE;
                continue;
            }
            self.set(State::Failed(format!("{} {why}", self.name)));
            if begun.elapsed() > LONG_RUN {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.hurry.notified() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn run(
        &self,
        argv: &impl AsyncFn() -> Result<Vec<String>, String>,
        is_ready: &impl Fn(&str) -> bool,
    ) -> Result<String, String> {
        let running = self.hand.start(argv().await?, self.inside).await?;
        self.id.set(Some(running.id));
        let last = self
            .log(running.output, is_ready)
            .await
            .map_err(|e| format!("cannot be logged: {e}"))?;
        let how = running
            .end
            .await
            .map_err(|_| "ended with the keeper".to_owned())?;
        Ok(if last.is_empty() {
            how
        } else {
            format!("{how}: {last}")
        })
    }

    /// Copies the program's output into its log; the last line.
    async fn log(&self, output: Receiver, is_ready: &impl Fn(&str) -> bool) -> io::Result<String> {
        let mut log = self
            .dir
            .append(&format!("{}.log", self.name))
            .map_err(io::Error::other)?;
        let mut lines = BufReader::new(output).lines();
        let mut last = String::new();
        while let Some(line) = lines.next_line().await? {
            // Debian 12's pasta reports that there is no syslog, once per line that it has already written.
            if line.trim().is_empty() || line.starts_with("Failed to send ") {
                continue;
            }
            if is_ready(&line) {
                self.set(State::Up);
            }
            if log.metadata()?.len() > LOG_LIMIT {
                log.set_len(0)?;
            }
            // One write a line; a full disk must not stop the network.
            let _ = log.write_all(format!("{line}\n").as_bytes());
            last = line;
        }
        Ok(last)
    }

    /// Ends what runs; it is started again at once.
    pub async fn restart(&self) {
        self.again.set(true);
        self.hurry.notify_one();
        self.end().await;
    }

    pub async fn end(&self) {
        if let Some(id) = self.id.get() {
            let _ = self.hand.signal(id, libc::SIGKILL).await;
        }
    }

    pub async fn hang_up(&self) {
        match self.id.get() {
            Some(id) if *self.state.borrow() == State::Up => {
                let _ = self.hand.signal(id, libc::SIGHUP).await;
            }
            // It may have read the old files already, and a signal in its first moments would kill it.
            _ => self.restart().await,
        }
    }

    pub fn warning(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Failed(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Waits until it is known how it is.
    pub fn settled(&self) -> impl Future<Output = ()> + use<> {
        let mut state = self.state.subscribe();
        async move {
            let _ = state.wait_for(|s| *s != State::Starting).await;
        }
    }
}

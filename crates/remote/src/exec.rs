//! One command on many nodes.
//!
//! Each node has an ssh process of its own, at most `fanout` at a time. Its standard input is a pipe that nobody
//! writes to: closing it is how the command is ended, at the other end too (see `ssh.rs`), on a time limit, on a cancel,
//! and by the kernel when we are killed.

use crate::Ssh;
use api::Name;
use serde::Serialize;
use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// How to go about it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes at a time.
    pub fanout: usize,
    /// Time for each node, counted from its own start.
    pub limit: Option<Duration>,
    /// Bytes kept of each stream of each node; what is more is read and dropped.
    pub keep: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fanout: 64,
            limit: None,
            keep: 16 << 20,
        }
    }
}

/// Ends what runs. A clone ends the same.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<watch::Sender<bool>>);

impl Default for Cancel {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Cancel {
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is cancelled.
    pub async fn cancelled(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives as long as we do: an error cannot come.
        let _ = receiver.wait_for(|cancelled| *cancelled).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// News of a running command.
#[derive(Debug)]
pub enum Event<'a> {
    /// A piece of output: whole lines with their ends, but for the last one and very long ones.
    Output(&'a Name, Stream, &'a [u8]),
    Ended(&'a Outcome),
}

/// How it ended on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "end", content = "what")]
pub enum Status {
    /// ssh's own exit code: the command's, 128 + n after signal n, or 255 when the node could not be reached.
    Exited(u8),
    TimedOut,
    Interrupted,
    /// ssh itself did not start.
    NotStarted(String),
}

impl Status {
    /// As an exit code: 124 after the time limit (as timeout(1) has it), 130 when interrupted, 127 without ssh.
    pub fn code(&self) -> u8 {
        match self {
            Self::Exited(code) => *code,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
            Self::NotStarted(_) => 127,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub node: Name,
    pub status: Status,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Bytes of output that were not kept.
    pub dropped: u64,
    pub took: Duration,
}

impl Outcome {
    pub fn ok(&self) -> bool {
        self.status == Status::Exited(0)
    }
}

/// The code of a run on many nodes: the highest of theirs, so that 0 means that all are 0.
pub fn highest(outcomes: &[Outcome]) -> u8 {
    outcomes.iter().map(|o| o.status.code()).max().unwrap_or(0)
}

enum News {
    Output(Name, Stream, Vec<u8>),
    Ended(Outcome),
}

/// Runs `argv` on every node; the outcomes are in the order of `nodes`.
pub async fn exec(
    ssh: &Ssh,
    nodes: &[Name],
    argv: &[OsString],
    options: &Options,
    cancel: &Cancel,
    mut on: impl FnMut(Event<'_>),
) -> Vec<Outcome> {
    let (sender, mut receiver) = mpsc::channel(256);
    let places = Arc::new(Semaphore::new(options.fanout.max(1)));
    let mut tasks = JoinSet::new();
    for node in nodes {
        let command = ssh.watched(node, argv);
        let (node, options) = (node.clone(), options.clone());
        let (places, cancel, sender) = (places.clone(), cancel.clone(), sender.clone());
        tasks.spawn(async move {
            let started = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                place = places.acquire_owned() => Some(place),
            };
            let outcome = match &started {
                Some(_place) => one(node, command, &options, &cancel, &sender).await,
                None => Outcome::of(node, Status::Interrupted),
            };
            let _ = sender.send(News::Ended(outcome)).await;
        });
    }
    drop(sender);
    let mut outcomes = Vec::with_capacity(nodes.len());
    while let Some(news) = receiver.recv().await {
        match news {
            News::Output(node, stream, bytes) => on(Event::Output(&node, stream, &bytes)),
            News::Ended(outcome) => {
                on(Event::Ended(&outcome));
                outcomes.push(outcome);
            }
        }
    }
    outcomes.sort_by_key(|o: &Outcome| nodes.iter().position(|node| *node == o.node));
    outcomes
}

impl Outcome {
    pub(crate) fn of(node: Name, status: Status) -> Self {
        Self {
            node,
            status,
            stdout: Vec::new(),
            stderr: Vec::new(),
            dropped: 0,
            took: Duration::ZERO,
        }
    }
}

async fn one(
    node: Name,
    command: std::process::Command,
    options: &Options,
    cancel: &Cancel,
    sender: &mpsc::Sender<News>,
) -> Outcome {
    let began = Instant::now();
    let mut outcome = Outcome::of(node.clone(), Status::Interrupted);
    let mut child = match spawn(command) {
        Ok(child) => child,
        Err(error) => {
            outcome.status = Status::NotStarted(error.to_string());
            return outcome;
        }
    };
    let input = child.stdin.take();
    let out = Pump::new(
        &node,
        Stream::Out,
        sender,
        options.keep,
        &mut outcome.stdout,
    );
    let err = Pump::new(
        &node,
        Stream::Err,
        sender,
        options.keep,
        &mut outcome.stderr,
    );
    let streams = (child.stdout.take(), child.stderr.take());
    let pumps = async { tokio::join!(out.run(streams.0), err.run(streams.1)) };
    let (status, dropped) = finish(&mut child, input, pumps, options.limit, cancel).await;
    outcome.status = status;
    outcome.dropped = dropped.map_or(0, |(a, b)| a + b);
    outcome.took = began.elapsed();
    outcome
}

pub(crate) fn spawn(command: std::process::Command) -> std::io::Result<Child> {
    tokio::process::Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The terminal's Ctrl-C is for us: we end our children in good order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// How long a command has to end after its input was closed, before its ssh is killed.
const GRACE: Duration = Duration::from_secs(3);
/// How long output may still come after ssh has ended: it is in the pipe already, unless somebody else holds the pipe.
const REST: Duration = Duration::from_secs(1);

/// Waits for the child and for `pumps`; on the time limit and on a cancel closes `input`, then kills.
async fn finish<T>(
    child: &mut Child,
    input: Option<ChildStdin>,
    pumps: impl Future<Output = T>,
    limit: Option<Duration>,
    cancel: &Cancel,
) -> (Status, Option<T>) {
    let mut both = std::pin::pin!(async {
        let mut pumps = std::pin::pin!(pumps);
        tokio::select! {
            told = &mut pumps => (child.wait().await, Some(told)),
            status = child.wait() => (status, tokio::time::timeout(REST, pumps).await.ok()),
        }
    });
    let over = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        (status, told) = &mut both => return (exited(status), told),
        () = over => Status::TimedOut,
        () = cancel.cancelled() => Status::Interrupted,
    };
    drop(input);
    // After that time the child is killed when it is dropped.
    let told = tokio::time::timeout(GRACE, both).await;
    (why, told.ok().and_then(|(_, told)| told))
}

pub(crate) fn exited(status: std::io::Result<std::process::ExitStatus>) -> Status {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => {
            let code = status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            Status::Exited(u8::try_from(code).unwrap_or(255))
        }
        Err(error) => Status::NotStarted(error.to_string()),
    }
}

/// Carries one stream of one node: passes lines on and keeps the first bytes.
struct Pump<'a> {
    node: &'a Name,
    stream: Stream,
    sender: &'a mpsc::Sender<News>,
    keep: usize,
    kept: &'a mut Vec<u8>,
}

/// A line longer than this is passed on in pieces.
const LINE: usize = 64 << 10;

impl<'a> Pump<'a> {
    fn new(
        node: &'a Name,
        stream: Stream,
        sender: &'a mpsc::Sender<News>,
        keep: usize,
        kept: &'a mut Vec<u8>,
    ) -> Self {
        Self {
            node,
            stream,
            sender,
            keep,
            kept,
        }
    }

    /// Returns how many bytes were not kept.
    async fn run(self, from: Option<impl AsyncRead + Unpin>) -> u64 {
        let Some(mut from) = from else { return 0 };
        let mut dropped = 0;
        let mut line = Vec::new();
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            let room = self.keep.saturating_sub(self.kept.len()).min(read);
            self.kept
                .extend_from_slice(bytes.get(..room).unwrap_or_default());
            dropped += (read - room) as u64;
            line.extend_from_slice(bytes);
            let whole = match line.iter().rposition(|b| *b == b'\n') {
                Some(end) => end + 1,
                None if line.len() > LINE => line.len(),
                None => continue,
            };
            let rest = line.split_off(whole);
            self.tell(std::mem::replace(&mut line, rest)).await;
        }
        if !line.is_empty() {
            self.tell(line).await;
        }
        dropped
    }

    async fn tell(&self, bytes: Vec<u8>) {
        let news = News::Output(self.node.clone(), self.stream, bytes);
        let _ = self.sender.send(news).await;
    }
}

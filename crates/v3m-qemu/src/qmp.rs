//! A client of QMP, QEMU's JSON protocol: one command at a time, answers found by their id.
//!
//! It reads only what it uses, so that a newer or older QEMU is no error: unknown events are passed on, unknown fields
//! ignored, lines that are no JSON object and answers to nobody skipped (up to a bound). Every wait has a limit, and
//! after a limit has passed the connection may still be used: the late answer is then one to nobody.
//!
//! Protocol: QEMU Machine Protocol Specification, docs/interop/qmp-spec.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The longest line taken; the answer to `query-qmp-schema` has about 300 kB.
pub const LONGEST: usize = 8 << 20;
/// So many lines in a row that make no sense are borne.
const NONSENSE: usize = 100;
/// So many events are kept for who asks for them; the oldest go first.
const EVENTS: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("QEMU closed the connection")]
    Closed,
    #[error("QEMU did not answer within {0:?}")]
    Late(Duration),
    #[error("QEMU refused {command}: {description}")]
    Refused {
        command: String,
        class: String,
        description: String,
    },
    #[error("this is not QMP: {0}")]
    Nonsense(String),
    #[error("the connection to QEMU failed")]
    Io(#[from] io::Error),
}

pub type Result<T> = std::result::Result<T, Error>;

/// An event as it came, known or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

pub struct Qmp<S> {
    stream: S,
    /// Read and not yet used: a limit that passes in the middle of a line loses nothing.
    buffer: Vec<u8>,
    /// So much of `buffer` has no end of line in it.
    searched: usize,
    events: VecDeque<Event>,
    next: u64,
    limit: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Qmp<S> {
    /// Greets, and leaves negotiation. `limit` is for this and for each command.
    pub async fn new(stream: S, limit: Duration) -> Result<Self> {
        let mut qmp = Self {
            stream,
            buffer: Vec::new(),
            searched: 0,
            events: VecDeque::new(),
            next: 0,
            limit,
        };
        let greeting = timeout(limit, qmp.message())
            .await
            .map_err(|_| Error::Late(limit))??;
        if !greeting["QMP"].is_object() {
            return Err(Error::Nonsense(shown(&greeting.to_string())));
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let limit = self.limit;
        timeout(limit, self.exchange(command, arguments))
            .await
            .map_err(|_| Error::Late(limit))?
    }

    async fn exchange(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let id = self.next;
        self.next += 1;
        let mut request = json!({"execute": command, "id": id});
        if arguments.as_object().is_some_and(|a| !a.is_empty()) {
            request["arguments"] = arguments;
        }
        let mut line = request.to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).await?;
        for _ in 0..NONSENSE {
            let mut message = self.message().await?;
            // An error in the negotiation may come without an id, and nothing else is under way.
            let ours = message["id"] == id || message["id"].is_null();
            if ours && message.get("return").is_some() {
                return Ok(message["return"].take());
            }
            if ours && message["error"].is_object() {
                let text = |key: &str| message["error"][key].as_str().unwrap_or("").to_owned();
                return Err(Error::Refused {
                    command: command.to_owned(),
                    class: text("class"),
                    description: text("desc"),
                });
            }
        }
        Err(Error::Nonsense("no answer among many".to_owned()))
    }

    /// The next event, waited for without a limit of its own.
    pub async fn event(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let line = self.line().await?;
            if let Ok(message) = serde_json::from_slice::<Value>(&line) {
                self.keep_event(&message);
            }
        }
    }

    /// The next message that is no event.
    async fn message(&mut self) -> Result<Value> {
        let mut nonsense = 0;
        loop {
            let line = self.line().await?;
            match serde_json::from_slice::<Value>(&line) {
                Ok(message) if self.keep_event(&message) => {}
                Ok(message) if message.is_object() => return Ok(message),
                _ if line.iter().all(u8::is_ascii_whitespace) => {}
                _ => {
                    nonsense += 1;
                    if nonsense >= NONSENSE {
                        return Err(Error::Nonsense(shown(&String::from_utf8_lossy(&line))));
                    }
                }
            }
        }
    }

    fn keep_event(&mut self, message: &Value) -> bool {
        let Some(name) = message["event"].as_str() else {
            return false;
        };
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            name: name.to_owned(),
            data: message["data"].clone(),
        });
        true
    }

    /// One line. May be dropped while it waits: what was read stays.
    async fn line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer[self.searched..]
                .iter()
                .position(|b| *b == b'\n')
            {
                let end = self.searched + end;
                let rest = self.buffer.split_off(end + 1);
                self.searched = 0;
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            self.searched = self.buffer.len();
            if self.searched > LONGEST {
                return Err(Error::Nonsense(format!("a line of over {LONGEST} bytes")));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Error::Closed);
            }
        }
    }
}

/// The start of a text from outside, fit for a message.
fn shown(text: &str) -> String {
    text.chars()
        .take(80)
        .map(|c| if c.is_control() { '.' } else { c })
        .collect()
}

#[cfg(test)]
#[path = "qmp_tests.rs"]
mod tests;

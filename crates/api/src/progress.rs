//! Progress of anything longer than a second, told to whoever listens.
//!
//! A library never prints. It tells what it is doing to a [`Progress`], which is cheap to clone and may be told
//! from many threads at once. Rates and times to go are the listener's to work out.

use std::sync::Arc;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Items,
}

/// One piece of news. A stage is known by its name; it ends with `Done` or `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A stage began; `total` where it is known.
    Started {
        stage: String,
        total: Option<u64>,
        unit: Unit,
    },
    /// So much of it is done; never goes backwards. `message` says what is at work now.
    Advanced {
        stage: String,
        done: u64,
        total: Option<u64>,
        message: String,
    },
    Done {
        stage: String,
        message: String,
    },
    Failed {
        stage: String,
        message: String,
    },
    /// Something the user should know that is neither an error nor progress.
    Note(String),
}

/// Where news goes. The default goes nowhere.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Progress {
    pub fn new(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub fn tell(&self, event: Event) {
        if let Some(listener) = &self.0 {
            listener(event);
        }
    }

    pub fn started(&self, stage: &str, total: Option<u64>, unit: Unit) {
        self.tell(Event::Started {
            stage: stage.to_owned(),
            total,
            unit,
        });
    }

    pub fn advanced(&self, stage: &str, done: u64, total: Option<u64>, message: impl Into<String>) {
        self.tell(Event::Advanced {
            stage: stage.to_owned(),
            done,
            total,
            message: message.into(),
        });
    }

    pub fn done(&self, stage: &str, message: impl Into<String>) {
        self.tell(Event::Done {
            stage: stage.to_owned(),
            message: message.into(),
        });
    }

    pub fn failed(&self, stage: &str, message: impl Into<String>) {
        self.tell(Event::Failed {
            stage: stage.to_owned(),
            message: message.into(),
        });
    }

    pub fn note(&self, message: impl Into<String>) {
        self.tell(Event::Note(message.into()));
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "Progress(heard)"
        } else {
            "Progress(unheard)"
        })
    }
}

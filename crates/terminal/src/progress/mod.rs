//! Progress as it is shown: bars on a terminal, lines elsewhere, JSON lines for programs. Always on standard error.

mod bars;
mod json;
mod pace;
mod plain;

use api::{Progress, Unit};
use clap::ValueEnum;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Instant;

/// How progress may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressForm {
    Auto,
    Bars,
    Plain,
    Json,
    None,
}

/// Whoever shows progress: the listener, and a way to end in good order.
pub struct Shown {
    pub progress: Progress,
    /// A program reads it: of many things at once, too, each is told.
    pub for_programs: bool,
    bars: Option<bars::Bars>,
}

impl Shown {
    pub fn new(form: ProgressForm, quiet: bool, colored: bool) -> Self {
        let form = match form {
            // What was asked for by name is shown even so.
            ProgressForm::Auto if quiet => ProgressForm::None,
            ProgressForm::Auto if std::io::stderr().is_terminal() => ProgressForm::Bars,
            ProgressForm::Auto => ProgressForm::Plain,
            form => form,
        };
        let began = Instant::now();
        let mut bars = None;
        let progress = match form {
            ProgressForm::None | ProgressForm::Auto => Progress::default(),
            ProgressForm::Bars => {
                let shown = bars::Bars::new(colored);
                bars = Some(shown.clone());
                Progress::new(move |event| shown.show(event))
            }
            ProgressForm::Plain => {
                let lines = Mutex::new(plain::Lines::default());
                Progress::new(move |event| {
                    let line = lock(&lines).line(&event, began.elapsed());
                    line.into_iter().for_each(say);
                })
            }
            ProgressForm::Json => {
                let lines = Mutex::new(json::Lines::default());
                Progress::new(move |event| say(lock(&lines).line(&event, began.elapsed())))
            }
        };
        Self {
            progress,
            for_programs: form == ProgressForm::Json,
            bars,
        }
    }

    /// Takes what moves off the screen.
    pub fn end(&self) {
        if let Some(bars) = &self.bars {
            bars.end();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.end();
    }
}

/// A line at once, so that lines of several threads do not mix. Nobody there to read it is no error.
fn say(mut line: String) {
    line.push('\n');
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A listener that panicked has only lost its own line.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `12/40`, `3.1 MiB of 20.0 MiB`.
fn amount(done: u64, total: Option<u64>, unit: Unit) -> String {
    match (unit, total) {
        (Unit::Items, Some(total)) => format!("{done}/{total}"),
        (Unit::Items, None) => done.to_string(),
        (Unit::Bytes, Some(total)) => format!("{} of {}", bytes(done), bytes(total)),
        (Unit::Bytes, None) => bytes(done),
    }
}

/// Bytes for people, powers of 1024.
pub fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// No control characters: what a build prints must not command the terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

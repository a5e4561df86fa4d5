//! Progress on a terminal: one line a stage, what has ended above, what moves below.

use super::{clean, lock};
use crate::table::{Tone, paint};
use crate::time;
use api::{Event, Unit};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone)]
pub struct Bars {
    all: MultiProgress,
    stages: Arc<Mutex<HashMap<String, (ProgressBar, Unit)>>>,
    colored: bool,
}

impl Bars {
    pub fn new(colored: bool) -> Self {
        Self::on(ProgressDrawTarget::stderr(), colored)
    }

    fn on(target: ProgressDrawTarget, colored: bool) -> Self {
        Self {
            all: MultiProgress::with_draw_target(target),
            stages: Arc::default(),
            colored,
        }
    }

    pub fn show(&self, event: Event) {
        match event {
            Event::Started { stage, total, unit } => {
                self.bar(&stage, total, unit);
            }
            Event::Advanced {
                stage,
                done,
                total,
                message,
            } => {
                let known = lock(&self.stages).get(&stage).cloned();
                let (bar, unit) =
                    known.unwrap_or_else(|| (self.bar(&stage, total, Unit::Items), Unit::Items));
                if total.is_some() && bar.length() != total {
                    bar.set_length(total.unwrap_or_default());
                    bar.set_style(style(total, unit));
                }
                // Never backwards, also when news of several threads overtake each other.
                if done > bar.position() {
                    bar.set_position(done);
                }
                bar.set_message(clean(&message));
            }
            Event::Done { stage, message } => self.ended(&stage, &message, Tone::Good, "✓"),
            Event::Failed { stage, message } => self.ended(&stage, &message, Tone::Bad, "✗"),
            Event::Note(message) => self.print(&format!(
                "{} {}",
                paint(Tone::Warning, "note:", self.colored),
                clean(&message)
            )),
        }
    }

    pub fn end(&self) {
        for (_, (bar, _)) in lock(&self.stages).drain() {
            bar.finish_and_clear();
        }
    }

    fn bar(&self, stage: &str, total: Option<u64>, unit: Unit) -> ProgressBar {
        let mut stages = lock(&self.stages);
        if let Some((bar, _)) = stages.get(stage) {
            return bar.clone();
        }
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let bar = self.all.add(bar.with_style(style(total, unit)));
        bar.set_prefix(clean(stage));
        bar.enable_steady_tick(Duration::from_millis(120));
        stages.insert(stage.to_owned(), (bar.clone(), unit));
        bar
    }

    fn ended(&self, stage: &str, message: &str, tone: Tone, mark: &str) {
        let bar = lock(&self.stages).remove(stage);
        let took = match &bar {
            Some((bar, _)) => format!(" ({})", time::show(bar.elapsed())),
            None => String::new(),
        };
        if let Some((bar, _)) = bar {
            bar.finish_and_clear();
        }
        let (mark, took) = (
            paint(tone, mark, self.colored),
            paint(Tone::Faint, &took, self.colored),
        );
        let message = clean(message);
        let gap = if message.is_empty() { "" } else { ": " };
        self.print(&format!("{mark} {}{gap}{message}{took}", clean(stage)));
    }

    fn print(&self, line: &str) {
        let _ = self.all.println(line);
    }
}

fn style(total: Option<u64>, unit: Unit) -> ProgressStyle {
    // The templates are ours, and a test reads each.
    ProgressStyle::with_template(template(total, unit))
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .progress_chars("=> ")
}

/// Stage, bar, amount, rate, time to go, and what is at work: what is known of them.
fn template(total: Option<u64>, unit: Unit) -> &'static str {
    match (total, unit) {
        (Some(0 | 1), Unit::Items) | (None, Unit::Items) => {
            "{spinner} {prefix} {elapsed} {wide_msg}"
        }
        (Some(_), Unit::Items) => {
            "{spinner} {prefix} [{bar:24}] {pos}/{len} {per_sec} eta {eta} {wide_msg}"
        }
        (Some(_), Unit::Bytes) => {
            "{spinner} {prefix} [{bar:24}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} eta {eta} {wide_msg}"
        }
        (None, Unit::Bytes) => {
            "{spinner} {prefix} {binary_bytes} {binary_bytes_per_sec} {elapsed} {wide_msg}"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::InMemoryTerm;

    fn bars() -> (Bars, InMemoryTerm) {
        let term = InMemoryTerm::new(10, 100);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        (Bars::on(target, false), term)
    }

    fn start(bars: &Bars, total: Option<u64>, unit: Unit) {
        bars.show(Event::Started {
            stage: "s".into(),
            total,
            unit,
        });
    }

    fn advance(bars: &Bars, done: u64, total: Option<u64>) {
        bars.show(Event::Advanced {
            stage: "s".into(),
            done,
            total,
            message: "at work".into(),
        });
    }

    #[test]
    fn every_template_is_good() {
        for total in [None, Some(1), Some(40)] {
            for unit in [Unit::Items, Unit::Bytes] {
                assert!(ProgressStyle::with_template(template(total, unit)).is_ok());
            }
        }
    }

    #[test]
    fn a_bar_never_goes_backwards_and_ends_as_a_line() {
        let (bars, term) = bars();
        start(&bars, Some(40), Unit::Items);
        advance(&bars, 30, Some(40));
        advance(&bars, 10, Some(40));
        let (bar, _) = lock(&bars.stages).get("s").cloned().unwrap();
        bar.tick();
        assert_eq!(bar.position(), 30);
        assert!(term.contents().contains("30/40"), "{}", term.contents());
        bars.show(Event::Done {
            stage: "s".into(),
            message: "4 nodes".into(),
        });
        assert!(
            term.contents().starts_with("✓ s: 4 nodes (0.0 s)"),
            "{}",
            term.contents()
        );
    }
}

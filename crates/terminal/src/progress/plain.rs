//! Progress as lines, for logs and pipes: what begins and ends, and now and then how far it is.

use super::pace::pace;
use super::{amount, clean};
use crate::time;
use api::{Event, Unit};
use std::collections::HashMap;
use std::time::Duration;

/// Between two lines of one stage.
const QUIET: Duration = Duration::from_secs(5);

/// What was said of each stage. The clock is the caller's.
#[derive(Default)]
pub struct Lines {
    stages: HashMap<String, Stage>,
}

struct Stage {
    began: Duration,
    said: Duration,
    done: u64,
    unit: Unit,
}

impl Lines {
    /// The line for this news, or none if there is nothing worth a line.
    pub fn line(&mut self, event: &Event, now: Duration) -> Option<String> {
        match event {
            Event::Started { stage, total, unit } => {
                let state = Stage {
                    began: now,
                    said: now,
                    done: 0,
                    unit: *unit,
                };
                self.stages.insert(stage.clone(), state);
                let of = total.filter(|t| *t > 1).map(|total| match unit {
                    Unit::Items => format!(": {total} to do"),
                    Unit::Bytes => format!(": {}", super::bytes(total)),
                });
                Some(format!("{}{}", clean(stage), of.unwrap_or_default()))
            }
            Event::Advanced {
                stage,
                done,
                total,
                message,
            } => {
                let state = self.stages.entry(stage.clone()).or_insert(Stage {
                    began: now,
                    said: now,
                    done: 0,
                    unit: Unit::Items,
                });
                state.done = state.done.max(*done);
                if now.saturating_sub(state.said) < QUIET {
                    return None;
                }
                state.said = now;
                let amount = amount(state.done, *total, state.unit);
                let pace = pace(state.done, *total, now.saturating_sub(state.began));
                let pace = pace.map(|p| p.show(state.unit)).unwrap_or_default();
                Some(join(stage, &[&amount, &pace, message]))
            }
            Event::Done { stage, message } => {
                let began = self.stages.remove(stage).map_or(now, |s| s.began);
                let took = format!("done in {}", time::show(now.saturating_sub(began)));
                Some(join(stage, &[&took, message]))
            }
            Event::Failed { stage, message } => {
                self.stages.remove(stage);
                Some(join(stage, &["failed", message]))
            }
            Event::Note(message) => Some(format!("note: {}", clean(message))),
        }
    }
}

fn join(stage: &str, parts: &[&str]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .filter(|p| !p.is_empty())
        .map(|p| clean(p))
        .collect();
    format!("{}: {}", clean(stage), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advanced(done: u64) -> Event {
        Event::Advanced {
            stage: "image".into(),
            done,
            total: Some(40),
            message: "libc6\x1b[2J".into(),
        }
    }

    #[test]
    fn lines_are_few_and_never_go_backwards() {
        let mut lines = Lines::default();
        let mut at = |seconds: u64, event: Event| lines.line(&event, Duration::from_secs(seconds));
        let started = Event::Started {
            stage: "image".into(),
            total: Some(40),
            unit: Unit::Items,
        };
        assert_eq!(at(0, started).as_deref(), Some("image: 40 to do"));
        assert_eq!(at(1, advanced(4)), None);
        assert_eq!(
            at(6, advanced(12)).as_deref(),
            Some("image: 12/40, 2.0/s, eta 14 s, libc6[2J")
        );
        assert_eq!(at(7, advanced(13)), None);
        assert_eq!(
            at(12, advanced(2)).as_deref(),
            Some("image: 13/40, 1.1/s, eta 24 s, libc6[2J")
        );
        let done = Event::Done {
            stage: "image".into(),
            message: String::new(),
        };
        assert_eq!(at(65, done).as_deref(), Some("image: done in 1m 05s"));
    }
}

//! One JSON object a line, for programs.

use super::pace::pace;
use api::{Event, Unit};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// When the stages began.
#[derive(Default)]
pub struct Lines(HashMap<String, Duration>);

impl Lines {
    pub fn line(&mut self, event: &Event, elapsed: Duration) -> String {
        let began = match event {
            Event::Started { stage, .. } => {
                self.0.insert(stage.clone(), elapsed);
                elapsed
            }
            Event::Advanced { stage, .. } => *self.0.entry(stage.clone()).or_insert(elapsed),
            Event::Done { stage, .. } | Event::Failed { stage, .. } => {
                self.0.remove(stage).unwrap_or(elapsed)
            }
            Event::Note(_) => elapsed,
        };
        line(event, elapsed, elapsed.saturating_sub(began))
    }
}

/// `elapsed` is seconds since the command began, `rate` a second since the stage did, `eta` the seconds to its end (both
/// null while nothing can be said); `unit` is `bytes` or `items`.
fn line(event: &Event, elapsed: Duration, took: Duration) -> String {
    let milli = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
    let mut value = match event {
        Event::Started { stage, total, unit } => {
            json!({"event": "started", "stage": stage, "total": total, "unit": name(*unit)})
        }
        Event::Advanced {
            stage,
            done,
            total,
            message,
        } => {
            let pace = pace(*done, *total, took);
            let rate = pace.map(|pace| milli(pace.rate));
            let eta = pace
                .and_then(|pace| pace.left)
                .map(|left| milli(left.as_secs_f64()));
            json!({"event": "advanced", "stage": stage, "done": done, "total": total, "message": message,
                "rate": rate, "eta": eta})
        }
        Event::Done { stage, message } => {
            json!({"event": "done", "stage": stage, "message": message})
        }
        Event::Failed { stage, message } => {
            json!({"event": "failed", "stage": stage, "message": message})
        }
        Event::Note(message) => json!({"event": "note", "message": message}),
    };
    if let Value::Object(fields) = &mut value {
        fields.insert("elapsed".to_owned(), milli(elapsed.as_secs_f64()).into());
    }
    value.to_string()
}

fn name(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "bytes",
        Unit::Items => "items",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_object() {
        let event = Event::Advanced {
            stage: "image".into(),
            done: 3,
            total: Some(9),
            message: "a\nb".into(),
        };
        let mut lines = Lines::default();
        let mut at = |ms| -> Value {
            serde_json::from_str(&lines.line(&event, Duration::from_millis(ms))).unwrap()
        };
        assert_eq!(
            at(1500),
            json!({"event": "advanced", "stage": "image", "done": 3, "total": 9, "message": "a\nb",
                "rate": null, "eta": null, "elapsed": 1.5})
        );
        let later = at(4500);
        assert_eq!((&later["rate"], &later["eta"]), (&1.0.into(), &6.0.into()));
    }
}

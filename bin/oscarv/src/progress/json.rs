//! One JSON object a line, for programs.

use api::{Event, Unit};
use serde_json::{Value, json};
use std::time::Duration;

/// `elapsed` is seconds since the command began; `unit` is `bytes` or `items`.
pub fn line(event: &Event, elapsed: Duration) -> String {
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
            json!({"event": "advanced", "stage": stage, "done": done, "total": total, "message": message})
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
        let seconds = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
        fields.insert("elapsed".to_owned(), seconds.into());
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
        let read: Value = serde_json::from_str(&line(&event, Duration::from_millis(1500))).unwrap();
        assert_eq!(
            read,
            json!({"event": "advanced", "stage": "image", "done": 3, "total": 9, "message": "a\nb", "elapsed": 1.5})
        );
    }
}

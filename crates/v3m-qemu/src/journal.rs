//! What a QEMU process wrote about itself: its run state as a file, with nobody watching.
//!
//! QEMU gets a second QMP monitor over `-chardev pipe`: it reads commands from the FIFO `journal.in` and appends all it
//! has to say to the plain file `journal.out`. Two commands wait in the FIFO when it starts, `qmp_capabilities` and
//! `query-status`; it comes to them when its main loop runs, which is after the guest's CPUs were started. So:
//!
//! * the answer to `query-status` in the file says that the VM runs: a start waits for it, and a process that comes
//!   later reads it;
//! * STOP, RESUME, SHUTDOWN with its reason, GUEST_PANICKED and BLOCK_IO_ERROR follow as they happen, although no process
//!   of ours is there to hear them. A VM whose process is gone either said why here, or crashed.
//!
//! Events: QEMU QMP Reference Manual, `run-state.json` and `block-core.json`.

use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// What waits in the FIFO for QEMU.
pub const COMMANDS: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-status\"}\n";

/// So much of the end is read; a guest that makes events by the thousand costs no more than that.
const TAIL: u64 = 64 << 10;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// The main loop runs, and the guest's CPUs with it.
    pub started: bool,
    /// Stopped and not resumed, by us or by QEMU itself.
    pub paused: bool,
    /// A write failed because the host's disk is full, and the VM waits.
    pub disk_full: bool,
    pub panicked: bool,
    /// QEMU ends, for this reason (`ShutdownCause`).
    pub ended: Option<String>,
}

impl Journal {
    /// A missing file is an empty journal.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e),
        };
        let length = file.metadata()?.len();
        let mut text = Vec::new();
        let skipped = length.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(skipped))?;
        file.take(TAIL).read_to_end(&mut text)?;
        let mut journal = Self::parse(&text);
        // So long a journal is one of a VM that came far beyond its start.
        journal.started |= skipped > 0;
        Ok(journal)
    }

    /// Lines that are cut, or not what we know, say nothing.
    pub fn parse(text: &[u8]) -> Self {
        let mut journal = Self::default();
        for line in text.split(|b| *b == b'\n') {
            if let Ok(line) = serde_json::from_slice::<Value>(line) {
                journal.learn(&line);
            }
        }
        journal
    }

    fn learn(&mut self, line: &Value) {
        if line["return"]["running"].is_boolean() {
            self.started = true;
            self.paused = line["return"]["running"] == Value::Bool(false);
            return;
        }
        let data = &line["data"];
        match line["event"].as_str() {
            Some("STOP") => self.paused = true,
            Some("RESUME") => {
                self.paused = false;
                self.disk_full = false;
            }
            Some("BLOCK_IO_ERROR") if data["action"] == "stop" => {
                self.disk_full = data["nospace"] == Value::Bool(true);
            }
            Some("GUEST_PANICKED") => self.panicked = true,
            Some("SHUTDOWN") => {
                let reason = data["reason"].as_str().unwrap_or("unknown");
                self.ended = Some(reason.to_owned());
            }
            _ => {}
        }
    }

    /// Did the VM end as one that was meant to end: its guest powered off, or somebody told QEMU to go?
    pub fn ended_well(&self) -> bool {
        !self.panicked
            && matches!(
                self.ended.as_deref(),
                Some("guest-shutdown" | "host-qmp-quit" | "host-signal" | "host-ui")
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}
{"return": {}}
{"return": {"status": "running", "singlestep": false, "running": true}}
"#;

    fn after(lines: &str) -> Journal {
        Journal::parse(format!("{START}{lines}").as_bytes())
    }

    #[test]
    fn a_start() {
        assert_eq!(Journal::parse(b""), Journal::default());
        let greeting = START.lines().next().unwrap();
        assert!(!Journal::parse(greeting.as_bytes()).started);
        // Cut in the middle of the answer.
        assert!(!Journal::parse(&START.as_bytes()[..START.len() - 4]).started);
        assert!(after("").started);
    }

    #[test]
    fn pauses() {
        let stop = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#;
        assert!(after(stop).paused);
        assert!(!after(&format!("{stop}\n{{\"event\": \"RESUME\"}}")).paused);
        let full = r#"{"event": "BLOCK_IO_ERROR", "data": {"device": "", "nospace": true, "action": "stop", "operation": "write"}}"#;
        let journal = after(&format!("{full}\n{stop}"));
        assert!(journal.paused && journal.disk_full);
    }

    #[test]
    fn ends() {
        let shutdown = |reason| {
            format!(r#"{{"event": "SHUTDOWN", "data": {{"guest": true, "reason": "{reason}"}}}}"#)
        };
        assert!(after(&shutdown("guest-shutdown")).ended_well());
        assert!(after(&shutdown("host-signal")).ended_well());
        assert!(!after(&shutdown("host-error")).ended_well());
        assert!(!after(&shutdown("guest-panic")).ended_well());
        assert!(!after("").ended_well());
    }

    #[test]
    fn unknown_things_are_passed_over() {
        let journal = after(
            "{\"event\": \"NEW_THING\", \"data\": 7}\nnot json\n\u{0}\n[]\n7\n{\"event\": \"STOP\"}",
        );
        assert!(journal.started && journal.paused);
    }

    #[test]
    fn only_the_end_of_a_long_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.out");
        let mut text = START.to_owned();
        while (text.len() as u64) < 3 * TAIL {
            text.push_str("{\"event\": \"RTC_CHANGE\"}\n");
        }
        text.push_str("{\"event\": \"STOP\"}\n");
        std::fs::write(&path, text).unwrap();
        let journal = Journal::read(&path).unwrap();
        assert!(journal.started && journal.paused);
    }
}

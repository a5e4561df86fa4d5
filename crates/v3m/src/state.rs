//! The one table of states: which action is possible in which state, and what follows.
//!
//! ```text
//!            define           start              pause
//!   absent ─────────▶ defined ──────▶ running ◀────────▶ paused
//!      ▲                 │              ▲ │    resume       │
//!      │ undefine        │        start │ │ stop            │ stop
//!      ├─────────────────┘              │ ▼                 │
//!      └──────────────────────────── stopped ◀──────────────┘
//!   A VM whose process died, or whose guest panicked, is crashed: it starts, stops and goes like a stopped one.
//! ```
//!
//! Starting, stopping and migrating are seen from outside, or after the death of a process that was in the middle of
//! it; unknown means that a process is there and does not say how it is.

use crate::Error;
use api::Name;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Absent,
    Defined,
    Starting,
    Running,
    Paused,
    Migrating,
    Stopping,
    Stopped,
    Crashed,
    Unknown,
}

/// What can be asked of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Define,
    Start,
    Stop,
    Pause,
    Resume,
    Reboot,
    Undefine,
}

/// The table's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done, and leads to this state.
    Leads(State),
    /// It is so already: success, and nothing happens.
    Already,
    /// It is refused, and nothing happens.
    Refused,
}

impl State {
    pub const ALL: [Self; 10] = [
        Self::Absent,
        Self::Defined,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Migrating,
        Self::Stopping,
        Self::Stopped,
        Self::Crashed,
        Self::Unknown,
    ];

    /// The table. `Define` is asked with the same definition; another one is refused in every state but absent.
    pub const fn allows(self, action: Action) -> Verdict {
        use Action as A;
        use State as S;
        use Verdict::{Already, Leads, Refused};
        match (self, action) {
            (S::Absent, A::Define) => Leads(S::Defined),
            (S::Absent, A::Undefine) => Already,
            (S::Absent, A::Start | A::Stop | A::Pause | A::Resume | A::Reboot) => Refused,

            (
                S::Defined
                | S::Starting
                | S::Running
                | S::Paused
                | S::Migrating
                | S::Stopping
                | S::Stopped
                | S::Crashed
                | S::Unknown,
                A::Define,
            ) => Already,

            (S::Defined | S::Stopped | S::Crashed, A::Start) => Leads(S::Running),
            (S::Defined | S::Stopped, A::Stop) => Already,
            // The crash has been seen, and what the hypervisor kept of the VM is let go.
            (S::Crashed, A::Stop) => Leads(S::Stopped),
            (S::Defined | S::Stopped | S::Crashed, A::Pause | A::Resume | A::Reboot) => Refused,
            (S::Defined | S::Stopped | S::Crashed, A::Undefine) => Leads(S::Absent),

            (S::Starting, A::Start) => Leads(S::Running),
            (S::Starting, A::Pause | A::Resume | A::Reboot | A::Undefine) => Refused,

            (S::Running, A::Start | A::Resume) => Already,
            (S::Running, A::Pause) => Leads(S::Paused),
            // The one action that is done each time it is asked for.
            (S::Running, A::Reboot) => Leads(S::Running),
            // A guest that stands still would stand still at its first instruction.
            (S::Paused, A::Reboot) => Refused,

            (S::Paused, A::Pause) => Already,
            (S::Paused, A::Resume) => Leads(S::Running),
            // Who paused it had a reason, which a repeated start does not know.
            (S::Paused, A::Start) => Refused,

            (S::Running | S::Paused, A::Undefine) => Refused,
            (S::Starting | S::Running | S::Paused | S::Stopping, A::Stop) => Leads(S::Stopped),

            (S::Stopping, A::Start | A::Pause | A::Resume | A::Reboot | A::Undefine) => Refused,

            // A migration is ended by its own two calls, on both sides, and by nothing else.
            (S::Migrating, A::Start | A::Stop | A::Pause | A::Resume | A::Reboot | A::Undefine) => {
                Refused
            }

            // The one thing that brings certainty back.
            (S::Unknown, A::Stop) => Leads(S::Stopped),
            (S::Unknown, A::Start | A::Pause | A::Resume | A::Reboot | A::Undefine) => Refused,
        }
    }

    /// The table as a driver uses it: `Ok(true)` do it, `Ok(false)` it is so already.
    pub fn check(self, action: Action, name: &Name) -> Result<bool, Error> {
        match self.allows(action) {
            Verdict::Leads(_) => Ok(true),
            Verdict::Already => Ok(false),
            Verdict::Refused if self == Self::Absent => Err(Error::NoSuchVm(name.clone())),
            Verdict::Refused => Err(Error::WrongState {
                name: name.clone(),
                action: action.word(),
                state: self,
            }),
        }
    }

    /// Is a process, or whatever the hypervisor has, at work for this VM? A crashed one may still have it: see `stop`.
    pub const fn is_live(self) -> bool {
        match self {
            Self::Starting
            | Self::Running
            | Self::Paused
            | Self::Migrating
            | Self::Stopping
            | Self::Unknown => true,
            Self::Absent | Self::Defined | Self::Stopped | Self::Crashed => false,
        }
    }
}

impl Action {
    pub const ALL: [Self; 7] = [
        Self::Define,
        Self::Start,
        Self::Stop,
        Self::Pause,
        Self::Resume,
        Self::Reboot,
        Self::Undefine,
    ];

    /// For messages: "start of VM a is not possible".
    pub const fn word(self) -> &'static str {
        match self {
            Self::Define => "define",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reboot => "reboot",
            Self::Undefine => "undefine",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Absent => "absent",
            Self::Defined => "defined",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Migrating => "migrating",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_been_done_is_done_already() {
        for state in State::ALL {
            for action in Action::ALL.into_iter().filter(|a| *a != Action::Reboot) {
                if let Verdict::Leads(next) = state.allows(action) {
                    assert_eq!(
                        next.allows(action),
                        Verdict::Already,
                        "{action:?} in {state}, repeated"
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_live_is_ever_undefined() {
        for state in State::ALL.into_iter().filter(|s| s.is_live()) {
            assert_eq!(state.allows(Action::Undefine), Verdict::Refused, "{state}");
        }
    }

    #[test]
    fn every_state_but_a_migration_leads_home() {
        for state in State::ALL.into_iter().filter(|s| *s != State::Migrating) {
            let mut now = state;
            for action in [Action::Stop, Action::Undefine] {
                if let Verdict::Leads(next) = now.allows(action) {
                    now = next;
                }
            }
            assert_eq!(now, State::Absent, "from {state}");
        }
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let name = Name::new("a").unwrap();
        assert_eq!(
            State::Absent
                .check(Action::Start, &name)
                .unwrap_err()
                .to_string(),
            "there is no VM a"
        );
        assert_eq!(
            State::Paused
                .check(Action::Start, &name)
                .unwrap_err()
                .to_string(),
            "start of VM a is not possible while it is paused"
        );
    }
}

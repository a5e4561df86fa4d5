//! Whether a host that takes part is still believed: one that only comes and goes, that looks at what it has and never
//! answers, that nothing comes to, or that complains of others all the time, must not keep all of them waiting.

use std::time::Duration;
use tokio::time::Instant;

/// A host that comes and goes so often without anything new being there in between is given up.
pub const STRIKES: u32 = 5;

/// A host that nothing comes to for so long is given up; its disk may take longer at the end.
const STALLED: Duration = Duration::from_secs(120);
const FINISHES: Duration = Duration::from_secs(900);

/// A host looks at what it has for so long at most, and says so at least this often. One that reads what it has may take as
/// long as it needs: there is always another frame before it would be given up if that came to it.
const LOOKS: Duration = Duration::from_secs(900);
const SAYS: Duration = Duration::from_millis(1500);

/// Times that a host's word on others is taken in a transfer.
const COMPLAINTS: u32 = 20;

/// What a host's word is worth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// What it has, and since when.
    progress: (u64, u32),
    since: Option<Instant>,
    looking: Option<Looking>,
    /// It came anew while it looked.
    returns: u32,
    /// It came and went without anything new.
    strikes: u32,
    /// Most frames that it had when it went.
    most: u32,
    complaints: u32,
}

/// A host looks at what it has.
#[derive(Clone, Copy, Debug)]
struct Looking {
    /// Frames that it has read, and since when it is at that.
    frames: u32,
    since: Instant,
    /// When it has said so last.
    said: Instant,
}

impl Standing {
    /// What there is of the transfer at this host.
    pub fn heard(&mut self, received: u64, frames: u32, now: Instant) {
        if self.since.is_none() || self.progress != (received, frames) {
            self.progress = (received, frames);
            self.since = Some(now);
        }
    }

    /// It looks at what it has, has read so many frames of it, and will answer.
    pub fn looks(&mut self, frames: u32, now: Instant) {
        let begun = Looking {
            frames,
            since: now,
            said: now,
        };
        let before = self.looking.filter(|before| before.frames >= frames);
        self.looking = Some(Looking {
            said: now,
            ..before.unwrap_or(begun)
        });
    }

    /// It has come, and may begin to look anew; not for ever.
    pub fn comes(&mut self) {
        if self.looking.is_some() && self.returns < STRIKES {
            self.returns += 1;
            self.looking = None;
        }
    }

    /// Is there still an answer to be waited for?
    pub fn is_looking(&self, now: Instant) -> bool {
        self.looking.is_some_and(|looking| {
            let most = if looking.frames > 0 { STALLED } else { LOOKS };
            now.duration_since(looking.said) < SAYS && now.duration_since(looking.since) < most
        })
    }

    /// Has nothing come to it for too long? `whole`: all is there, and its disk is at work.
    pub fn stalled(&self, whole: bool, now: Instant) -> Option<Duration> {
        let most = if whole { FINISHES } else { STALLED };
        let since = self.since?;
        (now.duration_since(since) > most).then_some(most)
    }

    /// It is gone; too often for nothing?
    pub fn gone(&mut self) -> bool {
        self.since = None;
        if self.progress.1 > self.most {
            self.most = self.progress.1;
            self.strikes = 0;
        }
        self.strikes += 1;
        self.strikes >= STRIKES
    }

    /// May it still say something of others?
    pub fn complains(&mut self) -> bool {
        self.complaints += 1;
        self.complaints <= COMPLAINTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_given_up_when_nothing_comes_of_them() {
        let begin = Instant::now();
        let after = |time: Duration| begin + time + Duration::from_secs(1);
        let mut standing = Standing::default();
        standing.heard(10, 1, begin);
        assert_eq!(standing.stalled(false, begin + STALLED), None);
        assert_eq!(standing.stalled(false, after(STALLED)), Some(STALLED));
        assert_eq!(standing.stalled(true, after(STALLED)), None);
        assert_eq!(standing.stalled(true, after(FINISHES)), Some(FINISHES));
        standing.heard(11, 1, after(STALLED));
        assert_eq!(standing.stalled(false, after(STALLED)), None);
        for _ in 1..STRIKES {
            assert!(!standing.gone());
        }
        assert!(standing.gone());
        // Something has come: it counts anew.
        standing.heard(12, 2, begin);
        assert!(!standing.gone());
    }

    #[test]
    fn who_looks_and_never_answers_is_not_waited_for_without_end() {
        let begin = Instant::now();
        let mut standing = Standing::default();
        assert!(!standing.is_looking(begin));
        let tenths = u32::try_from(LOOKS.as_millis() / 100).unwrap();
        for tenth in 0..tenths {
            let now = begin + Duration::from_millis(100) * tenth;
            standing.looks(0, now);
            assert!(standing.is_looking(now));
        }
        standing.looks(0, begin + LOOKS);
        assert!(!standing.is_looking(begin + LOOKS));
        // Who has become silent is not waited for either.
        let mut standing = Standing::default();
        standing.looks(0, begin);
        assert!(!standing.is_looking(begin + SAYS));
    }

    /// Whoever had more than can be read in a quarter of an hour could never go on with it.
    #[test]
    fn who_reads_what_it_has_is_waited_for_as_long_as_it_goes_on() {
        let begin = Instant::now();
        let mut standing = Standing::default();
        let minutes = |minutes: u32| begin + Duration::from_secs(60) * minutes;
        for minute in 0..600 {
            standing.looks(minute / 2 + 1, minutes(minute));
            assert!(standing.is_looking(minutes(minute)), "after {minute} min");
        }
        // It says so still, and there is nothing more.
        standing.looks(300, minutes(601));
        assert!(!standing.is_looking(minutes(601)));
        // Nor does it help to begin anew.
        standing.looks(1, minutes(602));
        assert!(!standing.is_looking(minutes(602)));
        // But the connection may break.
        for _ in 0..STRIKES {
            standing.comes();
            standing.looks(1, minutes(603));
            assert!(standing.is_looking(minutes(604) - Duration::from_secs(59)));
        }
        standing.comes();
        standing.looks(1, minutes(606));
        assert!(!standing.is_looking(minutes(606)));
    }
}

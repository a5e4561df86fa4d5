//! Whether a host that takes part is still believed: one that only comes and goes, that looks at what it has and never
//! answers, that nothing comes to, or that complains of others all the time, must not keep all of them waiting.

use std::time::Duration;
use tokio::time::Instant;

/// A host that comes and goes so often without anything new being there in between is given up.
pub const STRIKES: u32 = 5;

/// A host that nothing comes to for so long is given up; its disk may take longer at the end.
const STALLED: Duration = Duration::from_secs(120);
const FINISHES: Duration = Duration::from_secs(900);

/// A host looks at what it has for so long at most, and says so at least this often.
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
    /// When it said first and last that it looks at what it has.
    looking: Option<(Instant, Instant)>,
    /// It came and went without anything new.
    strikes: u32,
    /// Most frames that it had when it went.
    most: u32,
    complaints: u32,
}

impl Standing {
    /// What there is of the transfer at this host.
    pub fn heard(&mut self, received: u64, frames: u32, now: Instant) {
        if self.since.is_none() || self.progress != (received, frames) {
            self.progress = (received, frames);
            self.since = Some(now);
        }
    }

    /// It looks at what it has, and will answer.
    pub fn looks(&mut self, now: Instant) {
        self.looking = Some((self.looking.map_or(now, |(first, _)| first), now));
    }

    /// Is there still an answer to be waited for?
    pub fn is_looking(&self, now: Instant) -> bool {
        self.looking.is_some_and(|(first, last)| {
            now.duration_since(last) < SAYS && now.duration_since(first) < LOOKS
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
            standing.looks(now);
            assert!(standing.is_looking(now));
        }
        standing.looks(begin + LOOKS);
        assert!(!standing.is_looking(begin + LOOKS));
        // Who has become silent is not waited for either.
        let mut standing = Standing::default();
        standing.looks(begin);
        assert!(!standing.is_looking(begin + SAYS));
    }
}

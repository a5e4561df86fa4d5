//! No more than so many bytes a second.
//!
//! Whoever wants to send stands in line, and has nothing until it is its turn: who goes before that does not make the
//! others wait. Pieces are small, so that it soon is everybody's turn again.

mod rate;

pub use rate::{BadRate, Rate};

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What goes at a time, in time, and its least and most bytes.
const PIECE: Duration = Duration::from_millis(50);
const LEAST: f64 = 4096.0;
const MOST: f64 = 1048576.0;

/// What did not go in so much time before goes besides: whoever is woken late must not be slower for it.
const LATE: Duration = Duration::from_millis(100);

pub struct Limit {
    /// Bytes a second.
    rate: f64,
    /// Who holds it is next.
    line: tokio::sync::Mutex<()>,
    /// When what was sent has gone.
    free: Mutex<Option<Instant>>,
}

impl Limit {
    /// `rate`: bytes a second, more than 0.
    pub fn new(rate: u64) -> Self {
        Self {
            rate: rate.max(1) as f64,
            line: tokio::sync::Mutex::default(),
            free: Mutex::new(None),
        }
    }

    /// Bytes a second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// So many bytes at most should go at a time.
    pub fn piece(&self) -> u32 {
        (self.rate * PIECE.as_secs_f64()).clamp(LEAST, MOST) as u32
    }

    fn free(&self) -> MutexGuard<'_, Option<Instant>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn time(&self, bytes: u32) -> Duration {
        Duration::from_secs_f64(f64::from(bytes) / self.rate)
    }

    /// Returns when so many bytes may go. Shared by all who send. Dropped before, it has taken nothing.
    pub async fn take(&self, bytes: u32) {
        let came = Instant::now();
        let _first = self.line.lock().await;
        let free = *self.free();
        if let Some(free) = free {
            sleep_until(free).await;
        }
        // From when it could have gone, not from now.
        let since = came.checked_sub(LATE).unwrap_or(came);
        let mut free = self.free();
        *free = Some(free.map_or(came, |free| free.max(since)) + self.time(bytes));
    }

    /// So many bytes that were taken did not go after all.
    pub fn give_back(&self, bytes: u32) {
        let mut free = self.free();
        *free = free.and_then(|free| free.checked_sub(self.time(bytes)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn ten_seconds_worth_take_ten_seconds() {
        let limit = Limit::new(1000);
        let begin = Instant::now();
        for _ in 0..11 {
            limit.take(1000).await;
        }
        let took = begin.elapsed();
        assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11));
    }

    /// It was slower than it should be where the processor was busy.
    #[tokio::test(start_paused = true)]
    async fn to_be_late_now_and_then_costs_nothing() {
        let limit = Limit::new(1000);
        let begin = Instant::now();
        for _ in 0..101 {
            limit.take(100).await;
            tokio::time::sleep(Duration::from_millis(90)).await;
            limit.take(100).await;
            tokio::time::sleep(Duration::from_millis(105)).await;
        }
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(20_000), "{took:?}");
        assert!(took < Duration::from_millis(20_300), "{took:?}");
    }

    /// A child that had gone by the time it was its turn had what it waited for counted as sent.
    #[tokio::test(start_paused = true)]
    async fn who_goes_before_its_turn_has_taken_nothing() {
        let limit = Limit::new(1000);
        let begin = Instant::now();
        limit.take(1000).await;
        for _ in 0..5 {
            let impatient = timeout(Duration::from_millis(100), limit.take(1000));
            assert!(impatient.await.is_err());
        }
        limit.take(1000).await;
        let took = begin.elapsed();
        assert!(took >= Duration::from_secs(1), "{took:?}");
        assert!(took < Duration::from_millis(1100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_did_not_go_is_given_back() {
        let limit = Limit::new(1000);
        let begin = Instant::now();
        limit.take(1000).await;
        limit.give_back(900);
        limit.take(1000).await;
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(100), "{took:?}");
        assert!(took < Duration::from_millis(200), "{took:?}");
    }

    #[test]
    fn pieces_are_small_where_little_goes() {
        assert_eq!(Limit::new(1 << 30).piece(), 1 << 20);
        assert_eq!(Limit::new(1 << 20).piece(), 52428);
        assert_eq!(Limit::new(1).piece(), 4096);
    }
}

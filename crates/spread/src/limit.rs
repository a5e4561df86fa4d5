//! No more than so many bytes a second.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

pub struct Limit {
    /// Bytes a second.
    rate: f64,
    /// When the line is free again.
    free: Mutex<Option<Instant>>,
}

impl Limit {
    /// `rate`: bytes a second, more than 0.
    pub fn new(rate: u64) -> Self {
        Self {
            rate: rate.max(1) as f64,
            free: Mutex::new(None),
        }
    }

    /// Bytes a second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Returns when so many bytes may go. Shared by all who send.
    pub async fn take(&self, bytes: usize) {
        let turn = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let turn = free.map_or(now, |free| free.max(now));
            *free = Some(turn + Duration::from_secs_f64(bytes as f64 / self.rate));
            turn
        };
        sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

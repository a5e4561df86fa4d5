//! How fast a stage goes, and how long it will take.

use api::Unit;
use std::time::Duration;

/// Before this a rate is chance.
const SOON: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Bytes or items a second, since the stage began.
    pub rate: f64,
    /// None where the total is not known.
    pub left: Option<Duration>,
}

/// None while nothing can be said.
pub fn pace(done: u64, total: Option<u64>, took: Duration) -> Option<Pace> {
    if done == 0 || took < SOON {
        return None;
    }
    let rate = done as f64 / took.as_secs_f64();
    let left = total.map(|total| total.saturating_sub(done) as f64 / rate);
    Some(Pace {
        rate,
        left: left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
    })
}

impl Pace {
    /// `3.1 MiB/s, eta 12 s`
    pub fn show(&self, unit: Unit) -> String {
        let rate = match unit {
            Unit::Bytes => format!("{}/s", super::bytes(self.rate as u64)),
            Unit::Items => format!("{:.1}/s", self.rate),
        };
        match self.left {
            Some(left) => format!("{rate}, eta {}", crate::time::show(left)),
            None => rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times_to_go() {
        let at = |done, total, seconds| pace(done, total, Duration::from_secs(seconds));
        assert_eq!(at(0, Some(9), 5), None);
        assert_eq!(pace(3, Some(9), Duration::from_millis(300)), None);
        let half = at(10, Some(20), 5).unwrap();
        assert_eq!(half.rate, 2.0);
        assert_eq!(half.left, Some(Duration::from_secs(5)));
        assert_eq!(half.show(Unit::Items), "2.0/s, eta 5.0 s");
        let bytes = at(20 << 20, None, 10).unwrap();
        assert_eq!(bytes.show(Unit::Bytes), "2.00 MiB/s");
    }
}

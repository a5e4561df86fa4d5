//! Lengths of time as people write them: `90s`, `10m`, `1h30m`.

use std::time::Duration;

/// Whole numbers with the units h, m, s and ms, larger units first; a bare number is seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time; write it as in 90s, 10m or 1h30m");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let millis: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return Err(bad()),
        };
        if millis >= last {
            return Err(bad());
        }
        last = millis;
        let number: u32 = number.parse().map_err(|_| bad())?;
        total += Duration::from_millis(u64::from(number) * millis);
        rest = after;
    }
    if text.is_empty() {
        Err(bad())
    } else {
        Ok(total)
    }
}

/// Short, for people: `1.2 s`, `2m 05s`.
pub fn show(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, millis) in [
            ("90", 90_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "m",
            "10 m",
            "-1s",
            "1.5s",
            "1m1h",
            "1s1s",
            "9x",
            "99999999999s",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(show(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(show(Duration::from_secs(125)), "2m 05s");
    }
}

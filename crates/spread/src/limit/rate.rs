//! A rate as people write it.

use std::str::FromStr;

/// Bytes a second, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

/// Why a text is not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRate {
    #[error("a rate needs a unit: K, M, G or T (powers of 1024), each in bytes a second")]
    NoUnit,
    #[error("{0:?} is not a unit of bytes a second; use K, M, G or T (powers of 1024)")]
    Unit(String),
    #[error("{0:?} are bits, and a rate is in bytes a second, an eighth of that: {1}")]
    Bits(String, String),
    #[error("a rate is a whole number and a unit, as in \"512K\" or \"80M\"")]
    Number,
    #[error("a rate must be more than zero")]
    Zero,
    #[error("a rate must be less than 1 EiB a second")]
    TooLarge,
}

impl Rate {
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Reads `512K`, `80M`, `1G`, also spelled `80MB`, `80MiB`, `80 MiB/s`: all powers of 1024.
impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        if number.is_empty() || unit.starts_with(['.', ',']) {
            return Err(BadRate::Number);
        }
        let number: u64 = number.parse().map_err(|_| BadRate::TooLarge)?;
        let shift = match unit.strip_suffix("/s").unwrap_or(unit) {
            "" => return Err(BadRate::NoUnit),
            "K" | "k" | "KB" | "kB" | "KiB" => 10,
            "M" | "MB" | "MiB" => 20,
            "G" | "GB" | "GiB" => 30,
            "T" | "TB" | "TiB" => 40,
            _ => return Err(of_bits(number, unit).unwrap_or_else(|| BadRate::Unit(unit.into()))),
        };
        match number.checked_mul(1 << shift) {
            Some(0) => Err(BadRate::Zero),
            Some(bytes) if bytes < 1 << 60 => Ok(Self(bytes)),
            _ => Err(BadRate::TooLarge),
        }
    }
}

/// If it is in bits, as of networks (powers of 1000): what was meant, or a little less.
fn of_bits(number: u64, unit: &str) -> Option<BadRate> {
    let power = match unit.to_ascii_lowercase().chars().next()? {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        _ => 0,
    };
    let rest = if power > 0 { &unit[1..] } else { unit };
    let rest = rest.strip_prefix('i').unwrap_or(rest);
    let bits = ["b", "b/s", "bit", "bit/s", "bits", "bits/s", "bps"];
    if !bits.contains(&rest) {
        return None;
    }
    let bytes = number.checked_mul(1000_u64.checked_pow(power)?)? / 8;
    let meant = match bytes {
        0..1024 => "1K".to_owned(),
        1024..10_485_760 => format!("{}K", bytes >> 10),
        _ => format!("{}M", bytes >> 20),
    };
    Some(BadRate::Bits(format!("{number}{unit}"), meant))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("512K", 512 << 10),
            ("512 KiB", 512 << 10),
            ("512kB/s", 512 << 10),
            ("80M", 80 << 20),
            ("80MB", 80 << 20),
            ("80 MiB/s", 80 << 20),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(text.parse::<Rate>().unwrap().bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_told_why() {
        for (text, why) in [
            ("", BadRate::Number),
            ("M", BadRate::Number),
            ("1.5M", BadRate::Number),
            ("80", BadRate::NoUnit),
            ("0K", BadRate::Zero),
            ("80X", BadRate::Unit("X".to_owned())),
            ("80m", BadRate::Unit("m".to_owned())),
            ("99999999T", BadRate::TooLarge),
            ("99999999999999999999K", BadRate::TooLarge),
        ] {
            assert_eq!(text.parse::<Rate>(), Err(why), "{text}");
        }
        for (text, meant) in [
            ("1Gbit", "119M"),
            ("100Mbit/s", "11M"),
            ("100Mb", "11M"),
            ("20 mbps", "2441K"),
            ("512kb", "62K"),
            ("100b", "1K"),
        ] {
            let why = text.parse::<Rate>().unwrap_err().to_string();
            assert!(why.contains("are bits"), "{text}: {why}");
            assert!(why.ends_with(&format!(": {meant}")), "{text}: {why}");
        }
    }
}

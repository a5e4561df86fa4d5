//! Types that carry their units.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Memory and disk sizes in mebibytes (2^20 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MiB(pub u64);

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    #[error("a size needs a unit: M, G or T (powers of 1024)")]
    NoUnit,
    #[error("{0:?} is not a unit of size; use M, G or T (powers of 1024)")]
    Unit(String),
    #[error("a size is a whole number and a unit, as in \"512M\" or \"4G\"")]
    Number,
    #[error("a size must be more than zero")]
    Zero,
    #[error("a size must be less than 1 EiB")]
    TooLarge,
}

impl MiB {
    pub const fn bytes(self) -> u64 {
        self.0 << 20
    }
}

/// Reads `512M`, `4G`, `1T`, also spelled `512MiB`, `512 MiB`, `4GB` (all powers of 1024).
impl FromStr for MiB {
    type Err = BadSize;
    fn from_str(text: &str) -> Result<Self, BadSize> {
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(BadSize::Number);
        }
        let shift = match unit.trim() {
            "" => return Err(BadSize::NoUnit),
            "M" | "MB" | "MiB" => 0,
            "G" | "GB" | "GiB" => 10,
            "T" | "TB" | "TiB" => 20,
            unit if unit.starts_with('.') || unit.starts_with(',') => return Err(BadSize::Number),
            unit => return Err(BadSize::Unit(unit.to_owned())),
        };
        let number: u64 = number.parse().map_err(|_| BadSize::TooLarge)?;
        match number.checked_mul(1 << shift) {
            Some(0) => Err(BadSize::Zero),
            Some(mib) if mib < 1 << 40 => Ok(Self(mib)),
            _ => Err(BadSize::TooLarge),
        }
    }
}

impl fmt::Display for MiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            m if m != 0 && m % (1 << 20) == 0 => format!("{}T", m >> 20),
            m if m != 0 && m % (1 << 10) == 0 => format!("{}G", m >> 10),
            m => format!("{m}M"),
        };
        f.pad(&text)
    }
}

/// An Ethernet address that one NIC can have: unicast, not all zeros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// Why a text is not a MAC that a NIC can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMac {
    #[error("a MAC is six pairs of hexadecimal digits, as in 52:54:00:12:34:56")]
    Form,
    #[error("a NIC cannot have the broadcast address")]
    Broadcast,
    #[error("a NIC cannot have a multicast address (the first byte is odd)")]
    Multicast,
    #[error("a NIC cannot have the address of all zeros")]
    Zero,
}

impl Mac {
    pub fn new(bytes: [u8; 6]) -> Result<Self, BadMac> {
        match bytes {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Err(BadMac::Broadcast),
            [first, ..] if first & 1 == 1 => Err(BadMac::Multicast),
            [0, 0, 0, 0, 0, 0] => Err(BadMac::Zero),
            _ => Ok(Self(bytes)),
        }
    }

    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = BadMac;
    fn from_str(text: &str) -> Result<Self, BadMac> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().ok_or(BadMac::Form)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(BadMac::Form);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| BadMac::Form)?;
        }
        if parts.next().is_some() {
            return Err(BadMac::Form);
        }
        Self::new(bytes)
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;
    fn try_from(text: String) -> Result<Self, BadMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!("512M".parse(), Ok(MiB(512)));
        assert_eq!("4 GiB".parse(), Ok(MiB(4096)));
        assert_eq!("1T".parse(), Ok(MiB(1 << 20)));
        assert_eq!("512".parse::<MiB>(), Err(BadSize::NoUnit));
        assert_eq!("0G".parse::<MiB>(), Err(BadSize::Zero));
        assert_eq!("-1G".parse::<MiB>(), Err(BadSize::Number));
        assert_eq!("1.5G".parse::<MiB>(), Err(BadSize::Number));
        assert_eq!("5k".parse::<MiB>(), Err(BadSize::Unit("k".to_owned())));
        assert_eq!("99999999999T".parse::<MiB>(), Err(BadSize::TooLarge));
        assert_eq!(MiB(1536).to_string(), "1536M");
        assert_eq!(MiB(2048).to_string(), "2G");
    }

    #[test]
    fn macs() {
        assert_eq!(
            "52:54:00:aB:34:56".parse::<Mac>().map(|m| m.to_string()),
            Ok("52:54:00:ab:34:56".to_owned())
        );
        assert_eq!("ff:ff:ff:ff:ff:ff".parse::<Mac>(), Err(BadMac::Broadcast));
        assert_eq!("01:00:5e:00:00:01".parse::<Mac>(), Err(BadMac::Multicast));
        assert_eq!("00:00:00:00:00:00".parse::<Mac>(), Err(BadMac::Zero));
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "5g:54:00:12:34:56",
            "+5:54:00:12:34:56",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(BadMac::Form), "{bad}");
        }
    }
}

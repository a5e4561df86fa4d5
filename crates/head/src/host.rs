//! This host.

use crate::{Error, Result};
use api::MiB;
use std::fs;
use std::path::Path;

/// Memory that programs can still have, as the kernel estimates it (`MemAvailable`, proc(5)).
pub fn memory_available() -> Result<MiB> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(MiB(kib.unwrap_or(0) / 1024))
}

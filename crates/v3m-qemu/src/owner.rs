//! Whom QEMU can run as.

/// May we start programs as this user and group, and give them files? As root of the host, or of a user namespace that
/// has such an id.
pub fn can_become(id: u32) -> bool {
    let has = |map: &str| {
        let lines = std::fs::read_to_string(map).unwrap_or_default();
        lines.lines().any(|line| maps(line, id))
    };
    rustix::process::geteuid().is_root() && has("/proc/self/uid_map") && has("/proc/self/gid_map")
}

/// A line of a user namespace's map, see user_namespaces(7): first id inside, first id outside, how many.
fn maps(line: &str, id: u32) -> bool {
    let mut numbers = line
        .split_whitespace()
        .map_while(|word| word.parse::<u32>().ok());
    let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next())
    else {
        return false;
    };
    id >= first && id - first < count
}

#[cfg(test)]
mod tests {
    #[test]
    fn maps_of_user_namespaces() {
        assert!(super::maps("         0          0 4294967295", 0x7000_0001));
        assert!(!super::maps(
            "         0       1000          1",
            0x7000_0001
        ));
        assert!(super::maps("         0          0 4294967295", 0x7000_1001));
        assert!(!super::maps(
            "         0       1000          1",
            0x7000_1001
        ));
        assert!(super::maps("1 100000 65536", 65536));
        assert!(!super::maps("1 100000 65536", 65537));
        assert!(!super::maps("", 0));
    }
}

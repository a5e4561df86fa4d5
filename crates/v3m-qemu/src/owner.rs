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

/// Is this one of the ids that VMs and clusters run as?
pub fn is_no_accounts(id: u32) -> bool {
    (0x7000_0000..0x7fff_ffff).contains(&id)
}

/// The group that a user's account has, by the system's user database; of an id without an account, the one without
/// rights.
pub fn group_of(uid: u32) -> u32 {
    const NOBODY: u32 = 65534;
    let mut buffer = vec![0; 1024];
    loop {
        // SAFETY: a struct of integers and pointers, for which all zeros are valid.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: the struct, the buffer with its length and the result are valid for the length of the call; what the
        // entry points at is in the buffer, and only its numbers are used.
        let error = unsafe {
            libc::getpwuid_r(
                uid,
                &raw mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        match error {
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            0 if !found.is_null() => return entry.pw_gid,
            _ => return NOBODY,
        }
    }
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
    fn groups_are_those_of_accounts() {
        assert_eq!(super::group_of(0), 0);
        assert_eq!(super::group_of(0x7000_1000), 65534);
    }

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

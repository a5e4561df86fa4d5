//! How fast this host's links are, as Linux knows it.

use std::path::Path;

/// Bytes of TCP's payload a second on the fastest link that is up; `None` if nothing is known of it. Links without a
/// device say 10 Gb/s, whatever they carry: virtual ones are not asked.
pub fn of_links() -> Option<f64> {
    fastest(Path::new("/sys/class/net"))
}

/// The part of an Ethernet link that TCP's payload gets.
const PAYLOAD: f64 = 0.94;

fn fastest(links: &Path) -> Option<f64> {
    let read = |link: &Path| {
        let is_up = std::fs::read_to_string(link.join("operstate")).ok()?;
        if !link.join("device").exists() || is_up.trim() != "up" {
            return None;
        }
        let speed = std::fs::read_to_string(link.join("speed")).ok()?;
        // Mb/s; -1 where it is not known.
        let speed = speed.trim().parse::<f64>().ok();
        speed.filter(|speed| *speed > 0.0)
    };
    let links = std::fs::read_dir(links).ok()?.flatten();
    let fastest = links
        .filter_map(|link| read(&link.path()))
        .reduce(f64::max)?;
    Some(fastest * 1e6 / 8.0 * PAYLOAD)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_fastest_real_link_that_is_up() {
        let links = tempfile::tempdir().unwrap();
        let link = |name: &str, device: bool, state: &str, speed: &str| {
            let dir = links.path().join(name);
            std::fs::create_dir_all(dir.join(if device { "device" } else { "queues" })).unwrap();
            std::fs::write(dir.join("operstate"), format!("{state}\n")).unwrap();
            std::fs::write(dir.join("speed"), format!("{speed}\n")).unwrap();
        };
        assert_eq!(fastest(links.path()), None);
        link("lo", false, "unknown", "10000");
        link("veth0", false, "up", "10000");
        link("eth2", true, "up", "-1");
        assert_eq!(fastest(links.path()), None);
        link("eth0", true, "up", "1000");
        link("eth1", true, "down", "10000");
        assert_eq!(fastest(links.path()), Some(0.94 * 125e6));
        assert_eq!(fastest(Path::new("/nowhere")), None);
    }
}

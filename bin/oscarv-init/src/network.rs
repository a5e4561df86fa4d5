//! The NIC, configured from the facts: no DHCP round, no daemon.

use crate::identity::Facts;
use crate::sys;
use std::fs;
use std::net::Ipv4Addr;

/// `mac`, `address`, `prefix` and perhaps `gateway`. Nodes without a `mac` have no network.
pub fn up(facts: &Facts) -> Result<(), String> {
    let Some(mac) = facts.get("mac") else {
        return Ok(());
    };
    let name = interface(mac).ok_or_else(|| format!("no NIC has the address {mac}"))?;
    let address: Ipv4Addr = parse(facts, "address")?;
    let prefix: u32 = parse(facts, "prefix")?;
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    sys::configure_interface(&name, address, Ipv4Addr::from(mask))?;
    if facts.contains_key("gateway") {
        sys::default_route(parse(facts, "gateway")?)?;
    }
    Ok(())
}

fn parse<T: std::str::FromStr>(facts: &Facts, key: &str) -> Result<T, String> {
    let text = facts
        .get(key)
        .ok_or_else(|| format!("the identity has no {key}"))?;
    text.parse()
        .map_err(|_| format!("the identity's {key} is {text:?}"))
}

fn interface(mac: &str) -> Option<String> {
    let all = fs::read_dir("/sys/class/net").ok()?.flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| {
            fs::read_to_string(format!("/sys/class/net/{name}/address"))
                .is_ok_and(|own| own.trim_end() == mac)
        })
}

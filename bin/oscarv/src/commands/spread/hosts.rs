//! Hosts as people name them: lists, sets of names, addresses, ports; and the file that says where they stand.

use super::PORT;
use crate::exit::Code;
use crate::exit::Failure;
use anyhow::{Context as _, Result};
use spread::topology::Topology;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

/// All hosts of these lists, each with its address; none twice.
pub fn hosts(lists: &[String]) -> Result<Vec<(String, SocketAddr)>> {
    let mut hosts: Vec<(String, SocketAddr)> = Vec::new();
    for word in lists.iter().flat_map(|list| words(list)) {
        for (name, address) in addresses(word)? {
            if let Some((other, _)) = hosts.iter().find(|(_, known)| *known == address) {
                let message = match *other == name {
                    true => format!("{name} is listed twice"),
                    false => format!("{other} and {name} are the same host: {address}"),
                };
                return Err(Failure::new(Code::Usage, message).into());
            }
            hosts.push((name, address));
        }
    }
    // Whoever names none means none, but a word without a host in it is a mistake.
    if hosts.is_empty() && !lists.is_empty() {
        return Err(Failure::new(Code::Usage, "no hosts are named")
            .hint("hosts are written as in node[1-8],server.example.org:7000,10.0.0.9")
            .into());
    }
    Ok(hosts)
}

/// What commas separate, outside of brackets.
fn words(list: &str) -> Vec<&str> {
    let mut inside = false;
    let at_comma = |c: char| {
        inside = (inside || c == '[') && c != ']';
        c == ',' && !inside
    };
    let words = list.split(at_comma).map(str::trim);
    words.filter(|word| !word.is_empty()).collect()
}

/// The file that says which switches hosts are at, and this host's own name.
pub fn topology(file: &Path) -> Result<(Topology, String)> {
    let wrong = |message: String| Failure::new(Code::Usage, message);
    let text = std::fs::read_to_string(file)
        .map_err(|e| wrong(format!("{} cannot be read: {e}", file.display())))?;
    let expand = |set: &str| match remote::parse_names(set) {
        Ok(names) => Ok(names.iter().map(ToString::to_string).collect()),
        Err(e) => Err(e.to_string()),
    };
    let topology = Topology::read(&text, &file.display().to_string(), expand)
        .map_err(|e| wrong(e.to_string()))?;
    let system = rustix::system::uname();
    Ok((topology, system.nodename().to_string_lossy().into_owned()))
}

fn addresses(word: &str) -> Result<Vec<(String, SocketAddr)>> {
    if let Ok(address) = word.parse::<SocketAddr>() {
        return Ok(vec![(word.to_owned(), address)]);
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        return Ok(vec![(word.to_owned(), SocketAddr::new(address, PORT))]);
    }
    let (set, port) = match word.rsplit_once(':') {
        None => (word, PORT),
        Some((set, port)) => (
            set,
            port.parse().map_err(|_| {
                Failure::new(Code::Usage, format!("{word:?}: {port:?} is not a port"))
                    .hint("hosts are written as in node[1-8],server.example.org:7000,10.0.0.9")
            })?,
        ),
    };
    let names = match set.contains('[') {
        true => remote::parse_names(set)?
            .iter()
            .map(ToString::to_string)
            .collect(),
        false => vec![set.to_owned()],
    };
    let resolve = |name: String| {
        let found = (name.as_str(), port).to_socket_addrs();
        let found = found.with_context(|| format!("the host {name} is not known"))?;
        let all: Vec<_> = found.collect();
        // One that most networks have.
        let address = all.iter().find(|a| a.is_ipv4()).or(all.first());
        let address = address.with_context(|| format!("the host {name} has no address"))?;
        Ok((name, *address))
    };
    names.into_iter().map(resolve).collect()
}

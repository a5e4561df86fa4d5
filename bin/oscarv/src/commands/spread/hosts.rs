//! Hosts as people name them: lists, sets of names, addresses, ports; and the file that says where they stand.

use super::PORT;
use crate::exit::Code;
use crate::exit::Failure;
use anyhow::Result;
use spread::port;
use spread::topology::Topology;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

const AS_IN: &str = "hosts are written as in node[1-8],server.example.org:7000,10.0.0.9";

const ELSEWHERE: &str =
    "which means something else on each host, and others are to have it from there";

/// Hosts, in the order in which they were named.
#[derive(Default)]
pub struct Hosts {
    pub names: Vec<String>,
    /// Those whose address is known.
    pub known: Vec<(String, SocketAddr)>,
    /// The others, and why it is not.
    pub unknown: Vec<(String, String)>,
}

impl Hosts {
    /// All hosts of these lists, none twice.
    ///
    /// Errors: what was written is no list of hosts, or has one of them twice.
    pub fn read(lists: &[String]) -> Result<Self> {
        let mut hosts = Self::default();
        for word in lists.iter().flat_map(|list| words(list)) {
            for (name, address) in addresses(word)? {
                hosts.add(name, address)?;
            }
        }
        // Whoever names none means none, but a word without a host in it is a mistake.
        if hosts.names.is_empty() && !lists.is_empty() {
            return Err(Failure::new(Code::Usage, "no hosts are named")
                .hint(AS_IN)
                .into());
        }
        Ok(hosts)
    }

    fn add(&mut self, name: String, address: Result<SocketAddr, String>) -> Result<(), Failure> {
        let twice = |other: &str| match other == name {
            true => format!("{name} is listed twice"),
            false => format!("{other} and {name} are the same host"),
        };
        let wrong = |message: String| Err(Failure::new(Code::Usage, message));
        match address {
            Ok(address) => {
                if let Some((other, _)) = self.known.iter().find(|(_, known)| *known == address) {
                    return match *other == name {
                        true => wrong(twice(other)),
                        false => wrong(format!("{}: {address}", twice(other))),
                    };
                }
                self.known.push((name.clone(), address));
            }
            Err(_) if self.names.contains(&name) => return wrong(twice(&name)),
            Err(why) => self.unknown.push((name.clone(), why)),
        }
        self.names.push(name);
        Ok(())
    }
}

/// Hosts in few words, as `--to` takes them.
pub fn fold<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    // By their ports: a set of names has one.
    let mut all: Vec<(u16, Vec<&str>)> = Vec::new();
    for name in names {
        let (host, port) = parts(name);
        match all.iter_mut().find(|(known, _)| *known == port) {
            Some((_, hosts)) => hosts.push(host),
            None => all.push((port, vec![host])),
        }
    }
    let mut folded = Vec::new();
    for (port, hosts) in all {
        // Addresses with colons are no names of a set.
        let (v6, others): (Vec<&str>, Vec<&str>) = hosts.iter().partition(|h| h.contains(':'));
        let others = plan::fold(others);
        folded.extend(words(&others).into_iter().map(|word| named(word, port)));
        folded.extend(v6.into_iter().map(|host| named(host, port)));
    }
    folded.join(",")
}

/// What makes this host one that receives.
pub fn how_to_start(name: &str) -> String {
    let (host, port) = parts(name);
    let listen = match port {
        PORT => String::new(),
        port => format!(" --listen [::]:{port}"),
    };
    format!(
        "start `oscarv spread receive DIRECTORY{listen}` on {host}, or say where it listens, as HOST:PORT"
    )
}

/// A host as it is listed, with its port if that is not the usual one.
fn named(host: &str, port: u16) -> String {
    match host.contains(':') {
        _ if port == PORT => host.to_owned(),
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Host and port of a name as it is listed.
fn parts(name: &str) -> (&str, u16) {
    let with_port = name.parse::<IpAddr>().is_err();
    let parts = name.rsplit_once(':').filter(|_| with_port);
    match parts.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (host.trim_matches(['[', ']']), port),
        None => (name, PORT),
    }
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
    let expand = |set: &str| remote::parse_hosts(set).map_err(|e| e.to_string());
    let topology = Topology::read(&text, &file.display().to_string(), expand)
        .map_err(|e| wrong(e.to_string()))?;
    let system = rustix::system::uname();
    Ok((topology, system.nodename().to_string_lossy().into_owned()))
}

/// The hosts of a word, each with its address, or why that is not known.
fn addresses(word: &str) -> Result<Vec<(String, Result<SocketAddr, String>)>> {
    if let Some(why) = of_one_link(word) {
        return Err(why.into());
    }
    if let Ok(address) = word.parse::<SocketAddr>() {
        return Ok(vec![(word.to_owned(), Ok(port::plain(address)))]);
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        let address = SocketAddr::new(address, PORT);
        return Ok(vec![(word.to_owned(), Ok(port::plain(address)))]);
    }
    let (set, port) = match word.rsplit_once(':') {
        None => (word, PORT),
        Some((set, port)) => (
            set,
            port.parse().map_err(|_| {
                Failure::new(Code::Usage, format!("{word:?}: {port:?} is not a port")).hint(AS_IN)
            })?,
        ),
    };
    let names = match set.contains('[') {
        true => remote::parse_hosts(set)
            .map_err(|e| Failure::new(Code::Usage, e.to_string()).hint(AS_IN))?,
        false => vec![set.to_owned()],
    };
    let resolve = |name: String| {
        let address = resolve(&name, port);
        (named(&name, port), address)
    };
    Ok(names.into_iter().map(resolve).collect())
}

/// `fe80::…`, which each host has to say for itself on which of its links it means.
fn is_of_one_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// A link-local address, with its zone (`%eth0`) or without it.
fn of_one_link(word: &str) -> Option<Failure> {
    let address = match word.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => word,
    };
    let bare = address.split('%').next()?;
    let parsed = bare.parse::<IpAddr>().ok()?;
    is_of_one_link(parsed).then(|| {
        let message = format!("{word:?} is a link-local address, {ELSEWHERE}");
        let hint = "list it by its name, or by an address that it has in the network; ip -br address there shows them";
        Failure::new(Code::Usage, message).hint(hint)
    })
}

fn resolve(name: &str, port: u16) -> Result<SocketAddr, String> {
    let found = (name, port).to_socket_addrs();
    let all: Vec<_> = found
        .map_err(|e| format!("its address is not known: {e}"))?
        .collect();
    // One that most networks have.
    let of_network = |a: &&SocketAddr| !is_of_one_link(a.ip());
    let v4 = all.iter().find(|a| a.is_ipv4());
    match v4.or_else(|| all.iter().find(of_network)) {
        Some(address) => Ok(port::plain(*address)),
        None if all.is_empty() => Err("it has no address".to_owned()),
        None => Err(format!("it has only link-local addresses, {ELSEWHERE}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Ports were folded, and what was printed could not be listed again.
    #[test]
    fn hosts_in_few_words_can_be_listed_again() {
        for (names, folded) in [
            (
                "127.0.0.1:7208,127.0.0.1:7209",
                "127.0.0.1:7208,127.0.0.1:7209",
            ),
            ("10.0.0.1,10.0.0.2,10.0.0.4", "10.0.0.[1-2,4]"),
            ("10.0.0.1:7200,10.0.0.2:7200", "10.0.0.[1-2]:7200"),
            (
                "n1.invalid,n2.invalid:7200,n1.invalid:7200",
                "n1.invalid,n2.invalid:7200,n1.invalid:7200",
            ),
            ("::1,2001:db8::1,2001:db8::2", "::1,2001:db8::1,2001:db8::2"),
            (
                "[2001:db8::1]:7,[2001:db8::2]:7",
                "[2001:db8::1]:7,[2001:db8::2]:7",
            ),
        ] {
            let hosts = Hosts::read(&[names.to_owned()]).unwrap();
            let fold = fold(hosts.names.iter().map(String::as_str));
            assert_eq!(fold, folded);
            assert_eq!(Hosts::read(&[fold]).unwrap().names, hosts.names);
        }
        let names = ["gpu1:7", "gpu2:7", "head", "gpu3", "gpu4"];
        assert_eq!(fold(names), "gpu[1-2]:7,head,gpu[3-4]");
    }
}

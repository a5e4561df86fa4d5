//! What a run would do: hosts are asked what they have, and nothing is sent.

use super::link::{self, host_of};
use super::{GONE, Options, Plan};
use crate::chain::{Chains, Parent};
use crate::gate;
use crate::stream::Door;
use crate::version::Outlook;
use crate::wire::{self, FromReceiver, Hello, LACKS, Offer};
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use tokio::io::BufReader;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Has {
    /// This version.
    It,
    /// The version before: it gets what is new.
    Base,
    /// Neither: it gets all of it.
    Nothing,
    /// It does not take it.
    Refuses,
    /// It was not reached.
    Away,
}

/// What would be done for a host.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    pub name: String,
    pub has: Has,
    /// Name of the host that it would have it from; none: from the source, or it gets nothing.
    pub parent: Option<String>,
    /// Bytes that would come to it, at most.
    pub bytes: u64,
    /// Why not.
    pub note: Option<String>,
    #[serde(skip)]
    gives: bool,
}

impl Asked {
    /// It is there, and nothing listens at its port.
    pub fn is_closed(&self) -> bool {
        self.note.as_deref().is_some_and(link::is_closed)
    }
}

/// Asks all hosts, and says what each would get from whom. Hosts of `plan.from` are asked, too, and not in the answer.
pub async fn ask(outlook: &Outlook, options: &Options, plan: &Plan) -> Vec<Asked> {
    let needy = options.hosts.len();
    let mut hosts = options.hosts.clone();
    for (name, address) in &plan.from {
        if hosts.iter().all(|(_, known)| known != address) {
            hosts.push((name.clone(), *address));
        }
    }
    let door = Door(options.tls.clone());
    let mut asking = JoinSet::new();
    for (index, (name, address)) in hosts.iter().enumerate() {
        let (name, address, door) = (name.clone(), *address, door.clone());
        let outlook = outlook.clone();
        asking.spawn(async move { (index, one(name, address, &door, &outlook).await) });
    }
    let mut asked: Vec<(usize, Asked)> = Vec::new();
    while let Some(answer) = asking.join_next().await {
        asked.extend(answer);
    }
    asked.sort_by_key(|(index, _)| *index);
    let mut asked: Vec<Asked> = asked.into_iter().map(|(_, asked)| asked).collect();
    // Those who get what is new stand in chains of their own.
    for has in [Has::Base, Has::Nothing] {
        let mut chains = Chains::ordered(plan.layout(&hosts), hosts.len(), options.chains);
        for (index, host) in asked.iter().enumerate() {
            match host.has {
                Has::It if host.gives => chains.whole(index),
                one if one == has && index < needy => chains.join(index),
                _ => {}
            }
        }
        for (parent, host) in chains.links() {
            if let Parent::Host(parent) = parent
                && asked[host].has == has
            {
                asked[host].parent = Some(asked[parent].name.clone());
            }
        }
    }
    asked.truncate(needy);
    asked
}

async fn one(name: String, address: SocketAddr, door: &Door, outlook: &Outlook) -> Asked {
    let asked = |has, bytes, note| Asked {
        name: name.clone(),
        has,
        parent: None,
        bytes,
        note,
        gives: false,
    };
    match offer(&name, address, door, &outlook.offer).await {
        Err(e) => {
            let why = door.explain(e, &host_of(&name));
            return asked(Has::Away, 0, Some(why.to_string()));
        }
        Ok(Ok(gives)) => {
            let has = asked(Has::It, 0, None);
            return Asked { gives, ..has };
        }
        Ok(Err(reason)) if reason != LACKS => return asked(Has::Refuses, 0, Some(reason)),
        Ok(Err(_)) => {}
    }
    if let Some((base, bytes)) = &outlook.base
        && let Ok(Ok(_)) = offer(&name, address, door, base).await
    {
        return asked(Has::Base, *bytes, None);
    }
    asked(Has::Nothing, outlook.whole, None)
}

/// Has it this? If so, whether others can have it from there; else the reason.
async fn offer(
    name: &str,
    address: SocketAddr,
    door: &Door,
    (header, signature): &(String, String),
) -> io::Result<Result<bool, String>> {
    let stream = link::connect(address).await?;
    gate::watch_over(&stream);
    let host = host_of(name);
    let (stream, _) = timeout(GONE, door.to_host(stream, &host)).await??;
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = wire::Lines::new(BufReader::new(reader));
    let offer = Offer {
        header: header.clone(),
        signature: signature.clone(),
        ask: true,
        run: String::new(),
        host,
    };
    wire::write_line(&mut writer, &Hello::Offer(offer)).await?;
    loop {
        match timeout(GONE, lines.next::<FromReceiver>()).await?? {
            Some(FromReceiver::Looking | FromReceiver::Looked(_)) => {}
            Some(FromReceiver::Accept { gives, .. }) => return Ok(Ok(gives == Some(true))),
            Some(FromReceiver::Refuse { reason }) => return Ok(Err(reason)),
            Some(_) => return Err(io::Error::other("it does not keep to the protocol")),
            None => return Err(io::Error::other("it has closed the connection")),
        }
    }
}

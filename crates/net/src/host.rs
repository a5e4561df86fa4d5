//! What root needs outside of the cluster's namespace: a veth pair, rules, forwarding.
//!
//! The host's end is called `ov<slot>` and carries the network's directory as its alias; the table's name ends with a
//! tag of that directory. So [`remove`] needs no memory. A veth goes with its namespace anyway; the table does not.
//!
//! Forwarding is switched on with the first cluster and off again with the last one if it was off before: the memory
//! of that is the table [`FORWARDING`], which goes with the kernel's setting at a reboot.

use crate::Error;
use crate::files::{Dir, program};
use crate::links::{Link, Links, UPLINK};
use crate::rules;
use crate::spec::Spec;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Means: forwarding was off before we came.
const FORWARDING: &str = "oscarv_forwarding";
const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
/// Two clusters may come and go at once.
const LOCK: &str = "/run/oscarv-net.lock";

pub(crate) fn link_name(slot: u16) -> String {
    format!("ov{slot}")
}

/// Has this host a link of that slot already, of whomever? Slots are the host's, and state directories may be many.
pub fn is_slot_taken(slot: u16) -> bool {
    std::path::Path::new("/sys/class/net")
        .join(link_name(slot))
        .exists()
}

fn table(dir: &Dir, slot: u16) -> String {
    format!("oscarv_{slot}_{}", dir.tag())
}

fn alias(dir: &Dir) -> String {
    // The kernel's limit is 256 bytes; the end of a path says more than its beginning.
    let path = dir.path().to_string_lossy();
    let mut start = path.len().saturating_sub(200);
    while !path.is_char_boundary(start) {
        start += 1;
    }
    format!("oscarv {}", &path[start..])
}

/// Made by one who was killed before he could sign it: then its other end goes with his namespace.
fn is_half_made(link: &Link) -> bool {
    link.alias.is_none() && !link.up
}

/// Makes the pair between the host (`host` is a connection to it) and `space`. It is not up yet.
pub(crate) async fn make_link(
    host: &Links,
    dir: &Dir,
    spec: &Spec,
    space: BorrowedFd<'_>,
    keep: bool,
    mtu: u32,
) -> Result<(), Error> {
    let name = link_name(spec.slot);
    if let Some(link) = host.find(&name).await? {
        if link.alias.as_ref() == Some(&alias(dir)) {
            if keep {
                return Ok(());
            }
        } else if !is_half_made(&link) {
            return Err(Error::SlotInUse {
                slot: spec.slot,
                owner: link.alias.map_or_else(
                    || format!("link {name}, which we have not made"),
                    |alias| alias.trim_start_matches("oscarv ").to_owned(),
                ),
            });
        }
        host.remove(&link).await?;
    }
    host.veth(&name, UPLINK, space, mtu).await?;
    host.sign(&name, &alias(dir)).await
}

/// The rules of this network on the host.
pub(crate) fn rules(dir: &Dir, spec: &Spec) -> String {
    rules::outside(&table(dir, spec.slot), &link_name(spec.slot), spec.link().0)
}

/// The link comes up after its rules: nothing passes unchecked.
pub(crate) async fn open_link(host: &Links, spec: &Spec) -> Result<(), Error> {
    let name = link_name(spec.slot);
    host.set_up(&name).await?;
    host.address(&name, spec.link().1, 30).await
}

/// Applies [`rules()`] and switches forwarding on. Blocking; in the host's namespace.
pub(crate) fn forward(text: &str) -> Result<(), Error> {
    let _turn = turn()?;
    rules::nft(&["-f", "-"], text, None)?;
    let now = fs::read_to_string(SWITCH).map_err(Error::io(format!("cannot read {SWITCH}")))?;
    if now.trim() != "0" {
        return Ok(());
    }
    // First the memory, then the deed: who is killed in between has promised too much, which does no harm.
    rules::nft(
        &["-f", "-"],
        &format!("add table inet {FORWARDING}\n"),
        None,
    )?;
    fs::write(SWITCH, "1").map_err(Error::io(format!("cannot write {SWITCH}")))
}

/// Removes all that was made for `dir` on the host. Blocking; may be called from anywhere.
pub(crate) fn remove(dir: &Dir, slot: Option<u16>) -> Result<(), Error> {
    std::thread::scope(|scope| {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .map_err(Error::io("cannot start"))?;
            runtime.block_on(remove_links(dir, slot))?;
            remove_rules(dir)
        };
        // A thread of its own: the caller may be one of a runtime that forbids to block in another.
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

async fn remove_links(dir: &Dir, slot: Option<u16>) -> Result<(), Error> {
    let links = Links::open()?;
    let half = slot.map(link_name);
    for link in links.all().await? {
        let ours = link.alias.as_ref() == Some(&alias(dir));
        if ours || (is_half_made(&link) && half.as_ref() == Some(&link.name)) {
            links.remove(&link).await?;
        }
    }
    Ok(())
}

fn remove_rules(dir: &Dir) -> Result<(), Error> {
    // Without nft there is nothing that nft has made.
    if program("nft").is_none() {
        return Ok(());
    }
    let _turn = turn()?;
    let tables = tables()?;
    let end = format!("_{}", dir.tag());
    let (ours, others): (Vec<_>, Vec<_>) = tables
        .iter()
        .filter(|name| name.starts_with("oscarv_") && *name != FORWARDING)
        .partition(|name| name.ends_with(&end));
    let mut text: String = ours
        .iter()
        .map(|name| format!("delete table inet {name}\n"))
        .collect();
    if others.is_empty() && tables.iter().any(|name| name == FORWARDING) {
        fs::write(SWITCH, "0").map_err(Error::io(format!("cannot write {SWITCH}")))?;
        text.push_str(&format!("delete table inet {FORWARDING}\n"));
    }
    if text.is_empty() {
        return Ok(());
    }
    rules::nft(&["-f", "-"], &text, None).map(drop)
}

/// The names of the tables of family inet.
fn tables() -> Result<Vec<String>, Error> {
    #[derive(serde::Deserialize)]
    struct Listing {
        nftables: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        table: Option<Table>,
    }
    #[derive(serde::Deserialize)]
    struct Table {
        family: String,
        name: String,
    }
    let text = rules::nft(&["-j", "list", "tables"], "", None)?;
    let listing: Listing = serde_json::from_str(&text).map_err(|e| Error::Program {
        program: "nft",
        said: format!("what it lists cannot be read: {e}"),
    })?;
    Ok(listing
        .nftables
        .into_iter()
        .filter_map(|item| item.table)
        .filter(|table| table.family == "inet")
        .map(|table| table.name)
        .collect())
}

fn turn() -> Result<File, Error> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(LOCK)
        .map_err(Error::io(format!("cannot open {LOCK}")))?;
    loop {
        match flock(file.as_fd(), FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            other => {
                return other
                    .map(|()| file)
                    .map_err(|e| Error::io(format!("cannot lock {LOCK}"))(e.into()));
            }
        }
    }
}

/// What the host's way out takes: the MTU of the link of its default route, at most 1500.
pub(crate) fn mtu() -> u32 {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let link = fields.next()?;
        (fields.next()? == "00000000").then_some(link)
    });
    default
        .and_then(|link| fs::read_to_string(format!("/sys/class/net/{link}/mtu")).ok())
        .and_then(|mtu| mtu.trim().parse().ok())
        .map_or(1500, |mtu: u32| mtu.clamp(576, 1500))
}

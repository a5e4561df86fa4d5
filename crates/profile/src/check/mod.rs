//! Raw → checked: what the values mean, what was left out, what does not fit together.
//!
//! Every function reports what it finds and goes on; a value that cannot be had is `None`, and what depends on it is
//! not judged. Nothing here is quadratic: ten thousand nodes are checked in a few milliseconds.

mod groups;
mod image;
mod network;
mod nodes;
mod vm;
mod vm_boot;
mod vm_devices;
mod vm_nics;
mod vm_shape;
mod vm_values;

pub(crate) use vm::vms;

use crate::error::{Found, Problem, Span, quoted};
use crate::model::{Backend, Cluster};
use crate::raw::{self, At, Field};
use crate::suggest::suggest;
use api::{Mac, Name};
use std::collections::HashMap;

/// Back-ends that a file can name.
const BACKENDS: [Backend; 4] = [Backend::Auto, Backend::Qemu, Backend::Kvm, Backend::Fake];

/// Hypervisors that people may ask for and that have no driver here.
const NOT_YET: [&str; 9] = [
    "xen",
    "vmware",
    "vsphere",
    "esxi",
    "libvirt",
    "virtualbox",
    "hyper-v",
    "bhyve",
    "firecracker",
];

/// Users that Debian or a package of ours makes in the image.
const TAKEN_USERS: [&str; 21] = [
    "root",
    "daemon",
    "bin",
    "sys",
    "sync",
    "games",
    "man",
    "lp",
    "mail",
    "news",
    "uucp",
    "proxy",
    "backup",
    "list",
    "irc",
    "nobody",
    "sshd",
    "messagebus",
    "munge",
    "slurm",
    "dnsmasq",
];

/// None if anything is wrong that leaves no value to go on with; `found` says what.
pub(crate) fn cluster(raw: raw::Cluster, found: &mut Found<'_>) -> Option<Cluster> {
    let name = match &raw.name {
        Field::Given(at) => name(at, "the cluster", found),
        Field::Bad => None,
        Field::Absent => {
            found
                .error(0..0, "the cluster has no name")
                .hint("write at the top of the file: name = \"mpi\"")
                .doubtful();
            None
        }
    };
    let backend = backend_or_auto(&raw.backend, found);
    let user = user(&raw.user, found);
    let image = image::check(&raw.image, found);
    let network = network::check(&raw.network, found);
    let groups = groups::check(raw.groups, backend, network.as_ref(), found);
    Some(Cluster {
        name: name?,
        backend: backend?,
        user: user?,
        image: image?,
        network: network?,
        groups: groups?,
    })
}

/// A [`Name`] of something.
fn name(at: &At<String>, whose: &str, found: &mut Found<'_>) -> Option<Name> {
    match Name::new(&at.value) {
        Ok(name) => Some(name),
        Err(e) => {
            let message = format!("{} cannot be the name of {whose}: {e}", quoted(&at.value));
            let problem = found.error(at.span.clone(), message);
            let better = at.value.to_ascii_lowercase().replace(['_', ' ', '.'], "-");
            if Name::new(&better).is_ok() {
                problem.hint(format!("{better:?} would do"));
            }
            None
        }
    }
}

fn backend(at: &At<String>, found: &mut Found<'_>) -> Option<Backend> {
    let known = BACKENDS.into_iter().find(|b| b.as_str() == at.value);
    if known.is_none() {
        one_of(at, "type", &BACKENDS.map(Backend::as_str), &NOT_YET, found);
    }
    known
}

/// Without any, the best that the host has.
fn backend_or_auto(raw: &Field<String>, found: &mut Found<'_>) -> Option<Backend> {
    match raw {
        Field::Given(at) => backend(at, found),
        Field::Bad => None,
        Field::Absent => {
            let reason = "default: the best that works on the host";
            found.note("type", Backend::Auto, reason);
            Some(Backend::Auto)
        }
    }
}

/// `Some(None)` was left to be filled in, `None` is wrong. `whose`: as in two of them with the same.
fn mac(
    raw: &Field<String>,
    whose: &str,
    seen: &mut HashMap<Mac, Span>,
    found: &mut Found<'_>,
) -> Option<Option<Mac>> {
    let at = match raw {
        Field::Absent => return Some(None),
        Field::Bad => return None,
        Field::Given(at) => at,
    };
    let mac: Mac = match at.value.parse() {
        Ok(mac) => mac,
        Err(e) => {
            let message = format!("{} is not a MAC: {e}", quoted(&at.value));
            found.error(at.span.clone(), message);
            return None;
        }
    };
    if let Some(first) = seen.get(&mac) {
        let message = format!("two {whose} have the MAC {mac}");
        twice(&at.span, first, message, found);
        return None;
    }
    seen.insert(mac, at.span.clone());
    Some(Some(mac))
}

/// Reports a value that is none of the `known`.
fn one_of<'f>(
    at: &At<String>,
    key: &str,
    known: &[&str],
    not_yet: &[&str],
    found: &'f mut Found<'_>,
) -> &'f mut Problem {
    let value = quoted(&at.value);
    let list = known.join(", ");
    let lower = at.value.to_lowercase();
    if not_yet.contains(&lower.as_str()) {
        let message = format!("{key} {value} is not supported yet");
        let problem = found.error(at.span.clone(), message);
        return problem.hint(format!("this version has: {list}"));
    }
    let message = format!("{value} is not a {key}");
    let problem = found.error(at.span.clone(), message);
    match suggest(&at.value, known.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean {near:?}?")),
        None => problem.hint(format!("it is one of: {list}")),
    }
}

fn user(raw: &Field<String>, found: &mut Found<'_>) -> Option<Name> {
    let at = match raw {
        Field::Given(at) => at,
        Field::Bad => return None,
        Field::Absent => {
            found.note("user", "oscar", "default");
            return Name::new("oscar").ok();
        }
    };
    let user = name(at, "the user", found)?;
    if user.as_str().len() > 32 {
        let message = "the name of a user has at most 32 characters".to_owned();
        found.error(at.span.clone(), message);
        return None;
    }
    if TAKEN_USERS.contains(&user.as_str()) || user.as_str().starts_with("systemd-") {
        let message = format!("the user cannot be {user}: every image has a user of that name");
        let problem = found.error(at.span.clone(), message);
        problem.hint("take a name of your own; without the key it is \"oscar\"");
        return None;
    }
    Some(user)
}

/// Reports a value that was written before, at `first`.
fn twice<'f>(
    span: &Span,
    first: &Span,
    message: String,
    found: &'f mut Found<'_>,
) -> &'f mut Problem {
    let line = found.line(first.start);
    let problem = found.error(span.clone(), message);
    problem.hint(format!("the first one is in line {line}"))
}

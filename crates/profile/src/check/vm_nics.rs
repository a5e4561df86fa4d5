//! NICs of a VM: what they are plugged into, and their addresses.

use super::vm_devices::MOST;
use super::vm_values::{interface, whole, word};
use super::{mac, name};
use crate::error::{Found, Span};
use crate::model::{Link, Nic, NicModel};
use crate::raw::{self, Field};
use api::{Mac, Name};
use std::collections::HashMap;

const MODELS: [(&str, NicModel); 2] = [("virtio", NicModel::Virtio), ("e1000", NicModel::E1000)];
const KINDS: [&str; 6] = ["nat", "bridged", "private", "host-only", "vlan", "none"];

pub(super) fn nics(vm: &raw::Vm, owner: Option<&Name>, found: &mut Found<'_>) -> Option<Vec<Nic>> {
    let plain = [raw::Nic::default()];
    let list: &[raw::Nic] = match &vm.nics {
        Field::Given(at) => &at.value,
        Field::Bad => return None,
        Field::Absent if vm.libv3m => &[],
        Field::Absent => &plain,
    };
    if let Some(more) = list.get(MOST) {
        let message = format!("a VM has at most {MOST} NICs, not {}", list.len());
        found.error(more.place.clone(), message);
        return None;
    }
    let mut macs: HashMap<Mac, Span> = HashMap::new();
    let mut told: Vec<Option<Option<Mac>>> = Vec::with_capacity(list.len());
    for raw in list {
        told.push(mac(&raw.mac, "NICs", &mut macs, found));
    }
    let mut nics = Some(Vec::with_capacity(list.len()));
    for (at, (raw, told)) in list.iter().zip(told).enumerate() {
        let key = format!("nic.{}", at + 1);
        let link = link(raw, &key, found);
        let model = word(
            &raw.model,
            &format!("{key}.model"),
            &MODELS,
            "default",
            found,
        );
        let mac = match (told, owner) {
            (Some(Some(mac)), _) => Some(mac),
            (Some(None), Some(owner)) => {
                let mac = derived(owner, at, &macs);
                macs.insert(mac, raw.place.clone());
                found.note(format!("{key}.mac"), mac, "follows from the VM's name");
                Some(mac)
            }
            _ => None,
        };
        match (mac, model, link, &mut nics) {
            (Some(mac), Some(model), Some(link), Some(nics)) => nics.push(Nic { mac, model, link }),
            _ => nics = None,
        }
    }
    nics
}

/// A locally administered address that stays the same for as long as the VM has its name.
fn derived(owner: &Name, nic: usize, taken: &HashMap<Mac, Span>) -> Mac {
    let mut round = 0u32;
    loop {
        let seed = format!("oscarv vm mac {owner} {nic} {round}");
        let hash = blake3::hash(seed.as_bytes());
        let mut bytes = [0; 6];
        bytes.copy_from_slice(&hash.as_bytes()[..6]);
        bytes[0] = bytes[0] & 0xfc | 0x02;
        match Mac::new(bytes) {
            Ok(mac) if !taken.contains_key(&mac) => return mac,
            _ => round += 1,
        }
    }
}

fn link(raw: &raw::Nic, key: &str, found: &mut Found<'_>) -> Option<Link> {
    let kind = match &raw.kind {
        Field::Given(at) => at.value.as_str(),
        Field::Bad => return None,
        Field::Absent => {
            let other = [&raw.network, &raw.bridge]
                .into_iter()
                .find_map(Field::given);
            let other = other.map(|at| at.span.clone());
            if let Some(span) = other.or_else(|| raw.tag.given().map(|at| at.span.clone())) {
                let problem = found.error(span, "this NIC has no kind");
                problem.hint(format!(
                    "write below its [[nic]] a kind: {}",
                    KINDS.join(", ")
                ));
                return None;
            }
            if [&raw.network, &raw.bridge]
                .iter()
                .any(|field| !field.is_absent())
            {
                return None;
            }
            found.note(format!("{key}.kind"), "nat", "default: out, not in");
            "nat"
        }
    };
    let (network, bridge, tag) = match kind {
        "nat" | "none" => (false, false, false),
        "bridged" => (false, true, false),
        "private" | "host-only" => (true, false, false),
        "vlan" => (false, true, true),
        _ => {
            if let Field::Given(at) = &raw.kind {
                super::one_of(at, "kind", &KINDS, &[], found);
            }
            return None;
        }
    };
    let place = raw.kind.given().map_or(&raw.place, |at| &at.span);
    let given = |is: bool,
                 wanted: bool,
                 span: Option<&Span>,
                 name: &str,
                 example: &str,
                 found: &mut Found<'_>| {
        if let (false, Some(span)) = (wanted, span) {
            let message = format!("a NIC of kind {kind} has no {name}");
            let problem = found.error(span.clone(), message);
            problem.hint("leave it out, or take another kind");
        }
        if wanted && !is {
            let message = format!("a NIC of kind {kind} needs a {name}");
            let problem = found.error(place.clone(), message);
            problem.hint(format!("write below it: {example}"));
        }
    };
    fn span<T>(field: &Field<T>) -> Option<&Span> {
        field.given().map(|at| &at.span)
    }
    let (n, b, t) = (&raw.network, &raw.bridge, &raw.tag);
    given(
        !n.is_absent(),
        network,
        span(n),
        "network",
        "network = \"lab\"",
        found,
    );
    given(
        !b.is_absent(),
        bridge,
        span(b),
        "bridge",
        "bridge = \"br0\"",
        found,
    );
    given(!t.is_absent(), tag, span(t), "tag", "tag = 12", found);
    let network = |found: &mut Found<'_>| {
        let name = name(raw.network.given()?, "a network", found)?;
        Some(String::from(name))
    };
    let bridge = |found: &mut Found<'_>| interface(raw.bridge.given()?, found);
    match kind {
        "nat" => Some(Link::Nat),
        "none" => Some(Link::Unplugged),
        "bridged" => Some(Link::Bridged {
            bridge: bridge(found)?,
        }),
        "private" => Some(Link::Private {
            network: network(found)?,
        }),
        "host-only" => Some(Link::HostOnly {
            network: network(found)?,
        }),
        _ => {
            let bridge = bridge(found);
            let tag = whole(raw.tag.given()?, "tag", 1, 4094, found);
            Some(Link::Vlan {
                bridge: bridge?,
                tag: tag?,
            })
        }
    }
}

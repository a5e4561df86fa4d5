//! NICs of libv3m's profiles, in our words.

use super::{NOTHING, given, no_attributes, once, plain, unknown};
use crate::error::{Found, Span, quoted};
use crate::raw::{At, Field, Nic};
use crate::suggest::suggest;
use crate::xml::{name_span, stray_text, trimmed};
use roxmltree::Node;

const NIC_TYPES: [&str; 8] = [
    "",
    "N/A",
    "TUN/TAP",
    "TUN/TAP+NAT",
    "VLAN",
    "BRIDGED_TAP",
    "NAT",
    "HOST_ONLY",
];

/// Networks and bridges that libv3m had without a name.
const NETWORK: &str = "v3m";
const BRIDGE: &str = "br0";

/// None for what stands where no NIC is: neither a type nor a MAC, each `N/A`.
pub(super) fn nic(node: Node<'_, '_>, number: usize, found: &mut Found<'_>) -> Option<Nic> {
    stray_text(node, found);
    no_attributes(node, &[], found);
    let mut nic = Nic {
        place: name_span(node),
        ..Nic::default()
    };
    let mut seen: Vec<(&str, Span)> = Vec::new();
    let (mut kind, mut mac) = (None, None);
    for child in node.children().filter(Node::is_element) {
        if !once(child, &mut seen, found) {
            continue;
        }
        match child.tag_name().name() {
            "type" => kind = Some(child),
            "mac" => mac = Some(plain(child, found)),
            _ => {
                unknown(child, node.tag_name().name(), &["type", "mac"], found);
            }
        }
    }
    let key = format!("nic.{number}");
    let typeless = kind.is_none_or(|kind| says_nothing(&trimmed(kind).0));
    match mac {
        Some(mac) if mac.value == NOTHING && typeless => {
            found.note(key, "none", "the type says nothing, and the MAC is N/A");
            return None;
        }
        // It is derived, as where none is told.
        Some(mac) if mac.value == NOTHING => {}
        Some(mac) => nic.mac = Field::Given(mac),
        None => {}
    }
    nic.model = given("e1000".to_owned(), nic.place.clone());
    found.note(
        format!("{key}.model"),
        "e1000",
        "guests of libv3m's time have no virtio",
    );
    let Some(child) = kind else {
        nic.kind = given("nat".to_owned(), nic.place.clone());
        found.note(format!("{key}.kind"), "nat", "the NIC has no type");
        return Some(nic);
    };
    link(&mut nic, child, &key, found);
    Some(nic)
}

fn says_nothing(kind: &str) -> bool {
    kind.is_empty() || kind == NOTHING
}

/// What a NIC's type meant, in our words.
fn link(nic: &mut Nic, node: Node<'_, '_>, key: &str, found: &mut Found<'_>) {
    no_attributes(node, &["option"], found);
    let (kind, span) = trimmed(node);
    let option = node.attribute_node("option").map(|option| At {
        value: option.value().trim().to_owned(),
        span: option.range_value(),
    });
    let option = option.filter(|option| !says_nothing(&option.value));
    let mut ours = |ours: &str, reason: String| {
        found.note(format!("{key}.kind"), ours, reason);
        nic.kind = given(ours.to_owned(), span.clone());
    };
    match kind.as_str() {
        "" | "N/A" => ours("nat", format!("the type {} says nothing", quoted(&kind))),
        "NAT" | "TUN/TAP+NAT" => ours("nat", format!("the type was {kind}")),
        "TUN/TAP" | "HOST_ONLY" => {
            ours("host-only", format!("the type was {kind}"));
            nic.network = given(NETWORK.to_owned(), span.clone());
            found.note(
                format!("{key}.network"),
                NETWORK,
                "all VMs of libv3m's had one",
            );
        }
        "VLAN" => {
            ours(
                "private",
                "the type was VLAN: a network among VMs, without tags".to_owned(),
            );
            nic.network = given(NETWORK.to_owned(), span.clone());
            found.note(
                format!("{key}.network"),
                NETWORK,
                "all VMs of libv3m's had one",
            );
        }
        "BRIDGED_TAP" => {
            ours("bridged", format!("the type was {kind}"));
            if let Some(option) = &option {
                found.note(
                    format!("{key}.bridge"),
                    &option.value,
                    "the option of the type; it has to be a bridge",
                );
                nic.bridge = Field::Given(option.clone());
            } else {
                found.note(format!("{key}.bridge"), BRIDGE, "the profile names none");
                nic.bridge = given(BRIDGE.to_owned(), span.clone());
            }
        }
        other => {
            let message = format!("{} is not a type of a NIC", quoted(other));
            let problem = found.error(span.clone(), message);
            match suggest(other, NIC_TYPES.into_iter().filter(|t| !t.is_empty())) {
                Some(near) => problem.hint(format!("did you mean {near:?}?")),
                None => problem.hint(format!("it is one of: {}", NIC_TYPES[1..].join(", "))),
            };
            nic.kind = Field::Bad;
        }
    }
    match (option, kind.as_str()) {
        (Some(option), "NAT" | "TUN/TAP+NAT") => found.note(
            format!("{key}.option"),
            &option.value,
            "not needed: NAT goes out where the host does",
        ),
        (Some(option), kind) if kind != "BRIDGED_TAP" => {
            let message = "only NICs of the types BRIDGED_TAP and TUN/TAP+NAT have an option: the interface of the host";
            found.error(option.span, message).hint("leave it out");
        }
        _ => {}
    }
}

//! The VM profile of libv3m, in both dialects and as files in use break them: elements in any order, `type` missing,
//! NICs with only a type or only a MAC.
//!
//! What its values meant becomes what they mean here; each step that is not plain is noted. What could mean two things,
//! or is unsafe, is refused.

mod nics;

use super::{name_span, only_text, shown, stray_text, trimmed};
use crate::error::{Found, Span, quoted};
use crate::raw::{At, Disk, Field, Nic, Vm};
use crate::suggest::suggest;
use nics::nic;
use roxmltree::Node;

/// Back-ends, with ours.
const TYPES: [(&str, &str); 2] = [("Qemu", "qemu"), ("Kvm", "kvm")];
const NO_DRIVER: [&str; 3] = ["Xen", "XenHVM", "VMWare"];
const DEAD: [&str; 2] = ["Lguest", "VMM-HPC"];

const ELEMENTS: [&str; 9] = [
    "name",
    "type",
    "cpu",
    "memory",
    "image",
    "virtual_disks",
    "cdrom",
    "nic1",
    "nic2",
];

/// What programs of libv3m's wrote where there was nothing to write.
const NOTHING: &str = "N/A";

/// Of one file.
const MOST_PROFILES: usize = 1000;

/// The wrapper of several.
pub(super) fn profiles(root: Node<'_, '_>, found: &mut Found<'_>) -> Vec<Vm> {
    stray_text(root, found);
    no_attributes(root, &[], found);
    let count = root.children().filter(Node::is_element).count();
    if count > MOST_PROFILES {
        let message = format!("a file has at most {MOST_PROFILES} profiles, not {count}");
        found.error(name_span(root), message);
        return Vec::new();
    }
    let mut vms = Vec::new();
    for child in root.children().filter(Node::is_element) {
        if child.tag_name().name() == "profile" {
            vms.push(profile(child, found));
        } else {
            unknown(child, "profiles", &["profile"], found);
        }
    }
    vms
}

pub(super) fn profile(root: Node<'_, '_>, found: &mut Found<'_>) -> Vm {
    let mut vm = Vm {
        place: name_span(root),
        libv3m: true,
        nics: Field::Absent,
        ..Vm::default()
    };
    // Notes of one VM among several are told apart by its name.
    let several = root.parent_element().is_some();
    let named = root
        .children()
        .find(|child| child.tag_name().name() == "name");
    if let (true, Some(name)) = (several, named) {
        found.about(&format!("{}.", shown(&trimmed(name).0)));
    }
    stray_text(root, found);
    no_attributes(root, &[], found);
    let mut seen: Vec<(&str, Span)> = Vec::new();
    let (mut image, mut cdrom, mut more) = (None, None, Vec::new());
    let mut nics = [None, None];
    for child in root.children().filter(Node::is_element) {
        let name = child.tag_name().name();
        if !once(child, &mut seen, found) {
            continue;
        }
        match name {
            "name" => vm.name = Field::Given(plain(child, found)),
            "type" => vm.backend = backend(child, found),
            "cpu" => vm.cpus = count(child, found),
            "memory" => vm.memory = megabytes(&plain(child, found), "memory", found),
            "image" => image = present(child, &["size"], found),
            "virtual_disks" => more = virtual_disks(child, found),
            "cdrom" => cdrom = present(child, &[], found),
            "nic1" => nics[0] = nic(child, 1, found),
            "nic2" => nics[1] = nic(child, 2, found),
            _ => match unknown(child, "profile", &ELEMENTS, found) {
                Some("name") => vm.name.or_bad(),
                Some("image") => vm.boot.order.or_bad(),
                _ => {}
            },
        }
    }
    if nics[0].is_none() && nics[1].is_some() {
        found.note("nic.1", "the nic2 of the profile", "there is no nic1");
    }
    disks(&mut vm, image, more, cdrom, found);
    let nics: Vec<Nic> = nics.into_iter().flatten().collect();
    let span = vm.place.clone();
    vm.nics = Field::Given(At { value: nics, span });
    vm
}

/// The image, the disks by their names, the CD: in the order of the names that the guest saw.
fn disks(
    vm: &mut Vm,
    image: Option<Disk>,
    more: Vec<(At<String>, Disk)>,
    cdrom: Option<Disk>,
    found: &mut Found<'_>,
) {
    if image.is_none() && cdrom.is_none() {
        found
            .error(vm.place.clone(), "the profile has no image")
            .hint("write image = \"/path/of/test.img\"")
            .doubtful();
        vm.boot.order.or_bad();
    }
    if let Some(disk) = image {
        vm.disks.push(attached(
            disk,
            "ide",
            "as libv3m had it: the first disk",
            vm.disks.len(),
            found,
        ));
    }
    let mut more = more;
    if !more.is_sorted_by(|a, b| a.0.value <= b.0.value) {
        more.sort_by(|a, b| a.0.value.cmp(&b.0.value));
        found.note(
            "disk",
            "in the order of their ids",
            "the file has another order",
        );
    }
    for (id, disk) in more {
        let bus = match id.value.as_bytes() {
            [b'h', ..] => "ide",
            [b's', ..] => "scsi",
            _ => "virtio",
        };
        let reason = format!(
            "by the id {}; the guest may give it another letter",
            id.value
        );
        vm.disks
            .push(attached(disk, bus, &reason, vm.disks.len(), found));
    }
    if let Some(mut cd) = cdrom {
        cd.cdrom = given(true, cd.place.clone());
        vm.disks.push(attached(
            cd,
            "ide",
            "as libv3m had it: the CD drive",
            vm.disks.len(),
            found,
        ));
    }
}

fn attached(mut disk: Disk, bus: &str, reason: &str, before: usize, found: &mut Found<'_>) -> Disk {
    let key = format!("disk.{}", before + 1);
    found.note(format!("{key}.bus"), bus, reason);
    disk.bus = given(bus.to_owned(), disk.place.clone());
    let path = disk.path.given().map_or("", |at| at.value.as_str());
    let known = [".raw", ".qcow2", ".vmdk", ".vdi"];
    if disk.cdrom.is_absent() && !known.iter().any(|ending| path.ends_with(ending)) {
        found.note(
            format!("{key}.format"),
            "raw",
            "libv3m had no other, and the name says no other",
        );
        disk.format = given("raw".to_owned(), disk.place.clone());
    }
    disk
}

fn virtual_disks(node: Node<'_, '_>, found: &mut Found<'_>) -> Vec<(At<String>, Disk)> {
    stray_text(node, found);
    no_attributes(node, &[], found);
    let mut disks: Vec<(At<String>, Disk)> = Vec::new();
    for child in node.children().filter(Node::is_element) {
        if child.tag_name().name() != "virtual_disk" {
            unknown(child, "virtual_disks", &["virtual_disk"], found);
            continue;
        }
        let Some(attribute) = child.attribute_node("id") else {
            let problem = found.error(name_span(child), "this virtual disk has no id");
            problem.hint("write the name that the guest knew it by: id=\"hdb\"");
            continue;
        };
        let id = At {
            value: attribute.value().trim().to_owned(),
            span: attribute.range_value(),
        };
        let shape = matches!(id.value.as_bytes(), [b'h' | b's' | b'v', b'd', b'a'..=b'z']);
        if !shape {
            let message = format!("{} is not the name of a disk", quoted(&id.value));
            found
                .error(id.span, message)
                .hint("it is one as hdb, sdb or vdb");
        } else if id.value.ends_with('a') {
            let message = format!("the disk {} is the image's", id.value);
            found
                .error(id.span, message)
                .hint("further disks are hdb, hdc …");
        } else if let Some((first, _)) = disks.iter().find(|(first, _)| first.value == id.value) {
            let message = format!("two disks have the id {}", id.value);
            let line = found.line(first.span.start);
            found
                .error(id.span, message)
                .hint(format!("the first one is in line {line}"));
        } else {
            disks.push((id, file(child, &["id"], found)));
        }
    }
    disks
}

/// A file, unless the element says that there is none.
fn present(node: Node<'_, '_>, attributes: &[&str], found: &mut Found<'_>) -> Option<Disk> {
    if trimmed(node).0 == NOTHING {
        let name = node.tag_name().name();
        found.note(name, "none", "the profile says N/A");
        return None;
    }
    Some(file(node, attributes, found))
}

/// An element with a path, and perhaps a size to make it with.
fn file(node: Node<'_, '_>, attributes: &[&str], found: &mut Found<'_>) -> Disk {
    if let Some(child) = node.children().find(Node::is_element) {
        let name = shown(node.tag_name().name());
        found.error(
            name_span(child),
            format!("<{name}> is a text, and has no elements"),
        );
    }
    no_attributes(node, attributes, found);
    let (mut path, span) = trimmed(node);
    if let Some(plain) = path.strip_prefix("file://") {
        path = plain.to_owned();
        if !path.starts_with('/') {
            let message = format!(
                "{} names another machine",
                quoted(&format!("file://{path}"))
            );
            let problem = found.error(span.clone(), message);
            problem.hint("a file of this one is written file:///path, or only the path");
        }
    }
    let size = match node.attribute_node("size") {
        Some(size) if attributes.contains(&"size") && size.value().trim() != NOTHING => {
            let at = At {
                value: size.value().trim().to_owned(),
                span: size.range_value(),
            };
            megabytes(&at, "size", found)
        }
        _ => Field::Absent,
    };
    Disk {
        place: name_span(node),
        path: given(path, span),
        size,
        ..Disk::default()
    }
}

fn backend(node: Node<'_, '_>, found: &mut Found<'_>) -> Field<String> {
    let at = plain(node, found);
    let name = at.value.as_str();
    if let Some((_, ours)) = TYPES.iter().find(|(theirs, _)| *theirs == name) {
        return given((*ours).to_owned(), at.span);
    }
    let list = "this version has: Qemu, Kvm; without a type it takes the best of them";
    let shown = quoted(name);
    if NO_DRIVER.contains(&name) {
        let message = format!("type {shown}: no driver here yet");
        found.error(at.span, message).hint(list);
    } else if DEAD.contains(&name) {
        let message = format!("type {shown}: that hypervisor is no longer developed");
        found.error(at.span, message).hint(list);
    } else {
        let known = TYPES
            .iter()
            .map(|(theirs, _)| *theirs)
            .chain(NO_DRIVER)
            .chain(DEAD);
        let near = suggest(name, known);
        let problem = found.error(at.span, format!("{shown} is not a type"));
        match near {
            Some(near) => problem.hint(format!("did you mean {near:?}? Capitals count")),
            None => problem.hint(list),
        };
    }
    Field::Bad
}

/// A whole number.
fn count(node: Node<'_, '_>, found: &mut Found<'_>) -> Field<i64> {
    let at = plain(node, found);
    match at.value.parse() {
        Ok(value) if at.value.bytes().all(|b| b.is_ascii_digit()) => given(value, at.span),
        _ => {
            let message = format!("{} is not a number of CPUs", quoted(&at.value));
            found
                .error(at.span, message)
                .hint("write a whole number, as 2");
            Field::Bad
        }
    }
}

/// libv3m counts in MB and writes no unit; a unit that says otherwise is taken at its word by nobody.
fn megabytes(at: &At<String>, what: &str, found: &mut Found<'_>) -> Field<String> {
    let digits = !at.value.is_empty() && at.value.bytes().all(|b| b.is_ascii_digit());
    let some = at.value.bytes().any(|b| b != b'0');
    if digits && some {
        return given(format!("{}M", at.value), at.span.clone());
    }
    let message = format!("{} is not a {what} in MB", quoted(&at.value));
    let hint = "write a whole number without a unit, more than zero";
    found.error(at.span.clone(), message).hint(hint);
    Field::Bad
}

fn plain(node: Node<'_, '_>, found: &mut Found<'_>) -> At<String> {
    only_text(node, found);
    let (value, span) = trimmed(node);
    At { value, span }
}

fn given<T>(value: T, span: Span) -> Field<T> {
    Field::Given(At { value, span })
}

/// False, and reported, for the second element of a name: nobody can tell which one counts.
fn once<'x>(node: Node<'x, '_>, seen: &mut Vec<(&'x str, Span)>, found: &mut Found<'_>) -> bool {
    let name = node.tag_name().name();
    if let Some((_, first)) = seen.iter().find(|(known, _)| *known == name) {
        let line = found.line(first.start);
        let message = format!("{} is given twice", quoted(name));
        let problem = found.error(name_span(node), message);
        problem.hint(format!("the first one is in line {line}"));
        return false;
    }
    // Unknown ones are reported each; the list stays short.
    if seen.len() < 32 {
        seen.push((name, name_span(node)));
    }
    true
}

/// Reports it; the name that was probably meant.
fn unknown<'k>(
    node: Node<'_, '_>,
    parent: &str,
    known: &[&'k str],
    found: &mut Found<'_>,
) -> Option<&'k str> {
    let name = node.tag_name().name();
    let near = match found.is_full() {
        true => None,
        false => suggest(name, known.iter().copied()),
    };
    let message = format!("unknown element {} in <{}>", quoted(name), shown(parent));
    let problem = found.error(name_span(node), message);
    match near {
        Some(near) => problem.hint(format!("did you mean {near:?}?")),
        None => problem.hint(format!("known here: {}", known.join(", "))),
    };
    near
}

fn no_attributes(node: Node<'_, '_>, but: &[&str], found: &mut Found<'_>) {
    for attribute in node.attributes().filter(|a| !but.contains(&a.name())) {
        let name = shown(node.tag_name().name());
        let message = format!("<{name}> has no attribute {}", quoted(attribute.name()));
        found.error(attribute.range(), message);
    }
}

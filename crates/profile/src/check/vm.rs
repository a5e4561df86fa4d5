//! One VM: what the values mean, and what it gets where nothing is said.

use super::vm_boot::boot;
use super::vm_devices::{cloud_init, disks};
use super::vm_nics::nics;
use super::vm_shape::{memory, numa, processors};
use super::vm_values::{argument, flag, word};
use super::{backend_or_auto, name, twice};
use crate::error::{Found, Span, quoted};
use crate::model::{Display, Firmware, Vm};
use crate::raw::{self, At, Field};
use std::collections::{HashMap, HashSet};

/// All VMs of a file; each has its own name.
pub(crate) fn vms(raw: Vec<raw::Vm>, found: &mut Found<'_>) -> Option<Vec<Vm>> {
    let several = raw.len() > 1;
    let mut names: HashMap<String, Span> = HashMap::new();
    let mut vms = Some(Vec::with_capacity(raw.len()));
    for raw in raw {
        if let Field::Given(at) = &raw.name {
            if several {
                found.about(&format!("{}.", at.value));
            }
            if let Some(first) = names.insert(at.value.clone(), at.span.clone()) {
                let message = format!("two VMs have the name {}", quoted(&at.value));
                twice(&at.span, &first, message, found);
            }
        }
        match (vm(raw, found), &mut vms) {
            (Some(vm), Some(vms)) => vms.push(vm),
            _ => vms = None,
        }
    }
    vms
}

/// None if anything is wrong that leaves no value to go on with; `found` says what.
fn vm(raw: raw::Vm, found: &mut Found<'_>) -> Option<Vm> {
    let name = match &raw.name {
        Field::Given(at) => name(at, "a VM", found),
        Field::Bad => None,
        Field::Absent => {
            found
                .error(raw.place.clone(), "the VM has no name")
                .hint("write at the top: name = \"web\"")
                .doubtful();
            None
        }
    };
    let backend = backend_or_auto(&raw.backend, found);
    let processors = processors(&raw.cpus, &raw.cpu, found);
    let memory = memory(&raw, found);
    let numa = match &processors {
        Some((cpus, _)) => numa(&raw.numa, *cpus, memory, found),
        None => None,
    };
    let huge_pages = flag(&raw.huge_pages, "huge-pages", false, found);
    if let (Some(true), Some(memory), Field::Given(at)) = (huge_pages, memory, &raw.huge_pages)
        && memory.0 % 2 != 0
    {
        let message = format!("{memory} of memory is not a whole number of huge pages of 2M");
        let problem = found.error(at.span.clone(), message);
        problem.hint(format!("write memory = \"{}M\"", memory.0 + 1));
    }
    let firmware = word(
        &raw.firmware,
        "firmware",
        &[("bios", Firmware::Bios), ("uefi", Firmware::Uefi)],
        "default",
        found,
    );
    let display = word(
        &raw.display,
        "display",
        &[("none", Display::None), ("vnc", Display::Vnc)],
        "default: the serial console is all there is",
        found,
    );
    let disks = disks(&raw, found);
    let nics = nics(&raw, name.as_ref(), found);
    let boot = boot(&raw, backend, firmware, &disks, &nics, found);
    let cloud_init = match &raw.cloud_init {
        Some(raw) => cloud_init(raw, found).map(Some),
        None => Some(None),
    };
    let devices = devices(&raw.devices, found);
    let extra = extra(&raw.extra, found);
    let (cpus, cpu) = processors?;
    Some(Vm {
        name: name?,
        backend: backend?,
        cpus,
        cpu,
        memory: memory?,
        huge_pages: huge_pages?,
        numa: numa?,
        firmware: firmware?,
        boot: boot?,
        disks: disks?,
        nics: nics?,
        channels: Vec::new(),
        display: display?,
        cloud_init: cloud_init?,
        devices: devices?,
        extra: extra?,
    })
}

/// PCI addresses, each once, with their domain.
fn devices(raw: &Field<Vec<At<String>>>, found: &mut Found<'_>) -> Option<Vec<String>> {
    let list = match raw {
        Field::Given(at) => &at.value,
        Field::Bad => return None,
        Field::Absent => return Some(Vec::new()),
    };
    let mut devices: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    let mut good = true;
    for item in list {
        let Some(address) = pci(&item.value) else {
            let message = format!("{} is not a PCI address", quoted(&item.value));
            let problem = found.error(item.span.clone(), message);
            problem.hint("it is written as lspci -D shows it: \"0000:3b:00.0\"");
            good = false;
            continue;
        };
        if !seen.insert(address.clone()) {
            let message = format!("the device {address} is given twice");
            found.error(item.span.clone(), message);
            good = false;
        }
        devices.push(address);
    }
    good.then_some(devices)
}

/// `0000:3b:00.0`, also without the domain.
fn pci(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let (rest, function) = text.split_once('.')?;
    let parts: Vec<_> = rest.split(':').collect();
    let (domain, bus, slot) = match parts[..] {
        [bus, slot] => ("0000", bus, slot),
        [domain, bus, slot] => (domain, bus, slot),
        _ => return None,
    };
    let slot_fits = u8::from_str_radix(slot, 16).is_ok_and(|slot| slot < 32);
    let function_fits = hex(function, 1) && function.as_bytes()[0] < b'8';
    (hex(domain, 4) && hex(bus, 2) && hex(slot, 2) && slot_fits && function_fits)
        .then(|| format!("{domain}:{bus}:{slot}.{function}"))
}

/// The kernel refuses a program with too many or too long arguments, and so do we, before it is started.
const MOST_EXTRA: usize = 256;
const LONGEST_EXTRA: usize = 4095;

fn extra(raw: &Field<Vec<At<String>>>, found: &mut Found<'_>) -> Option<Vec<String>> {
    let list = match raw {
        Field::Given(at) => &at.value,
        Field::Bad => return None,
        Field::Absent => return Some(Vec::new()),
    };
    if let Some(more) = list.get(MOST_EXTRA) {
        let message = format!(
            "a VM has at most {MOST_EXTRA} extra arguments, not {}",
            list.len()
        );
        found.error(more.span.clone(), message);
        return None;
    }
    let mut all = Vec::with_capacity(list.len());
    for item in list {
        if item.value.len() > LONGEST_EXTRA {
            let message = format!("an extra argument has at most {LONGEST_EXTRA} bytes");
            found.error(item.span.clone(), message);
            return None;
        }
        all.push(argument(item, found)?);
    }
    Some(all)
}

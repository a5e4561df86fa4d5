//! One VM: what the values mean, and what it gets where nothing is said.

use super::vm_devices::{cloud_init, disks, nics};
use super::vm_values::{flag, kernel_text, path, plain, size, whole, word};
use super::{backend, name, one_of, twice};
use crate::error::{Found, Span, quoted};
use crate::model::{
    Backend, Boot, BootDevice, Cpu, Disk, Display, Firmware, Medium, Nic, NumaNode, Topology, Vm,
};
use crate::raw::{self, At, Field};
use api::MiB;
use std::collections::HashMap;

const MOST_CPUS: i64 = 255;
/// More than any machine has: a slip of the unit.
const MOST_MEMORY: MiB = MiB(64 << 20);

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
    let backend = match &raw.backend {
        Field::Given(at) => backend(at, found),
        Field::Bad => None,
        Field::Absent => {
            let reason = "default: the best that works on the host";
            found.note("type", Backend::Auto, reason);
            Some(Backend::Auto)
        }
    };
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

/// How many, and what the guest sees of them.
fn processors(cpus: &Field<i64>, raw: &raw::Cpu, found: &mut Found<'_>) -> Option<(u16, Cpu)> {
    let told = match cpus {
        Field::Given(at) => Some(whole(at, "cpus", 1, MOST_CPUS, found)?),
        Field::Bad => return None,
        Field::Absent => None,
    };
    let model = match &raw.model {
        Field::Given(at) => Some(plain(at, "CPU model", found)?),
        Field::Bad => return None,
        Field::Absent => None,
    };
    let mut part = |field: &Field<i64>, key| match field {
        Field::Given(at) => whole(at, key, 1, MOST_CPUS, found).map(Some),
        Field::Bad => None,
        Field::Absent => Some(None),
    };
    let (sockets, cores, threads) = (
        part(&raw.sockets, "sockets"),
        part(&raw.cores, "cores"),
        part(&raw.threads, "threads"),
    );
    let (sockets, cores, threads) = (sockets?, cores?, threads?);
    let Some(at) = [&raw.sockets, &raw.cores, &raw.threads]
        .into_iter()
        .find_map(Field::given)
    else {
        let topology = None;
        let cpus = told.unwrap_or_else(|| {
            found.note("cpus", 1, "default");
            1
        });
        return Some((cpus, Cpu { model, topology }));
    };
    let mut one = |value: Option<u16>, key: &str| {
        value.unwrap_or_else(|| {
            found.note(key, 1, "default, where the others are given");
            1
        })
    };
    let (cores, threads) = (one(cores, "cpu.cores"), one(threads, "cpu.threads"));
    let inner = u32::from(cores) * u32::from(threads);
    let sockets = match (sockets, told) {
        (Some(sockets), _) => sockets,
        (None, Some(told)) if u32::from(told) % inner == 0 => {
            let sockets = (u32::from(told) / inner) as u16;
            found.note("cpu.sockets", sockets, "follows from the number of CPUs");
            sockets
        }
        (None, _) => one(None, "cpu.sockets"),
    };
    let product = u32::from(sockets) * inner;
    let told = match told {
        Some(told) => told,
        None if i64::from(product) <= MOST_CPUS => {
            found.note("cpus", product, "sockets × cores × threads");
            product as u16
        }
        None => 0,
    };
    if u32::from(told) != product {
        let message =
            format!("{sockets} × {cores} × {threads} (sockets, cores, threads) are {product} CPUs");
        let problem = found.error(at.span.clone(), message);
        if i64::from(product) <= MOST_CPUS {
            problem.hint(format!(
                "write cpus = {product}, or change them: cpus is {told}"
            ));
        } else {
            problem.hint(format!("a VM has at most {MOST_CPUS}"));
        }
        return None;
    }
    let topology = Some(Topology {
        sockets,
        cores,
        threads,
    });
    Some((told, Cpu { model, topology }))
}

fn memory(raw: &raw::Vm, found: &mut Found<'_>) -> Option<MiB> {
    match &raw.memory {
        Field::Given(at) => size(at, "memory", MOST_MEMORY, found),
        Field::Bad => None,
        Field::Absent if !raw.numa.is_empty() => {
            let mut sum = 0u64;
            for node in &raw.numa {
                // What is wrong with it is told where the nodes are checked.
                let memory: MiB = node.memory.given()?.value.parse().ok()?;
                sum = sum.saturating_add(memory.0);
            }
            found.note("memory", MiB(sum), "that of the NUMA nodes");
            Some(MiB(sum))
        }
        Field::Absent => {
            let (size, reason) = if raw.libv3m {
                (MiB(128), "the default of libv3m")
            } else {
                (MiB(512), "default")
            };
            found.note("memory", size, reason);
            Some(size)
        }
    }
}

fn numa(
    raw: &[raw::Numa],
    cpus: u16,
    memory: Option<MiB>,
    found: &mut Found<'_>,
) -> Option<Vec<NumaNode>> {
    let mut nodes = Some(Vec::with_capacity(raw.len()));
    let mut owners = vec![false; cpus.into()];
    let mut sum = 0u64;
    for raw in raw {
        let list = match &raw.cpus {
            Field::Given(at) => numbers(at, &mut owners, found),
            Field::Bad => None,
            Field::Absent => {
                found
                    .error(raw.place.clone(), "this NUMA node has no CPUs")
                    .hint("write below it: cpus = \"0-3\"");
                None
            }
        };
        let size = match &raw.memory {
            Field::Given(at) => size(at, "memory", MOST_MEMORY, found),
            Field::Bad => None,
            Field::Absent => {
                found
                    .error(raw.place.clone(), "this NUMA node has no memory")
                    .hint("write below it: memory = \"1G\"");
                None
            }
        };
        match (list, size, &mut nodes) {
            (Some(cpus), Some(memory), Some(nodes)) => {
                sum = sum.saturating_add(memory.0);
                nodes.push(NumaNode { cpus, memory });
            }
            _ => nodes = None,
        }
    }
    let (nodes, Some(first)) = (nodes?, raw.first()) else {
        return Some(Vec::new());
    };
    if let Some(lost) = owners.iter().position(|owned| !owned) {
        let message = format!("CPU {lost} is in no NUMA node");
        let problem = found.error(first.place.clone(), message);
        problem.hint(format!(
            "each of the CPUs 0 to {} is in one",
            owners.len() - 1
        ));
        return None;
    }
    if MiB(sum) > MOST_MEMORY {
        let message = format!("{} of memory is too much", MiB(sum));
        let problem = found.error(first.place.clone(), message);
        problem.hint(format!(
            "at most {MOST_MEMORY} is possible; is the unit right?"
        ));
        return None;
    }
    if let Some(memory) = memory.filter(|memory| memory.0 != sum) {
        let message = format!(
            "the NUMA nodes have {} of memory, the VM has {memory}",
            MiB(sum)
        );
        let problem = found.error(first.place.clone(), message);
        problem.hint(format!("write at the top: memory = \"{}\"", MiB(sum)));
        return None;
    }
    Some(nodes)
}

/// `0-3,8`: each of them is taken from those that are left.
fn numbers(at: &At<String>, owners: &mut [bool], found: &mut Found<'_>) -> Option<Vec<u16>> {
    let mut list = Vec::new();
    for part in at.value.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let text = text.trim();
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<u16>().ok()).flatten()
        };
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            let message = format!("{} is not a list of CPUs", quoted(&at.value));
            let problem = found.error(at.span.clone(), message);
            problem.hint("it is written as in \"0-3,8\"");
            return None;
        };
        if first > last || usize::from(last) >= owners.len() {
            let cpus = owners.len();
            let message = format!("{} are not CPUs of this VM", quoted(part.trim()));
            let problem = found.error(at.span.clone(), message);
            problem.hint(format!("it has {cpus}: 0 to {}", cpus.saturating_sub(1)));
            return None;
        }
        for cpu in first..=last {
            if std::mem::replace(&mut owners[usize::from(cpu)], true) {
                let message = format!("CPU {cpu} is in a NUMA node already");
                found.error(at.span.clone(), message);
                return None;
            }
            list.push(cpu);
        }
    }
    list.sort_unstable();
    Some(list)
}

fn boot(
    raw: &raw::Vm,
    backend: Option<Backend>,
    firmware: Option<Firmware>,
    disks: &Option<Vec<Disk>>,
    nics: &Option<Vec<Nic>>,
    found: &mut Found<'_>,
) -> Option<Boot> {
    let told = &raw.boot;
    if let Field::Given(kernel) = &told.kernel {
        if let Field::Given(order) = &told.order {
            let message = "the VM boots a kernel, or what the order says, not both";
            let problem = found.error(order.span.clone(), message);
            problem.hint("leave one of the two out");
            return None;
        }
        if let (Some(Firmware::Uefi), Field::Given(at)) = (firmware, &raw.firmware) {
            let message = "a kernel is booted without firmware, not by UEFI";
            let problem = found.error(at.span.clone(), message);
            problem.hint("leave firmware out, or let the boot loader on a disk boot the kernel");
            return None;
        }
        let kernel = path(kernel, "kernel", found);
        let initrd = match &told.initrd {
            Field::Given(at) => path(at, "initrd", found).map(Some),
            Field::Bad => None,
            Field::Absent => Some(None),
        };
        let arguments = match &told.arguments {
            Field::Given(at) => kernel_text(at, found),
            Field::Bad => None,
            Field::Absent => {
                found.note("boot.arguments", "\"\"", "default: none");
                Some(String::new())
            }
        };
        return Some(Boot::Kernel {
            kernel: kernel?,
            initrd: initrd?,
            arguments: arguments?,
        });
    }
    if matches!(told.kernel, Field::Bad) {
        return None;
    }
    for (field, what) in [(&told.initrd, "an initrd"), (&told.arguments, "arguments")] {
        if let Field::Given(at) = field {
            let message = format!("{what} without a kernel");
            let problem = found.error(at.span.clone(), message);
            problem.hint("write below [boot]: kernel = \"vmlinuz\"");
        }
    }
    let (disks, nics) = (disks.as_ref()?, nics.as_ref()?);
    let has = |device| match device {
        BootDevice::Disk => disks.iter().any(|d| d.medium == Medium::Disk),
        BootDevice::Cdrom => disks.iter().any(|d| d.medium == Medium::Cdrom),
        BootDevice::Network => !nics.is_empty(),
    };
    let order = match &told.order {
        Field::Bad => return None,
        Field::Given(at) => order(at, backend, has, found)?,
        Field::Absent => {
            let mut order = vec![BootDevice::Disk, BootDevice::Cdrom];
            order.retain(|device| has(*device));
            let mut reason = "default: the disks, then the CDs";
            if order.is_empty() && backend == Some(Backend::Fake) {
                order.push(BootDevice::Disk);
                reason = "default: a fake VM boots nothing";
            }
            if order.is_empty() {
                found
                    .error(raw.place.clone(), "the VM has nothing to boot from")
                    .hint("write [[disk]] and below it path = \"web.qcow2\", or [boot] and below it kernel = \"vmlinuz\"")
                    .doubtful();
                return None;
            }
            let words: Vec<_> = order.iter().map(|device| device.as_str()).collect();
            found.note("boot.order", words.join(", "), reason);
            order
        }
    };
    Some(Boot::Firmware { order })
}

fn order(
    at: &At<Vec<At<String>>>,
    backend: Option<Backend>,
    has: impl Fn(BootDevice) -> bool,
    found: &mut Found<'_>,
) -> Option<Vec<BootDevice>> {
    const ALL: [BootDevice; 3] = [BootDevice::Disk, BootDevice::Cdrom, BootDevice::Network];
    let mut order = Vec::new();
    let mut good = true;
    for item in &at.value {
        let Some(device) = ALL.into_iter().find(|d| d.as_str() == item.value) else {
            one_of(
                item,
                "boot device",
                &ALL.map(BootDevice::as_str),
                &[],
                found,
            );
            good = false;
            continue;
        };
        if order.contains(&device) {
            let message = format!("{} is in the order twice", device.as_str());
            found.error(item.span.clone(), message);
            good = false;
        } else if !has(device) && backend != Some(Backend::Fake) {
            let (what, section) = match device {
                BootDevice::Disk => ("disk", "[[disk]]"),
                BootDevice::Cdrom => ("CD drive", "[[disk]] with cdrom = true"),
                BootDevice::Network => ("NIC", "[[nic]]"),
            };
            let message = format!("the VM has no {what} to boot from");
            let problem = found.error(item.span.clone(), message);
            problem
                .hint(format!("add a {section}, or leave it out of the order"))
                .doubtful();
            good = false;
        }
        order.push(device);
    }
    if at.value.is_empty() {
        let problem = found.error(at.span.clone(), "the boot order is empty");
        problem.hint("write order = [\"disk\"], or leave it out");
        return None;
    }
    good.then_some(order)
}

/// PCI addresses, each once, with their domain.
fn devices(raw: &Field<Vec<At<String>>>, found: &mut Found<'_>) -> Option<Vec<String>> {
    let list = match raw {
        Field::Given(at) => &at.value,
        Field::Bad => return None,
        Field::Absent => return Some(Vec::new()),
    };
    let mut devices: Vec<String> = Vec::new();
    let mut good = true;
    for item in list {
        let Some(address) = pci(&item.value) else {
            let message = format!("{} is not a PCI address", quoted(&item.value));
            let problem = found.error(item.span.clone(), message);
            problem.hint("it is written as lspci -D shows it: \"0000:3b:00.0\"");
            good = false;
            continue;
        };
        if devices.contains(&address) {
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

fn extra(raw: &Field<Vec<At<String>>>, found: &mut Found<'_>) -> Option<Vec<String>> {
    let list = match raw {
        Field::Given(at) => &at.value,
        Field::Bad => return None,
        Field::Absent => return Some(Vec::new()),
    };
    list.iter().map(|item| kernel_text(item, found)).collect()
}

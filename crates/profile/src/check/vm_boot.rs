//! What a VM boots: a kernel directly, or by its firmware what is plugged in.

use super::one_of;
use super::vm_values::{argument, path};
use crate::error::Found;
use crate::model::{Backend, Boot, BootDevice, Disk, Firmware, Medium, Nic};
use crate::raw::{self, At, Field};

pub(super) fn boot(
    raw: &raw::Vm,
    backend: Option<Backend>,
    firmware: Option<Firmware>,
    disks: &Option<Vec<Disk>>,
    nics: &Option<Vec<Nic>>,
    found: &mut Found<'_>,
) -> Option<Boot> {
    let told = &raw.boot;
    if let Field::Given(kernel) = &told.kernel {
        let mut good = true;
        if let Field::Given(order) = &told.order {
            let message = "the VM boots a kernel, or what the order says, not both";
            let problem = found.error(order.span.clone(), message);
            problem.hint("leave one of the two out");
            good = false;
        }
        if let (Some(Firmware::Uefi), Field::Given(at)) = (firmware, &raw.firmware) {
            let message = "a kernel is booted without firmware, not by UEFI";
            let problem = found.error(at.span.clone(), message);
            problem.hint("leave firmware out, or let the boot loader on a disk boot the kernel");
            good = false;
        }
        let kernel = path(kernel, "kernel", found);
        let initrd = match &told.initrd {
            Field::Given(at) => path(at, "initrd", found).map(Some),
            Field::Bad => None,
            Field::Absent => Some(None),
        };
        let arguments = match &told.arguments {
            Field::Given(at) => argument(at, found),
            Field::Bad => None,
            Field::Absent => {
                found.note("boot.arguments", "\"\"", "default: none");
                Some(String::new())
            }
        };
        let (kernel, initrd, arguments) = (kernel?, initrd?, arguments?);
        return good.then_some(Boot::Kernel {
            kernel,
            initrd,
            arguments,
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
    // What could not be had is not missing.
    let medium = |wanted| {
        let disks = disks.as_ref();
        disks.is_none_or(|disks| disks.iter().any(|disk| disk.medium == wanted))
    };
    let has = |device| match device {
        BootDevice::Disk => medium(Medium::Disk),
        BootDevice::Cdrom => medium(Medium::Cdrom),
        BootDevice::Network => nics.as_ref().is_none_or(|nics| !nics.is_empty()),
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

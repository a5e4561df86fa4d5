//! Processors, memory, firmware: what there is before any device.

use super::{Accelerator, Arguments, Site, with_path};
use profile::{Boot, Cpu, Display, Firmware, NumaNode, Vm};
use std::fmt::Write as _;

/// Chosen when a VM has no display. Without a keyboard controller and graphics a guest boots sooner.
pub(crate) const MACHINE: &str = "pc,hpet=off,vmport=off,smbus=off,usb=off,i8042=off,graphics=off";
const MACHINE_WITH_DISPLAY: &str = "pc,hpet=off,vmport=off,smbus=off,usb=off";

/// Under TCG a feature that the guest uses and the translator makes slow is a loss. `erms` and `fsrm` advertise fast
/// `rep movsb`, which is translated into a byte at a time; `smap` makes every copy to or from a program switch between two
/// sets of translations; `mpx` and `pku` are more state to save at each change of the program; `la57` is a level of page
/// tables more. (Figures: docs/performance.md.)
const TCG_CPU: &str = "max,la57=off,erms=off,fsrm=off,smap=off,mpx=off,pku=off";

impl Arguments {
    pub(super) fn machine(&mut self, vm: &Vm, site: &Site) {
        let mut machine = match vm.display {
            Display::None => MACHINE,
            Display::Vnc => MACHINE_WITH_DISPLAY,
        }
        .to_owned();
        if vm.firmware == Firmware::Uefi {
            machine += ",pflash0=firmware,pflash1=variables";
        }
        if vm.huge_pages && vm.numa.is_empty() {
            machine += ",memory-backend=ram";
        }
        self.pair("-machine", machine);
        if let (Firmware::Uefi, Some(code)) = (vm.firmware, &site.uefi) {
            self.pair(
                "-blockdev",
                with_path(
                    "driver=raw,node-name=firmware,read-only=on,file.driver=file,file.filename=",
                    code,
                ),
            );
            // A relative path: QEMU's working directory is the VM's own.
            self.pair(
                "-blockdev",
                "driver=raw,node-name=variables,read-only=off,file.driver=file,file.filename=uefi-vars.fd",
            );
        }
    }

    pub(super) fn processors(&mut self, cpus: u16, cpu: &Cpu, accelerator: Accelerator) {
        let model = match (&cpu.model, accelerator) {
            // Features may follow the name, after commas: the one value that is QEMU's own language.
            (Some(model), _) => model,
            (None, Accelerator::Kvm) => "host",
            (None, Accelerator::Tcg) => TCG_CPU,
        };
        self.pair("-cpu", model);
        let mut smp = cpus.to_string();
        if let Some(topology) = cpu.topology {
            let _ = write!(
                smp,
                ",sockets={},cores={},threads={}",
                topology.sockets, topology.cores, topology.threads
            );
        }
        self.pair("-smp", smp);
    }

    /// Memory that is huge pages comes from a memfd: unlike a file in /dev/hugepages it needs no mount and no right
    /// there, and is gone with QEMU. `prealloc` takes the pages now; later a missing one would kill the guest.
    pub(super) fn memory(&mut self, vm: &Vm) {
        self.pair("-m", format!("size={}M", vm.memory.0));
        let backend = |id: &str, mib: u64| {
            if vm.huge_pages {
                format!("memory-backend-memfd,id={id},size={mib}M,hugetlb=on,share=on,prealloc=on")
            } else {
                format!("memory-backend-ram,id={id},size={mib}M")
            }
        };
        if vm.numa.is_empty() && vm.huge_pages {
            self.pair("-object", backend("ram", vm.memory.0));
        }
        for (number, NumaNode { cpus, memory }) in vm.numa.iter().enumerate() {
            self.pair("-object", backend(&format!("ram{number}"), memory.0));
            let mut node = format!("node,nodeid={number},memdev=ram{number}");
            for cpu in cpus {
                let _ = write!(node, ",cpus={cpu}");
            }
            self.pair("-numa", node);
        }
    }

    pub(super) fn boot(&mut self, boot: &Boot, accelerator: Accelerator, tsc_khz: Option<u32>) {
        match boot {
            Boot::Kernel {
                kernel,
                initrd,
                arguments,
            } => {
                self.pair("-kernel", kernel.as_os_str());
                if let Some(initrd) = initrd {
                    // Multiboot would take a list here; for Linux the value is one path, commas and all.
                    self.pair("-initrd", initrd.as_os_str());
                }
                let mut arguments = arguments.clone();
                if accelerator == Accelerator::Tcg && !arguments.contains("tsc") {
                    // See the module `tsc`. Another kernel than Linux passes over what it does not know.
                    match tsc_khz {
                        Some(khz) => arguments += &format!(" tsc=reliable tsc_early_khz={khz}"),
                        None => arguments += " tsc=unstable",
                    }
                }
                self.pair("-append", arguments);
            }
            // Each device that may boot says its place itself.
            Boot::Firmware { .. } => self.pair("-boot", "strict=on"),
        }
    }
}

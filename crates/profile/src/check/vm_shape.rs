//! How large a VM is: processors, memory, and how both are divided among NUMA nodes.

use super::vm_values::{plain, size, whole};
use crate::error::{Found, quoted};
use crate::model::{Cpu, NumaNode, Topology};
use crate::raw::{self, At, Field};
use api::MiB;

const MOST_CPUS: i64 = 255;
/// More than any machine has: a slip of the unit.
const MOST_MEMORY: MiB = MiB(64 << 20);

/// How many, and what the guest sees of them.
pub(super) fn processors(
    cpus: &Field<i64>,
    raw: &raw::Cpu,
    found: &mut Found<'_>,
) -> Option<(u16, Cpu)> {
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

pub(super) fn memory(raw: &raw::Vm, found: &mut Found<'_>) -> Option<MiB> {
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

pub(super) fn numa(
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

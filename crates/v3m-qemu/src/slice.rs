//! How long QEMU's own thread may keep a core of the host at a time.
//!
//! That thread carries every packet and every block between guest and host, in a few microseconds each, and for each it
//! has to get a core from a virtual CPU that computes (or waits by polling, as MPI does) for a whole time slice. From
//! Linux 6.12 on a thread can ask for a shorter slice of its own (sched_setattr(2), `sched_runtime` of a normal thread)
//! and is then let in sooner; its share of the time stays the same, and no right is needed. Older kernels pass over it.

/// The shortest that the kernel grants.
const NANOSECONDS: u64 = 100_000;
const SCHED_FLAG_RESET_ON_FORK: u64 = 1;

/// `struct sched_attr` of sched_setattr(2), as far as the first version of it goes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// For the calling thread and what it executes; threads and processes that it makes (virtual CPUs) have the usual slice.
/// Makes system calls only, and an error changes nothing.
pub fn shorten() {
    const SIZE: u32 = size_of::<Attributes>() as u32;
    let mut now = Attributes::default();
    // SAFETY: the kernel writes at most SIZE bytes into a structure of that size.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, SIZE, 0) };
    if got != 0 || now.policy != libc::SCHED_OTHER as u32 {
        return;
    }
    let short = Attributes {
        size: SIZE,
        runtime: NANOSECONDS,
        flags: now.flags | SCHED_FLAG_RESET_ON_FORK,
        ..now
    };
    // SAFETY: the kernel reads SIZE bytes from a structure of that size.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const short, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Attributes {
        let mut attributes = Attributes::default();
        let at = &raw mut attributes;
        // SAFETY: as in `shorten`.
        let result =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, at, size_of::<Attributes>(), 0) };
        assert_eq!(result, 0);
        attributes
    }

    #[test]
    fn the_thread_has_it_and_its_children_do_not() {
        std::thread::spawn(|| {
            let usual = now();
            shorten();
            let short = now();
            assert_eq!(short.nice, usual.nice);
            assert_eq!(short.flags & SCHED_FLAG_RESET_ON_FORK, 1);
            if usual.runtime == 0 {
                eprintln!("skipped: this kernel has no slices of a thread's own (Linux 6.12)");
                return;
            }
            assert_eq!(short.runtime, NANOSECONDS);
            let child = std::thread::spawn(|| now().runtime).join().unwrap();
            assert_eq!(child, usual.runtime);
        })
        .join()
        .unwrap();
    }
}

//! To stand back: hosts that run VMs have something better to do than to pass on files.

use std::io;

/// From here on this thread, and those it starts, only get the processor and the disk when nobody else wants them:
/// scheduling policy `SCHED_IDLE` and I/O class *idle*. To be called before others are started. It cannot be undone
/// without privileges.
///
/// Errors: the system refuses it.
///
/// Sources: sched(7), ioprio_set(2).
pub fn stand_back() -> io::Result<()> {
    /// `IOPRIO_WHO_PROCESS`
    const PROCESS: libc::c_int = 1;
    /// `IOPRIO_CLASS_IDLE`, where `IOPRIO_PRIO_VALUE` has it.
    const IDLE: libc::c_int = 3 << 13;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a structure that lives longer than the call, which only reads it; 0 is this thread.
    let scheduled = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if scheduled != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: three integers, of which 0 is this thread; no memory is touched.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, IDLE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

//! How the kernel shares processors between a worker and others.

/// Tells the kernel that this thread forwards in bulk (`SCHED_BATCH`): when a datagram wakes it, it does not take the processor
/// from who has it.
///
/// Without that, on a busy processor, each train that a sender hands over interrupts the sender, and the worker finds that one
/// train. Later, it finds several, which costs fewer switches. An idle processor serves it as soon as before.
#[cfg(target_os = "linux")]
pub(crate) fn forward_in_bulk() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters outlive the call, which only reads them; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "Workers interrupt other threads");
    }
}

/// Elsewhere there is no such policy.
#[cfg(not(target_os = "linux"))]
pub(crate) fn forward_in_bulk() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_worker_leaves_the_processor_to_who_has_it() {
        let policy = std::thread::spawn(|| {
            forward_in_bulk();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Fields behind the name, which may hold anything (proc(5)): 3 is the first of them, 41 the policy.
            let (_, fields) = stat.rsplit_once(')').unwrap();
            fields.split_whitespace().nth(41 - 3).unwrap().to_owned()
        });
        assert_eq!(policy.join().unwrap(), libc::SCHED_BATCH.to_string());
    }
}

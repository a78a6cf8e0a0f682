//! CPU time that a process uses.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// CPU time of all threads of a process since its start, in user mode and in the kernel.
///
/// # Errors
///
/// If the process is gone.
pub fn used(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may contain spaces; fields 14 and 15 of proc_pid_stat(5) come 12 and 13 after it.
    let (_, fields) = text
        .rsplit_once(") ")
        .context("unreadable /proc/pid/stat")?;
    let mut ticks = fields.split(' ').skip(11).map(str::parse::<u64>);
    let mut next = || {
        ticks
            .next()
            .context("short /proc/pid/stat")?
            .context("not a number")
    };
    let ticks = next()? + next()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?;
    let per_second = per_second
        .and_then(|value| u64::try_from(value).ok())
        .context("no clock tick")?;
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_and_sleep_is_not() {
        let pid = std::process::id();
        let before = used(pid).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let after_sleep = used(pid).unwrap();
        let mut sum = 0_u64;
        while used(pid).unwrap() < after_sleep + Duration::from_millis(50) {
            sum = (0..100_000).fold(sum, u64::wrapping_add);
        }
        std::hint::black_box(sum);

        // Other tests of this process may work meanwhile, but hardly so much.
        assert!(after_sleep - before < Duration::from_millis(150));
    }
}

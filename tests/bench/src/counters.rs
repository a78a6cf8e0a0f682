//! What the kernel counts for a process and for the namespace that it lives in, read from `/proc`.
//!
//! Losses are told apart by whose they are: of datagrams, those at the process's own sockets (iperf3's sockets in the
//! same namespace are its own business); of packets, those at the TUN device, apart from those at the cables.

use std::{collections::BTreeSet, fs, ops::Sub, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::network;

/// Counters of one process, as they stand, or what they grew by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Counters {
    /// CPU time of all its threads, user and kernel.
    pub(crate) cpu_seconds: f64,
    /// How often a thread of it went to sleep; each time, something woke it up.
    pub(crate) sleeps: u64,
    /// How often a thread of it was sent away from a CPU for another one's sake.
    pub(crate) preemptions: u64,
    /// Datagrams that arrived and did not fit into the buffers of its UDP sockets.
    pub(crate) udp_drops: u64,
    /// Packets that the TUN devices of its namespace dropped, both directions.
    pub(crate) tun_drops: u64,
    /// Packets that the cables of its namespace dropped, both directions.
    pub(crate) cable_drops: u64,
    /// What the TUN devices of its namespace handed to the kernel's stack: what was written to them.
    pub(crate) tun_in_bytes: u64,
    /// Memory that it occupies at present (not what it grew by).
    pub(crate) rss_bytes: u64,
}

impl Counters {
    /// The counters of a running process.
    pub(crate) fn read(process: u32) -> Result<Self> {
        let status = read(process, "status")?;
        let (sleeps, preemptions) = context_switches(process)?;
        let sockets = sockets_of(process)?;
        let udp_drops = ["net/udp", "net/udp6"]
            .into_iter()
            // Without IPv6 in the kernel there is no such file.
            .filter_map(|file| read(process, file).ok())
            .map(|table| udp_drops(&table, &sockets))
            .sum();
        let Devices {
            tun_drops,
            tun_in_bytes,
            cable_drops,
        } = Devices::parse(&read(process, "net/dev")?);
        Ok(Self {
            cpu_seconds: cpu_seconds(process)?,
            sleeps,
            preemptions,
            udp_drops,
            tun_drops,
            tun_in_bytes,
            cable_drops,
            rss_bytes: field(&status, "VmRSS:").context("unreadable status")? * 1024,
        })
    }
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            // A thread that has ended takes its share with it.
            sleeps: self.sleeps.saturating_sub(earlier.sleeps),
            preemptions: self.preemptions.saturating_sub(earlier.preemptions),
            udp_drops: self.udp_drops.saturating_sub(earlier.udp_drops),
            tun_drops: self.tun_drops.saturating_sub(earlier.tun_drops),
            tun_in_bytes: self.tun_in_bytes.saturating_sub(earlier.tun_in_bytes),
            cable_drops: self.cable_drops.saturating_sub(earlier.cable_drops),
            rss_bytes: self.rss_bytes,
        }
    }
}

fn read(process: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{process}/{file}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}; has the process ended?"))
}

/// By the process's own clock, which counts nanoseconds; `/proc` counts hundredths of a second, too coarse for an idle
/// process.
fn cpu_seconds(process: u32) -> Result<f64> {
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both calls write to the variables behind their last argument and nowhere else.
    let fine = unsafe {
        libc::clock_getcpuclockid(libc::pid_t::try_from(process)?, &mut clock) == 0
            && libc::clock_gettime(clock, &mut time) == 0
    };
    ensure!(fine, "process {process} has no CPU clock; has it ended?");
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

/// Voluntary and involuntary ones of all threads.
fn context_switches(process: u32) -> Result<(u64, u64)> {
    let (mut voluntary, mut involuntary) = (0, 0);
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // It may end just now.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else {
            continue;
        };
        voluntary += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        involuntary += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    Ok((voluntary, involuntary))
}

/// The number behind a name at the start of a line.
fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

/// The inodes of its sockets.
fn sockets_of(process: u32) -> Result<BTreeSet<u64>> {
    let links = fs::read_dir(format!("/proc/{process}/fd"))?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(links.filter_map(|link| socket_inode(&link)).collect())
}

fn socket_inode(link: &Path) -> Option<u64> {
    let text = link.to_str()?.strip_prefix("socket:[")?;
    text.strip_suffix(']')?.parse().ok()
}

/// The last column of these sockets' lines.
fn udp_drops(table: &str, sockets: &BTreeSet<u64>) -> u64 {
    const INODE: usize = 9;
    let lines = table.lines().skip(1);
    lines
        .filter_map(|line| {
            let columns = line.split_whitespace().collect::<Vec<_>>();
            let inode = columns.get(INODE)?.parse().ok()?;
            let drops = columns.last()?.parse::<u64>().ok()?;
            sockets.contains(&inode).then_some(drops)
        })
        .sum()
}

/// What a namespace's devices count.
#[derive(Debug, Default, PartialEq)]
struct Devices {
    tun_drops: u64,
    tun_in_bytes: u64,
    cable_drops: u64,
}

impl Devices {
    fn parse(table: &str) -> Self {
        /// Of the numbers after the device's name.
        const RECEIVE_BYTES: usize = 0;
        const RECEIVE_DROP: usize = 3;
        const TRANSMIT_DROP: usize = 11;
        let mut devices = Self::default();
        for (name, numbers) in table.lines().filter_map(|line| line.split_once(':')) {
            let numbers = numbers.split_whitespace().collect::<Vec<_>>();
            let number =
                |index: usize| numbers.get(index).and_then(|text| text.parse::<u64>().ok());
            let drops = [RECEIVE_DROP, TRANSMIT_DROP]
                .into_iter()
                .filter_map(number)
                .sum::<u64>();
            match name.trim() {
                "lo" => {}
                name if name.starts_with(network::CABLE_PREFIX) => devices.cable_drops += drops,
                _ => {
                    devices.tun_drops += drops;
                    devices.tun_in_bytes += number(RECEIVE_BYTES).unwrap_or_default();
                }
            }
        }
        devices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_own_sockets_only() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 100: 00000000:CD91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 0000000000000000 30\n\
            \x20 101: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 778 2 0000000000000000 5\n";
        assert_eq!(udp_drops(table, &BTreeSet::from([777])), 30);
        assert_eq!(udp_drops(table, &BTreeSet::from([777, 778])), 35);
    }

    #[test]
    fn drops_of_tun_devices_apart_from_those_of_cables() {
        let line = |name: &str, received: u8, sent: u8| {
            format!(
                "{name}:     100       2    0    {received}    0     0          0         0      100       2    0    {sent}    0     0       0          0\n"
            )
        };
        let table = [
            line("    lo", 9, 9),
            line("  tun0", 3, 4),
            line(" to-gateway", 1, 0),
        ];
        let expected = Devices {
            tun_drops: 7,
            tun_in_bytes: 100,
            cable_drops: 1,
        };
        assert_eq!(Devices::parse(&table.concat()), expected);
    }

    #[test]
    fn a_name_at_the_start_of_a_line_only() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(12));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(3));
    }

    #[test]
    fn an_own_socket_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!sockets_of(std::process::id()).unwrap().is_empty());
        drop(socket);
    }

    #[test]
    fn own_cpu_time_and_sleeps_grow() {
        let read = || Counters::read(std::process::id()).unwrap();
        let before = read();
        let started = std::time::Instant::now();
        while (read() - before).cpu_seconds < 0.05 {
            assert!(started.elapsed().as_secs() < 60, "no CPU time is counted");
        }
        for _ in 0..10 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!((read() - before).sleeps >= 10);
        assert!(before.rss_bytes > 100_000);
    }
}

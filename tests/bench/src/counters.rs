//! What the kernel counts for a process and for the namespace that it lives in, read from `/proc`.

use std::{collections::BTreeMap, fs, ops::Sub};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

/// Counters of one process, as they stand, or what they grew by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Counters {
    /// CPU time of all its threads, user and kernel, in seconds (proc(5), `stat`, fields 14 and 15).
    pub(crate) cpu_seconds: f64,
    /// Datagrams that the UDP sockets of its namespace lost for want of buffer, both directions.
    pub(crate) udp_drops: u64,
    /// Packets that the devices of its namespace dropped, both directions; a TUN device's queue is among them.
    pub(crate) device_drops: u64,
}

impl Counters {
    /// The counters of a running process.
    pub(crate) fn read(process: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{process}/{file}");
            fs::read_to_string(&path)
                .with_context(|| format!("cannot read {path}; has the process ended?"))
        };
        let ticks_per_second = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
        let ticks = cpu_ticks(&read("stat")?).context("unreadable stat")?;
        Ok(Self {
            cpu_seconds: ticks as f64 / ticks_per_second as f64,
            udp_drops: udp_drops(&read("net/snmp")?).context("unreadable net/snmp")?,
            device_drops: device_drops(&read("net/dev")?),
        })
    }
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            udp_drops: self.udp_drops.saturating_sub(earlier.udp_drops),
            device_drops: self.device_drops.saturating_sub(earlier.device_drops),
        }
    }
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    // The second field is the program's name in brackets, and may contain anything. Field 3 comes after it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let user: u64 = fields.nth(14 - 3)?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

fn udp_drops(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let values = names
        .split_whitespace()
        .zip(values.split_whitespace())
        .collect::<BTreeMap<_, _>>();
    let value = |name| values.get(name)?.parse::<u64>().ok();
    Some(value("RcvbufErrors")? + value("SndbufErrors")?)
}

fn device_drops(dev: &str) -> u64 {
    /// Of the numbers after the device's name.
    const RECEIVE_DROP: usize = 3;
    const TRANSMIT_DROP: usize = 11;
    let devices = dev.lines().filter_map(|line| line.split_once(':'));
    devices
        .map(|(_, numbers)| {
            let numbers = numbers.split_whitespace().collect::<Vec<_>>();
            [RECEIVE_DROP, TRANSMIT_DROP]
                .into_iter()
                .filter_map(|index| numbers.get(index)?.parse::<u64>().ok())
                .sum::<u64>()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_behind_a_nasty_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 4 0 12345 0 0";
        assert_eq!(cpu_ticks(stat), Some(325));
    }

    #[test]
    fn udp_drops_by_name_of_column() {
        let snmp = "Tcp: RtoAlgorithm\nTcp: 1\n\
                    Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors\n\
                    Udp: 900 1 40 800 30 5 2\n\
                    UdpLite: InDatagrams\nUdpLite: 7\n";
        assert_eq!(udp_drops(snmp), Some(35));
    }

    #[test]
    fn device_drops_of_both_directions() {
        let dev = "Inter-|   Receive                                                |  Transmit\n\
                   \x20face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
                   \x20   lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0\n\
                   \x20 tun0:     100       2    0    3    0     0          0         0      100       2    0    4    0     0       0          0\n";
        assert_eq!(device_drops(dev), 7);
    }

    #[test]
    fn own_cpu_time_grows_with_work() {
        let read = || Counters::read(std::process::id()).unwrap();
        let before = read();
        let started = std::time::Instant::now();
        while (read() - before).cpu_seconds < 0.05 {
            assert!(started.elapsed().as_secs() < 60, "no CPU time is counted");
        }
    }
}

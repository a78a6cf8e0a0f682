//! What is sent through the tunnel, and what came of it.

use std::net::IpAddr;

use clap::ValueEnum;
use serde::Serialize;

/// UDP payload of a datagram in bytes: fits the tunnel's MTU of 1280 with either family's headers.
pub(crate) const DATAGRAM: u16 = 1200;

/// Which way the payload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    /// From the client into the resource.
    Forward,
    /// From the resource to the client.
    Reverse,
    /// Both at once.
    Both,
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub(crate) enum Traffic {
    /// As fast as it goes.
    Tcp {
        /// Parallel connections per direction.
        streams: u16,
    },
    /// At a fixed rate.
    Udp {
        /// Mbit/s per direction.
        megabits: u32,
        /// Payload of a datagram in bytes.
        size: u16,
    },
    /// Trains of [`DATAGRAM`] bytes each as fast as they are acknowledged, as QUIC sends them.
    Quic,
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Version {
    /// 4.
    V4,
    /// 6.
    V6,
}

impl Version {
    /// Of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Load {
    /// What.
    #[serde(flatten)]
    pub(crate) traffic: Traffic,
    /// Which way.
    pub(crate) direction: Direction,
    /// In packets of which IP version.
    pub(crate) ip: Version,
}

/// What one run came to: all streams together, both directions together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Transfer {
    /// Payload that arrived.
    pub(crate) bytes: u64,
    /// Payload that arrived per second.
    pub(crate) bits_per_second: f64,
    /// Of it, in the slower direction.
    pub(crate) slower_bits_per_second: f64,
    /// TCP segments that the senders' kernels sent again.
    pub(crate) retransmits: u64,
    /// UDP datagrams that were sent.
    pub(crate) datagrams: u64,
    /// UDP datagrams that did not arrive.
    pub(crate) lost: u64,
}

impl Transfer {
    /// Lost UDP datagrams in per cent.
    pub(crate) fn loss_percent(&self) -> f64 {
        100.0 * self.lost as f64 / self.datagrams.max(1) as f64
    }
}

impl Load {
    /// In words.
    pub(crate) fn describe(self) -> String {
        let traffic = match self.traffic {
            Traffic::Tcp { streams } => format!("TCP × {streams}"),
            Traffic::Udp { megabits, size } => match size {
                DATAGRAM => format!("UDP {megabits} Mbit/s"),
                size => format!("UDP {megabits} M × {size} B"),
            },
            Traffic::Quic => "as QUIC".to_owned(),
        };
        let ip = match self.ip {
            Version::V4 => "",
            Version::V6 => "v6 ",
        };
        let direction = match self.direction {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
            Direction::Both => "both ways",
        };
        format!("{ip}{traffic} {direction}")
    }
}

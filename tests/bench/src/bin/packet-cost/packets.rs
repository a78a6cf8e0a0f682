//! Packets of one TCP connection between a client and a host behind the gateway, as TUN devices yield them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connlib_tunnel::TunAddresses;
use connlib_tunnel::segment::{ChecksumState, GsoKind, GsoMeta};
use ip_packet::make::{TcpHeader, tcp_packet};
use ip_packet::{TcpFlags, checksum};

/// The resource's network.
pub(crate) const NETWORK: &str = "10.20.0.0/24";
/// IP packet in bytes.
pub(crate) const PACKET: usize = 1280;
/// Headers of IPv4 and TCP.
const HEADERS: usize = 40;
/// TCP payload of a packet.
const SEGMENT: usize = PACKET - HEADERS;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 10));

/// A packet or super-packet in a TUN device's buffer.
#[derive(Debug, Clone)]
pub(crate) struct Super {
    pub(crate) bytes: Vec<u8>,
    pub(crate) gso: GsoMeta,
}

/// Addresses of a client's TUN device.
pub(crate) fn client_tun(index: usize) -> TunAddresses {
    TunAddresses {
        v4: Ipv4Addr::from(0x6440_0001 + index as u32),
        v6: Ipv6Addr::from(0xfd00_2021_1111_0000_0000_0000_0001_0000 + index as u128),
    }
}

/// Addresses of the gateway's TUN device.
pub(crate) fn gateway_tun() -> TunAddresses {
    TunAddresses {
        v4: Ipv4Addr::new(100, 95, 0, 1),
        v6: Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0x1000, 1),
    }
}

/// From a client to the host: `count` packets of [`PACKET`] bytes, beginning at this one of the connection.
pub(crate) fn up(client: usize, count: usize, first: usize) -> Super {
    let client = client_tun(client).v4.into();
    segments((client, 5000), (HOST, 443), count, first)
}

/// From the host to a client.
pub(crate) fn down(client: usize, count: usize, first: usize) -> Super {
    let client = client_tun(client).v4.into();
    segments((HOST, 443), (client, 5000), count, first)
}

fn segments(from: (IpAddr, u16), to: (IpAddr, u16), count: usize, first: usize) -> Super {
    let header = TcpHeader {
        sequence: (first * SEGMENT) as u32,
        flags: TcpFlags::ACK,
        ..TcpHeader::default()
    };
    let one = tcp_packet(from.into(), to.into(), header, &[7; SEGMENT]);
    let mut bytes = one.expect("fits a packet").as_slice().to_vec();
    if count == 1 {
        return Super {
            bytes,
            gso: GsoMeta::NONE,
        };
    }
    bytes.resize(HEADERS + count * SEGMENT, 7);
    let total = u16::try_from(bytes.len()).expect("fits a super-packet");
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes[10..12].fill(0);
    let sum = checksum::of(&bytes[..20]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    Super {
        bytes,
        gso: GsoMeta {
            kind: GsoKind::Tcp,
            segment_size: SEGMENT as u16,
            checksum: ChecksumState::Partial {
                start: 20,
                offset: 16,
            },
        },
    }
}

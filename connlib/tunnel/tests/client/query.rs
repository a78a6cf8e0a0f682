//! DNS messages for the tests, written by hand.

use std::net::{IpAddr, SocketAddr};

use ip_packet::{IpPacket, make};

use crate::world::own;

pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const SVCB: u16 = 64;
pub const HTTPS: u16 = 65;

pub const NOERROR: u8 = 0;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;

/// A query with one question, recursion desired.
pub fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut message = vec![0; 12];
    message[..2].copy_from_slice(&id.to_be_bytes());
    message[2] = 1;
    message[5] = 1;
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(qtype.to_be_bytes());
    message.extend([0, 1]);

    message
}

/// A response without records of `len` bytes; the rest behind the question is zero.
pub fn response(query: &[u8], len: usize) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2] |= 0x80;
    message[3] |= 0x80;
    if len > message.len() {
        message[7] = 1;
    }
    message.resize(len.max(query.len()), 0);

    message
}

/// A UDP packet with `message` from our port `port` to `server`.
pub fn to_server(server: SocketAddr, port: u16, message: &[u8]) -> IpPacket {
    make::udp_packet(SocketAddr::new(own(server.ip()), port), server, message).unwrap()
}

/// What matters in an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub id: u16,
    pub rcode: u8,
    pub is_truncated: bool,
    pub addresses: Vec<IpAddr>,
    pub counts: [u16; 4],
}

impl Answer {
    pub fn of(message: &[u8]) -> Self {
        let u16_at = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        assert_eq!(message[2] & 0x80, 0x80, "is a response");
        let counts = [u16_at(4), u16_at(6), u16_at(8), u16_at(10)];

        Self {
            id: u16_at(0),
            rcode: message[3] & 0x0f,
            is_truncated: message[2] & 2 != 0,
            addresses: addresses(message, counts),
            counts,
        }
    }

    pub fn of_packet(packet: &IpPacket) -> Self {
        Self::of(packet.as_udp().expect("a UDP packet").payload())
    }
}

/// The addresses of A and AAAA records, which all have TTL 1.
fn addresses(message: &[u8], counts: [u16; 4]) -> Vec<IpAddr> {
    let mut at = 12;
    for _ in 0..counts[0] {
        at = skip_name(message, at) + 4;
    }
    let mut addresses = vec![];
    for _ in 0..counts[1] {
        let start = skip_name(message, at);
        if start + 10 > message.len() {
            break;
        }
        let len = usize::from(u16::from_be_bytes([message[start + 8], message[start + 9]]));
        let data = &message[start + 10..start + 10 + len];
        let ip = match len {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(data).unwrap())),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(data).unwrap())),
            _ => None,
        };
        if let Some(ip) = ip {
            assert_eq!(message[start + 4..start + 8], [0, 0, 0, 1], "TTL");
            addresses.push(ip);
        }
        at = start + 10 + len;
    }

    addresses
}

fn skip_name(message: &[u8], mut at: usize) -> usize {
    loop {
        match message[at] {
            0 => return at + 1,
            len if len & 0xc0 == 0xc0 => return at + 2,
            len => at += 1 + usize::from(len),
        }
    }
}

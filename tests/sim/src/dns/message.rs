//! Queries and responses as bytes (RFC 1035 §4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::transition::RecordType;

/// No error.
pub const NO_ERROR: u8 = 0;
/// The server failed.
pub const SERVER_FAILURE: u8 = 2;
/// The name does not exist.
pub const NAME_ERROR: u8 = 3;

const HEADER_LEN: usize = 12;
const CLASS_IN: u16 = 1;
/// PTR records.
pub const PTR: u16 = 12;

/// The number of a record type.
pub fn type_number(record: RecordType) -> u16 {
    match record {
        RecordType::A => 1,
        RecordType::Mx => 15,
        RecordType::Txt => 16,
        RecordType::Aaaa => 28,
        RecordType::Srv => 33,
        RecordType::Https => 65,
    }
}

/// A query for one name and type, with recursion desired.
pub fn query(id: u16, name: &str, record_type: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    push_name(&mut message, name);
    message.extend(record_type.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message
}

/// The name under which an address is looked up in reverse (RFC 1035 §3.5, RFC 3596 §2.5).
pub fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev();
            let mut name = String::new();
            for byte in nibbles {
                name.push_str(&format!("{:x}.{:x}.", byte & 15, byte >> 4));
            }
            name + "ip6.arpa"
        }
    }
}

/// A message, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The id.
    pub id: u16,
    /// Whether it is a response.
    pub is_response: bool,
    /// Whether it was cut.
    pub is_truncated: bool,
    /// The response code.
    pub code: u8,
    /// Name (lower case) and type of the only question.
    pub question: (String, u16),
    /// The answers.
    pub answers: Vec<Data>,
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
    /// A name.
    Pointer(String),
    /// Anything else, by its type.
    Other(u16),
}

impl Message {
    /// Takes a message apart; `None` if it is malformed or does not have exactly one question.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_LEN)?;
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        if count(4) != 1 {
            return None;
        }
        let mut reader = Reader {
            bytes,
            at: HEADER_LEN,
        };
        let name = reader.name()?;
        let record_type = reader.u16()?;
        reader.u16()?;
        let answers = (0..count(6))
            .map(|_| reader.record())
            .collect::<Option<_>>()?;
        Some(Self {
            id: count(0),
            is_response: header[2] & 0x80 != 0,
            is_truncated: header[2] & 0x02 != 0,
            code: header[3] & 0x0f,
            question: (name, record_type),
            answers,
        })
    }

    /// The addresses among the answers.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let address = |data: &Data| match data {
            Data::Address(ip) => Some(*ip),
            Data::Pointer(_) | Data::Other(_) => None,
        };
        self.answers.iter().filter_map(address).collect()
    }
}

/// Builds the response to a query: its id and question, then records of the question's name.
pub struct Response(Vec<u8>);

impl Response {
    /// A response without records. `None` if the query is malformed.
    pub fn to(query: &[u8], code: u8) -> Option<Self> {
        Message::parse(query)?;
        let mut reader = Reader {
            bytes: query,
            at: HEADER_LEN,
        };
        reader.name()?;
        let question_end = reader.at + 4;
        let mut bytes = query.get(..question_end)?.to_vec();
        bytes[2] = 0x81;
        bytes[3] = 0x80 | code;
        bytes[6..HEADER_LEN].fill(0);
        Some(Self(bytes))
    }

    /// Adds a record.
    pub fn push(&mut self, record_type: u16, data: &[u8]) {
        let count = u16::from_be_bytes([self.0[6], self.0[7]]) + 1;
        self.0[6..8].copy_from_slice(&count.to_be_bytes());
        self.0.extend([0xc0, HEADER_LEN as u8]);
        self.0.extend(record_type.to_be_bytes());
        self.0.extend(CLASS_IN.to_be_bytes());
        self.0.extend(60u32.to_be_bytes());
        let len = u16::try_from(data.len()).expect("records are short");
        self.0.extend(len.to_be_bytes());
        self.0.extend(data);
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

fn push_name(message: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).expect("labels are short"));
        message.extend(label.as_bytes());
    }
    message.push(0);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let part = self.bytes.get(self.at..self.at + len)?;
        self.at += len;
        Some(part)
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn name(&mut self) -> Option<String> {
        let (name, end) = name_at(self.bytes, self.at)?;
        self.at = end;
        Some(name)
    }

    fn record(&mut self) -> Option<Data> {
        self.name()?;
        let record_type = self.u16()?;
        self.take(6)?;
        let len = usize::from(self.u16()?);
        let start = self.at;
        let data = self.take(len)?;
        Some(match (record_type, len) {
            (1, 4) => Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
            (28, 16) => Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
            (PTR, _) => Data::Pointer(name_at(self.bytes, start)?.0),
            (other, _) => Data::Other(other),
        })
    }
}

/// The name at an offset, lower case, and where what follows it begins.
fn name_at(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut end = None;
    for _ in 0..128 {
        match usize::from(*bytes.get(at)?) {
            0 => return Some((labels.join("."), end.unwrap_or(at + 1))),
            pointer @ 0xc0.. => {
                end.get_or_insert(at + 2);
                at = (pointer & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
            }
            len => {
                let label = bytes.get(at + 1..at + 1 + len)?;
                labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                at += 1 + len;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_to_a_query() {
        let query = query(7, "web.example", 1);
        let mut response = Response::to(&query, NO_ERROR).unwrap();
        response.push(1, &[10, 0, 0, 1]);
        let parsed = Message::parse(&response.finish()).unwrap();
        assert_eq!(parsed.id, 7);
        assert!(parsed.is_response && !parsed.is_truncated);
        assert_eq!(parsed.question, ("web.example".to_owned(), 1));
        assert_eq!(parsed.addresses(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(Message::parse(&query[..14]), None);
    }

    #[test]
    fn reverse_names() {
        let name = |ip: &str| reverse_name(ip.parse().unwrap());
        assert_eq!(name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        assert!(name("2001:db8::1").starts_with("1.0.0.0.0."));
        assert!(name("2001:db8::1").ends_with("8.b.d.0.1.0.0.2.ip6.arpa"));
    }
}

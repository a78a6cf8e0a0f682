//! Answers that are made locally.

use super::Query;
use connlib_model::DomainName;
use domain::base::iana::{Class, Rcode};
use domain::base::message_builder::AnswerBuilder;
use domain::base::{
    Message, MessageBuilder, Name, NameBuilder, RecordData, StaticCompressor, Ttl,
    rdata::ComposeRecordData,
};
use domain::rdata::{A, Aaaa, Ptr};
use std::net::{Ipv4Addr, Ipv6Addr};

/// TTL of all records made here.
const ANSWER_TTL: Ttl = Ttl::from_secs(1);

type Answer = AnswerBuilder<StaticCompressor<Vec<u8>>>;

/// Answers.
impl Query<'_> {
    /// NOERROR with these IPv4 addresses, in this order; none at all says that the name exists without any.
    pub fn answer_a(&self, addresses: impl IntoIterator<Item = Ipv4Addr>) -> Vec<u8> {
        self.answer(addresses.into_iter().map(A::new))
    }

    /// NOERROR with these IPv6 addresses, in this order; none at all says that the name exists without any.
    pub fn answer_aaaa(&self, addresses: impl IntoIterator<Item = Ipv6Addr>) -> Vec<u8> {
        self.answer(addresses.into_iter().map(Aaaa::new))
    }

    /// NOERROR with the name of an address.
    pub fn answer_ptr(&self, name: &DomainName) -> Vec<u8> {
        match wire_name(name) {
            Some(name) => self.answer([Ptr::new(name)]),
            None => self.server_failure(),
        }
    }

    /// NOERROR without records: the name exists, but not with this type.
    pub fn answer_empty(&self) -> Vec<u8> {
        into_bytes(start(self.message, Rcode::NOERROR))
    }

    /// NXDOMAIN: the name does not exist.
    pub fn name_error(&self) -> Vec<u8> {
        into_bytes(start(self.message, Rcode::NXDOMAIN))
    }

    /// SERVFAIL: the look-up failed.
    pub fn server_failure(&self) -> Vec<u8> {
        into_bytes(start(self.message, Rcode::SERVFAIL))
    }

    fn answer<D: RecordData + ComposeRecordData>(
        &self,
        records: impl IntoIterator<Item = D>,
    ) -> Vec<u8> {
        let Ok(question) = self.message.sole_question() else {
            return self.server_failure();
        };
        let mut answer = start(self.message, Rcode::NOERROR);
        for data in records {
            if answer
                .push((question.qname(), Class::IN, ANSWER_TTL, data))
                .is_err()
            {
                return self.server_failure();
            }
        }
        into_bytes(answer)
    }
}

/// SERVFAIL for any message that is long enough to have an id, also for one that is no acceptable [`Query`].
///
/// The question is copied if there is exactly one. `None` for responses and for what is too short.
pub fn server_failure_for(message: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_slice(message).ok()?;
    if message.header().qr() {
        return None;
    }
    if message.header_counts().qdcount() == 1 {
        return Some(into_bytes(start(message, Rcode::SERVFAIL)));
    }
    let mut header_only = [0; 12];
    header_only.copy_from_slice(&message.as_slice()[..12]);
    header_only[4..].fill(0);
    let message = Message::from_slice(&header_only).ok()?;
    Some(into_bytes(start(message, Rcode::SERVFAIL)))
}

/// The name on the wire. Label by label, because a backslash in a [`DomainName`] is a character and begins no escape.
fn wire_name(name: &DomainName) -> Option<Name<Vec<u8>>> {
    let mut builder = NameBuilder::new_vec();
    for label in name.labels() {
        builder.append_label(label.as_bytes()).ok()?;
    }
    builder.into_name().ok()
}

fn start(query: &Message<[u8]>, rcode: Rcode) -> Answer {
    let mut builder = MessageBuilder::from_target(StaticCompressor::new(Vec::with_capacity(512)))
        .expect("a vector has room for a header")
        .start_error(query, rcode);
    builder.header_mut().set_ra(true);
    builder
}

fn into_bytes(answer: Answer) -> Vec<u8> {
    answer.finish().into_target()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answers, class_query, query};
    use super::*;
    use domain::base::Rtype;

    fn header(response: &[u8]) -> domain::base::Header {
        Message::from_slice(response).unwrap().header()
    }

    fn counts(response: &[u8]) -> [u16; 4] {
        let counts = Message::from_slice(response).unwrap().header_counts();
        [
            counts.qdcount(),
            counts.ancount(),
            counts.nscount(),
            counts.arcount(),
        ]
    }

    #[test]
    fn tunnel_18_address_answers() {
        let bytes = query("Foo.Example.COM", Rtype::A);
        let addresses = (1..=4).map(|host| Ipv4Addr::new(100, 96, 0, host));
        let response = Query::parse(&bytes).unwrap().answer_a(addresses);
        let expected: Vec<_> = (1..=4)
            .map(|host| ("Foo.Example.COM".to_owned(), 1, format!("100.96.0.{host}")))
            .collect();
        assert_eq!(answers(&response), expected);
        assert_eq!(counts(&response), [1, 4, 0, 0], "no OPT");
        let header = header(&response);
        assert_eq!(
            (header.id(), header.rd(), header.ra(), header.qr()),
            (0x1234, true, true, true)
        );
        assert!(!header.aa() && !header.tc() && !header.ad() && !header.cd() && !header.z());
        assert_eq!(header.rcode(), Rcode::NOERROR);
        // The question is repeated as it was spelled, the names of the records point to it.
        assert_eq!(response[12..33], bytes[12..33]);
        assert_eq!(response.len(), 33 + 4 * 16);
    }

    #[test]
    fn tunnel_18_v6_addresses_and_copied_flags() {
        let mut bytes = query("example.com", Rtype::AAAA);
        bytes[2] &= !1;
        let response = Query::parse(&bytes)
            .unwrap()
            .answer_aaaa(["fd00:2021:1111:8000::1".parse().unwrap()]);
        assert_eq!(
            answers(&response),
            [(
                "example.com".to_owned(),
                1,
                "fd00:2021:1111:8000::1".to_owned()
            )]
        );
        assert!(!header(&response).rd());
    }

    #[test]
    fn tunnel_19_backslash_in_a_name_is_a_character() {
        let bytes = query("1.0.96.100.in-addr.arpa", Rtype::PTR);
        for name in [r"a\.example", r"\101.example", r"\9.example"] {
            let response = Query::parse(&bytes)
                .unwrap()
                .answer_ptr(&name.parse().unwrap());
            assert_eq!(header(&response).rcode(), Rcode::NOERROR, "{name}");
            let label = name.split('.').next().unwrap().as_bytes();
            let wire = [&[label.len() as u8], label, b"\x07example\x00"].concat();
            assert!(response.ends_with(&wire), "{name}");
        }
    }

    #[test]
    fn tunnel_19_ptr_and_empty_answers() {
        let bytes = query("1.0.96.100.in-addr.arpa", Rtype::PTR);
        let response = Query::parse(&bytes)
            .unwrap()
            .answer_ptr(&"wiki.corp.example".parse().unwrap());
        assert_eq!(
            answers(&response)[0].2.trim_end_matches('.'),
            "wiki.corp.example"
        );
        let bytes = query("example.com", Rtype::HTTPS);
        let response = Query::parse(&bytes).unwrap().answer_empty();
        assert_eq!(
            (counts(&response), header(&response).rcode()),
            ([1, 0, 0, 0], Rcode::NOERROR)
        );
    }

    #[test]
    fn tunnel_20_canary_does_not_exist() {
        for rtype in [Rtype::A, Rtype::AAAA, Rtype::MX] {
            let bytes = class_query("USE-application-DNS.net", rtype, Class::IN);
            let query = Query::parse(&bytes).unwrap();
            assert!(query.is_canary());
            let response = query.name_error();
            assert_eq!(
                (counts(&response), header(&response).rcode()),
                ([1, 0, 0, 0], Rcode::NXDOMAIN)
            );
        }
        let bytes = query("x.use-application-dns.net", Rtype::A);
        assert!(!Query::parse(&bytes).unwrap().is_canary());
    }

    #[test]
    fn tunnel_21_server_failure_for_odd_messages() {
        let good = query("example.com", Rtype::A);
        let response = server_failure_for(&good).unwrap();
        assert_eq!(
            (counts(&response), header(&response).rcode()),
            ([1, 0, 0, 0], Rcode::SERVFAIL)
        );
        for questions in [0, 2, 255] {
            let mut bytes = good.clone();
            bytes[5] = questions;
            let response = server_failure_for(&bytes).unwrap();
            assert_eq!(
                (counts(&response), header(&response).rcode()),
                ([0, 0, 0, 0], Rcode::SERVFAIL)
            );
            assert_eq!((header(&response).id(), response.len()), (0x1234, 12));
        }
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(server_failure_for(&response), None);
        assert_eq!(server_failure_for(&good[..11]), None);
        assert!(
            server_failure_for(&good[..15]).is_some(),
            "truncated question"
        );
    }

    #[test]
    fn names_with_odd_characters() {
        let bytes = query("_sip._tcp.example.com", Rtype::SRV);
        assert_eq!(
            Query::parse(&bytes).unwrap().name().unwrap().as_str(),
            "_sip._tcp.example.com"
        );
        let ptr = query("1.0.96.100.in-addr.arpa", Rtype::PTR);
        for name in ["a\\b.example", "a;b.example", "a\"b.example"] {
            let response = Query::parse(&ptr)
                .unwrap()
                .answer_ptr(&name.parse().unwrap());
            assert_eq!(counts(&response)[0], 1);
        }
    }
}

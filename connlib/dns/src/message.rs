//! DNS messages: queries from applications, and the answers that are made locally (RFC 1035).
//!
//! A local answer copies id, opcode, "recursion desired" and the question as it was spelled; sets QR and RA; has class
//! IN and TTL 1, no AA and no OPT record. The TTL is short because the addresses mean something only as long as the
//! resource is there.

mod answer;
mod ptr;
mod truncate;

#[cfg(test)]
mod testing;

pub use answer::server_failure_for;
pub use truncate::{MAX_UDP_RESPONSE, truncate_for_udp};

use connlib_model::DomainName;
use domain::base::iana::{Class, Opcode};
use domain::base::name::ToLabelIter;
use domain::base::{Message, Rtype};
use std::fmt;
use std::net::IpAddr;

/// The name whose non-existence keeps browsers from bypassing the system's resolver with DNS over HTTPS.
pub const CANARY: &str = "use-application-dns.net";

/// A query with one question.
#[derive(Clone)]
pub struct Query<'a> {
    message: &'a Message<[u8]>,
    name: Option<DomainName>,
    query_type: QueryType,
}

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueryType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// Service binding for HTTP (RFC 9460).
    Https,
    /// Service binding (RFC 9460).
    Svcb,
    /// Location of a service (RFC 2782).
    Srv,
    /// Text.
    Txt,
    /// Any other type, and any type of another class or with an opcode other than QUERY: nothing to answer locally.
    Other,
}

/// Why bytes are no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a DNS message; nothing to answer.
    #[error("not a DNS message")]
    Malformed,
    /// A response. Answering it could go on for ever.
    #[error("message is a response")]
    Response,
    /// Not exactly one question; answered with SERVFAIL ([`server_failure_for`]).
    #[error("message has {0} questions")]
    QuestionCount(u16),
}

impl<'a> Query<'a> {
    /// Reads a query from the payload of a UDP packet or one message of a TCP stream.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, QueryError> {
        let message = Message::from_slice(bytes).map_err(|_| QueryError::Malformed)?;
        if message.header().qr() {
            return Err(QueryError::Response);
        }
        match message.header_counts().qdcount() {
            1 => {}
            count => return Err(QueryError::QuestionCount(count)),
        }
        let question = message.sole_question().map_err(|_| QueryError::Malformed)?;
        let is_ordinary =
            question.qclass() == Class::IN && message.header().opcode() == Opcode::QUERY;
        Ok(Self {
            message,
            name: domain_name(question.qname()),
            query_type: if is_ordinary {
                QueryType::from(question.qtype())
            } else {
                QueryType::Other
            },
        })
    }

    /// The message's id, chosen by the asker.
    pub fn id(&self) -> u16 {
        self.message.header().id()
    }

    /// The name asked for; `None` for one that no resource and no proxy address can have.
    pub fn name(&self) -> Option<&DomainName> {
        self.name.as_ref()
    }

    /// What is asked for.
    pub fn query_type(&self) -> QueryType {
        self.query_type
    }

    /// The whole message.
    pub fn as_slice(&self) -> &'a [u8] {
        self.message.as_slice()
    }

    /// Whether the name is [`CANARY`], which is answered with [`name_error`](Self::name_error) whatever the type.
    pub fn is_canary(&self) -> bool {
        self.name
            .as_ref()
            .is_some_and(|name| name.as_str() == CANARY)
    }

    /// The address that a PTR query is about; `None` for other types and for names that spell no address.
    pub fn ptr_address(&self) -> Option<IpAddr> {
        match self.query_type {
            QueryType::Ptr => ptr::address(self.name.as_ref()?),
            _ => None,
        }
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("id", &self.id())
            .field("type", &self.query_type)
            .field("name", &self.name)
            .finish()
    }
}

impl From<Rtype> for QueryType {
    fn from(rtype: Rtype) -> Self {
        match rtype {
            Rtype::A => Self::A,
            Rtype::AAAA => Self::Aaaa,
            Rtype::PTR => Self::Ptr,
            Rtype::HTTPS => Self::Https,
            Rtype::SVCB => Self::Svcb,
            Rtype::SRV => Self::Srv,
            Rtype::TXT => Self::Txt,
            _ => Self::Other,
        }
    }
}

/// The name as text; `None` if a label has a byte that text cannot show, or a dot.
fn domain_name(name: &domain::base::ParsedName<&[u8]>) -> Option<DomainName> {
    let mut text = String::with_capacity(usize::from(name.compose_len()));
    for label in name.iter().filter(|label| !label.is_root()) {
        let label = std::str::from_utf8(label.as_slice()).ok()?;
        if label.contains('.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(label);
    }
    if text.is_empty() {
        return Some(DomainName::root());
    }
    DomainName::new(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::testing::{class_query, query};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_of_a_query() {
        let bytes = query("Wiki.Corp.EXAMPLE.", Rtype::AAAA);
        let query = Query::parse(&bytes).unwrap();
        assert_eq!((query.id(), query.query_type()), (0x1234, QueryType::Aaaa));
        assert_eq!(query.name().unwrap().as_str(), "wiki.corp.example");
        assert_eq!(query.as_slice(), bytes);
        assert_eq!(query.ptr_address(), None);
    }

    #[test]
    fn root_and_longest_names() {
        let root = query(".", Rtype::A);
        assert!(Query::parse(&root).unwrap().name().unwrap().is_root());
        let longest = [
            &*"a".repeat(63),
            &"b".repeat(63),
            &"c".repeat(63),
            &"d".repeat(61),
        ]
        .join(".");
        let bytes = query(&longest, Rtype::A);
        assert_eq!(
            Query::parse(&bytes).unwrap().name().unwrap().as_str(),
            longest
        );
    }

    #[test]
    fn names_that_are_no_text_have_none() {
        for name in [
            "a\\.b.example",
            "\\255.example",
            "a\\000b.example",
            "a\\032b.example",
        ] {
            let bytes = query(name, Rtype::A);
            let query = Query::parse(&bytes).unwrap();
            assert_eq!(query.name(), None, "{name}");
            assert!(!query.answer_empty().is_empty());
        }
    }

    #[test]
    fn tunnel_19_types() {
        let types = [
            (Rtype::A, QueryType::A),
            (Rtype::AAAA, QueryType::Aaaa),
            (Rtype::PTR, QueryType::Ptr),
            (Rtype::HTTPS, QueryType::Https),
            (Rtype::SVCB, QueryType::Svcb),
            (Rtype::SRV, QueryType::Srv),
            (Rtype::TXT, QueryType::Txt),
            (Rtype::MX, QueryType::Other),
            (Rtype::ANY, QueryType::Other),
        ];
        for (rtype, expected) in types {
            assert_eq!(
                Query::parse(&query("example.com", rtype))
                    .unwrap()
                    .query_type(),
                expected
            );
        }
        let chaos = class_query("version.bind", Rtype::TXT, Class::CH);
        assert_eq!(Query::parse(&chaos).unwrap().query_type(), QueryType::Other);
        let mut update = query("example.com", Rtype::A);
        update[2] = 5 << 3;
        assert_eq!(
            Query::parse(&update).unwrap().query_type(),
            QueryType::Other
        );
    }

    #[test]
    fn tunnel_19_ptr_queries() {
        let bytes = query("1.0.96.100.IN-ADDR.arpa", Rtype::PTR);
        assert_eq!(
            Query::parse(&bytes).unwrap().ptr_address(),
            Some([100, 96, 0, 1].into())
        );
        let other = query("1.0.96.100.in-addr.arpa", Rtype::A);
        assert_eq!(Query::parse(&other).unwrap().ptr_address(), None);
        let malformed = query("x.in-addr.arpa", Rtype::PTR);
        assert_eq!(Query::parse(&malformed).unwrap().ptr_address(), None);
    }

    #[test]
    fn tunnel_21_what_is_no_query() {
        let good = query("example.com", Rtype::A);
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Query::parse(&bytes).map(|query| query.id()).unwrap_err()
        };
        assert_eq!(with(2, 0x81), QueryError::Response);
        assert_eq!(with(5, 0), QueryError::QuestionCount(0));
        assert_eq!(with(5, 2), QueryError::QuestionCount(2));
        assert_eq!(with(12, 0x80), QueryError::Malformed);
        assert!(matches!(
            Query::parse(&good[..11]),
            Err(QueryError::Malformed)
        ));
        assert!(matches!(
            Query::parse(&good[..28]),
            Err(QueryError::Malformed)
        ));
        assert!(matches!(Query::parse(&[]), Err(QueryError::Malformed)));
    }

    proptest! {
        #[test]
        fn tunnel_21_no_message_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), fix: bool) {
            let mut bytes = bytes;
            if fix && bytes.len() >= 12 {
                bytes[2] &= 0x7f;
                bytes[4..6].copy_from_slice(&[0, 1]);
            }
            let _ = server_failure_for(&bytes);
            if let Ok(query) = Query::parse(&bytes) {
                let _ = (format!("{query:?}"), query.ptr_address(), query.is_canary());
                let name = DomainName::new("a.example").unwrap();
                for response in [
                    query.answer_a([[100, 96, 0, 1].into()]),
                    query.answer_aaaa([]),
                    query.answer_ptr(&name),
                    query.answer_empty(),
                    query.name_error(),
                    query.server_failure(),
                ] {
                    prop_assert_eq!(&response[..2], &bytes[..2]);
                    prop_assert!(Message::from_slice(&response).unwrap().sole_question().is_ok());
                }
            }
        }
    }
}

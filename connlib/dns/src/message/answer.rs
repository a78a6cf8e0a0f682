//! Answers that are made locally.

use super::Query;
use connlib_model::DomainName;
use domain::base::iana::{Class, Rcode};
use domain::base::message_builder::AnswerBuilder;
use domain::base::{
    Message, MessageBuilder, Name, RecordData, StaticCompressor, Ttl, rdata::ComposeRecordData,
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
        match Name::<Vec<u8>>::from_chars(name.as_str().chars()) {
            Ok(name) => self.answer([Ptr::new(name)]),
            // Names that were checked at construction always parse; escapes inside are the one doubt.
            Err(_) => self.server_failure(),
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

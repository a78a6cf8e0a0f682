//! DNS messages: any bytes as a query from an application, and as a response from an upstream.
//!
//! Oracle: every answer made here can be read, carries id and question of its query and the records it was given, and a
//! response cut for UDP fits into a packet and says that it was cut. What a domain parser of its own makes of the same bytes
//! must agree.

use connlib_dns::{
    Query, QueryError,
    message::{MAX_UDP_RESPONSE, server_failure_for, truncate_for_udp},
};
use connlib_model::DomainName;
use domain::base::{Message, iana::Rcode};

use crate::input::Input;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.u8();
    let count = usize::from(choice >> 4);
    match choice & 3 {
        0 => truncate(input.rest()),
        1 => truncate(&repeated(&mut input)),
        2 => query(input.rest(), count),
        _ => query(&built(&mut input), count),
    }
}

/// A query of each type, and a long response.
pub fn seeds() -> Vec<Vec<u8>> {
    let name = b"\x04Wiki\x04corp\x07example\x00";
    let query = |kind: u8| {
        let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&[0x42][..], &header, name, &[0, kind, 0, 1]].concat()
    };
    let long = [&[1][..], &[0x81, 0x80, 0, 1, 0, 9], &[0; 40]].concat();
    let types = [1, 28, 12, 65, 64, 33, 16, 15, 255];
    types.into_iter().map(query).chain([long]).collect()
}

/// A message with the right counts and one question, so that its name is looked at.
fn built(input: &mut Input<'_>) -> Vec<u8> {
    let mut message = input.array::<2>().to_vec();
    message.extend([input.u8() & 0x79, input.u8(), 0, 1, 0, 0, 0, 0, 0, 0]);
    for _ in 0..input.below(130) {
        let label = input.bytes(63);
        if label.is_empty() {
            break;
        }
        message.push(label.len() as u8);
        message.extend(label);
    }
    message.push(0);
    message.extend([0, input.pick(&[1, 28, 12, 65, 64, 33, 16, 255]), 0, 1]);
    message.extend(input.rest());
    message
}

/// A response that is too long.
fn repeated(input: &mut Input<'_>) -> Vec<u8> {
    let mut message = vec![0, 1];
    message.extend(input.array::<10>());
    let part = input.rest();
    while !part.is_empty() && message.len() <= 2 * MAX_UDP_RESPONSE {
        message.extend(part);
    }
    message
}

fn query(bytes: &[u8], count: usize) {
    let failure = server_failure_for(bytes);
    let query = match Query::parse(bytes) {
        Ok(query) => query,
        Err(QueryError::Malformed) => return,
        Err(QueryError::Response) => return assert_eq!(failure, None, "an answer to a response"),
        Err(QueryError::QuestionCount(_)) => {
            let failure = failure.expect("whoever asks too much is told so");
            let message = Message::from_octets(failure).expect("it was made here");
            assert_eq!(message.header().rcode(), Rcode::SERVFAIL);
            return;
        }
    };
    let _ = (format!("{query:?}"), query.is_canary());
    let (v4, v6) = (
        [100, 96, 0, 1],
        [0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 1],
    );
    let name = DomainName::new("a.b.example").expect("it is a name");
    check(&query, query.answer_empty(), Rcode::NOERROR, 0);
    check(&query, query.name_error(), Rcode::NXDOMAIN, 0);
    check(&query, query.server_failure(), Rcode::SERVFAIL, 0);
    check(&query, failure.expect("it is a query"), Rcode::SERVFAIL, 0);
    let answer = query.answer_a(vec![v4.into(); count]);
    check(&query, answer, Rcode::NOERROR, count);
    let answer = query.answer_aaaa(vec![v6.into(); count]);
    check(&query, answer, Rcode::NOERROR, count);
    let name = query.name().filter(|it| !it.is_root()).unwrap_or(&name);
    check(&query, query.answer_ptr(name), Rcode::NOERROR, 1);
    if let Some(address) = query.ptr_address() {
        let text = query.name().expect("an address has a name").as_str();
        let suffix = if address.is_ipv4() {
            ".in-addr.arpa"
        } else {
            ".ip6.arpa"
        };
        assert!(text.ends_with(suffix));
    }
}

fn check(query: &Query<'_>, answer: Vec<u8>, rcode: Rcode, answers: usize) {
    let asked = Message::from_slice(query.as_slice()).expect("it is a query");
    let message = Message::from_slice(&answer).expect("it was made here");
    let header = message.header();
    assert_eq!((header.id(), header.rcode()), (query.id(), rcode));
    assert!(header.qr() && header.ra() && !header.aa() && !header.tc());
    assert_eq!(header.rd(), asked.header().rd());
    let question = message.sole_question().expect("the question is repeated");
    assert_eq!(Ok(question), asked.sole_question());
    let records: Vec<_> = message.answer().expect("it was made here").collect();
    assert_eq!(records.len(), answers);
    assert!(records.iter().all(Result::is_ok));
    assert_eq!(message.header_counts().arcount(), 0);
    truncate(&answer);
}

fn truncate(response: &[u8]) {
    let cut = truncate_for_udp(response.to_vec());
    assert!(cut.len() <= MAX_UDP_RESPONSE);
    if response.len() <= MAX_UDP_RESPONSE {
        assert_eq!(cut, response);
        return;
    }
    let message = Message::from_slice(&cut).expect("a header is left");
    assert!(message.header().tc());
    assert_eq!(cut[..2], response[..2]);
    let counts = message.header_counts();
    let others = (counts.ancount(), counts.nscount(), counts.arcount());
    assert_eq!(others, (0, 0, 0));
    // All questions, as they were, or none.
    assert!(message.question().all(|question| question.is_ok()));
    if counts.qdcount() > 0 {
        let long = Message::from_slice(response).expect("it has a header");
        assert!(message.question().flatten().eq(long.question().flatten()));
    }
}

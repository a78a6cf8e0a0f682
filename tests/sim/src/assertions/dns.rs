//! A9–A11: every query is answered once, from the server that was asked, with what the model predicts.

use std::net::SocketAddr;

use super::{Evidence, Failure};
use crate::{
    dns::message::{Data, Message, NO_ERROR},
    model::{ExpectedQuery, Reply},
    trace::Entry,
    transition::Transport,
};

pub(super) fn check(evidence: &Evidence<'_>, failures: &mut Vec<Failure>) {
    for query in &evidence.expected.queries {
        check_query(evidence, query, failures);
    }
    let known: Vec<u64> = evidence.expected.queries.iter().map(|q| q.number).collect();
    for (at, entry) in evidence.entries {
        if let Entry::DnsResponse { client, query, .. } = entry
            && !query.is_some_and(|number| known.contains(&number))
            && !evidence.model.is_repeating()
        {
            let text = format!("{at:?}: client {client} got a response to nothing");
            failures.push(Failure::new(9, text));
        }
    }
}

fn check_query(evidence: &Evidence<'_>, query: &ExpectedQuery, failures: &mut Vec<Failure>) {
    let number = match query.query.transport {
        Transport::Udp => 9,
        Transport::Tcp => 10,
    };
    let mut fail = |assertion, text: String| {
        let text = format!("query {} {:?}: {text}", query.number, query.question);
        failures.push(Failure::new(assertion, text));
    };
    let mut responses: Vec<&[u8]> = evidence
        .entries
        .iter()
        .filter_map(|(_, entry)| match entry {
            Entry::DnsResponse {
                query: Some(of),
                message,
                ..
            } if *of == query.number => Some(message.as_slice()),
            _ => None,
        })
        .collect();
    let failed = evidence.entries.iter().any(
        |(_, entry)| matches!(entry, Entry::DnsFailure { query: of, .. } if *of == query.number),
    );
    if evidence.model.is_repeating() {
        // The application has asked more than once.
        let is_final = |bytes: &&[u8]| Message::parse(bytes).is_none_or(|m| query.is_final(&m));
        responses.retain(is_final);
        responses.truncate(1);
    } else if failed {
        fail(10, "the connection to the resolver failed".to_owned());
    }
    match (&query.reply, responses.as_slice()) {
        (Reply::Silence, []) => {}
        (Reply::Silence, _) => fail(
            number,
            "is answered although the server is silent".to_owned(),
        ),
        (_, [response]) => match Message::parse(response) {
            Some(message) => check_message(query, &message, &mut fail),
            None => fail(number, "the response is malformed".to_owned()),
        },
        (reply, responses) => fail(
            number,
            format!("has {} responses instead of {reply:?}", responses.len()),
        ),
    }
    check_server(evidence, query, &mut fail);
}

fn check_message(query: &ExpectedQuery, message: &Message, fail: &mut impl FnMut(u8, String)) {
    if message.id != query.query.id || !message.is_response {
        fail(9, format!("the response has id {}", message.id));
    }
    let (name, record_type) = &query.question;
    let is_echoed = name.as_ref().is_none_or(|name| *name == message.question.0)
        && message.question.1 == *record_type;
    if !is_echoed {
        fail(9, format!("the response is about {:?}", message.question));
    }
    let addresses = message.addresses();
    let ok = match &query.reply {
        Reply::Proxies(count) => {
            let all_proxies = addresses
                .iter()
                .all(|ip| connlib_model::ranges::is_proxy(*ip));
            message.code == NO_ERROR && addresses.len() == *count && all_proxies
        }
        Reply::Pointer(name) => message.answers == [Data::Pointer(name.clone())],
        Reply::Records {
            code,
            addresses: expected,
            others,
            truncated,
        } => {
            let is_same = addresses
                .iter()
                .copied()
                .collect::<std::collections::BTreeSet<_>>()
                == *expected;
            let others_seen = message.answers.len() - addresses.len();
            message.code == *code
                && message.is_truncated == *truncated
                && is_same
                && others_seen == *others
        }
        Reply::Silence => false,
    };
    if !ok {
        fail(9, format!("{message:?} instead of {:?}", query.reply));
    }
}

/// What goes outside the tunnel goes to the server that was asked, and only if it must.
fn check_server(evidence: &Evidence<'_>, query: &ExpectedQuery, fail: &mut impl FnMut(u8, String)) {
    let Some(expected) = query.via_host else {
        return;
    };
    let lookups: Vec<SocketAddr> = evidence
        .entries
        .iter()
        .filter_map(|(_, entry)| match entry {
            Entry::HostLookup {
                client,
                server,
                question,
            } if *client == query.client && is_question(query, question) => Some(*server),
            _ => None,
        })
        .collect();
    match (expected, query.server) {
        (true, Some(server)) if !lookups.contains(&server) => {
            fail(
                9,
                format!("was not asked at {server} outside the tunnel but at {lookups:?}"),
            );
        }
        (false, _) => {
            let others = &evidence.expected.queries;
            let is_another = others
                .iter()
                .any(|other| other.via_host == Some(true) && other.question == query.question);
            if !lookups.is_empty() && !is_another {
                fail(9, format!("was asked outside the tunnel at {lookups:?}"));
            }
        }
        (_, _) => {}
    }
}

fn is_question(query: &ExpectedQuery, question: &(String, u16)) -> bool {
    let (name, record_type) = &query.question;
    name.as_ref().is_none_or(|name| *name == question.0) && *record_type == question.1
}

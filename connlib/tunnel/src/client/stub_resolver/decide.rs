//! What to do about a query (tunnel spec 3.7).

use connlib_cover::cover;
use connlib_dns::message::server_failure_for;
use connlib_dns::{ProxyIps, Query, QueryError, QueryType};
use connlib_model::{DomainName, ResourceId};

use super::super::routing::{Families, RoutingTable};
use super::{Asker, Question};

/// What has to be done about a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Answer with this message.
    Answer {
        message: Vec<u8>,
        /// The domain of a DNS resource whose addresses the asker is about to use: its translation has to be fresh.
        domain: Option<DomainName>,
    },
    /// Ask in the site of this resource.
    AskSite(ResourceId),
    /// Ask the server behind the sentinel.
    Recurse,
    /// Nothing.
    Ignore,
}

/// Decides about `question`; assigns proxy IPs on the first query for a domain.
pub(super) fn decide(
    question: &Question,
    routing: &RoutingTable,
    proxies: &mut ProxyIps,
) -> Decision {
    let decision = match Query::parse(&question.message) {
        Ok(query) => decide_query(&query, routing, proxies),
        Err(QueryError::QuestionCount(_)) => match server_failure_for(&question.message) {
            Some(message) => answer(message),
            None => Decision::Ignore,
        },
        Err(error @ (QueryError::Malformed | QueryError::Response)) => {
            tracing::debug!(%error, "ignoring a DNS query");
            Decision::Ignore
        }
    };

    match question.asker {
        Asker::Udp { .. } | Asker::Tcp { .. } => decision,
        Asker::LinkLocal { .. } => only_for_resources(decision),
    }
}

/// Turns an answer into one of link-local multicast name resolution, whose header has no "recursion available".
pub(super) fn as_link_local(mut message: Vec<u8>) -> Vec<u8> {
    if let Some(flags) = message.get_mut(3) {
        *flags &= 0x0f;
    }

    message
}

fn decide_query(query: &Query<'_>, routing: &RoutingTable, proxies: &mut ProxyIps) -> Decision {
    if query.is_canary() {
        cover!("dns/canary");
        return answer(query.name_error());
    }
    if let Some(domain) = query.ptr_address().and_then(|ip| proxies.domain(ip)) {
        cover!("dns/ptr-answered");
        return answer(query.answer_ptr(domain));
    }
    let Some(domain) = query.name() else {
        return Decision::Recurse;
    };

    match (routing.families(domain), routing.best_match(domain)) {
        (Some(families), Some(resource)) => {
            decide_resource(query, domain, families, resource, proxies)
        }
        (_, _) => Decision::Recurse,
    }
}

/// A query for a domain of a DNS resource. Its real addresses must stay hidden.
fn decide_resource(
    query: &Query<'_>,
    domain: &DomainName,
    families: Families,
    resource: ResourceId,
    proxies: &mut ProxyIps,
) -> Decision {
    match query.query_type() {
        QueryType::A | QueryType::Aaaa => {
            let Some(addresses) = proxies.assign(domain) else {
                return answer(query.server_failure());
            };
            let message = if query.query_type() == QueryType::A {
                cover!("dns/a-answered");
                query.answer_a(addresses.v4().filter(|_| families.v4))
            } else {
                cover!("dns/aaaa-answered");
                query.answer_aaaa(addresses.v6().filter(|_| families.v6))
            };

            Decision::Answer {
                message,
                domain: Some(domain.clone()),
            }
        }
        // Such a record would name real addresses; without it applications ask for A and AAAA.
        QueryType::Https | QueryType::Svcb => {
            cover!("dns/https-answered");
            Decision::Answer {
                message: query.answer_empty(),
                domain: proxies.get(domain).map(|_| domain.clone()),
            }
        }
        QueryType::Srv | QueryType::Txt => Decision::AskSite(resource),
        QueryType::Ptr | QueryType::Other => Decision::Recurse,
    }
}

fn only_for_resources(decision: Decision) -> Decision {
    match decision {
        Decision::Answer {
            domain: Some(_), ..
        } => decision,
        Decision::Answer { domain: None, .. }
        | Decision::AskSite(_)
        | Decision::Recurse
        | Decision::Ignore => Decision::Ignore,
    }
}

fn answer(message: Vec<u8>) -> Decision {
    Decision::Answer {
        message,
        domain: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{cidr, dns, internet};
    use super::*;
    use connlib_lookup::Secret;
    use connlib_model::Resource;
    use proptest::prelude::*;

    proptest! {
        // tunnel 21
        #[test]
        fn tunnel_21_any_message_is_decided_about(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            let decision = decide_bytes(message);
            prop_assert!(!matches!(decision, Decision::AskSite(_)));
        }

        #[test]
        fn tunnel_21_any_damage_to_a_query_is_decided_about(at in 0usize..29, byte in any::<u8>()) {
            let mut message = query("example.com", 1);
            message[at] = byte;
            decide_bytes(message);
        }
    }

    #[test]
    fn addresses_are_assigned_by_address_queries_only() {
        let routing = routing(&[dns(1, "*.example.com")]);
        let mut proxies = ProxyIps::new();
        for qtype in [65, 64, 33, 16, 15] {
            decide(
                &asked(query("a.example.com", qtype)),
                &routing,
                &mut proxies,
            );
        }
        assert_eq!(proxies.iter().count(), 0);
        decide(&asked(query("a.example.com", 28)), &routing, &mut proxies);
        assert_eq!(proxies.iter().count(), 1);
    }

    #[test]
    fn link_local_answer_has_no_recursion_bits() {
        assert_eq!(as_link_local(vec![0, 0, 0x80, 0x83])[3], 3);
        assert_eq!(as_link_local(vec![0]), [0]);
    }

    fn decide_bytes(message: Vec<u8>) -> Decision {
        let routing = routing(&[dns(1, "example.com"), cidr(2, "10.0.0.0/8"), internet(3)]);

        decide(&asked(message), &routing, &mut ProxyIps::new())
    }

    fn routing(resources: &[Resource]) -> RoutingTable {
        let mut table = RoutingTable::new(Secret::from_seed([0; 32]));
        table.rebuild(resources.iter(), |_| false);

        table
    }

    fn asked(message: Vec<u8>) -> Question {
        Question {
            asker: Asker::Udp {
                from: ([100, 64, 0, 1], 1).into(),
                sentinel: ([100, 100, 111, 1], 53).into(),
            },
            message,
        }
    }

    fn query(name: &str, qtype: u16) -> Vec<u8> {
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend(qtype.to_be_bytes());
        message.extend([0, 1]);

        message
    }
}

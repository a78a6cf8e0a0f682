//! What to do about a query (tunnel spec 3.7).

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
        return answer(query.name_error());
    }
    if let Some(domain) = query.ptr_address().and_then(|ip| proxies.domain(ip)) {
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
                query.answer_a(addresses.v4().filter(|_| families.v4))
            } else {
                query.answer_aaaa(addresses.v6().filter(|_| families.v6))
            };

            Decision::Answer {
                message,
                domain: Some(domain.clone()),
            }
        }
        // Such a record would name real addresses; without it applications ask for A and AAAA.
        QueryType::Https | QueryType::Svcb => Decision::Answer {
            message: query.answer_empty(),
            domain: proxies.get(domain).map(|_| domain.clone()),
        },
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

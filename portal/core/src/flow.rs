//! From "may I?" to "here is your gateway" (portal protocol §7.1, §7.5).
//!
//! A request is checked and a gateway chosen; the gateway is told and, once it has acknowledged, so is the client. The
//! client repeats a request every two seconds: a repetition is sent to the same gateway under the same reference, so
//! that the pair has one deadline, and an acknowledgement that comes twice is answered twice and forwarded once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use connlib_messages::{
    FailureReason, ViolatedProperty,
    client::{CreateFlow, FlowCreated, FlowCreationFailed, FromPortal as ToClient},
    gateway::FromPortal as ToGateway,
};
use connlib_model::ResourceId;
use rand::Rng as _;

use crate::{
    config::PolicyId,
    connection::GatewayPeer,
    gateway_choice::{Candidate, Wish, choose},
    output::{Refusal, StoreOp},
    policy::Verdict,
    portal::{ConnectionId, Portal, Time},
};

/// How long a gateway may take; then the client is told that it is offline.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(15);
/// Most requests of one client that wait at once: more resources than anybody opens within 15 seconds.
const MAX_WAITING_PER_CLIENT: usize = 256;
/// Most requests of all clients within [`ACKNOWLEDGE_WITHIN`], about 30 MB.
const MAX_FLOWS: usize = 65_536;

/// Requests that were passed on to a gateway.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    by_reference: BTreeMap<String, Flow>,
    waiting: BTreeMap<(ConnectionId, ResourceId), String>,
    /// In the order of their equal terms.
    deadlines: VecDeque<(Instant, String)>,
}

#[derive(Debug)]
struct Flow {
    client: ConnectionId,
    gateway: ConnectionId,
    resource: ResourceId,
    /// `None` once it was sent.
    answer: Option<Box<FlowCreated>>,
}

/// A request that was granted.
pub(crate) struct Grant {
    pub(crate) gateway: Candidate,
    pub(crate) policy: PolicyId,
    pub(crate) expires_at: Option<u64>,
}

enum Denial {
    Because(FailureReason),
    Forbidden(BTreeSet<ViolatedProperty>),
}

impl Flows {
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn forget_client(&mut self, client: ConnectionId) {
        self.by_reference.retain(|_, flow| flow.client != client);
        self.waiting.retain(|(other, _), _| *other != client);
    }

    /// Drops what waits for an access that is no longer granted.
    pub(crate) fn forget_request(&mut self, client: ConnectionId, resource: ResourceId) {
        if let Some(reference) = self.waiting.remove(&(client, resource)) {
            self.by_reference.remove(&reference);
        }
    }

    /// Drops what waits for resources that are gone.
    pub(crate) fn forget_resources(&mut self, gone: impl Fn(&ResourceId) -> bool) {
        let references = &mut self.by_reference;
        self.waiting.retain(|(_, resource), reference| {
            let keep = !gone(resource);
            if !keep {
                references.remove(reference);
            }
            keep
        });
    }

    /// The reference under which the same gateway was already asked for the same access.
    fn repeated(
        &self,
        client: ConnectionId,
        resource: ResourceId,
        gateway: ConnectionId,
    ) -> Option<&String> {
        let reference = self.waiting.get(&(client, resource))?;
        let flow = self.by_reference.get(reference)?;
        (flow.gateway == gateway).then_some(reference)
    }

    fn is_full_for(&self, client: ConnectionId) -> bool {
        let first = (client, ResourceId::from_u128(0));
        let range = self.waiting.range(first..);
        let waiting = range.take_while(|((other, _), _)| *other == client).count();
        waiting >= MAX_WAITING_PER_CLIENT || self.deadlines.len() >= MAX_FLOWS
    }
}

impl Portal {
    pub(crate) fn create_flow(&mut self, id: ConnectionId, wish: CreateFlow, time: Time) {
        let resource = wish.resource_id;
        match self.grant(id, &wish, time) {
            Ok(grant) => self.ask_gateway(id, resource, &grant, time),
            Err(denial) => self.deny(id, resource, denial),
        }
    }

    /// A gateway acknowledged.
    pub(crate) fn flow_authorized(
        &mut self,
        gateway: ConnectionId,
        reference: &str,
    ) -> Result<(), Refusal> {
        let flow = self.flows.by_reference.get_mut(reference);
        let Some(flow) = flow.filter(|flow| flow.gateway == gateway) else {
            return Err(Refusal::InvalidRef);
        };
        if let Some(answer) = flow.answer.take() {
            let (client, resource) = (flow.client, flow.resource);
            self.flows.waiting.remove(&(client, resource));
            self.stats.flows_created += 1;
            self.push(client, &ToClient::FlowCreated(answer));
        }
        Ok(())
    }

    /// Gateways that took too long count as offline.
    pub(crate) fn expire_flows(&mut self, time: Time) {
        while self.flows.next_deadline().is_some_and(|at| at <= time.now) {
            let Some((_, reference)) = self.flows.deadlines.pop_front() else {
                return;
            };
            let flow = self.flows.by_reference.remove(&reference);
            let Some(flow) = flow.filter(|flow| flow.answer.is_some()) else {
                continue;
            };
            self.flows.waiting.remove(&(flow.client, flow.resource));
            self.deny(
                flow.client,
                flow.resource,
                Denial::Because(FailureReason::Offline),
            );
        }
    }

    fn deny(&mut self, client: ConnectionId, resource_id: ResourceId, denial: Denial) {
        self.stats.flows_refused += 1;
        let (reason, violated) = match denial {
            Denial::Because(reason) => (reason, BTreeSet::new()),
            Denial::Forbidden(violated) => (FailureReason::Forbidden, violated),
        };
        let failed = FlowCreationFailed {
            resource_id,
            reason,
            violated_properties: violated.into_iter().collect(),
        };
        self.push(client, &ToClient::FlowCreationFailed(failed));
    }

    /// The checks of §7.5 in their order.
    fn grant(&mut self, id: ConnectionId, wish: &CreateFlow, time: Time) -> Result<Grant, Denial> {
        use FailureReason::NotFound;
        let connection = self.connections.get(&id).ok_or(Denial::Because(NotFound))?;
        let client = connection.client().ok_or(Denial::Because(NotFound))?;
        let resource = self.config.resources.get(&wish.resource_id);
        let resource = resource.filter(|resource| !resource.sites.is_empty());
        let resource = resource.ok_or(Denial::Because(NotFound))?;
        let mut policies = self
            .config
            .policies_for(client.person, resource.id)
            .peekable();
        if policies.peek().is_none() {
            return Err(Denial::Because(NotFound));
        }
        let candidates = self.candidates(|gateway| resource.sites.contains(&gateway.site));
        let gateway = choose(
            candidates,
            &Wish {
                version: connection.version,
                coordinates: connection.location.coordinates,
                connected: &wish.connected_gateway_ids,
            },
            &mut self.rng,
        );
        let gateway = gateway.map_err(Denial::Because)?;
        let circumstances = self.circumstances(connection, client, time);
        let verdicts =
            policies.map(|(id, policy)| (id, policy.conditions.evaluate(&circumstances)));
        let (policy, window_end) = longest(verdicts).map_err(Denial::Forbidden)?;
        let ends = [window_end, connection.expires_at];
        Ok(Grant {
            gateway,
            policy,
            expires_at: ends.into_iter().flatten().min(),
        })
    }

    fn candidates(&self, serves: impl Fn(&GatewayPeer) -> bool) -> Vec<Candidate> {
        let gateways = self.gateways.values();
        let joined = gateways.filter_map(|id| {
            let connection = self.connections.get(id)?;
            let gateway = connection.gateway()?;
            gateway.channel.joined()?;
            serves(gateway).then_some(Candidate {
                connection: *id,
                id: gateway.id,
                version: connection.version,
                coordinates: connection.location.coordinates,
            })
        });
        joined.collect()
    }

    fn ask_gateway(&mut self, id: ConnectionId, resource: ResourceId, grant: &Grant, time: Time) {
        let to = grant.gateway.connection;
        let repeated = self.flows.repeated(id, resource, to).cloned();
        if repeated.is_none() && self.flows.is_full_for(id) {
            tracing::debug!("too many requests are waiting; ignoring one");
            return;
        }
        let reference = repeated
            .clone()
            .unwrap_or_else(|| URL_SAFE_NO_PAD.encode(self.rng.random::<[u8; 24]>()));
        let Some((authorization, ask, answer)) =
            self.introduce(id, resource, grant, reference.clone(), time)
        else {
            return;
        };
        if repeated.is_none() {
            self.flows.forget_request(id, resource);
            self.flows.waiting.insert((id, resource), reference.clone());
            let deadline = time.now + ACKNOWLEDGE_WITHIN;
            self.flows
                .deadlines
                .push_back((deadline, reference.clone()));
        }
        let flow = Flow {
            client: id,
            gateway: to,
            resource,
            answer: Some(Box::new(answer)),
        };
        self.flows.by_reference.insert(reference, flow);
        if self.authorizations.put(authorization.clone()) {
            self.store(StoreOp::PutAuthorization(authorization));
        }
        self.push(to, &ToGateway::AuthorizeFlow(Box::new(ask)));
    }
}

/// The granting policy that is valid longest, else everything that any of them found violated.
fn longest(
    verdicts: impl Iterator<Item = (PolicyId, Verdict)>,
) -> Result<(PolicyId, Option<u64>), BTreeSet<ViolatedProperty>> {
    let mut all_violated = BTreeSet::new();
    let mut best: Option<(PolicyId, Option<u64>)> = None;
    let rank = |end: Option<u64>| end.unwrap_or(u64::MAX);
    for (policy, verdict) in verdicts {
        match verdict {
            Verdict::Granted(end) if best.is_none_or(|(_, other)| rank(end) > rank(other)) => {
                best = Some((policy, end));
            }
            Verdict::Granted(_) => {}
            Verdict::Violated(violated) => all_violated.extend(violated),
        }
    }
    best.ok_or(all_violated)
}

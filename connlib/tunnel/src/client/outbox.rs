//! Events that wait to be polled, each kind in its most compact form.
//!
//! Candidates are batched per gateway, configuration and list are kept in their newest version, intents at most once per
//! resource. So what waits is bounded by the tables behind it, however long nobody polls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use connlib_model::{GatewayId, ResourceId, ResourceView, TunConfig};

use super::ClientEvent;
use super::latest::Latest;

/// Undelivered events.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) tun_config: Latest<TunConfig>,
    pub(crate) resources: Latest<Vec<ResourceView>>,
    intents: VecDeque<ResourceId>,
    candidates: BTreeMap<GatewayId, Candidates>,
    no_relays: bool,
}

#[derive(Debug, Default)]
struct Candidates {
    removed: BTreeSet<String>,
    added: BTreeSet<String>,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            tun_config: Latest::new(),
            resources: Latest::new(),
            intents: VecDeque::new(),
            candidates: BTreeMap::new(),
            no_relays: false,
        }
    }

    pub(crate) fn push_intent(&mut self, resource: ResourceId) {
        if !self.intents.contains(&resource) {
            self.intents.push_back(resource);
        }
    }

    /// Withdraws an intent that was not polled yet.
    pub(crate) fn drop_intent(&mut self, resource: ResourceId) {
        self.intents.retain(|id| *id != resource);
    }

    pub(crate) fn add_candidate(&mut self, gateway: GatewayId, sdp: String) {
        let candidates = self.candidates.entry(gateway).or_default();
        candidates.removed.remove(&sdp);
        candidates.added.insert(sdp);
    }

    /// The gateway may know the candidate from an earlier event, so that it has to be told in any case.
    pub(crate) fn remove_candidate(&mut self, gateway: GatewayId, sdp: String) {
        let candidates = self.candidates.entry(gateway).or_default();
        candidates.added.remove(&sdp);
        candidates.removed.insert(sdp);
    }

    /// The connection is gone, and with it the reason to signal anything.
    pub(crate) fn drop_candidates(&mut self, gateway: GatewayId) {
        self.candidates.remove(&gateway);
    }

    pub(crate) fn set_no_relays(&mut self) {
        self.no_relays = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.tun_config.is_pending()
            && !self.resources.is_pending()
            && self.intents.is_empty()
            && self.candidates.is_empty()
            && !self.no_relays
    }

    /// The next event. `preferred` names the gateways that an intent should list.
    pub(crate) fn poll(
        &mut self,
        preferred: impl FnOnce(ResourceId) -> Vec<GatewayId>,
    ) -> Option<ClientEvent> {
        if let Some(config) = self.tun_config.take() {
            return Some(ClientEvent::TunConfigUpdated(config));
        }
        if let Some(resources) = self.resources.take() {
            return Some(ClientEvent::ResourcesChanged(resources));
        }
        if let Some(resource) = self.intents.pop_front() {
            return Some(ClientEvent::ConnectionIntent {
                resource,
                connected_gateways: preferred(resource),
            });
        }
        if let Some(event) = self.poll_candidates() {
            return Some(event);
        }

        std::mem::take(&mut self.no_relays).then_some(ClientEvent::NoRelays)
    }

    fn poll_candidates(&mut self) -> Option<ClientEvent> {
        let mut entry = self.candidates.first_entry()?;
        let gateway = *entry.key();
        let candidates = entry.get_mut();

        if !candidates.removed.is_empty() && !candidates.added.is_empty() {
            let candidates = std::mem::take(&mut candidates.removed);
            return Some(ClientEvent::RemovedIceCandidates {
                gateway,
                candidates,
            });
        }

        let Candidates { removed, added } = entry.remove();
        if added.is_empty() {
            return Some(ClientEvent::RemovedIceCandidates {
                gateway,
                candidates: removed,
            });
        }

        Some(ClientEvent::AddedIceCandidates {
            gateway,
            candidates: added,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: GatewayId = GatewayId::from_u128(1);

    #[test]
    fn candidates_are_batched_per_gateway() {
        let mut outbox = Outbox::new();
        outbox.add_candidate(GATEWAY, "b".to_owned());
        outbox.remove_candidate(GATEWAY, "c".to_owned());
        outbox.add_candidate(GATEWAY, "a".to_owned());

        let added = ClientEvent::AddedIceCandidates {
            gateway: GATEWAY,
            candidates: BTreeSet::from(["a".to_owned(), "b".to_owned()]),
        };
        let removed = ClientEvent::RemovedIceCandidates {
            gateway: GATEWAY,
            candidates: BTreeSet::from(["c".to_owned()]),
        };
        assert_eq!(poll(&mut outbox), Some(removed));
        assert_eq!(poll(&mut outbox), Some(added));
        assert!(outbox.is_empty());
        assert_eq!(poll(&mut outbox), None);
    }

    #[test]
    fn last_word_about_a_candidate_counts() {
        let mut outbox = Outbox::new();
        outbox.add_candidate(GATEWAY, "a".to_owned());
        outbox.remove_candidate(GATEWAY, "a".to_owned());
        assert!(matches!(
            poll(&mut outbox),
            Some(ClientEvent::RemovedIceCandidates { .. })
        ));

        outbox.remove_candidate(GATEWAY, "a".to_owned());
        outbox.add_candidate(GATEWAY, "a".to_owned());
        assert!(matches!(
            poll(&mut outbox),
            Some(ClientEvent::AddedIceCandidates { .. })
        ));
        assert!(outbox.is_empty());
    }

    #[test]
    fn intent_is_pending_once_per_resource() {
        let mut outbox = Outbox::new();
        let (first, second) = (ResourceId::from_u128(2), ResourceId::from_u128(1));
        for _ in 0..3 {
            outbox.push_intent(first);
            outbox.push_intent(second);
        }
        outbox.drop_intent(second);
        assert!(matches!(
            poll(&mut outbox),
            Some(ClientEvent::ConnectionIntent { resource, .. }) if resource == first
        ));
        assert_eq!(poll(&mut outbox), None);
    }

    fn poll(outbox: &mut Outbox) -> Option<ClientEvent> {
        outbox.poll(|_| vec![])
    }
}

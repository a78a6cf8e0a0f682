//! Candidate changes that wait for the portal.
//!
//! Candidates are signalled once and never acknowledged: one that is lost is lost for ever, and with it perhaps the only
//! path. While the portal is unreachable their net change is kept per peer, so that adding and removing the same candidate
//! cancel out and a long outage costs no memory.

use std::collections::{BTreeMap, BTreeSet};

/// Candidates kept per peer and direction; far above what a host with many interfaces and a few relays has.
const MAX_CANDIDATES: usize = 128;

/// Net changes per peer `P`.
#[derive(Debug)]
pub(crate) struct HeldBack<P> {
    peers: BTreeMap<P, Change>,
}

/// The net change for one peer. No candidate is in both sets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) removed: BTreeSet<String>,
    pub(crate) added: BTreeSet<String>,
}

impl<P: Copy + Ord> HeldBack<P> {
    pub(crate) fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, peer: P, candidates: impl IntoIterator<Item = String>) {
        let change = self.peers.entry(peer).or_default();
        for candidate in candidates {
            if !change.removed.remove(&candidate) {
                insert_bounded(&mut change.added, candidate);
            }
        }
    }

    pub(crate) fn remove(&mut self, peer: P, candidates: impl IntoIterator<Item = String>) {
        let change = self.peers.entry(peer).or_default();
        for candidate in candidates {
            if !change.added.remove(&candidate) {
                insert_bounded(&mut change.removed, candidate);
            }
        }
    }

    /// Hands out all changes, by ascending peer.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (P, Change)> + use<P> {
        std::mem::take(&mut self.peers).into_iter()
    }

    /// The connections that the candidates belong to are gone.
    pub(crate) fn clear(&mut self) {
        self.peers.clear();
    }
}

fn insert_bounded(set: &mut BTreeSet<String>, candidate: String) {
    if set.len() < MAX_CANDIDATES {
        set.insert(candidate);
    } else {
        tracing::debug!("too many candidates are held back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // portal 70
    #[test]
    fn portal_70_opposing_changes_cancel_out() {
        let mut held = HeldBack::new();
        held.add(1, candidates(&["a", "b"]));
        held.remove(1, candidates(&["a", "c"]));
        held.add(1, candidates(&["c"]));

        let changes = held.take().collect::<Vec<_>>();
        let expected = Change {
            removed: BTreeSet::new(),
            added: BTreeSet::from(["b".to_owned()]),
        };
        assert_eq!(changes, [(1, expected)]);
        assert_eq!(held.take().count(), 0);
    }

    #[test]
    fn relay_that_flaps_for_a_day_costs_nothing() {
        let mut held = HeldBack::new();
        for i in 0..10_000 {
            let candidate = vec![format!("relay {i}")];
            held.add(1, candidate.clone());
            held.remove(1, candidate);
        }
        assert_eq!(held.take().next(), Some((1, Change::default())));
    }

    #[test]
    fn number_of_candidates_is_bounded() {
        let mut held = HeldBack::new();
        held.add(1, (0..1000).map(|i| i.to_string()));
        let (_, change) = held.take().next().expect("one peer");
        assert_eq!(change.added.len(), MAX_CANDIDATES);
    }

    fn candidates(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }
}

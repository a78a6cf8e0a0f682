//! Which ports are free. Ports are drawn uniformly at random, never in order, so that outsiders cannot guess them.

use rand::Rng;

use crate::{address::AllocationPort, config::PortRange, shard::Shard};

/// A wish for the next port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parity {
    /// Any port.
    Any,
    /// EVEN-PORT (RFC 8656 §18.6).
    Even,
}

/// The ports of the range that belong to nobody; drawing and giving back take constant time.
#[derive(Debug)]
pub(crate) struct FreePorts {
    even: Vec<u16>,
    odd: Vec<u16>,
}

impl FreePorts {
    /// All ports of the shard but the listen port.
    pub(crate) fn new(range: &PortRange, shard: Shard, listen_port: u16) -> Self {
        let (even, odd) = range
            .iter()
            .filter(|port| *port != listen_port && shard.owns(*port))
            .partition(|port| port.is_multiple_of(2));
        Self { even, odd }
    }

    /// Takes a random port; `None` when no suitable one is left.
    pub(crate) fn take(&mut self, parity: Parity, rng: &mut impl Rng) -> Option<AllocationPort> {
        let evens = self.even.len();
        let choices = match parity {
            Parity::Any => evens + self.odd.len(),
            Parity::Even => evens,
        };
        if choices == 0 {
            return None;
        }
        let choice = rng.random_range(0..choices);
        let port = match choice.checked_sub(evens) {
            None => self.even.swap_remove(choice),
            Some(odd) => self.odd.swap_remove(odd),
        };
        Some(AllocationPort::new(port))
    }

    /// Gives a port back that was taken before.
    pub(crate) fn put_back(&mut self, port: AllocationPort) {
        let port = port.get();
        match port.is_multiple_of(2) {
            true => self.even.push(port),
            false => self.odd.push(port),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.even.is_empty() && self.odd.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.even.len() + self.odd.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use std::collections::BTreeSet;

    #[test]
    fn every_port_once_and_never_the_listen_port() {
        let mut rng = ChaCha20Rng::from_seed([0; 32]);
        let mut ports = FreePorts::new(&PortRange::new(10, 19).unwrap(), Shard::WHOLE, 13);
        let mut drawn = BTreeSet::new();
        while let Some(port) = ports.take(Parity::Any, &mut rng) {
            assert!(drawn.insert(port.get()));
        }
        assert_eq!(
            drawn.into_iter().collect::<Vec<_>>(),
            [10, 11, 12, 14, 15, 16, 17, 18, 19]
        );
        assert!(ports.is_empty());
        ports.put_back(AllocationPort::new(15));
        assert_eq!(ports.take(Parity::Even, &mut rng), None);
        assert_eq!(ports.len(), 1);
    }
}

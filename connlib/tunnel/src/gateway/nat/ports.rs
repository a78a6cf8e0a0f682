//! Allocation of outside ports and echo identifiers.
//!
//! Used values are kept as maximal runs, so that the first free value behind any value is found in logarithmic time,
//! however full the space is: otherwise a client could make the gateway search 65 536 values per packet.

use std::collections::BTreeMap;

use super::tuple::Tuple;

/// Used outside values per far end and protocol.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// First tuple of a run of used values to its last value. Runs neither overlap nor touch.
    runs: BTreeMap<Tuple, u16>,
}

impl Ports {
    /// Takes the first free value of: `wanted`'s own, then upwards to 65 535, then from 1 upwards.
    ///
    /// `None` if there is none.
    pub(super) fn allocate(&mut self, wanted: Tuple) -> Option<Tuple> {
        let value = self
            .first_free(wanted)
            .or_else(|| self.first_free(wanted.with_value(1)))?;
        let tuple = wanted.with_value(value);
        self.insert(tuple);
        Some(tuple)
    }

    /// Gives a value back.
    pub(super) fn release(&mut self, tuple: Tuple) {
        let Some((first, last)) = self.run_of(tuple) else {
            return;
        };
        self.runs.remove(&first);
        let value = tuple.value();
        if first.value() < value {
            self.runs.insert(first, value - 1);
        }
        if value < last {
            self.runs.insert(tuple.with_value(value + 1), last);
        }
    }

    /// The first free value from `tuple`'s upwards.
    fn first_free(&self, tuple: Tuple) -> Option<u16> {
        match self.run_of(tuple) {
            Some((_, last)) => last.checked_add(1),
            None => Some(tuple.value()),
        }
    }

    fn run_of(&self, tuple: Tuple) -> Option<(Tuple, u16)> {
        let (first, last) = self.runs.range(tuple.with_value(0)..=tuple).next_back()?;
        (tuple.value() <= *last).then_some((*first, *last))
    }

    /// Adds a free value, joining the runs that it touches.
    fn insert(&mut self, tuple: Tuple) {
        let value = tuple.value();
        let (mut first, mut last) = (tuple, value);
        if let Some(before) = value.checked_sub(1)
            && let Some((run, _)) = self.run_of(tuple.with_value(before))
        {
            first = run;
        }
        if let Some(after) = value.checked_add(1)
            && let Some(end) = self.runs.remove(&tuple.with_value(after))
        {
            last = end;
        }
        self.runs.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ip_packet::Protocol;
    use proptest::prelude::*;

    use super::*;

    fn tcp(port: u16) -> Tuple {
        Tuple::new([10, 0, 0, 1].into(), Protocol::Tcp(port))
    }

    fn values(ports: &mut Ports, wanted: &[u16]) -> Vec<Option<u16>> {
        wanted
            .iter()
            .map(|port| ports.allocate(tcp(*port)).map(Tuple::value))
            .collect()
    }

    // tunnel 59
    #[test]
    fn tunnel_59_own_port_then_upwards_then_from_one() {
        let mut ports = Ports::default();
        let allocated = values(&mut ports, &[5000, 5000, 5001, 65535, 65535, 65535, 0, 0]);
        let expected = [5000, 5001, 5002, 65535, 1, 2, 0, 3].map(Some);
        assert_eq!(allocated, expected);
    }

    // tunnel 59
    #[test]
    fn tunnel_59_exhaustion_is_an_answer() {
        let mut ports = Ports::default();
        for _ in 0..=u16::MAX {
            assert!(ports.allocate(tcp(0)).is_some());
        }
        assert_eq!(ports.allocate(tcp(0)), None);
        assert_eq!(ports.allocate(tcp(77)), None);
        assert_eq!(ports.runs.len(), 1);

        ports.release(tcp(300));
        assert_eq!(ports.allocate(tcp(77)), Some(tcp(300)));
    }

    #[test]
    fn protocols_and_addresses_do_not_compete() {
        let mut ports = Ports::default();
        let others = [
            tcp(7),
            Tuple::new([10, 0, 0, 1].into(), Protocol::Udp(7)),
            Tuple::new([10, 0, 0, 1].into(), Protocol::IcmpEcho(7)),
            Tuple::new([10, 0, 0, 2].into(), Protocol::Tcp(7)),
        ];
        for tuple in others {
            assert_eq!(ports.allocate(tuple), Some(tuple));
        }
    }

    proptest! {
        #[test]
        fn equals_a_plain_search(steps in proptest::collection::vec((any::<bool>(), 0u16..12, any::<bool>()), 0..200)) {
            let mut ports = Ports::default();
            let mut used = BTreeSet::new();
            for (allocate, low, at_end) in steps {
                let value = if at_end { u16::MAX - low } else { low };
                if allocate {
                    let expected = (value..=u16::MAX).chain(1..value.max(1)).find(|v| !used.contains(v));
                    prop_assert_eq!(ports.allocate(tcp(value)).map(Tuple::value), expected);
                    used.extend(expected);
                } else {
                    ports.release(tcp(value));
                    used.remove(&value);
                }
                let runs: Vec<_> = ports.runs.iter().map(|(first, last)| (first.value(), *last)).collect();
                prop_assert!(runs.windows(2).all(|pair| u32::from(pair[0].1) + 1 < u32::from(pair[1].0)));
            }
        }
    }
}

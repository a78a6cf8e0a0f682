//! Several servers behind one address (relay spec §4.3, stage 2).
//!
//! The system spreads clients over the servers by their address and port, always the same way; each server owns its
//! clients, their allocations and a disjoint part of the ports, and knows nothing of the others. Two things cross:
//! datagrams between two allocations of the relay ([`crate::Route::ToSibling`]), and the rule of so many allocations per
//! user name, for which [`Users`] counts. The driver carries both.

use std::collections::BTreeMap;

use crate::address::ClientSocket;

/// One of several servers. Ports go to servers in pairs, so that every server has even and odd ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u16,
    of: u16,
}

impl Shard {
    /// The only server.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Number `index` of `of` servers; `None` if there is no such server.
    #[must_use]
    pub const fn new(index: u16, of: u16) -> Option<Self> {
        match index < of {
            true => Some(Self { index, of }),
            false => None,
        }
    }

    /// Number of this server, from 0.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.index
    }

    /// How many servers there are.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.of
    }

    /// Whether there are others.
    #[must_use]
    pub const fn has_siblings(self) -> bool {
        self.of > 1
    }

    /// The server that hands out this port.
    #[must_use]
    pub const fn owner_of(self, port: u16) -> u16 {
        port / 2 % self.of
    }

    /// Whether this server hands out the port.
    #[must_use]
    pub const fn owns(self, port: u16) -> bool {
        self.owner_of(port) == self.index
    }

    /// This server's part of a limit that holds for all of them together; at least 1.
    #[must_use]
    pub fn part_of(self, limit: usize) -> usize {
        (limit / usize::from(self.of)).max(1)
    }
}

/// An allocation, as seen by [`Users`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Index of the server that has it.
    pub shard: u16,
    /// Whose it is.
    pub client: ClientSocket,
}

/// Who holds allocations under which user name, over all servers: fed with [`crate::Command::UserGained`] and
/// [`crate::Command::UserLost`], it tells which allocation has to make room.
#[derive(Debug, Default)]
pub struct Users {
    /// Oldest first.
    holders: BTreeMap<String, Vec<Holder>>,
}

impl Users {
    /// A user has one allocation more. Returns the oldest one if there are more than `limit` now; 0 means any number.
    pub fn gained(&mut self, username: &str, holder: Holder, limit: usize) -> Option<Holder> {
        let holders = self.holders.entry(username.to_owned()).or_default();
        holders.retain(|other| *other != holder);
        holders.push(holder);
        (limit > 0 && holders.len() > limit).then(|| holders.remove(0))
    }

    /// A user has one allocation less.
    pub fn lost(&mut self, username: &str, holder: Holder) {
        if let Some(holders) = self.holders.get_mut(username) {
            holders.retain(|other| *other != holder);
            if holders.is_empty() {
                self.holders.remove(username);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(shard: u16, port: u16) -> Holder {
        let client = ClientSocket::new(([192, 0, 2, 1], port).into());
        Holder { shard, client }
    }

    // relay C-60
    #[test]
    fn relay_60_shards_are_disjoint_and_complete() {
        for of in 1..=9 {
            let shards: Vec<_> = (0..of)
                .map(|index| Shard::new(index, of).unwrap())
                .collect();
            for port in 49152..=u16::MAX {
                let owners: Vec<_> = shards.iter().filter(|shard| shard.owns(port)).collect();
                assert_eq!(owners.len(), 1);
                assert_eq!(owners[0].index(), shards[0].owner_of(port));
            }
            assert_eq!(Shard::new(of, of), None);
        }
    }

    #[test]
    fn relay_60_the_oldest_allocation_of_a_user_makes_room() {
        let mut users = Users::default();
        assert_eq!(users.gained("a", holder(0, 1), 2), None);
        assert_eq!(users.gained("b", holder(0, 9), 2), None);
        assert_eq!(users.gained("a", holder(1, 2), 2), None);
        assert_eq!(users.gained("a", holder(2, 3), 2), Some(holder(0, 1)));
        // The server that had it reports its end; it is not counted any more.
        users.lost("a", holder(0, 1));
        assert_eq!(users.gained("a", holder(2, 3), 2), None);
        users.lost("a", holder(1, 2));
        users.lost("a", holder(2, 3));
        users.lost("b", holder(0, 9));
        assert!(users.holders.is_empty());
    }
}

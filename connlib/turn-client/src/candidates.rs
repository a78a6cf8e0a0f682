//! The candidates that one allocation knows: one slot per kind and family (snownet spec §2.8).
//!
//! One slot per family and allocation bounds their number, and several allocations together still support several egress
//! interfaces. A changed host or server-reflexive candidate replaces its predecessor without invalidating it.

use std::net::SocketAddr;

use is::{Candidate, Protocol};
use tracing::debug;

/// A slot for each address family.
#[derive(Debug, Default)]
struct Slots {
    v4: Option<Candidate>,
    v6: Option<Candidate>,
}

impl Slots {
    fn of(&mut self, family_of: SocketAddr) -> &mut Option<Candidate> {
        match family_of {
            SocketAddr::V4(_) => &mut self.v4,
            SocketAddr::V6(_) => &mut self.v6,
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.v4.iter().chain(&self.v6)
    }
}

/// All candidates of one allocation.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    host: Slots,
    reflexive: Slots,
    relayed: Slots,
}

impl Candidates {
    /// Host and server-reflexive candidates.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Candidate> {
        self.host.iter().chain(self.reflexive.iter())
    }

    /// Relayed candidates, IPv4 first.
    pub(crate) fn relayed(&self) -> impl Iterator<Item = &Candidate> {
        self.relayed.iter()
    }

    /// The relayed address of the family of `peer`.
    pub(crate) fn relayed_for(&self, peer: SocketAddr) -> Option<SocketAddr> {
        let slot = match peer {
            SocketAddr::V4(_) => &self.relayed.v4,
            SocketAddr::V6(_) => &self.relayed.v6,
        };
        slot.as_ref().map(Candidate::addr)
    }

    /// Learns from a BINDING success; returns what is new.
    pub(crate) fn discover(
        &mut self,
        server: SocketAddr,
        local: SocketAddr,
        mapped: Option<SocketAddr>,
    ) -> Vec<Candidate> {
        let mut news = Vec::new();
        let host = Candidate::host(local, Protocol::Udp);
        news.extend(replace(self.host.of(server), host));
        if let Some(mapped) = mapped {
            let reflexive = Candidate::server_reflexive(mapped, local, Protocol::Udp);
            news.extend(replace(self.reflexive.of(server), reflexive));
        }
        news
    }

    /// Takes over the addresses of a new allocation; returns the usable candidates.
    ///
    /// `local` is the address used to talk to the relay: relayed candidates of its family rank above the others.
    pub(crate) fn allocate(
        &mut self,
        addresses: &[SocketAddr],
        local: SocketAddr,
    ) -> Vec<Candidate> {
        let mut news = Vec::new();
        for address in addresses {
            let slot = self.relayed.of(*address);
            if slot.is_none() {
                news.extend(replace(
                    slot,
                    Candidate::relayed(*address, local, Protocol::Udp),
                ));
            }
        }
        news
    }

    /// Forgets the relayed candidates and returns them.
    pub(crate) fn take_relayed(&mut self) -> Vec<Candidate> {
        let relayed = std::mem::take(&mut self.relayed);
        relayed.v4.into_iter().chain(relayed.v6).collect()
    }
}

/// Fills a slot; returns the candidate when it differs from the one before.
fn replace(
    slot: &mut Option<Candidate>,
    candidate: Result<Candidate, is::IceError>,
) -> Option<Candidate> {
    let candidate = match candidate {
        Ok(candidate) => candidate,
        Err(error) => {
            debug!(%error, "Address is no candidate");
            return None;
        }
    };
    if slot.as_ref() == Some(&candidate) {
        return None;
    }
    *slot = Some(candidate.clone());
    Some(candidate)
}

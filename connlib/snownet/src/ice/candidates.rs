//! Reading the peer's candidates, and guessing one more.

use std::net::{IpAddr, SocketAddr};

use is::{Candidate, CandidateKind, Protocol};

/// Most guessed candidates per connection.
pub(crate) const MAX_OPTIMISTIC: usize = 2;

/// Longest accepted SDP line of one candidate (bytes); real ones stay below 200.
const MAX_SDP_LEN: usize = 512;

/// Reads one candidate of the peer. `None` if it is malformed or names no unicast UDP address.
pub(crate) fn parse_remote(sdp: &str) -> Option<Candidate> {
    if sdp.len() > MAX_SDP_LEN {
        return None;
    }
    let candidate = Candidate::from_sdp_string(sdp).ok()?;
    let usable = candidate.proto() == Protocol::Udp
        && candidate.addr().port() != 0
        && is_unicast(candidate.addr().ip());
    usable.then_some(candidate)
}

/// Candidates that exist if the peer's NAT forwards the port on which the peer listens.
///
/// A symmetric NAT shows relays another port than the forwarded one, so the peer's public address
/// is combined with its host ports. IPv4 only: IPv6 hosts are not behind port forwards, and the
/// number of combinations would explode.
pub(crate) fn optimistic(remotes: &[Candidate]) -> Vec<Candidate> {
    let reflexive = ipv4_of_kind(remotes, CandidateKind::ServerReflexive);
    let hosts = ipv4_of_kind(remotes, CandidateKind::Host);
    let mut guesses: Vec<Candidate> = Vec::new();
    for public in &reflexive {
        for host in &hosts {
            let addr = SocketAddr::new(public.addr().ip(), host.addr().port());
            let known = remotes.iter().chain(&guesses).any(|c| c.addr() == addr);
            if !known && guesses.len() < MAX_OPTIMISTIC {
                guesses.push(guess(addr, public.prio()));
            }
        }
    }
    guesses
}

/// A server-reflexive candidate that ranks directly below the one it was guessed from.
fn guess(addr: SocketAddr, prio: u32) -> Candidate {
    Candidate::from_parts(
        "optimistic".to_owned(),
        1,
        Protocol::Udp,
        prio.saturating_sub(1).max(1),
        addr,
        CandidateKind::ServerReflexive,
        None,
        None,
        None,
    )
}

fn ipv4_of_kind(candidates: &[Candidate], kind: CandidateKind) -> Vec<&Candidate> {
    candidates
        .iter()
        .filter(|c| c.kind() == kind && c.addr().is_ipv4())
        .collect()
}

fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_link_local()
        }
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(addr: &str) -> Candidate {
        Candidate::host(addr.parse().expect("address"), "udp").expect("valid")
    }

    fn reflexive(addr: &str, base: &str) -> Candidate {
        let (addr, base) = (addr.parse().expect("addr"), base.parse().expect("base"));
        Candidate::server_reflexive(addr, base, "udp").expect("valid")
    }

    #[test]
    fn snownet_36_public_address_is_combined_with_host_port() {
        let remotes = [
            host("192.168.0.2:52625"),
            reflexive("203.0.113.1:4711", "192.168.0.2:52625"),
        ];
        let guesses = optimistic(&remotes);
        assert_eq!(guesses.len(), 1);
        assert_eq!(
            guesses[0].addr(),
            "203.0.113.1:52625".parse().expect("addr")
        );
        assert!(guesses[0].prio() < remotes[1].prio());
    }

    #[test]
    fn snownet_36_at_most_two_and_ipv4_only() {
        let remotes = [
            host("192.168.0.2:1001"),
            host("192.168.1.2:1002"),
            host("192.168.2.2:1003"),
            host("[fd00::1]:1004"),
            reflexive("203.0.113.1:4711", "192.168.0.2:1001"),
            reflexive("[2001:db8::1]:4712", "[fd00::1]:1004"),
        ];
        let guesses = optimistic(&remotes);
        assert_eq!(guesses.len(), MAX_OPTIMISTIC);
        assert!(guesses.iter().all(|c| c.addr().is_ipv4()));
    }

    #[test]
    fn nothing_is_guessed_when_the_port_is_kept() {
        let remotes = [
            host("192.168.0.2:52625"),
            reflexive("203.0.113.1:52625", "192.168.0.2:52625"),
        ];
        assert!(optimistic(&remotes).is_empty());
    }

    #[test]
    fn unusable_remote_candidates_are_refused() {
        let line = |addr: &str, proto: &str| format!("candidate:1 1 {proto} 1 {addr} typ host");
        assert!(parse_remote(&line("192.0.2.1 5", "udp")).is_some());
        for bad in [
            line("0.0.0.0 5", "udp"),
            line("255.255.255.255 5", "udp"),
            line("224.0.0.1 5", "udp"),
            line("ff02::1 5", "udp"),
            line("192.0.2.1 0", "udp"),
            line("192.0.2.1 5", "tcp"),
            "nonsense".to_owned(),
            "candidate:".repeat(100),
        ] {
            assert!(parse_remote(&bad).is_none(), "{bad}");
        }
    }
}

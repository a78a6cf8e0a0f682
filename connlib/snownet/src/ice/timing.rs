//! Check intervals and the timeouts that follow from them.

use std::time::Duration;

use crate::Role;

/// Retransmission schedule of connectivity checks.
///
/// A pair that stops answering is given up after the sum of its waits; a healthy one is
/// checked every `max_rto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) initial_rto: Duration,
    pub(crate) max_rto: Duration,
    pub(crate) retransmits: usize,
}

/// As patient as [`CLIENT_ACTIVE`], but quick to repeat: the first checks are lost whenever the other end's NAT or relay
/// does not know us yet, and whoever waits for the first byte waits for their repetition.
const CLIENT_CONNECTING: Timing = Timing {
    initial_rto: Duration::from_millis(50),
    max_rto: Duration::from_millis(1500),
    retransmits: 14,
};

/// Notices a dead path in 16.5 s: shorter than the handshake attempt time (20 s) and the idle delay.
const CLIENT_ACTIVE: Timing = Timing {
    initial_rto: Duration::from_millis(250),
    max_rto: Duration::from_millis(1500),
    retransmits: 12,
};

/// Keeps NAT mappings (30 s when unconfirmed) alive.
const CLIENT_IDLE: Timing = Timing {
    initial_rto: Duration::from_secs(25),
    max_rto: Duration::from_secs(25),
    retransmits: 4,
};

/// The controlled side cannot reconnect by itself, so a false cut hurts: it waits 10 minutes.
const GATEWAY_ACTIVE: Timing = Timing {
    initial_rto: Duration::from_millis(250),
    max_rto: Duration::from_secs(15),
    retransmits: 45,
};

/// At least as patient as [`GATEWAY_ACTIVE`].
const GATEWAY_CONNECTING: Timing = Timing {
    initial_rto: Duration::from_millis(50),
    max_rto: Duration::from_secs(15),
    retransmits: 48,
};

const GATEWAY_IDLE: Timing = Timing {
    initial_rto: Duration::from_secs(25),
    max_rto: Duration::from_secs(25),
    retransmits: 40,
};

impl Timing {
    /// While no path was found yet.
    pub(crate) fn connecting(role: Role) -> Self {
        match role {
            Role::Client => CLIENT_CONNECTING,
            Role::Gateway => GATEWAY_CONNECTING,
        }
    }

    /// While packets flow.
    pub(crate) fn active(role: Role) -> Self {
        match role {
            Role::Client => CLIENT_ACTIVE,
            Role::Gateway => GATEWAY_ACTIVE,
        }
    }

    /// While nothing is tunnelled.
    pub(crate) fn idle(role: Role) -> Self {
        match role {
            Role::Client => CLIENT_IDLE,
            Role::Gateway => GATEWAY_IDLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IceCredentials;
    use crate::ice::Agent;

    fn timeout(role: Role, timing: Timing) -> Duration {
        let credentials = IceCredentials::new("abcd", "password").expect("valid");
        let mut agent = Agent::new(role, &credentials, &credentials, 0);
        agent.set_timing(timing);
        agent.inner.ice_timeout()
    }

    #[test]
    fn timeouts_are_the_specified_sums() {
        let cases = [
            (Role::Client, Timing::connecting(Role::Client), 16_500),
            (Role::Gateway, Timing::connecting(Role::Gateway), 625_500),
            (Role::Client, Timing::active(Role::Client), 16_500),
            (Role::Client, Timing::idle(Role::Client), 100_000),
            (Role::Gateway, Timing::active(Role::Gateway), 615_500),
            (Role::Gateway, Timing::idle(Role::Gateway), 1_000_000),
        ];
        for (role, timing, millis) in cases {
            assert_eq!(timeout(role, timing), Duration::from_millis(millis));
        }
    }

    #[test]
    fn new_agents_are_as_patient_as_active_ones() {
        let credentials = IceCredentials::new("abcd", "password").expect("valid");
        let agent = Agent::new(Role::Client, &credentials, &credentials, 0);
        assert_eq!(agent.inner.ice_timeout(), Duration::from_millis(16_500));
    }
}

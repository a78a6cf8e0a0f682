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

const GATEWAY_IDLE: Timing = Timing {
    initial_rto: Duration::from_secs(25),
    max_rto: Duration::from_secs(25),
    retransmits: 40,
};

impl Timing {
    /// While packets flow or a path is being looked for.
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
    fn new_agents_start_in_active_timing() {
        let credentials = IceCredentials::new("abcd", "password").expect("valid");
        let agent = Agent::new(Role::Client, &credentials, &credentials, 0);
        assert_eq!(agent.inner.ice_timeout(), Duration::from_millis(16_500));
    }
}

//! Who waits for which look-up.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use connlib_dns::QueryId;

/// Look-ups under way: what the host's sockets (1000) and the in-tunnel client (1024) take. The oldest gives way.
const MAX_PENDING: usize = 2024;

/// A query and whom to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) asker: Asker,
    /// The DNS message as it came.
    pub(crate) message: Vec<u8>,
}

/// Whom to answer, and from which address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Udp {
        from: SocketAddr,
        sentinel: SocketAddr,
    },
    Tcp {
        from: SocketAddr,
        sentinel: SocketAddr,
    },
    /// Somebody who asked the link (RFC 4795). Only names of resources are answered.
    LinkLocal {
        from: SocketAddr,
        responder: SocketAddr,
    },
}

impl Asker {
    /// The address that answers.
    pub(crate) fn local(&self) -> SocketAddr {
        match self {
            Self::Udp { sentinel, .. } | Self::Tcp { sentinel, .. } => *sentinel,
            Self::LinkLocal { responder, .. } => *responder,
        }
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }
}

/// Which way a look-up takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// By the host's own sockets.
    Host,
    /// By the clients inside the tunnel.
    Tunnel,
}

/// All look-ups under way, by ascending age.
#[derive(Debug)]
pub(super) struct Pending {
    next_id: u64,
    questions: BTreeMap<QueryId, (Question, Route)>,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self {
            next_id: 0,
            questions: BTreeMap::new(),
        }
    }

    /// Remembers `question`. Returns the one that had to give way.
    pub(super) fn insert(
        &mut self,
        question: Question,
        route: Route,
    ) -> (QueryId, Option<Question>) {
        let evicted = if self.questions.len() == MAX_PENDING {
            self.questions
                .pop_first()
                .map(|(_, (question, _))| question)
        } else {
            None
        };
        let id = QueryId(self.next_id);
        self.next_id += 1;
        self.questions.insert(id, (question, route));

        (id, evicted)
    }

    pub(super) fn take(&mut self, id: QueryId) -> Option<(Question, Route)> {
        self.questions.remove(&id)
    }

    /// Forgets what the host's sockets were asked.
    pub(super) fn forget_host(&mut self) {
        self.questions.retain(|_, (_, route)| *route != Route::Host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_has_an_id_of_its_own() {
        let mut pending = Pending::new();
        let (a, _) = pending.insert(question(1), Route::Host);
        let (b, _) = pending.insert(question(1), Route::Tunnel);
        assert_ne!(a, b);
        assert_eq!(pending.take(a), Some((question(1), Route::Host)));
        assert_eq!(pending.take(a), None);
        assert_eq!(pending.take(b), Some((question(1), Route::Tunnel)));
    }

    #[test]
    fn oldest_question_gives_way() {
        let mut pending = Pending::new();
        for port in 0..MAX_PENDING as u16 {
            assert_eq!(pending.insert(question(port), Route::Host).1, None);
        }
        assert_eq!(
            pending.insert(question(9), Route::Host).1,
            Some(question(0))
        );
    }

    // tunnel 28
    #[test]
    fn tunnel_28_reset_forgets_host_look_ups_only() {
        let mut pending = Pending::new();
        let (host, _) = pending.insert(question(1), Route::Host);
        let (tunnel, _) = pending.insert(question(2), Route::Tunnel);
        pending.forget_host();
        assert_eq!(pending.take(host), None);
        assert!(pending.take(tunnel).is_some());
    }

    fn question(port: u16) -> Question {
        Question {
            asker: Asker::Udp {
                from: ([100, 64, 0, 1], port).into(),
                sentinel: ([100, 100, 111, 1], 53).into(),
            },
            message: vec![],
        }
    }
}

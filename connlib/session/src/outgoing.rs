//! The channel as a session sees it: is it there, and what waits to be sent.

use std::collections::VecDeque;

use connlib_tunnel::PublicKey;

use crate::PortalOutput;

/// Whether messages can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// There is no connection.
    Down,
    /// The topic is joined, but the state that the portal sends first has not arrived.
    AwaitingInit,
    Up,
}

/// Outputs that wait to be polled. Nothing is queued for a connection that does not exist.
#[derive(Debug)]
pub(crate) struct Outgoing<S> {
    link: Link,
    queue: VecDeque<PortalOutput<S>>,
}

impl<S> Outgoing<S> {
    pub(crate) fn new() -> Self {
        Self {
            link: Link::Down,
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn on_connected(&mut self) {
        self.link = Link::AwaitingInit;
    }

    pub(crate) fn on_init(&mut self) {
        self.link = Link::Up;
    }

    /// Returns the messages that were waiting for the connection that is lost.
    pub(crate) fn on_disconnected(&mut self) -> Vec<S> {
        self.link = Link::Down;
        let (reconnects, unsent) = self
            .queue
            .drain(..)
            .partition::<Vec<_>, _>(|output| matches!(output, PortalOutput::Reconnect { .. }));
        self.queue.extend(reconnects);

        unsent
            .into_iter()
            .filter_map(|output| match output {
                PortalOutput::Send(message) => Some(message),
                PortalOutput::Reconnect { .. } => None,
            })
            .collect()
    }

    /// Whether the topic is joined.
    pub(crate) fn is_connected(&self) -> bool {
        self.link != Link::Down
    }

    /// Whether the portal has sent its state, so that what we ask for fits it.
    pub(crate) fn is_up(&self) -> bool {
        self.link == Link::Up
    }

    /// Queues a message. The caller has checked that it may be sent now.
    pub(crate) fn send(&mut self, message: S) {
        self.queue.push_back(PortalOutput::Send(message));
    }

    /// Gives the connection up in favour of a new one; what waits for the old one is dropped.
    pub(crate) fn reconnect(&mut self, public_key: PublicKey) {
        self.link = Link::Down;
        self.queue.clear();
        self.queue.push_back(PortalOutput::Reconnect { public_key });
    }

    pub(crate) fn pop(&mut self) -> Option<PortalOutput<S>> {
        self.queue.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PublicKey = PublicKey([1; 32]);

    #[test]
    fn loss_of_the_connection_returns_what_was_not_sent() {
        let mut outgoing = Outgoing::new();
        outgoing.on_connected();
        outgoing.send(1);
        outgoing.send(2);
        assert_eq!(outgoing.on_disconnected(), [1, 2]);
        assert!(outgoing.is_empty() && !outgoing.is_connected());
    }

    #[test]
    fn reconnect_supersedes_everything_and_survives_the_loss() {
        let mut outgoing = Outgoing::new();
        outgoing.on_connected();
        outgoing.on_init();
        outgoing.send(1);
        outgoing.reconnect(KEY);
        assert!(!outgoing.is_up());
        assert!(outgoing.on_disconnected().is_empty());
        assert_eq!(
            outgoing.pop(),
            Some(PortalOutput::Reconnect { public_key: KEY })
        );
        assert_eq!(outgoing.pop(), None);
    }
}

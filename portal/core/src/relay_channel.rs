//! Relays come and go, and everybody else hears of it (portal protocol §7.4).
//!
//! A relay whose socket flaps is back within a second with the same secret, hence the same id. So nothing is announced
//! until presence was quiet for [`QUIET`]; then one look at what is there decides.

use std::time::{Duration, Instant};

use connlib_messages::{
    Relay, RelaysPresence,
    client::FromPortal as ToClient,
    gateway::FromPortal as ToGateway,
    relay::{FromPortal, Join},
};
use serde_json::Value;

use crate::{
    connection::{Channel, Connection, Peer, RelayView},
    derive::FAR_FUTURE,
    output::{CloseReason, Refusal},
    portal::{ConnectionId, Portal, Time},
    relays::{Asker, OnlineRelay, RELAYS_PER_COMPONENT},
    token::Component,
};

/// How long presence must be quiet before changes are announced.
const QUIET: Duration = Duration::from_secs(1);
/// The longest that flapping relays can put off an announcement.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Longest stamp secret; real ones have 64 characters.
const MAX_STAMP_SECRET: usize = 256;

/// Presence changed and was not announced yet.
#[derive(Debug)]
pub(crate) struct Settling {
    first: Instant,
    latest: Instant,
}

impl Settling {
    pub(crate) fn due(&self) -> Instant {
        (self.latest + QUIET).min(self.first + LONGEST_WAIT)
    }
}

impl Portal {
    pub(crate) fn join_relay(
        &mut self,
        id: ConnectionId,
        (topic, reference, payload): (String, Option<u64>, Value),
        time: Time,
    ) {
        let join = serde_json::from_value::<Join>(payload).ok();
        let usable =
            |join: &Join| (1..=MAX_STAMP_SECRET).contains(&join.stamp_secret.expose().len());
        let Some(join) = join.filter(usable) else {
            return self.reply(id, topic, reference, Err(Refusal::InvalidPayload));
        };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let coordinates = connection.location.coordinates;
        let Peer::Relay(relay) = &mut connection.peer else {
            return;
        };
        relay.channel = Channel::Joined(());
        let online = OnlineRelay {
            connection: id,
            listen: relay.listen,
            stamp_secret: join.stamp_secret,
            coordinates,
        };
        self.reply(id, topic, reference, Ok(()));
        self.push(id, &FromPortal::Init);
        // A process has one secret; a second join with another one is another relay.
        self.relays.leave(id);
        let (_, older) = self.relays.join(online);
        self.presence_changed(time);
        if let Some(older) = older {
            self.close(older, CloseReason::Replaced, time);
        }
    }

    pub(crate) fn relay_left(&mut self, id: ConnectionId, time: Time) {
        if self.relays.leave(id) {
            self.presence_changed(time);
        }
    }

    fn presence_changed(&mut self, time: Time) {
        let first = self.settling.as_ref().map_or(time.now, |s| s.first);
        self.settling = Some(Settling {
            first,
            latest: time.now,
        });
    }

    /// Announces what changed since relays were handed out, once presence is quiet.
    pub(crate) fn settle_relays(&mut self, time: Time) {
        if self.settling.as_ref().is_none_or(|s| s.due() > time.now) {
            return;
        }
        self.settling = None;
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            self.announce_relays(id);
        }
    }

    fn announce_relays(&mut self, id: ConnectionId) {
        let Some(mut view) = self.take_relay_view(id) else {
            return;
        };
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut view.handed_out)
            .into_iter()
            .partition(|(relay, listen)| !self.relays.is_online(relay, listen));
        view.handed_out = kept.into_iter().collect();
        let before = view.handed_out.len();
        let wants_more = before < RELAYS_PER_COMPONENT;
        let connection = self.connections.get(&id);
        let connected = match connection {
            Some(connection) if wants_more || !gone.is_empty() => {
                self.choose_relays(connection, &mut view)
            }
            Some(_) | None => Vec::new(),
        };
        let news = !gone.is_empty() || view.handed_out.len() > before;
        self.put_relay_view(id, view);
        if news {
            let disconnected_ids = gone.into_iter().map(|(relay, _)| relay).collect();
            self.push_presence(id, disconnected_ids, connected);
        }
    }

    /// The component says that it needs a relay and has none: other ones if there are, else the same again.
    pub(crate) fn answer_no_relays(&mut self, id: ConnectionId) {
        let Some(mut view) = self.take_relay_view(id) else {
            return;
        };
        view.attempt = view.attempt.wrapping_add(1);
        let before = std::mem::take(&mut view.handed_out);
        let connection = self.connections.get(&id);
        let connected = connection.map(|c| self.choose_relays(c, &mut view));
        let gone = before
            .into_keys()
            .filter(|relay| !view.handed_out.contains_key(relay));
        let gone = gone.collect();
        self.put_relay_view(id, view);
        self.push_presence(id, gone, connected.unwrap_or_default());
    }

    fn push_presence(
        &mut self,
        id: ConnectionId,
        disconnected_ids: Vec<connlib_model::RelayId>,
        connected: Vec<Relay>,
    ) {
        let presence = RelaysPresence {
            disconnected_ids,
            connected,
        };
        match self.connections.get(&id).map(Connection::component) {
            Some(Component::Client) => self.push(id, &ToClient::RelaysPresence(presence)),
            Some(Component::Gateway) => self.push(id, &ToGateway::RelaysPresence(presence)),
            Some(Component::Relay) | None => {}
        }
    }

    /// The relays for a component; notes them as handed out.
    pub(crate) fn choose_relays(
        &self,
        connection: &Connection,
        view: &mut RelayView,
    ) -> Vec<Relay> {
        let (device, key, expires_at, users) = match &connection.peer {
            Peer::Client(client) => {
                let end = connection.expires_at.unwrap_or(FAR_FUTURE);
                (client.id.uuid(), client.device.key, end, 1)
            }
            Peer::Gateway(gateway) => (
                gateway.id.uuid(),
                gateway.device.key,
                FAR_FUTURE,
                gateway.relay_users,
            ),
            Peer::Relay(_) => return Vec::new(),
        };
        let chosen = self.relays.choose(&Asker {
            device,
            key,
            expires_at,
            coordinates: connection.location.coordinates,
            attempt: view.attempt,
            users,
        });
        let chosen = chosen.into_iter().map(|(relay, listen)| {
            view.handed_out.insert(relay.id, listen);
            relay
        });
        chosen.collect()
    }

    fn take_relay_view(&mut self, id: ConnectionId) -> Option<RelayView> {
        let view = self.connections.get_mut(&id)?.relay_view_mut()?;
        Some(std::mem::take(view))
    }

    fn put_relay_view(&mut self, id: ConnectionId, view: RelayView) {
        let connection = self.connections.get_mut(&id);
        if let Some(slot) = connection.and_then(Connection::relay_view_mut) {
            *slot = view;
        }
    }
}

//! A portal with a small configuration, and components that speak to it.

use std::time::{Duration, Instant};

use connlib_messages::{Dialect, Key};
use connlib_model::{Filter, ResourceId, SiteId};
use portal_core::{
    CloseReason, Conditions, ConnectError, ConnectionId, Location, Login, LoginParameters, Output,
    Portal, Request, StoreOp, Stored, Time,
    config::{Config, Person, PersonId, Policy, PolicyId, ResourceConfig, Target},
    token::{Component, Holder, Token, TokenHash},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// Monday 2026-01-05, 12:00 UTC.
pub(crate) const NOON: u64 = 1_767_614_400;
pub(crate) const JO: PersonId = PersonId(Uuid::from_u128(0x10));
pub(crate) const EVE: PersonId = PersonId(Uuid::from_u128(0x11));
pub(crate) const BERLIN: SiteId = SiteId::from_u128(0x20);
pub(crate) const LAB: ResourceId = ResourceId::from_u128(0x30);
pub(crate) const WIKI: ResourceId = ResourceId::from_u128(0x31);
pub(crate) const LAB_POLICY: PolicyId = PolicyId(Uuid::from_u128(0x40));
pub(crate) const WIKI_POLICY: PolicyId = PolicyId(Uuid::from_u128(0x41));

/// Jo may reach a network and a wiki in Berlin; Eve may reach nothing.
pub(crate) fn config() -> Config {
    let person = |name: &str| Person {
        name: name.to_owned(),
        email: None,
    };
    let resource = |id, name: &str, target| ResourceConfig {
        id,
        name: name.to_owned(),
        description: None,
        target,
        sites: [BERLIN].into(),
        filters: vec![],
    };
    let policy = |resource| Policy {
        people: [JO].into(),
        resource,
        conditions: Conditions::default(),
    };
    let lab = Target::Cidr("10.40.0.0/16".parse().unwrap());
    let wiki = Target::Dns {
        pattern: "*.wiki.example".to_owned(),
        ip_stack: Default::default(),
    };
    let mut config = Config {
        sites: [(BERLIN, "Berlin".to_owned())].into(),
        resources: [
            (LAB, resource(LAB, "Lab", lab)),
            (WIKI, resource(WIKI, "Wiki", wiki)),
        ]
        .into(),
        people: [(JO, person("Jo")), (EVE, person("Eve"))].into(),
        policies: [(LAB_POLICY, policy(LAB)), (WIKI_POLICY, policy(WIKI))].into(),
        ..Config::default()
    };
    for (token, holder) in [
        ("jo", Holder::Client(JO)),
        ("eve", Holder::Client(EVE)),
        ("berlin", Holder::Gateway(BERLIN)),
        ("relay", Holder::Relay),
    ] {
        config.tokens.insert(TokenHash::of(token), token_of(holder));
    }
    config
}

pub(crate) fn token_of(holder: Holder) -> Token {
    Token {
        name: "token".to_owned(),
        holder,
        expires_at: None,
    }
}

/// What a component gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Got {
    Ok(u64),
    Error(u64, &'static str),
    Push(String, Value),
    Close(CloseReason),
}

pub(crate) struct World {
    pub(crate) portal: Portal,
    pub(crate) time: Time,
    pub(crate) config: Config,
    pub(crate) records: Records,
    log: Vec<(ConnectionId, Got)>,
}

/// What the server would keep.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) devices: Vec<portal_core::Device>,
    pub(crate) authorizations: Vec<portal_core::Authorization>,
}

/// How a component logs in.
pub(crate) struct Who<'a> {
    pub(crate) component: Component,
    pub(crate) dialect: Dialect,
    pub(crate) token: &'a str,
    pub(crate) id: &'a str,
    pub(crate) key: u8,
    pub(crate) user_agent: &'a str,
}

pub(crate) fn client() -> Who<'static> {
    Who {
        component: Component::Client,
        dialect: Dialect::Unversioned,
        token: "jo",
        id: "jo's laptop",
        key: 1,
        user_agent: "Ubuntu/24.04 connlib/1.5.0 (x86_64)",
    }
}

pub(crate) fn gateway() -> Who<'static> {
    Who {
        component: Component::Gateway,
        token: "berlin",
        id: "gateway 1",
        key: 2,
        ..client()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        let time = Time {
            now: Instant::now(),
            unix: NOON,
        };
        Self {
            portal: Portal::new(config.clone(), Stored::default(), [9; 32], time),
            time,
            config,
            records: Records::default(),
            log: Vec::new(),
        }
    }

    /// The portal ends and starts again with its records, another seed and the present configuration.
    pub(crate) fn restart(&mut self) {
        let stored = Stored {
            devices: self.records.devices.clone(),
            authorizations: self.records.authorizations.clone(),
            signing_key: [0; 32],
        };
        self.portal = Portal::new(self.config.clone(), stored, [10; 32], self.time);
        self.log.clear();
        self.drain();
    }

    pub(crate) fn connect(&mut self, who: &Who<'_>) -> Result<ConnectionId, ConnectError> {
        let key = Key([who.key; 32]).to_string();
        let query = [
            ("external_id", who.id),
            ("name", "a name"),
            ("public_key", &key),
            ("ipv4", "203.0.113.5"),
            ("ipv6", "2001:db8::5"),
        ];
        self.connect_with(who, &query)
    }

    pub(crate) fn connect_with(
        &mut self,
        who: &Who<'_>,
        query: &[(&str, &str)],
    ) -> Result<ConnectionId, ConnectError> {
        let login = Login {
            component: who.component,
            dialect: who.dialect,
            token: Some(who.token.to_owned()),
            parameters: LoginParameters::from_query(query.iter().copied()),
            user_agent: Some(who.user_agent.to_owned()),
            remote_ip: "198.51.100.7".parse().unwrap(),
            location: Location::default(),
        };
        let id = self.portal.connect(login, self.time);
        self.drain();
        id
    }

    /// Connects and joins; gives back what came after the join's reply.
    pub(crate) fn join(&mut self, who: &Who<'_>) -> (ConnectionId, Vec<Got>) {
        let id = self.connect(who).unwrap();
        let payload = match who.component {
            Component::Relay => json!({ "stamp_secret": format!("{:02x}", who.key).repeat(32) }),
            Component::Client | Component::Gateway => Value::Null,
        };
        self.send(id, who.component.topic(), "phx_join", payload);
        let got = self.got(id);
        assert_eq!(got[0], Got::Ok(1), "the join's reply comes first");
        (id, got[1..].to_vec())
    }

    pub(crate) fn join_relay(&mut self, process: u8) -> ConnectionId {
        let name = format!("relay {process}");
        let relay = Who {
            component: Component::Relay,
            token: "relay",
            id: &name,
            key: process,
            user_agent: "relay/1.5.0",
            ..client()
        };
        self.join(&relay).0
    }

    pub(crate) fn send(&mut self, id: ConnectionId, topic: &str, event: &str, payload: Value) {
        let request = Request {
            topic: topic.to_owned(),
            event: event.to_owned(),
            payload,
            reference: Some(1),
        };
        self.portal.handle_request(id, request, self.time);
        self.drain();
    }

    pub(crate) fn create_flow(&mut self, client: ConnectionId, resource: ResourceId) {
        let payload = json!({ "resource_id": resource, "connected_gateway_ids": [] });
        self.send(client, "client", "create_flow", payload);
    }

    /// Asks for access and lets the gateway acknowledge; gives back both messages.
    pub(crate) fn flow(
        &mut self,
        client: ConnectionId,
        gateway: ConnectionId,
        resource: ResourceId,
    ) -> (Value, Value) {
        self.create_flow(client, resource);
        let ask = self.push_of(gateway, "authorize_flow");
        self.send(
            gateway,
            "gateway",
            "flow_authorized",
            json!({ "ref": ask["ref"] }),
        );
        assert_eq!(self.got(gateway), [Got::Ok(1)]);
        (ask, self.push_of(client, "flow_created"))
    }

    pub(crate) fn lose(&mut self, id: ConnectionId) {
        self.portal.disconnected(id, self.time);
        self.drain();
    }

    pub(crate) fn reload(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.portal.reload(self.config.clone(), self.time);
        self.drain();
    }

    /// Lets time pass, stopping at every deadline.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let start = self.time;
        let end = start.now + duration;
        let at = |now: Instant| Time {
            now,
            unix: start.unix + (now - start.now).as_secs(),
        };
        while let Some(due) = self.portal.poll_timeout().filter(|due| *due <= end) {
            self.time = at(due.max(self.time.now));
            self.portal.handle_timeout(self.time);
            self.drain();
            let next = self.portal.poll_timeout();
            assert!(
                next.is_none_or(|next| next > due),
                "a deadline was not handled"
            );
        }
        self.time = at(end);
    }

    /// What a component got since the last call.
    pub(crate) fn got(&mut self, id: ConnectionId) -> Vec<Got> {
        let of_others = self.log.extract_if(.., |(to, _)| *to == id);
        of_others.map(|(_, got)| got).collect()
    }

    /// The events that a component got since the last call.
    pub(crate) fn events(&mut self, id: ConnectionId) -> Vec<String> {
        let event = |got| match got {
            Got::Push(event, _) => event,
            other => format!("{other:?}"),
        };
        self.got(id).into_iter().map(event).collect()
    }

    /// The payload of the only message that a component got.
    pub(crate) fn push_of(&mut self, id: ConnectionId, event: &str) -> Value {
        let mut got = self.got(id);
        match got.pop() {
            Some(Got::Push(name, payload)) if name == event && got.is_empty() => payload,
            last => panic!("expected only {event}, got {got:?} and {last:?}"),
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.portal.poll_output() {
            match output {
                Output::Store(op) => self.records.apply(op),
                Output::Reply {
                    connection,
                    reference,
                    result,
                    ..
                } => {
                    let got = match result {
                        Ok(()) => Got::Ok(reference),
                        Err(refusal) => Got::Error(reference, refusal.as_str()),
                    };
                    self.log.push((connection, got));
                }
                Output::Push {
                    connection,
                    event,
                    payload,
                    ..
                } => self.log.push((connection, Got::Push(event, payload))),
                Output::Close { connection, reason } => {
                    self.log.push((connection, Got::Close(reason)));
                }
            }
        }
    }
}

impl Records {
    fn apply(&mut self, op: StoreOp) {
        match op {
            StoreOp::PutDevice(device) => {
                self.devices.retain(|other| other.id != device.id);
                self.devices.push(device);
            }
            StoreOp::PutAuthorization(entry) => {
                self.remove(&entry.gateway, &entry.client, &entry.resource);
                self.authorizations.push(entry);
            }
            StoreOp::RemoveAuthorization {
                gateway,
                client,
                resource,
            } => self.remove(&gateway, &client, &resource),
        }
    }

    fn remove(
        &mut self,
        gateway: &connlib_model::GatewayId,
        client: &connlib_model::ClientId,
        resource: &ResourceId,
    ) {
        self.authorizations.retain(|entry| {
            (&entry.gateway, &entry.client, &entry.resource) != (gateway, client, resource)
        });
    }
}

pub(crate) fn init(got: &[Got]) -> &Value {
    match got {
        [Got::Push(event, payload)] if event == "init" => payload,
        other => panic!("expected init, got {other:?}"),
    }
}

pub(crate) fn only_ssh(config: &mut Config) {
    config.resources.get_mut(&LAB).unwrap().filters = vec![Filter::Tcp(22..=22)];
}

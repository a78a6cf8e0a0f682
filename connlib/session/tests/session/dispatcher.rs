//! Who gets what when several workers share a gateway's clients.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use connlib_messages::gateway::{CandidatesForClients, FlowAuthorized, FromPortal, ToPortal};
use connlib_model::ClientId;
use connlib_session::{Delivery, Dispatcher, Known, PortalInput, PortalOutput, WorkerInput};
use connlib_tunnel::PublicKey;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{self, NETWORK, RELAY, message};

const KEY: PublicKey = PublicKey([1; 32]);
const NEW_KEY: PublicKey = PublicKey([2; 32]);

fn dispatcher(workers: usize) -> Dispatcher {
    Dispatcher::new(NonZeroUsize::new(workers).unwrap(), KEY)
}

/// Joined, with relays for so many users.
fn joined(workers: usize, users: usize) -> Dispatcher {
    let mut dispatcher = dispatcher(workers);
    dispatcher.handle_portal(PortalInput::Connected);
    dispatcher.handle_portal(init(users));
    dispatcher
}

fn relay(users: usize) -> Value {
    let further = (1..users).map(|user| json!({"username": format!("1:{user}"), "password": "p"}));
    let mut relay = fixtures::relay(RELAY);
    relay["username"] = json!("1:0");
    relay["further_users"] = further.collect();
    relay
}

fn init(users: usize) -> PortalInput<FromPortal, ToPortal> {
    let payload = fixtures::gateway_init(&[relay(users)]);
    PortalInput::Message(message("init", payload))
}

fn authorize(client: ClientId) -> PortalInput<FromPortal, ToPortal> {
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let mut payload = fixtures::authorize_flow("r", key, &json!([]));
    payload["client"]["id"] = json!(client);
    PortalInput::Message(message("authorize_flow", payload))
}

fn candidates(event: &str, client: ClientId) -> PortalInput<FromPortal, ToPortal> {
    let payload = json!({"client_id": client, "candidates": []});
    PortalInput::Message(message(event, payload))
}

fn reject(client: ClientId) -> PortalInput<FromPortal, ToPortal> {
    let payload = json!({"client_id": client, "resource_id": NETWORK});
    PortalInput::Message(message("reject_access", payload))
}

/// Who gets it for his session.
fn recipients(deliveries: &[Delivery]) -> Vec<usize> {
    let for_session = |delivery: &&Delivery| {
        matches!(delivery.input, WorkerInput::Portal(PortalInput::Message(_)))
    };
    deliveries
        .iter()
        .filter(for_session)
        .map(|d| d.worker)
        .collect()
}

fn reconnect(key: PublicKey) -> PortalOutput<ToPortal> {
    PortalOutput::Reconnect { public_key: key }
}

fn known(resets: u64, connections: u64) -> Known {
    Known {
        resets,
        connections,
    }
}

proptest! {
    #[test]
    fn what_is_about_a_client_reaches_its_worker_alone(
        workers in 1..32usize,
        users in 1..32usize,
        client: u128,
    ) {
        let mut dispatcher = joined(workers, users);
        let client = ClientId::from_u128(client);
        let owner = dispatcher.owner(client);
        prop_assert!(owner < workers.min(users));
        for input in [
            authorize(client),
            reject(client),
            candidates("ice_candidates", client),
            candidates("invalidate_ice_candidates", client),
        ] {
            prop_assert_eq!(recipients(&dispatcher.handle_portal(input)), [owner]);
            prop_assert_eq!(dispatcher.owner(client), owner);
        }
        // Later news of relays move nobody.
        dispatcher.handle_portal(PortalInput::Disconnected);
        dispatcher.handle_portal(PortalInput::Connected);
        dispatcher.handle_portal(init(1));
        prop_assert_eq!(dispatcher.owner(client), owner);
    }

    #[test]
    fn all_others_learn_whose_the_addresses_are(workers in 2..32usize, client: u128) {
        let mut dispatcher = joined(workers, workers);
        let client = ClientId::from_u128(client);
        let owner = dispatcher.owner(client);
        let told: BTreeMap<usize, usize> = dispatcher
            .handle_portal(authorize(client))
            .into_iter()
            .filter_map(|delivery| match delivery.input {
                WorkerInput::Owner { worker, .. } => Some((delivery.worker, worker)),
                WorkerInput::Portal(_) => None,
            })
            .collect();
        let expected = (0..workers).filter(|worker| *worker != owner);
        prop_assert_eq!(told, expected.map(|worker| (worker, owner)).collect());
    }

    #[test]
    fn what_is_about_everybody_reaches_all(workers in 1..32usize) {
        let mut dispatcher = joined(workers, workers);
        let all: Vec<_> = (0..workers).collect();
        let updated = message("resource_updated", fixtures::network("10.40.0.0/16"));
        for input in [init(workers), PortalInput::Message(updated)] {
            prop_assert_eq!(recipients(&dispatcher.handle_portal(input)), all.clone());
        }
        for input in [PortalInput::Disconnected, PortalInput::Connected] {
            let reached = dispatcher.handle_portal(input.clone());
            let expected = all.iter().map(|worker| Delivery {
                worker: *worker,
                input: WorkerInput::Portal(input.clone()),
            });
            prop_assert_eq!(reached, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn workers_use_relays_as_users_of_their_own(workers in 1..32usize, users in 1..32usize) {
        let mut dispatcher = dispatcher(workers);
        dispatcher.handle_portal(PortalInput::Connected);
        let presence = json!({"disconnected_ids": [], "connected": [relay(users)]});
        for input in [init(users), PortalInput::Message(message("relays_presence", presence))] {
            let mut names = BTreeSet::new();
            let mut used = 0;
            for delivery in dispatcher.handle_portal(input) {
                let relays = match delivery.input {
                    WorkerInput::Portal(PortalInput::Message(FromPortal::Init(init))) => init.relays,
                    WorkerInput::Portal(PortalInput::Message(FromPortal::RelaysPresence(it))) => it.connected,
                    other => panic!("{other:?}"),
                };
                for relay in relays {
                    used += 1;
                    prop_assert_eq!(&relay.username, &format!("1:{}", delivery.worker));
                    prop_assert!(relay.further_users.is_empty());
                    names.insert(relay.username);
                }
            }
            prop_assert_eq!(used, workers.min(users));
            prop_assert_eq!(names.len(), used, "nobody shares");
        }
    }

    #[test]
    fn candidates_that_were_not_sent_wait_with_their_worker(
        workers in 1..32usize,
        clients in prop::collection::vec(any::<u128>(), 1..5),
    ) {
        let mut dispatcher = joined(workers, workers);
        let clients: Vec<_> = clients.into_iter().map(ClientId::from_u128).collect();
        let message = ToPortal::BroadcastIceCandidates(CandidatesForClients {
            client_ids: clients.clone(),
            candidates: vec!["candidate:1".to_owned()],
        });
        let back = dispatcher.handle_portal(PortalInput::Unsent(message));
        prop_assert_eq!(back.len(), clients.len());
        for (client, delivery) in clients.into_iter().zip(back) {
            prop_assert_eq!(delivery.worker, dispatcher.owner(client));
        }
    }

    #[test]
    fn clients_spread_over_the_workers(workers in 2..9usize, first: u64) {
        let dispatcher = joined(workers, workers);
        for stride in [1, 1 << 64] {
            let mut counts = vec![0usize; workers];
            for i in 0..1000u128 {
                let id = u128::from(first).wrapping_add(i * stride);
                counts[dispatcher.owner(ClientId::from_u128(id))] += 1;
            }
            let fair = 1000 / workers;
            prop_assert!(counts.iter().all(|count| (fair / 2..fair * 2).contains(count)), "{counts:?}");
        }
    }
}

#[test]
fn until_relays_are_known_the_first_worker_has_all() {
    let dispatcher = dispatcher(4);
    assert!((0..100).all(|id| dispatcher.owner(ClientId::from_u128(id)) == 0));
}

#[test]
fn the_first_wish_opens_the_connection() {
    let mut dispatcher = dispatcher(2);
    let (output, _) = dispatcher.handle_output(0, known(0, 0), reconnect(KEY));
    assert_eq!(output, Some(reconnect(KEY)));
    let (output, _) = dispatcher.handle_output(1, known(0, 0), reconnect(KEY));
    assert_eq!(output, None);
}

#[test]
fn one_connection_fulfils_the_wishes_of_all() {
    let mut dispatcher = joined(3, 3);

    let (output, others) = dispatcher.handle_output(1, known(0, 1), reconnect(KEY));
    assert_eq!(output, Some(reconnect(KEY)));
    let told: Vec<_> = others.iter().map(|delivery| delivery.worker).collect();
    assert_eq!(
        told,
        [0, 2],
        "the others must know that the old one is gone"
    );

    let (output, others) = dispatcher.handle_output(2, known(0, 1), reconnect(KEY));
    assert_eq!((output, others), (None, vec![]), "it is being made");
    dispatcher.handle_portal(PortalInput::Connected);
    let (output, _) = dispatcher.handle_output(0, known(0, 1), reconnect(KEY));
    assert_eq!(output, None, "it is there");
    let (output, _) = dispatcher.handle_output(0, known(0, 2), reconnect(KEY));
    assert_eq!(output, Some(reconnect(KEY)), "a wish for yet another");
}

#[test]
fn after_a_reset_only_the_new_key_counts() {
    let mut dispatcher = joined(2, 2);
    let (output, _) = dispatcher.handle_output(0, known(1, 1), reconnect(NEW_KEY));
    assert_eq!(output, Some(reconnect(NEW_KEY)));

    // The other worker has not heard of it yet.
    let (output, _) = dispatcher.handle_output(1, known(0, 1), reconnect(KEY));
    assert_eq!(output, None);
    let old = ToPortal::FlowAuthorized(FlowAuthorized {
        reference: "old".to_owned(),
    });
    let (output, _) = dispatcher.handle_output(1, known(0, 1), PortalOutput::Send(old));
    assert_eq!(output, None);

    let (output, _) = dispatcher.handle_output(1, known(1, 1), reconnect(NEW_KEY));
    assert_eq!(output, None, "it is being made");
}

#[test]
fn relays_are_asked_for_once() {
    let mut dispatcher = joined(2, 2);
    let ask = || PortalOutput::Send(ToPortal::NoRelays);
    let mut asked = |worker| {
        dispatcher
            .handle_output(worker, known(0, 1), ask())
            .0
            .is_some()
    };
    assert!(asked(0));
    assert!(!asked(1));
    let presence = json!({"disconnected_ids": [], "connected": [relay(2)]});
    dispatcher.handle_portal(PortalInput::Message(message("relays_presence", presence)));
    let (output, _) = dispatcher.handle_output(1, known(0, 1), ask());
    assert!(output.is_some(), "a new need");
}

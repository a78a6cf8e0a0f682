//! A relay that comes back, with and without its secret: C-52.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use connlib_stun::Outcome;

use super::{
    client::Client,
    process::{Launch, PATIENCE, Relay, SECRET, ports, socket},
    raw::{Raw, allocate, refresh},
};

pub(crate) const OTHER_SECRET: &str =
    "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";
const ARGUMENTS: [&str; 3] = ["--standalone", "--profile", "portal"];
/// Within this a client has its allocation again (relay spec §3.3: two round trips), however busy the machine is.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(10);

fn start(first: u16, secret: &str) -> Relay {
    Launch {
        secret,
        ..Launch::new(first, &ARGUMENTS)
    }
    .ready()
}

#[test]
fn relay_52_the_same_secret_takes_two_round_trips() {
    let first = ports();
    let relay = start(first, SECRET);
    let mut client = Raw::new(relay.server(Ipv4Addr::LOCALHOST), "user");
    client.allocate();
    drop(relay);
    let _relay = start(first, SECRET);

    let (outcome, is_signed) = client.round_trip(refresh(None));
    let Outcome::Error(error) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((error.code.get(), is_signed), (438, true));
    assert_eq!(client.code(refresh(None)), Some(437));
    assert_eq!(client.code(allocate()), None);
}

#[test]
fn relay_52_another_secret_cannot_answer_for_the_old_one() {
    let first = ports();
    let relay = start(first, SECRET);
    let mut client = Raw::new(relay.server(Ipv4Addr::LOCALHOST), "user");
    client.allocate();
    drop(relay);
    let _relay = start(first, OTHER_SECRET);
    let (outcome, is_signed) = client.round_trip(refresh(None));
    assert!(matches!(outcome, Outcome::Error(_)));
    assert!(!is_signed, "signed with a key that the client has");
}

#[test]
fn relay_52_credentials_of_the_previous_secret_are_still_good() {
    let first = ports();
    let relay = start(first, SECRET);
    let mut client = Raw::new(relay.server(Ipv4Addr::LOCALHOST), "user");
    client.allocate();
    drop(relay);
    let _relay = start(first, &format!("{OTHER_SECRET}\n{SECRET}\n"));
    assert_eq!(client.code(allocate()), None);
}

/// Sends until something arrives; returns when.
pub(crate) fn transfer(client: &mut Client, peer: &UdpSocket) -> Instant {
    let address = peer.local_addr().unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Replies are read here; sending alone would not.
        client.has_allocation();
        client.send(address, b"data");
        if peer.recv(&mut [0; 100]).is_ok() {
            return Instant::now();
        }
        assert!(Instant::now() < deadline, "the transfer does not go on");
    }
}

#[test]
fn relay_52_a_client_in_the_middle_of_a_transfer() {
    let first = ports();
    let relay = start(first, SECRET);
    let server = relay.server(Ipv4Addr::LOCALHOST);
    let (mut client, _) = Client::allocated(server, "user");
    let peer = socket("127.0.0.1:0");
    transfer(&mut client, &peer);
    drop(relay);

    // With the same secret it goes on.
    let relay = start(first, SECRET);
    let since = Instant::now();
    client.refresh();
    let back = transfer(&mut client, &peer);
    assert!(back - since < BACK_WITHIN, "{:?}", back - since);
    drop(relay);

    // With another one, nothing that the relay says counts; the client gives it up.
    let _relay = start(first, OTHER_SECRET);
    client.refresh();
    client.wait_until_given_up();
}

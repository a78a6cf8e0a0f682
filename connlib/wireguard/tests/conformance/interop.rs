//! Against a plain `boringtun` tunnel that runs its own timers (snownet 58, testing LI-7), as far as its real clock allows.

mod messages;

use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use connlib_wireguard::{Event, IndexTable, Opened, Peer, PeerConfig, PrivateKey, Role, WallClock};
use ip_packet::Single;

use crate::world::{CLIENT_IP, INIT, Raw, UNIX, VecSink, packet, secs};

const OURS: [u8; 32] = [1; 32];
const THEIRS: [u8; 32] = [2; 32];
const PSK: [u8; 32] = [3; 32];

/// Our peer and a foreign tunnel on a link without latency.
struct Link {
    now: Instant,
    peer: Peer,
    tunn: Tunn,
    /// Packets that arrived at our peer.
    ours: Vec<Vec<u8>>,
    /// Packets that arrived at the tunnel.
    theirs: Vec<Vec<u8>>,
    /// Types of the datagrams that our peer sent.
    types: Vec<u8>,
    events: Vec<Event>,
}

impl Link {
    fn new(role: Role) -> Self {
        let now = Instant::now();
        let private = PrivateKey::from_seed(OURS);
        let remote = PrivateKey::from_seed(THEIRS).public();
        let indices = IndexTable::new([4; 32]).allocate().unwrap();
        let config = PeerConfig {
            role,
            private: &private,
            remote,
            psk: PSK,
            indices,
            clock: WallClock::new(now, UNIX),
            seed: [5; 32],
        };
        let mut peer = Peer::new(config, now);
        let public = x25519::PublicKey::from(private.public().0);
        // Its own limiter allows 10 handshakes per real second, which is many virtual hours here.
        let foreign_limiter = Arc::new(RateLimiter::new(
            &x25519::PublicKey::from(remote.0),
            u64::MAX,
        ));
        let tunn = Tunn::new(
            x25519::StaticSecret::from(THEIRS),
            public,
            Some(PSK),
            Some(25),
            99,
            Some(foreign_limiter),
        );
        peer.path_ready(now);
        let mut link = Self {
            now,
            peer,
            tunn,
            ours: Vec::new(),
            theirs: Vec::new(),
            types: Vec::new(),
            events: Vec::new(),
        };
        link.settle();

        link
    }

    fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(next) = self.peer.poll_timeout().filter(|next| *next <= until) {
            self.now = next;
            self.peer.handle_timeout(next);
            self.settle();
        }
        self.now = until;
    }

    fn send_ours(&mut self, id: u32) {
        let mut sink = VecSink::default();
        self.peer
            .seal(&mut Single::from(&packet(id)), self.now, &mut sink);
        for datagram in sink.datagrams {
            self.deliver_to_tunn(&datagram);
        }
        self.settle();
    }

    fn send_theirs(&mut self, plaintext: &[u8]) {
        let mut out = [0; 2048];
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(plaintext, &mut out) {
            let datagram = datagram.to_vec();
            self.deliver_to_peer(&datagram);
        }
        self.settle();
    }

    fn their_init(&mut self) -> Vec<u8> {
        let mut out = [0; 148];
        let TunnResult::WriteToNetwork(init) =
            self.tunn.format_handshake_initiation(&mut out, true)
        else {
            panic!()
        };
        init.to_vec()
    }

    /// Carries datagrams both ways until both are silent.
    fn settle(&mut self) {
        while let Some(datagram) = self
            .peer
            .poll_transmit()
            .map(|datagram| datagram.bytes.to_vec())
        {
            self.deliver_to_tunn(&datagram);
        }
        self.events
            .extend(std::iter::from_fn(|| self.peer.poll_event()));
        // Its own timers run, on the real clock.
        let mut out = [0; 2048];
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.update_timers(&mut out) {
            let datagram = datagram.to_vec();
            self.deliver_to_peer(&datagram);
        }
    }

    fn deliver_to_tunn(&mut self, datagram: &[u8]) {
        self.types.push(datagram[0]);
        let mut out = [0; 2048];
        let mut input = datagram;
        loop {
            match self.tunn.decapsulate(Some(CLIENT_IP), input, &mut out) {
                TunnResult::WriteToNetwork(answer) => {
                    let answer = answer.to_vec();
                    self.deliver_to_peer(&answer);
                }
                TunnResult::WriteToTunnelV4(packet, _) => {
                    self.theirs.push(packet.to_vec());
                    return;
                }
                TunnResult::Done => return,
                other => panic!("foreign tunnel refused {input:?}: {other:?}"),
            }
            input = &[];
        }
    }

    fn deliver_to_peer(&mut self, datagram: &[u8]) {
        let mut out = [0; 2048];
        if let Opened::Packet { len } = self
            .peer
            .open(datagram, CLIENT_IP, self.now, &mut out)
            .unwrap()
        {
            self.ours.push(out[..len].to_vec());
        }
        while let Some(datagram) = self
            .peer
            .poll_transmit()
            .map(|datagram| datagram.bytes.to_vec())
        {
            self.deliver_to_tunn(&datagram);
        }
    }

    fn bytes(id: u32) -> Vec<u8> {
        packet(id).as_slice().to_vec()
    }

    fn exchange(&mut self, id: u32) {
        self.send_ours(id);
        self.send_theirs(&Self::bytes(id));
        assert_eq!(self.theirs.last(), Some(&Self::bytes(id)));
        assert_eq!(self.ours.last(), Some(&Self::bytes(id)));
    }

    fn inits(&self) -> usize {
        self.types.iter().filter(|kind| **kind == INIT).count()
    }
}

// snownet 57: an hour of silence, and the connection is still there.
#[test]
fn snownet_58_foreign_gateway_rekey_and_renewal() {
    let mut link = Link::new(Role::Initiator);
    link.exchange(1);
    link.run_for(secs(121));
    link.exchange(2);
    assert_eq!(link.peer.stats().handshakes, 2, "data after 120 s rekeys");
    link.exchange(3);

    link.run_for(secs(3600));
    link.exchange(4);
    assert!(
        link.peer.stats().handshakes >= 2 + 3600 / 166,
        "idle renewal"
    );
}

#[test]
fn snownet_58_foreign_client_connects_and_rekeys() {
    let mut link = Link::new(Role::Responder);
    link.send_theirs(&Link::bytes(1));
    assert_eq!(
        link.ours,
        [Link::bytes(1)],
        "waited in the foreign tunnel for the handshake"
    );
    link.exchange(2);

    for id in 3..30 {
        let init = link.their_init();
        link.deliver_to_peer(&init);
        link.exchange(id);
        link.run_for(secs(120));
    }
    assert_eq!(link.peer.stats().handshakes, 28);
    assert_eq!(link.inits(), 0);
}

#[test]
fn snownet_58_padded_packets() {
    let mut link = Link::new(Role::Initiator);
    let mut padded = Link::bytes(1);
    padded.resize(padded.len().next_multiple_of(16) + 16, 0);
    link.send_theirs(&padded);

    assert_eq!(link.ours, [Link::bytes(1)]);
}

/// S5, W2: a foreign gateway that initiates gets no answer but a handshake of ours at once, and its attempt is over.
#[test]
fn snownet_58_foreign_gateway_that_initiates() {
    let mut link = Link::new(Role::Initiator);
    link.run_for(secs(30));
    let handshakes = link.peer.stats().handshakes;
    let init = link.their_init();
    link.deliver_to_peer(&init);

    assert_eq!(link.peer.stats().handshakes, handshakes + 1);
    assert!(
        link.types.iter().all(|kind| *kind != 2),
        "an initiation was answered"
    );
    let mut out = [0; 148];
    assert!(
        matches!(
            link.tunn.format_handshake_initiation(&mut out, false),
            TunnResult::WriteToNetwork(_)
        ),
        "its attempt is still pending"
    );
    link.exchange(1);
}

#[test]
fn snownet_58_crossed_initiations() {
    let mut link = Link::new(Role::Initiator);
    link.run_for(secs(30));
    // Ours leaves, theirs arrives before the answer to ours.
    link.peer.rehandshake(link.now);
    let ours = link.peer.poll_transmit().unwrap().bytes.to_vec();
    let theirs = link.their_init();
    link.deliver_to_peer(&theirs);
    assert_eq!(
        link.inits(),
        1,
        "no second handshake while one is in flight"
    );
    link.deliver_to_tunn(&ours);

    link.exchange(1);
    assert_eq!(link.peer.stats().handshakes, 2);
}

/// testing LI-7: an old gateway keeps alive every 25 s and initiates at each expiry.
#[test]
fn testing_li_7_old_gateway_over_half_an_hour() {
    let mut link = Link::new(Role::Initiator);
    for second in 1..=1800 {
        link.run_for(secs(1));
        if second % 25 == 0 {
            link.send_theirs(&[]);
        }
        if second % 181 == 0 {
            let init = link.their_init();
            link.deliver_to_peer(&init);
        }
        if second % 7 == 0 {
            link.exchange(second);
        }
    }

    assert!(
        link.events
            .iter()
            .all(|event| *event == Event::HandshakeCompleted)
    );
}

#[test]
fn keepalive_of_ours_is_understood() {
    let mut link = Link::new(Role::Initiator);
    link.send_theirs(&Link::bytes(1));
    let before = link.peer.stats().keepalives_sent;
    link.run_for(secs(10));
    assert_eq!(link.peer.stats().keepalives_sent, before + 1);

    let mut sink = VecSink::default();
    link.peer
        .seal(&mut Raw(Some(&Link::bytes(2))), link.now, &mut sink);
    link.deliver_to_tunn(&sink.datagrams[0]);
    assert_eq!(link.theirs, [Link::bytes(2)]);
}

//! What can be measured: one entry per kind of work, with the number of packets that a round of it carries.

use std::collections::BTreeMap;

use crate::{
    cipher::{CipherOpen, CipherSeal},
    decide::{Route, Translate},
    relay::Relay,
    tunnel::{Down, End, Up},
    wireguard::{PeerOpen, PeerSeal},
    world::Path,
};

/// Packets of 1280 bytes in the largest super-packet that fits a GSO send.
pub(crate) const BATCH: usize = 49;

/// Work that can be repeated.
pub(crate) trait Round {
    /// Makes ready what the work consumes. Not counted.
    fn prepare(&mut self);
    /// The work. Counted.
    fn work(&mut self);
}

/// Which bare cipher work is contained in a case, so that the rest can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    Seal,
    Open,
    None,
}

/// When a case is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measured {
    Always,
    /// Only if a filter names a crowd at one end: the largest takes minutes and 17 GB. Valgrind would take hours.
    OnDemand,
}

/// One kind of work.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) packets: usize,
    pub(crate) cipher: Cipher,
    /// When it is measured.
    pub(crate) measured: Measured,
    make: fn() -> Box<dyn Round>,
}

impl Case {
    /// Sets everything up.
    pub(crate) fn start(&self) -> Box<dyn Round> {
        (self.make)()
    }

    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        CASES.iter().find(|case| case.name == name)
    }

    /// Whether it is a ground that others stand on.
    pub(crate) fn is_cipher(&self) -> bool {
        [CIPHER_SEAL, CIPHER_OPEN].contains(&self.name)
    }

    /// The bare cipher's figure for the work that the case contains.
    pub(crate) fn ground(&self, figures: &BTreeMap<&'static str, f64>) -> f64 {
        let name = match self.cipher {
            Cipher::Seal => CIPHER_SEAL,
            Cipher::Open => CIPHER_OPEN,
            Cipher::None => return 0.0,
        };
        figures.get(name).copied().unwrap_or_default()
    }
}

macro_rules! case {
    ($name:literal, $packets:expr, $cipher:ident, $round:expr) => {
        Case {
            name: $name,
            packets: $packets,
            cipher: Cipher::$cipher,
            measured: Measured::Always,
            make: || Box::new($round),
        }
    };
}

/// As `case`, on demand.
macro_rules! crowd {
    ($name:literal, $cipher:ident, $round:expr) => {
        Case {
            measured: Measured::OnDemand,
            ..case!($name, 1, $cipher, $round)
        }
    };
}

/// The bare cipher, sealing.
pub(crate) const CIPHER_SEAL: &str = "cipher seal";
/// The bare cipher, opening.
pub(crate) const CIPHER_OPEN: &str = "cipher open";

/// All cases. Names are keys of the budget file.
pub(crate) static CASES: &[Case] = &[
    // The ground: copy and cipher, nothing else.
    case!("cipher seal", BATCH, None, CipherSeal::new()),
    case!("cipher open", BATCH, None, CipherOpen::new()),
    // The engine with its timers.
    case!("wireguard seal", BATCH, Seal, PeerSeal::new()),
    case!("wireguard open", BATCH, Open, PeerOpen::new()),
    // Client and gateway, whole: a super-packet from the TUN device to datagrams, and back.
    case!(
        "client seal, direct",
        BATCH,
        Seal,
        Up::new(End::Client, Path::Direct, BATCH, 1, 1)
    ),
    case!(
        "client seal, direct, single",
        1,
        Seal,
        Up::new(End::Client, Path::Direct, 1, 1, 1)
    ),
    case!(
        "client seal, relayed",
        BATCH,
        Seal,
        Up::new(End::Client, Path::ClientChannel, BATCH, 1, 1)
    ),
    case!(
        "client seal, relayed, single",
        1,
        Seal,
        Up::new(End::Client, Path::ClientChannel, 1, 1, 1)
    ),
    case!(
        "client open, direct",
        BATCH,
        Open,
        Down::new(End::Client, Path::Direct, BATCH, 1, 1)
    ),
    case!(
        "client open, direct, single",
        1,
        Open,
        Down::new(End::Client, Path::Direct, 1, 1, 1)
    ),
    case!(
        "client open, relayed",
        BATCH,
        Open,
        Down::new(End::Client, Path::ClientChannel, BATCH, 1, 1)
    ),
    case!(
        "client open, relayed, single",
        1,
        Open,
        Down::new(End::Client, Path::ClientChannel, 1, 1, 1)
    ),
    case!(
        "gateway seal, direct",
        BATCH,
        Seal,
        Up::new(End::Gateway, Path::Direct, BATCH, 1, 1)
    ),
    case!(
        "gateway seal, direct, single",
        1,
        Seal,
        Up::new(End::Gateway, Path::Direct, 1, 1, 1)
    ),
    case!(
        "gateway seal, relayed",
        BATCH,
        Seal,
        Up::new(End::Gateway, Path::GatewayChannel, BATCH, 1, 1)
    ),
    case!(
        "gateway open, direct",
        BATCH,
        Open,
        Down::new(End::Gateway, Path::Direct, BATCH, 1, 1)
    ),
    case!(
        "gateway open, direct, single",
        1,
        Open,
        Down::new(End::Gateway, Path::Direct, 1, 1, 1)
    ),
    case!(
        "gateway open, relayed",
        BATCH,
        Open,
        Down::new(End::Gateway, Path::GatewayChannel, BATCH, 1, 1)
    ),
    // Cost must not grow with the number of clients and resources.
    case!(
        "gateway seal, 10 clients, single",
        1,
        Seal,
        Up::new(End::Gateway, Path::Direct, 1, 10, 1)
    ),
    case!(
        "gateway seal, 1000 clients, single",
        1,
        Seal,
        Up::new(End::Gateway, Path::Direct, 1, 1_000, 1)
    ),
    case!(
        "gateway open, 10 clients, single",
        1,
        Open,
        Down::new(End::Gateway, Path::Direct, 1, 10, 1)
    ),
    case!(
        "gateway open, 1000 clients, single",
        1,
        Open,
        Down::new(End::Gateway, Path::Direct, 1, 1_000, 1)
    ),
    crowd!(
        "gateway seal, any of 10 clients",
        Seal,
        Up::new(End::Gateway, Path::Direct, 1, 10, 1).for_anyone()
    ),
    crowd!(
        "gateway seal, any of 1000 clients",
        Seal,
        Up::new(End::Gateway, Path::Direct, 1, 1_000, 1).for_anyone()
    ),
    crowd!(
        "gateway seal, any of 100000 clients",
        Seal,
        Up::new(End::Gateway, Path::Direct, 1, 100_000, 1).for_anyone()
    ),
    crowd!(
        "gateway open, any of 10 clients",
        Open,
        Down::new(End::Gateway, Path::Direct, 1, 10, 1).of_anyone()
    ),
    crowd!(
        "gateway open, any of 1000 clients",
        Open,
        Down::new(End::Gateway, Path::Direct, 1, 1_000, 1).of_anyone()
    ),
    crowd!(
        "gateway open, any of 100000 clients",
        Open,
        Down::new(End::Gateway, Path::Direct, 1, 100_000, 1).of_anyone()
    ),
    case!(
        "client seal, 10 resources, single",
        1,
        Seal,
        Up::new(End::Client, Path::Direct, 1, 1, 10)
    ),
    case!(
        "client seal, 1000 resources, single",
        1,
        Seal,
        Up::new(End::Client, Path::Direct, 1, 1, 1000)
    ),
    // The client's routing table by itself: parse, look up, find nothing.
    case!("route, 10 resources", 1, None, Route::new(10)),
    case!("route, 1000 resources", 1, None, Route::new(1_000)),
    case!("route, 100000 resources", 1, None, Route::new(100_000)),
    // The gateway's NAT by itself: filter, session, translation in place.
    case!(
        "translate from client, 10 sessions",
        1,
        None,
        Translate::from_client(10)
    ),
    case!(
        "translate from client, 1000 sessions",
        1,
        None,
        Translate::from_client(1_000)
    ),
    case!(
        "translate from client, 100000 sessions",
        1,
        None,
        Translate::from_client(100_000)
    ),
    case!(
        "translate to client, 10 sessions",
        1,
        None,
        Translate::to_client(10)
    ),
    case!(
        "translate to client, 1000 sessions",
        1,
        None,
        Translate::to_client(1_000)
    ),
    case!(
        "translate to client, 100000 sessions",
        1,
        None,
        Translate::to_client(100_000)
    ),
    // The relay, for one received train.
    case!("relay to peer", BATCH, None, Relay::to_peer()),
    case!("relay to client", BATCH, None, Relay::to_client()),
];

//! The targets, one module each.

pub mod channel_data;
pub mod dns_message;
pub mod ip_packet;
pub mod node;
pub mod p2p_control;
pub mod phoenix_json;
pub mod relay_input;
pub mod segment;
pub mod stun_client;
pub mod tunnel;

use crate::Target;

/// All targets.
pub const ALL: &[Target] = &[
    Target {
        name: "channel-data",
        run: channel_data::run,
        seeds: channel_data::seeds,
    },
    Target {
        name: "dns-message",
        run: dns_message::run,
        seeds: dns_message::seeds,
    },
    Target {
        name: "ip-packet",
        run: ip_packet::run,
        seeds: ip_packet::seeds,
    },
    Target {
        name: "node",
        run: node::run,
        seeds: node::seeds,
    },
    Target {
        name: "p2p-control",
        run: p2p_control::run,
        seeds: p2p_control::seeds,
    },
    Target {
        name: "phoenix-json",
        run: phoenix_json::run,
        seeds: phoenix_json::seeds,
    },
    Target {
        name: "relay-input",
        run: relay_input::run,
        seeds: relay_input::seeds,
    },
    Target {
        name: "segment",
        run: segment::run,
        seeds: segment::seeds,
    },
    Target {
        name: "stun-client",
        run: stun_client::run,
        seeds: stun_client::seeds,
    },
    Target {
        name: "tunnel",
        run: tunnel::run,
        seeds: tunnel::seeds,
    },
];

//! The grammar: requests that a relay takes seriously, and damage.

use std::net::SocketAddr;

use connlib_stun::{
    Allocate, AuthAttributes, ChannelBind, ChannelNumber, CreatePermission, DEFAULT_REALM, Family,
    Indication, Refresh, Request, RequestBody, TransactionId, append_fingerprint,
    channel::encode_header,
};

use super::world::World;
use crate::input::Input;

/// A request of any method, by any user, with any nonce, signed or not, perhaps damaged.
pub(super) fn request(input: &mut Input<'_>, world: &mut World, client: SocketAddr) -> Vec<u8> {
    let user = world.user(input);
    let nonce = match input.below(8) {
        0 => None,
        6 => Some("0123456789abcdef".to_owned()),
        7 => world.any_nonce(input),
        _ => Some(world.nonce_for(client)),
    };
    let signature = input.below(8);
    let body = body(input, world);
    let auth = AuthAttributes {
        username: (signature != 2).then(|| user.name.clone()),
        realm: (signature != 3).then(|| DEFAULT_REALM.to_owned()),
        nonce,
    };
    let key = match signature {
        0 => None,
        4 => Some(connlib_stun::Key::from_bytes(b"wrong")),
        _ => Some(user.key.clone()),
    };
    let software = input.flag().then(|| "fuzz".to_owned());
    let request = Request {
        transaction_id: world.transaction(input),
        auth,
        software,
        body,
    };
    let mut bytes = request.encode(key.as_ref()).unwrap_or_default();
    damage(input, &mut bytes);
    bytes
}

fn body(input: &mut Input<'_>, world: &World) -> RequestBody {
    let family = |input: &mut Input<'_>| {
        let families = [None, None, None, Some(Family::V4), Some(Family::V6)];
        input.pick(&families)
    };
    match input.below(8) {
        0 => RequestBody::Binding,
        1 => RequestBody::Refresh(Refresh {
            lifetime: lifetime(input),
            requested_family: family(input),
            requested_transport: input.maybe(Input::u8),
            additional_family: family(input),
        }),
        2 => RequestBody::CreatePermission(CreatePermission {
            peers: (0..input.below(5)).map(|_| world.peer(input)).collect(),
        }),
        3..=4 => RequestBody::ChannelBind(ChannelBind {
            number: ChannelNumber::new(channel(input)),
            peer: (input.u8() != 255).then(|| world.peer(input)),
        }),
        _ => RequestBody::Allocate(Allocate {
            requested_transport: input.pick(&[Some(17), Some(17), Some(17), Some(6), None]),
            requested_family: family(input),
            additional_family: family(input),
            lifetime: lifetime(input),
            even_port: input.pick(&[None, None, Some(false), Some(true)]),
            dont_fragment: input.flag(),
            reservation_token: (input.u8() == 255).then(|| u64::from(input.u32())),
        }),
    }
}

fn lifetime(input: &mut Input<'_>) -> Option<u32> {
    match input.below(6) {
        0 => None,
        1 => Some(0),
        2 => Some(u32::MAX),
        3 => Some(input.u32()),
        4 => Some(u32::from(input.u16())),
        _ => Some(600),
    }
}

/// A channel number: mostly one of a few.
fn channel(input: &mut Input<'_>) -> u16 {
    match input.below(4) {
        0 => input.u16(),
        1 => input.pick(&[0x3fff, 0x4fff, 0x5000, 0x7fff, 0x8000]),
        _ => 0x4000 + u16::from(input.u8() % 4),
    }
}

/// Flips a bit, or appends attributes behind the signature, or cuts.
fn damage(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    match input.below(16) {
        1 if !bytes.is_empty() => {
            let at = usize::from(input.u16()) % bytes.len();
            bytes[at] ^= 1 << input.below(8);
        }
        2 => bytes.truncate(usize::from(input.u16()) % (bytes.len() + 1)),
        3 => bytes.extend(input.bytes(64)),
        4 => append(bytes, 0x000D, &[0; 4]),
        5 => append(bytes, input.u16(), input.bytes(64)),
        6 => append_fingerprint(bytes),
        7 => append(bytes, 0x8028, &input.array::<4>()),
        _ => {}
    }
}

/// An attribute whose length and message length are right.
fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    if bytes.len() < 20 {
        return;
    }
    bytes.extend(kind.to_be_bytes());
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let len = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
}

/// Channel data whose length is mostly right.
pub(super) fn channel_data(input: &mut Input<'_>) -> Vec<u8> {
    let number = ChannelNumber::new(channel(input)).unwrap_or(ChannelNumber::MIN);
    let announced = input.maybe(Input::u16);
    let payload = input.bytes(64);
    let header = encode_header(number, announced.unwrap_or(payload.len() as u16));
    [&header, payload].concat()
}

/// A Send indication of the open profile.
pub(super) fn send_indication(input: &mut Input<'_>, world: &mut World) -> Vec<u8> {
    let peer = world.peer(input);
    let id = world.transaction(input);
    let data = input.bytes(64).to_vec();
    let mut bytes = Indication::Send { peer, data }
        .encode(id)
        .unwrap_or_default();
    damage(input, &mut bytes);
    bytes
}

/// A transaction id that is mostly new.
pub(super) fn transaction(input: &mut Input<'_>, count: u64) -> TransactionId {
    let number = match input.below(8) {
        0 => u64::from(input.u8() % 4),
        _ => 1000 + count,
    };
    let mut id = [7; 12];
    id[4..].copy_from_slice(&number.to_be_bytes());
    TransactionId::new(id)
}

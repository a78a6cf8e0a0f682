//! Channel data and STUN messages: any bytes into the codec that client and relay share.
//!
//! Oracle: what is read and written again reads as the same; a wrapped payload comes out as it went in; nothing behind
//! MESSAGE-INTEGRITY is seen; one flipped bit breaks a signature.

use connlib_stun::{
    ChannelNumber, ChannelRange, Envelope, Indication, Integrity, Key, PacketKind, Request,
    Response, append_fingerprint,
    channel::{ChannelData, HEADER_LEN, encode_header},
    classify,
};

use crate::input::Input;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => unwrap(input.rest()),
        1 => wrap(&mut input),
        2 => message(input.rest()),
        _ => message(&stun(&mut input)),
    }
}

/// One of each kind, and requests as clients send them.
pub fn seeds() -> Vec<Vec<u8>> {
    let channel = vec![0, 0x40, 1, 0, 2, b'h', b'i', 0, 0];
    let wrapped = vec![1, 0x4f, 0xff, 0, 3, 1, 2, 3, 9];
    let mut seeds = vec![channel, wrapped];
    let requests = super::relay_input::sample_requests();
    seeds.extend(requests.into_iter().map(|it| [&[2][..], &it].concat()));
    seeds
}

fn unwrap(datagram: &[u8]) {
    for range in [ChannelRange::Strict, ChannelRange::Wide] {
        let is_channel = classify(datagram, range) == PacketKind::ChannelData;
        let Ok(data) = ChannelData::parse(datagram, range) else {
            continue;
        };
        assert!(is_channel, "what parses is classified so");
        assert!(range.contains(data.number));
        let header = encode_header(data.number, data.payload.len() as u16);
        assert_eq!(
            [&header, data.payload].concat(),
            datagram[..HEADER_LEN + data.payload.len()]
        );
    }
}

fn wrap(input: &mut Input<'_>) {
    let Some(number) = ChannelNumber::new(input.u16()) else {
        return;
    };
    let (payload, padding) = (input.bytes(2000), input.bytes(8));
    let header = encode_header(number, payload.len() as u16);
    let datagram = [&header, payload, padding].concat();
    let data = ChannelData::parse(&datagram, ChannelRange::Wide).expect("it was made so");
    assert_eq!((data.number, data.payload), (number, payload));
    let is_strict = ChannelData::parse(&datagram, ChannelRange::Strict).is_ok();
    assert_eq!(is_strict, ChannelRange::Strict.contains(number));
}

/// A message whose header and attribute lengths are right.
fn stun(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.u16() & 0x3fff;
    let mut message = [&kind.to_be_bytes()[..], &[0, 0, 0x21, 0x12, 0xA4, 0x42]].concat();
    message.extend(input.array::<12>());
    for _ in 0..16 {
        if input.is_empty() {
            break;
        }
        let kind = u16::from(input.u8()) | if input.flag() { 0x8000 } else { 0 };
        let value = input.bytes(800);
        message.extend(kind.to_be_bytes());
        message.extend((value.len() as u16).to_be_bytes());
        message.extend(value);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    set_length(&mut message);
    message
}

fn set_length(message: &mut [u8]) {
    let len = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&len.to_be_bytes());
}

fn message(datagram: &[u8]) {
    let Ok(envelope) = Envelope::parse(datagram) else {
        return;
    };
    let _ = (envelope.unknown_required(), format!("{envelope:?}"));
    assert!(envelope.attributes().count() <= datagram.len() / 4);
    let key = Key::from_bytes(b"key");
    if let Ok(request) = Request::decode(&envelope) {
        let bytes = request.encode(Some(&key)).expect("it was read");
        check_signed(&bytes, &key);
        let again = Envelope::parse(&bytes).expect("it was written here");
        assert_eq!(Request::decode(&again), Ok(request));
    }
    if let Ok(response) = Response::decode(&envelope) {
        let bytes = response.encode(Some(&key)).expect("it was read");
        check_signed(&bytes, &key);
        let again = Envelope::parse(&bytes).expect("it was written here");
        assert_eq!(Response::decode(&again), Ok(response));
    }
    if let Ok(indication) = Indication::decode(&envelope) {
        let bytes = indication
            .encode(envelope.transaction_id())
            .expect("it was read");
        let again = Envelope::parse(&bytes).expect("it was written here");
        assert_eq!(Indication::decode(&again), Ok(indication));
    }
}

/// A message signed here verifies, whatever is put behind the signature, and does not when a signed bit is turned.
fn check_signed(bytes: &[u8], key: &Key) {
    let verify = |bytes: &[u8]| Envelope::parse(bytes).map(|it| it.verify_integrity(key));
    assert_eq!(verify(bytes), Ok(Integrity::Valid));
    let mut fingerprinted = bytes.to_vec();
    append_fingerprint(&mut fingerprinted);
    assert_eq!(verify(&fingerprinted), Ok(Integrity::Valid));
    let mut damaged = bytes.to_vec();
    let at = 8 + usize::from(bytes[19]) % 12;
    damaged[at] ^= 1;
    assert_eq!(verify(&damaged), Ok(Integrity::Invalid));
}

//! Control messages: round trips, relay conformance vectors, hostile bytes.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use connlib_stun::*;
use proptest::{collection::vec, prelude::*};
use std::net::{IpAddr, SocketAddr};

const USERNAME: &str = "1767225600:Zm9vYmFyc2FsdA";
const PASSWORD: &str = "Zk4gxTOkbJAgDbuCC/GR5hYx+A9dZBiuB2slAcfHyys";
const SIGNED_REFRESH: &str = "000400442112a442000102030405060708090a0b00060019313736373232353630303a5a6d3976596d467963324673644100000000140008666972657a6f6e65000800149c74205c6a00faf7a6b327383c784b7f3f004421";

fn key() -> Key {
    Key::long_term(USERNAME, DEFAULT_REALM, PASSWORD)
}

fn id(byte: u8) -> TransactionId {
    TransactionId::new([byte; 12])
}

fn refresh(lifetime: Option<u32>) -> Request {
    Request {
        transaction_id: TransactionId::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        auth: AuthAttributes {
            username: Some(USERNAME.to_owned()),
            realm: Some(DEFAULT_REALM.to_owned()),
            nonce: None,
        },
        software: None,
        body: RequestBody::Refresh(Refresh {
            lifetime,
            ..Refresh::default()
        }),
    }
}

// relay C-14
#[test]
fn relay_c14_signed_refresh_vector() {
    let bytes = refresh(None).encode(Some(&key())).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, SIGNED_REFRESH);

    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let valid = Envelope::parse(&damaged)
            .is_ok_and(|envelope| envelope.verify_integrity(&key()) == Integrity::Valid);
        assert!(!valid, "bit {bit}");
    }
}

// relay C-16: an on-path attacker appends LIFETIME 0 behind the MAC.
#[test]
fn relay_c16_attributes_behind_integrity_do_not_exist() {
    let mut bytes = refresh(Some(600)).encode(Some(&key())).unwrap();
    bytes.extend_from_slice(&[0x00, 0x0D, 0, 4, 0, 0, 0, 0, 0x7F, 0xFE, 0, 0]);
    let body = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&body.to_be_bytes());
    append_fingerprint(&mut bytes);

    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(envelope.verify_integrity(&key()), Integrity::Valid);
    assert_eq!(envelope.unknown_required(), [0u16; 0]);
    assert_eq!(Request::decode(&envelope).unwrap(), refresh(Some(600)));

    let mut smuggled = refresh(None).encode(Some(&key())).unwrap();
    smuggled.extend_from_slice(&[0x00, 0x0D, 0, 4, 0, 0, 0, 0]);
    let body = (smuggled.len() - 20) as u16;
    smuggled[2..4].copy_from_slice(&body.to_be_bytes());
    let envelope = Envelope::parse(&smuggled).unwrap();
    assert_eq!(Request::decode(&envelope).unwrap(), refresh(None));
}

// A second MESSAGE-INTEGRITY stands behind the first and is ignored like anything else there.
#[test]
fn first_integrity_counts() {
    let mut bytes = refresh(Some(600)).encode(Some(&key())).unwrap();
    bytes.extend_from_slice(&[0x00, 0x0D, 0, 4, 0, 0, 0, 0, 0x00, 0x08, 0, 20]);
    bytes.extend_from_slice(&[0; 20]);
    let body = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&body.to_be_bytes());
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(envelope.verify_integrity(&key()), Integrity::Valid);
    assert_eq!(Request::decode(&envelope).unwrap(), refresh(Some(600)));
}

#[test]
fn other_headers_are_not_stun() {
    let bytes = refresh(None).encode(None).unwrap();
    assert!(Envelope::parse(&bytes).is_ok());
    for (at, mask) in [(0, 0x80), (0, 0x40), (3, 0x04), (4, 0x01), (7, 0x01)] {
        let mut other = bytes.clone();
        other[at] ^= mask;
        assert_eq!(Envelope::parse(&other).unwrap_err(), EnvelopeError::NotStun);
    }
}

#[test]
fn first_of_duplicate_attributes_counts() {
    let mut bytes = refresh(Some(600)).encode(None).unwrap();
    bytes.extend_from_slice(&[0x00, 0x0D, 0, 4, 0, 0, 0, 0]);
    let body = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&body.to_be_bytes());
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(Request::decode(&envelope).unwrap(), refresh(Some(600)));
}

#[test]
fn broken_requests_keep_their_header() {
    let flaws: [(&[u8], Flaw); 4] = [
        (&[0, 0x0D, 0], Flaw::Alignment),
        (&[0, 0x0D, 0, 4], Flaw::Overrun),
        (&[0, 0x0D, 0xFF, 0xFF], Flaw::Overrun),
        (&[0, 0x08, 0, 4, 1, 2, 3, 4], Flaw::IntegritySize),
    ];
    for (body, flaw) in flaws {
        let mut bytes = vec![0, 4, 0, body.len() as u8, 0x21, 0x12, 0xA4, 0x42];
        bytes.extend_from_slice(&[9; 12]);
        bytes.extend_from_slice(body);
        let header = Header {
            class: Class::Request,
            method: Method::Refresh,
            transaction_id: id(9),
        };
        assert_eq!(
            Envelope::parse(&bytes).unwrap_err(),
            EnvelopeError::Broken { header, flaw }
        );
    }
}

#[test]
fn wrong_or_misplaced_fingerprint_is_not_ours() {
    let mut wrong = refresh(None).encode(None).unwrap();
    append_fingerprint(&mut wrong);
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(
        Envelope::parse(&wrong).unwrap_err(),
        EnvelopeError::WrongFingerprint
    );

    // The checksum itself is right for the whole message, but an attribute follows.
    let mut followed = refresh(None).encode(None).unwrap();
    let body = (followed.len() - 20 + 16) as u16;
    followed[2..4].copy_from_slice(&body.to_be_bytes());
    let crc = crc32fast::hash(&followed) ^ 0x5354_554E;
    followed.extend_from_slice(&[0x80, 0x28, 0, 4]);
    followed.extend_from_slice(&crc.to_be_bytes());
    followed.extend_from_slice(&[0x80, 0x22, 0, 4, b'l', b'a', b't', b'e']);
    assert_eq!(
        Envelope::parse(&followed).unwrap_err(),
        EnvelopeError::WrongFingerprint
    );
}

#[test]
fn impossible_values_are_decode_errors() {
    let bad: [&[u8]; 6] = [
        &[0, 0x0C, 0, 4, 0x80, 0, 0, 0],          // channel number 0x8000
        &[0, 0x0C, 0, 2, 0x40, 0, 0, 0],          // short CHANNEL-NUMBER
        &[0, 0x17, 0, 4, 9, 0, 0, 0],             // unknown family
        &[0, 0x12, 0, 8, 0, 7, 1, 1, 1, 1, 1, 1], // unknown family in an address
        &[0, 0x14, 0, 2, 0xFF, 0xFE, 0, 0],       // realm that is no UTF-8
        &[0, 0x0D, 0, 3, 1, 2, 3, 0],             // LIFETIME of three bytes
    ];
    for body in bad {
        let mut bytes = vec![0, 9, 0, body.len() as u8, 0x21, 0x12, 0xA4, 0x42];
        bytes.extend_from_slice(&[9; 12]);
        bytes.extend_from_slice(body);
        let envelope = Envelope::parse(&bytes).unwrap();
        let error = Request::decode(&envelope).unwrap_err();
        assert!(
            matches!(error, DecodeError::BadAttribute(_)),
            "{body:?}: {error}"
        );
    }
}

#[test]
fn unknown_attributes_and_methods() {
    let body = [0x7F, 0xFE, 0, 0, 0xFF, 0xFE, 0, 1, 7, 0, 0, 0];
    let mut bytes = vec![0, 3, 0, body.len() as u8, 0x21, 0x12, 0xA4, 0x42];
    bytes.extend_from_slice(&[9; 12]);
    bytes.extend_from_slice(&body);
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(envelope.unknown_required(), [0x7FFE]);
    assert!(Request::decode(&envelope).is_ok());

    bytes[1] = 0x0E;
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(envelope.method(), Method::Other(0x00E));
    assert_eq!(
        Request::decode(&envelope),
        Err(DecodeError::UnknownMethod(0x00E))
    );
}

// relay §6.1: sizes that bound the amplification of unsigned replies.
#[test]
fn relay_c44_binding_reply_is_small() {
    let reply = Response {
        transaction_id: id(1),
        method: Method::Binding,
        software: None,
        outcome: Outcome::Success(Success::Binding {
            mapped: Some("192.0.2.1:1".parse().unwrap()),
        }),
    };
    assert_eq!(reply.encode(None).unwrap().len(), 32);
}

#[test]
fn over_long_texts_are_refused() {
    let mut request = refresh(None);
    request.auth.username = Some("x".repeat(600));
    assert!(matches!(
        request.encode(None),
        Err(EncodeError::BadAttribute(_))
    ));
    let huge = Indication::Data {
        peer: "192.0.2.1:1".parse().unwrap(),
        data: vec![0; 65_530],
    };
    assert!(huge.encode(id(1)).is_err());
}

#[test]
fn every_error_code_survives() {
    for code in 300..600 {
        let response = Response {
            transaction_id: id(1),
            method: Method::ChannelBind,
            software: None,
            outcome: Outcome::Error(ErrorResponse::new(ErrorCode::new(code).unwrap())),
        };
        let bytes = response.encode(Some(&key())).unwrap();
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!(envelope.verify_integrity(&key()), Integrity::Valid);
        assert_eq!(Response::decode(&envelope).unwrap(), response);
    }
    assert_eq!(ErrorCode::new(299), None);
    assert_eq!(ErrorCode::new(600), None);
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn channel() -> impl Strategy<Value = ChannelNumber> {
    (0x4000u16..=0x7FFF).prop_map(|number| ChannelNumber::new(number).unwrap())
}

prop_compose! {
    fn allocate()(
        requested_transport: Option<u8>,
        requested_family in proptest::option::of(family()),
        additional_family in proptest::option::of(family()),
        lifetime: Option<u32>,
        even_port: Option<bool>,
        dont_fragment: bool,
        reservation_token: Option<u64>,
    ) -> Allocate {
        Allocate {
            requested_transport, requested_family, additional_family, lifetime, even_port,
            dont_fragment, reservation_token,
        }
    }
}

fn request_body() -> impl Strategy<Value = RequestBody> {
    prop_oneof![
        Just(RequestBody::Binding),
        allocate().prop_map(RequestBody::Allocate),
        any::<Option<u32>>().prop_map(|lifetime| RequestBody::Refresh(Refresh {
            lifetime,
            ..Refresh::default()
        })),
        vec(address(), 0..4)
            .prop_map(|peers| RequestBody::CreatePermission(CreatePermission { peers })),
        (
            proptest::option::of(channel()),
            proptest::option::of(address())
        )
            .prop_map(|(number, peer)| RequestBody::ChannelBind(ChannelBind { number, peer })),
    ]
}

fn success() -> impl Strategy<Value = (Method, Success)> {
    let address_error = proptest::option::of((family(), 300u16..600)).prop_map(|error| {
        error.map(|(family, code)| AddressError {
            family,
            code: ErrorCode::new(code).unwrap(),
        })
    });
    prop_oneof![
        proptest::option::of(address())
            .prop_map(|mapped| (Method::Binding, Success::Binding { mapped })),
        (
            vec(address(), 0..3),
            proptest::option::of(address()),
            any::<Option<u32>>(),
            address_error
        )
            .prop_map(|(relayed, mapped, lifetime, address_error)| (
                Method::Allocate,
                Success::Allocate {
                    relayed,
                    mapped,
                    lifetime,
                    address_error
                }
            )),
        any::<Option<u32>>().prop_map(|lifetime| (Method::Refresh, Success::Refresh { lifetime })),
        Just((Method::CreatePermission, Success::CreatePermission)),
        Just((Method::ChannelBind, Success::ChannelBind)),
    ]
}

#[test]
fn refusals_repeat_methods_that_nobody_has_defined() {
    for method in 0..0x1000 {
        let mut bytes = refresh(None).encode(None).unwrap();
        let kind = (method & 0x000F) | (method & 0x0070) << 1 | (method & 0x0F80) << 2;
        bytes[..2].copy_from_slice(&u16::to_be_bytes(kind));
        let request = Envelope::parse(&bytes).unwrap();
        let error = ErrorResponse::new(ErrorCode::BAD_REQUEST);
        let reply = Response::error(request.header(), error)
            .encode(None)
            .unwrap();
        let reply = Envelope::parse(&reply).unwrap();
        assert_eq!(reply.method(), request.method());
        assert_eq!(reply.class(), Class::Error);
    }
}

proptest! {
    #[test]
    fn requests_round_trip(
        body in request_body(),
        transaction: [u8; 12],
        nonce in proptest::option::of("[a-zA-Z0-9]{0,32}"),
        software in proptest::option::of("[a-z;= ]{0,40}"),
        signed: bool,
        fingerprint: bool,
    ) {
        let request = Request {
            transaction_id: TransactionId::new(transaction),
            auth: AuthAttributes {
                username: Some(USERNAME.to_owned()),
                realm: Some(DEFAULT_REALM.to_owned()),
                nonce,
            },
            software,
            body,
        };
        let mut bytes = request.encode(signed.then(key).as_ref()).unwrap();
        if fingerprint {
            append_fingerprint(&mut bytes);
        }
        let envelope = Envelope::parse(&bytes).unwrap();
        let expected = if signed { Integrity::Valid } else { Integrity::Missing };
        prop_assert_eq!(envelope.verify_integrity(&key()), expected);
        prop_assert_eq!(envelope.has_fingerprint(), fingerprint);
        prop_assert_eq!(envelope.unknown_required(), Vec::<u16>::new());
        prop_assert_eq!(Request::decode(&envelope).unwrap(), request);
    }

    #[test]
    fn responses_round_trip(
        (method, success) in success(),
        transaction: [u8; 12],
        software in proptest::option::of("[a-z]{0,20}"),
    ) {
        let response = Response {
            transaction_id: TransactionId::new(transaction),
            method,
            software,
            outcome: Outcome::Success(success),
        };
        let bytes = response.encode(Some(&key())).unwrap();
        let envelope = Envelope::parse(&bytes).unwrap();
        prop_assert_eq!(envelope.verify_integrity(&key()), Integrity::Valid);
        prop_assert_eq!(Response::decode(&envelope).unwrap(), response);
    }

    #[test]
    fn challenges_round_trip(nonce in "[a-zA-Z0-9]{1,32}", unknown in vec(any::<u16>(), 0..9)) {
        let error = ErrorResponse {
            code: ErrorCode::STALE_NONCE,
            realm: Some(DEFAULT_REALM.to_owned()),
            nonce: Some(nonce),
            unknown_attributes: unknown,
        };
        let header = Header {
            class: Class::Request,
            method: Method::Allocate,
            transaction_id: id(3),
        };
        let response = Response::error(header, error);
        let bytes = response.encode(None).unwrap();
        prop_assert_eq!(Response::decode(&Envelope::parse(&bytes).unwrap()).unwrap(), response);
    }

    #[test]
    fn indications_round_trip(peer in address(), data: Vec<u8>, send: bool) {
        let indication = if send {
            Indication::Send { peer, data }
        } else {
            Indication::Data { peer, data }
        };
        let bytes = indication.encode(id(4)).unwrap();
        prop_assert_eq!(Indication::decode(&Envelope::parse(&bytes).unwrap()).unwrap(), indication);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_everything(&bytes);
    }

    // A sound header leads the walk and the codec deep into arbitrary attributes.
    #[test]
    fn arbitrary_attributes_never_panic(
        kind in 0u16..0x4000,
        attributes in vec((prop_oneof![0u16..0x30, any::<u16>()], vec(any::<u8>(), 0..40)), 0..8),
        damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        bytes.extend_from_slice(&[7; 12]);
        for (kind, value) in attributes {
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
            bytes.extend_from_slice(&value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let body = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&body.to_be_bytes());
        read_everything(&bytes);
        if let Some((at, value)) = damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
            read_everything(&bytes);
        }
    }
}

fn read_everything(bytes: &[u8]) {
    let _ = classify(bytes, ChannelRange::Wide);
    let Ok(envelope) = Envelope::parse(bytes) else {
        return;
    };
    let _ = envelope.verify_integrity(&key());
    let _ = envelope.unknown_required();
    let _ = Request::decode(&envelope);
    let _ = Response::decode(&envelope);
    let _ = Indication::decode(&envelope);
}

//! The published test vectors of RFC 5769.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use connlib_stun::{
    Class, Envelope, EnvelopeError, Integrity, Key, Method, Outcome, Response, Success,
    append_fingerprint, attribute,
};

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769 §2.1, a request with short-term credentials.
const REQUEST: &str = "\
    000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff\
    80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249\
    c1b571a280280004e57a3bcf";

/// RFC 5769 §2.2.
const IPV4_RESPONSE: &str = "\
    0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643\
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";

/// RFC 5769 §2.3.
const IPV6_RESPONSE: &str = "\
    010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa\
    a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

/// RFC 5769 §2.4, a request with long-term credentials.
const LONG_TERM: &str = "\
    000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c\
    662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f72670000080014\
    f67024656dd64a3e02b8e0712e85c9a28ca89666";

#[test]
fn request() {
    let bytes = hex(REQUEST);
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(envelope.class(), Class::Request);
    assert_eq!(envelope.method(), Method::Binding);
    assert!(envelope.has_fingerprint());
    assert_eq!(
        envelope.attribute(attribute::USERNAME),
        Some(&b"evtj:h6vY"[..])
    );
    assert_eq!(
        envelope.attribute(attribute::SOFTWARE),
        Some(&b"STUN test client"[..])
    );
    // PRIORITY is required and unknown here, ICE-CONTROLLED is optional.
    assert_eq!(envelope.unknown_required(), [0x0024]);
    assert_signed(&bytes, &Key::from_bytes(PASSWORD.as_bytes()));
}

#[test]
fn responses() {
    for (vector, mapped) in [
        (IPV4_RESPONSE, "192.0.2.1:32853"),
        (
            IPV6_RESPONSE,
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ),
    ] {
        let bytes = hex(vector);
        let envelope = Envelope::parse(&bytes).unwrap();
        let response = Response::decode(&envelope).unwrap();
        assert_eq!(
            response.outcome,
            Outcome::Success(Success::Binding {
                mapped: Some(mapped.parse().unwrap())
            })
        );
        assert_signed(&bytes, &Key::from_bytes(PASSWORD.as_bytes()));
    }
}

#[test]
fn long_term_request() {
    let bytes = hex(LONG_TERM);
    let username = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
    let key = Key::long_term(username, "example.org", "TheMatrIX");
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(
        envelope.attribute(attribute::USERNAME),
        Some(username.as_bytes())
    );
    assert!(!envelope.has_fingerprint());
    assert_signed(&bytes, &key);
}

#[test]
fn fingerprint_is_reproduced() {
    let bytes = hex(REQUEST);
    let mut rebuilt = bytes[..bytes.len() - 8].to_vec();
    let body = (rebuilt.len() - 20) as u16;
    rebuilt[2..4].copy_from_slice(&body.to_be_bytes());
    append_fingerprint(&mut rebuilt);
    assert_eq!(rebuilt, bytes);
}

/// Valid under `key` and under nothing else; every flipped bit is noticed, up to the end of MESSAGE-INTEGRITY.
fn assert_signed(bytes: &[u8], key: &Key) {
    let envelope = Envelope::parse(bytes).unwrap();
    assert_eq!(envelope.verify_integrity(key), Integrity::Valid);
    let other = Key::from_bytes(b"another");
    assert_eq!(envelope.verify_integrity(&other), Integrity::Invalid);
    let fingerprint = if envelope.has_fingerprint() { 8 } else { 0 };
    for bit in 0..(bytes.len() - fingerprint) * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match Envelope::parse(&damaged) {
            Ok(envelope) => assert_ne!(
                envelope.verify_integrity(key),
                Integrity::Valid,
                "bit {bit}"
            ),
            Err(EnvelopeError::NotStun) => assert!(bit / 8 < 8, "bit {bit}"),
            Err(EnvelopeError::WrongFingerprint | EnvelopeError::Broken { .. }) => {}
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

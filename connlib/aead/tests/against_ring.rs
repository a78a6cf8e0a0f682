//! Whatever the processor has, the bytes are those of `ring`.

use connlib_aead::{Forged, Key, TAG_LEN};
use proptest::prelude::*;

/// Longer than all that is treated differently: 24 blocks at once, then 16 by 16.
const LONGEST: usize = 64 * 60;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 256) as u8).collect()
}

fn keys() -> (Key, Key) {
    let key = std::array::from_fn(|i| i as u8 * 7 + 3);

    (Key::new(&key), Key::portable(&key))
}

#[test]
fn every_length_is_sealed_and_opened_alike() {
    let (ours, ring) = keys();
    let message = pattern(LONGEST);
    let (mut sealed, mut expected) = ([0; LONGEST + TAG_LEN], [0; LONGEST + TAG_LEN]);
    let mut opened = [0; LONGEST];

    for len in 0..=LONGEST {
        let counter = len as u64 * 0x1_0000_0001;
        // What is behind the message must not be touched.
        sealed.fill(0xaa);
        expected.fill(0xaa);
        ours.seal(counter, &message[..len], &mut sealed);
        ring.seal(counter, &message[..len], &mut expected);
        assert!(sealed == expected, "{len} bytes are sealed differently");

        opened.fill(0xaa);
        let sealed = &sealed[..len + TAG_LEN];
        assert_eq!(ours.open(counter, sealed, &mut opened), Ok(len));
        assert!(
            opened[..len] == message[..len],
            "{len} bytes are opened differently"
        );
        assert!(opened[len..].iter().all(|byte| *byte == 0xaa));
    }
}

/// RFC 8439 §2.8: 64-bit counters go into the last eight bytes of the nonce.
#[test]
fn all_bits_of_the_counter_count() {
    let (ours, ring) = keys();
    let (mut sealed, mut expected) = ([0; 100 + TAG_LEN], [0; 100 + TAG_LEN]);

    for counter in (0..64).map(|bit| 1 << bit).chain([0, u64::MAX]) {
        ours.seal(counter, &[7; 100], &mut sealed);
        ring.seal(counter, &[7; 100], &mut expected);
        assert_eq!(sealed, expected, "counter {counter}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_nothing_is_released() {
    for key in <[Key; 2]>::from(keys()) {
        for len in [0, 1, 63, 64, 448, 449, 960, 961, 1280] {
            let message = pattern(len);
            let mut sealed = vec![0; len + TAG_LEN];
            key.seal(9, &message, &mut sealed);

            for at in (0..len).step_by(29).chain(len..len + TAG_LEN) {
                sealed[at] ^= 0x10;
                let mut out = vec![0xaa; len];
                assert_eq!(key.open(9, &sealed, &mut out), Err(Forged));
                assert!(
                    len < 8
                        || !out
                            .windows(8)
                            .any(|part| message.windows(8).any(|m| m == part))
                );
                sealed[at] ^= 0x10;
            }
            assert_eq!(key.open(8, &sealed, &mut vec![0; len]), Err(Forged));
            assert_eq!(key.open(9, &sealed, &mut vec![0; len]), Ok(len));
        }
    }
}

#[test]
fn what_is_shorter_than_a_tag_is_forged() {
    for key in <[Key; 2]>::from(keys()) {
        for len in 0..TAG_LEN {
            assert_eq!(key.open(0, &vec![0; len], &mut []), Err(Forged));
        }
    }
}

#[test]
#[should_panic(expected = "out of range")]
fn a_short_buffer_is_refused() {
    keys().0.seal(0, &[0; 100], &mut [0; 100 + TAG_LEN - 1]);
}

#[test]
fn keys_are_not_printed() {
    let key = [0xab; 32];
    for text in [
        format!("{:?}", Key::new(&key)),
        format!("{:?}", Key::portable(&key)),
    ] {
        assert!(
            !text.contains("171") && !text.to_lowercase().contains("abab"),
            "{text}"
        );
    }
}

proptest! {
    #[test]
    fn random_messages_are_sealed_alike(
        key: [u8; 32],
        counter: u64,
        message in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let (ours, ring) = (Key::new(&key), Key::portable(&key));
        let mut sealed = vec![0; message.len() + TAG_LEN];
        let mut expected = sealed.clone();
        ours.seal(counter, &message, &mut sealed);
        ring.seal(counter, &message, &mut expected);
        prop_assert_eq!(&sealed, &expected);

        let mut opened = vec![0; message.len()];
        prop_assert_eq!(ring.open(counter, &sealed, &mut opened), Ok(message.len()));
        prop_assert_eq!(&opened, &message);
    }
}

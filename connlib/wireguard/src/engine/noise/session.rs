//! One session: a key per direction, the send counter, the counters received (whitepaper §5.4.6).

use connlib_aead::Key;

use super::replay::Replay;
use crate::engine::EngineError;
use crate::message::{DATA_HEADER_LEN, DATA_OVERHEAD, KEEPALIVE_LEN, counter};

/// The keys that a handshake results in, from the view of one side. Zeroed when dropped.
#[derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub(super) struct SessionKeys {
    pub(super) seal: [u8; 32],
    pub(super) open: [u8; 32],
}

pub(super) struct Session {
    /// Receiver index of what we get.
    pub(super) local_index: u32,
    /// Receiver index of what we send.
    peer_index: u32,
    seal: Key,
    open: Key,
    next_counter: u64,
    received: Replay,
}

impl Session {
    pub(super) fn new(local_index: u32, peer_index: u32, keys: &SessionKeys) -> Self {
        Self {
            local_index,
            peer_index,
            seal: Key::new(&keys.seal),
            open: Key::new(&keys.open),
            next_counter: 0,
            received: Replay::new(),
        }
    }

    /// Writes the data message of `packet` to the front of `slot`, which is at least as long; returns its length.
    #[inline]
    pub(super) fn seal(&mut self, packet: &[u8], slot: &mut [u8]) -> usize {
        let len = packet.len() + DATA_OVERHEAD;
        let counter = self.next_counter;
        self.next_counter += 1;

        let (header, sealed) = slot[..len].split_at_mut(DATA_HEADER_LEN);
        header[..4].copy_from_slice(&[4, 0, 0, 0]);
        header[4..8].copy_from_slice(&self.peer_index.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        self.seal.seal(counter, packet, sealed);

        len
    }

    pub(super) fn keepalive(&mut self) -> [u8; KEEPALIVE_LEN] {
        let mut keepalive = [0; KEEPALIVE_LEN];
        self.seal(&[], &mut keepalive);

        keepalive
    }

    /// Opens a data message of this session into `out`; returns the length of its packet, 0 for a keepalive.
    #[inline]
    pub(super) fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, EngineError> {
        let (Some(counter), Some(sealed)) = (counter(datagram), datagram.get(DATA_HEADER_LEN..))
        else {
            return Err(EngineError::Refused);
        };
        if !self.received.is_new(counter) {
            return Err(EngineError::Replayed);
        }
        let len = self
            .open
            .open(counter, sealed, out)
            .map_err(|_| EngineError::Undecryptable)?;
        self.received.mark(counter);

        packet_len(&out[..len])
    }
}

/// The length that an IP packet names in its header: what is behind it is padding (whitepaper §5.4.6). 0 for no packet.
#[inline]
fn packet_len(content: &[u8]) -> Result<usize, EngineError> {
    let Some(first) = content.first() else {
        return Ok(0);
    };
    let field = |at: usize| u16::from_be_bytes([content[at], content[at + 1]]) as usize;
    let (len, min) = match (first >> 4, content.len()) {
        (4, 20..) => (field(2), 20),
        (6, 40..) => (40 + field(4), 40),
        _ => return Err(EngineError::NotIp),
    };

    if len < min || len > content.len() {
        return Err(EngineError::NotIp);
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Session, Session) {
        let (ours, theirs) = (
            SessionKeys {
                seal: [1; 32],
                open: [2; 32],
            },
            SessionKeys {
                seal: [2; 32],
                open: [1; 32],
            },
        );

        (Session::new(10, 20, &ours), Session::new(20, 10, &theirs))
    }

    fn ipv4(len: usize) -> Vec<u8> {
        let mut packet = vec![0x45; len];
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet
    }

    fn sealed(session: &mut Session, content: &[u8]) -> Vec<u8> {
        let mut slot = vec![0xaa; content.len() + DATA_OVERHEAD];
        assert_eq!(session.seal(content, &mut slot), slot.len());
        slot
    }

    #[test]
    fn header_and_counter_of_data_messages() {
        let (mut session, _) = pair();
        for counter in 0..3 {
            let datagram = sealed(&mut session, &ipv4(20));
            assert_eq!(datagram.len(), 52);
            assert_eq!(datagram[..8], [4, 0, 0, 0, 20, 0, 0, 0]);
            assert_eq!(datagram[8..16], [counter, 0, 0, 0, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn each_message_opens_once() {
        let (mut ours, mut theirs) = pair();
        let mut out = [0; 2048];
        let first = sealed(&mut ours, &ipv4(100));
        let second = sealed(&mut ours, &ipv4(200));

        assert_eq!(theirs.open(&second, &mut out), Ok(200));
        assert_eq!(out[..200], ipv4(200));
        assert_eq!(theirs.open(&first, &mut out), Ok(100));
        assert_eq!(theirs.open(&first, &mut out), Err(EngineError::Replayed));
        assert_eq!(theirs.open(&second, &mut out), Err(EngineError::Replayed));
        let keepalive = ours.keepalive();
        assert_eq!(theirs.open(&keepalive, &mut out), Ok(0));
    }

    #[test]
    fn a_forgery_does_not_take_the_counter() {
        let (mut ours, mut theirs) = pair();
        let mut out = [0; 2048];
        let datagram = sealed(&mut ours, &ipv4(40));
        for at in 8..datagram.len() {
            let mut forged = datagram.clone();
            forged[at] ^= 0x40;
            assert_eq!(
                theirs.open(&forged, &mut out),
                Err(EngineError::Undecryptable),
                "byte {at}"
            );
        }

        assert_eq!(theirs.open(&datagram, &mut out), Ok(40));
    }

    #[test]
    fn padding_is_not_part_of_the_packet() {
        let (mut ours, mut theirs) = pair();
        let mut out = [0; 2048];
        let mut padded = ipv4(45);
        padded.resize(48, 0);
        assert_eq!(theirs.open(&sealed(&mut ours, &padded), &mut out), Ok(45));

        let mut ipv6 = vec![0; 64];
        ipv6[0] = 0x60;
        ipv6[5] = 13;
        assert_eq!(theirs.open(&sealed(&mut ours, &ipv6), &mut out), Ok(53));
    }

    #[test]
    fn authentic_garbage_is_no_packet() {
        let (mut ours, mut theirs) = pair();
        let mut out = [0; 2048];
        let mut longer_than_sent = ipv4(60);
        longer_than_sent.truncate(59);
        let mut shorter_than_a_header = ipv4(60);
        shorter_than_a_header[3] = 19;
        for garbage in [
            vec![0; 40],
            vec![0x45; 19],
            vec![0x60; 39],
            longer_than_sent,
            shorter_than_a_header,
        ] {
            let datagram = sealed(&mut ours, &garbage);
            assert_eq!(theirs.open(&datagram, &mut out), Err(EngineError::NotIp));
            assert_eq!(theirs.open(&datagram, &mut out), Err(EngineError::Replayed));
        }
    }
}

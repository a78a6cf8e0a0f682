//! What each datagram of a load carries, so that its arrival tells about its way.
//!
//! ```text
//!  0        4        8                16               24
//!  | run    | lane   | sequence       | sent at (ns)   | padding …
//! ```
//!
//! Big endian. The run number keeps late datagrams of an earlier measurement apart.

/// Bytes of a stamp: the smallest payload of a load.
pub(crate) const STAMP_BYTES: usize = 24;

/// A datagram's stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The measurement.
    pub(crate) run: u32,
    /// Which of its lanes.
    pub(crate) lane: u32,
    /// Counts the lane's datagrams, from 1.
    pub(crate) sequence: u64,
    /// When it was sent, in nanoseconds since the run began.
    pub(crate) sent_at: u64,
}

impl Stamp {
    /// Writes it to the beginning of a payload, which has room for it.
    pub(crate) fn write(self, payload: &mut [u8]) {
        payload[..4].copy_from_slice(&self.run.to_be_bytes());
        payload[4..8].copy_from_slice(&self.lane.to_be_bytes());
        payload[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        payload[16..24].copy_from_slice(&self.sent_at.to_be_bytes());
    }

    /// Reads it; `None` if the payload is too short.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (run, rest) = payload.split_first_chunk()?;
        let (lane, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (sent_at, _) = rest.split_first_chunk()?;
        Some(Self {
            run: u32::from_be_bytes(*run),
            lane: u32::from_be_bytes(*lane),
            sequence: u64::from_be_bytes(*sequence),
            sent_at: u64::from_be_bytes(*sent_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_its_way() {
        let stamp = Stamp {
            run: 7,
            lane: 499,
            sequence: 1 << 40,
            sent_at: 123_456_789_012,
        };
        let mut payload = [0xff; STAMP_BYTES + 3];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(payload[STAMP_BYTES..], [0xff; 3]);
        assert_eq!(Stamp::read(&payload[..STAMP_BYTES - 1]), None);
    }
}

//! Explicit congestion notification (RFC 3168): the two low bits of the traffic class.

/// Codepoint of the ECN field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ecn {
    /// 00: the transport does not take part.
    #[default]
    NotEct,
    /// 01: ECN-capable transport, ECT(1).
    Ect1,
    /// 10: ECN-capable transport, ECT(0).
    Ect0,
    /// 11: congestion experienced.
    Ce,
}

impl Ecn {
    /// The codepoint of the two low bits of `bits`; the others are ignored.
    pub fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The codepoint as the two low bits.
    pub fn to_bits(self) -> u8 {
        match self {
            Self::NotEct => 0b00,
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        }
    }

    /// What a decapsulated packet says, given its own codepoint and that of the datagram around it.
    ///
    /// Only congestion is carried over, and only to a transport that takes part: the field is never cleared and
    /// ECT(0) and ECT(1) are never exchanged (RFC 6040 §4.2, without its drop of CE over Not-ECT).
    pub fn merge(inner: Self, outer: Self) -> Self {
        match (inner, outer) {
            (Self::Ect0 | Self::Ect1, Self::Ce) => Self::Ce,
            (inner, _) => inner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ecn::{self, Ce, Ect0, Ect1, NotEct};

    #[test]
    fn tunnel_76_ecn_table() {
        // (inner, outer, merged)
        let table = [
            (NotEct, NotEct, NotEct),
            (NotEct, Ect1, NotEct),
            (NotEct, Ect0, NotEct),
            (NotEct, Ce, NotEct),
            (Ect1, NotEct, Ect1),
            (Ect1, Ect1, Ect1),
            (Ect1, Ect0, Ect1),
            (Ect1, Ce, Ce),
            (Ect0, NotEct, Ect0),
            (Ect0, Ect1, Ect0),
            (Ect0, Ect0, Ect0),
            (Ect0, Ce, Ce),
            (Ce, NotEct, Ce),
            (Ce, Ect1, Ce),
            (Ce, Ect0, Ce),
            (Ce, Ce, Ce),
        ];
        for (inner, outer, merged) in table {
            assert_eq!(Ecn::merge(inner, outer), merged, "{inner:?} in {outer:?}");
        }
    }

    #[test]
    fn bits_round_trip_and_ignore_dscp() {
        for bits in 0..=255u8 {
            assert_eq!(Ecn::from_bits(bits).to_bits(), bits & 0b11);
        }
    }
}

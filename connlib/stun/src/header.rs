//! The 20-byte STUN header (RFC 8489 §5): class, method, length, magic cookie, transaction id.

pub use stun_codec::TransactionId;

/// Fixed value of bytes 4–7.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// Bytes of a STUN header.
pub(crate) const HEADER_LEN: usize = 20;

/// The four message classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Expects a response.
    Request,
    /// Expects nothing.
    Indication,
    /// Answers a request.
    Success,
    /// Refuses a request.
    Error,
}

/// The methods that this crate speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// 0x001, RFC 8489.
    Binding,
    /// 0x003, RFC 8656.
    Allocate,
    /// 0x004, RFC 8656.
    Refresh,
    /// 0x006, RFC 8656, indication only.
    Send,
    /// 0x007, RFC 8656, indication only.
    Data,
    /// 0x008, RFC 8656.
    CreatePermission,
    /// 0x009, RFC 8656.
    ChannelBind,
    /// Any other 12-bit method.
    Other(u16),
}

impl Method {
    /// The 12-bit number on the wire.
    #[must_use]
    pub const fn codepoint(self) -> u16 {
        match self {
            Self::Binding => 0x001,
            Self::Allocate => 0x003,
            Self::Refresh => 0x004,
            Self::Send => 0x006,
            Self::Data => 0x007,
            Self::CreatePermission => 0x008,
            Self::ChannelBind => 0x009,
            Self::Other(codepoint) => codepoint & 0xFFF,
        }
    }

    const fn from_codepoint(codepoint: u16) -> Self {
        match codepoint {
            0x001 => Self::Binding,
            0x003 => Self::Allocate,
            0x004 => Self::Refresh,
            0x006 => Self::Send,
            0x007 => Self::Data,
            0x008 => Self::CreatePermission,
            0x009 => Self::ChannelBind,
            other => Self::Other(other),
        }
    }
}

/// What the header of a message says, apart from its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Message class.
    pub class: Class,
    /// Message method.
    pub method: Method,
    /// Transaction id; a response repeats that of its request.
    pub transaction_id: TransactionId,
}

impl Header {
    /// Reads the header and checks that it announces exactly the bytes of the datagram.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let (head, body) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let message_type = u16::from_be_bytes([head[0], head[1]]);
        let announced = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let cookie = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        if message_type & 0xC000 != 0 || cookie != MAGIC_COOKIE || announced != body.len() {
            return None;
        }
        let mut id = [0; 12];
        id.copy_from_slice(&head[8..]);
        let (class, method) = split_type(message_type);
        Some(Self {
            class,
            method,
            transaction_id: TransactionId::new(id),
        })
    }
}

/// Separates the interleaved class and method bits (RFC 8489 §5, figure 3).
const fn split_type(message_type: u16) -> (Class, Method) {
    let class = match message_type & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    let method =
        (message_type & 0x000F) | ((message_type & 0x00E0) >> 1) | ((message_type & 0x3E00) >> 2);
    (class, Method::from_codepoint(method))
}

/// Interleaves class and method bits; the inverse of [`split_type`].
pub(crate) const fn join_type(class: Class, method: Method) -> u16 {
    let class = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    let method = method.codepoint();
    class | (method & 0x000F) | ((method & 0x0070) << 1) | ((method & 0x0F80) << 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_split_and_joined() {
        for message_type in 0..0x4000 {
            let (class, method) = split_type(message_type);
            assert_eq!(join_type(class, method), message_type);
        }
    }

    #[test]
    fn type_bits() {
        assert_eq!(split_type(0x0001), (Class::Request, Method::Binding));
        assert_eq!(split_type(0x0103), (Class::Success, Method::Allocate));
        assert_eq!(split_type(0x0113), (Class::Error, Method::Allocate));
        assert_eq!(split_type(0x0016), (Class::Indication, Method::Send));
        assert_eq!(split_type(0x0009), (Class::Request, Method::ChannelBind));
        assert_eq!(split_type(0x3EEF), (Class::Request, Method::Other(0xFFF)));
    }

    #[test]
    fn length_must_match() {
        let mut bytes = [0u8; 24];
        bytes[1] = 1;
        bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        assert!(Header::parse(&bytes).is_none());
        bytes[3] = 4;
        assert!(Header::parse(&bytes).is_some());
        assert!(Header::parse(&bytes[..23]).is_none());
    }
}

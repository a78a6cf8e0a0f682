//! Bridge to `stun_codec`: the attribute set of this crate, decoding of checked envelopes, encoding and signing.
//!
//! `stun_codec` sees nothing but messages that [`Envelope`] has checked and cut in front of MESSAGE-INTEGRITY. Its coders
//! keep state after a failure, so each message gets fresh ones. Integrity and FINGERPRINT are added by us to the encoded
//! bytes, which spares `stun_codec`'s re-encoding. CHANNEL-NUMBER and ADDRESS-ERROR-CODE are not part of the set: it
//! refuses numbers above 0x4FFF and does not know the other, so both are read from the envelope and appended by hand.

use bytecodec::{DecodeExt, EncodeExt};
use stun_codec::{Message, MessageClass, MessageDecoder, MessageEncoder, convert::TryAsRef};

pub(crate) use set::Attr;
pub(crate) use stun_codec::{
    rfc5389::attributes::{
        ErrorCode, MappedAddress, Nonce, Realm, Software, UnknownAttributes, Username,
        XorMappedAddress,
    },
    rfc5766::attributes::{
        Data, DontFragment, EvenPort, Lifetime, RequestedTransport, ReservationToken,
        XorPeerAddress, XorRelayAddress,
    },
    rfc8656::attributes::{AdditionalAddressFamily, AddressFamily, RequestedAddressFamily},
};

use crate::{
    Class, Family, Key, Method, TransactionId, attribute,
    envelope::{self, Envelope},
    error::{DecodeError, EncodeError},
    fingerprint, header,
};

mod set {
    #![allow(
        unreachable_pub,
        missing_docs,
        reason = "the set is defined by a macro of `stun_codec`"
    )]
    use super::*;
    use stun_codec::define_attribute_enums;

    define_attribute_enums!(
        Attr,
        AttrDecoder,
        AttrEncoder,
        [
            MappedAddress,
            Username,
            ErrorCode,
            UnknownAttributes,
            Lifetime,
            XorPeerAddress,
            Data,
            Realm,
            Nonce,
            XorRelayAddress,
            RequestedAddressFamily,
            EvenPort,
            RequestedTransport,
            DontFragment,
            XorMappedAddress,
            ReservationToken,
            AdditionalAddressFamily,
            Software
        ]
    );
}

/// Largest message that leaves room for every attribute appended by hand in a 16-bit length.
const MAX_MESSAGE: usize = u16::MAX as usize - fingerprint::ATTRIBUTE_LEN;

/// The decoded attributes of a checked message.
pub(crate) struct Decoded(Message<Attr>);

impl Decoded {
    pub(crate) fn new(envelope: &Envelope<'_>) -> Result<Self, DecodeError> {
        MessageDecoder::<Attr>::new()
            .decode_from_bytes(&envelope.cut())
            .map_err(bad_attribute)?
            .map(Self)
            .map_err(|broken| bad_attribute(broken.error().clone()))
    }

    /// The first attribute of type `T`.
    pub(crate) fn get<T: stun_codec::Attribute>(&self) -> Option<&T>
    where
        Attr: TryAsRef<T>,
    {
        self.0.get_attribute()
    }

    /// All attributes, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Attr> {
        self.0.attributes()
    }
}

/// The first four bytes of a fixed-size attribute that is read by hand; `None` when absent.
pub(crate) fn raw_word(envelope: &Envelope<'_>, kind: u16) -> Result<Option<[u8; 4]>, DecodeError> {
    let Some(value) = envelope.attribute(kind) else {
        return Ok(None);
    };
    match value.first_chunk() {
        Some(word) => Ok(Some(*word)),
        None => Err(DecodeError::BadAttribute(format!(
            "{kind:#06x} is shorter than 4 bytes"
        ))),
    }
}

/// A message under construction.
pub(crate) struct Builder {
    message_type: u16,
    message: Message<Attr>,
    raw: Vec<(u16, [u8; 4])>,
}

impl Builder {
    pub(crate) fn new(class: Class, method: Method, id: TransactionId) -> Self {
        let message_type = header::join_type(class, method);
        let class = match class {
            Class::Request => MessageClass::Request,
            Class::Indication => MessageClass::Indication,
            Class::Success => MessageClass::SuccessResponse,
            Class::Error => MessageClass::ErrorResponse,
        };
        let method =
            stun_codec::Method::new(method.codepoint()).expect("`Method::codepoint` has 12 bits");
        Self {
            message_type,
            message: Message::new(class, method, id),
            raw: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, attribute: impl Into<Attr>) {
        self.message.add_attribute(attribute);
    }

    /// Adds an attribute outside the set; it stands behind those of the set.
    pub(crate) fn push_raw(&mut self, kind: u16, value: [u8; 4]) {
        self.raw.push((kind, value));
    }

    pub(crate) fn push_text(&mut self, text: Text<'_>) -> Result<(), EncodeError> {
        match text {
            Text::Username(text) => self.push(Username::new(text.to_owned()).map_err(unencodable)?),
            Text::Realm(text) => self.push(Realm::new(text.to_owned()).map_err(unencodable)?),
            Text::Nonce(text) => self.push(Nonce::new(text.to_owned()).map_err(unencodable)?),
            Text::Software(text) => self.push(Software::new(text.to_owned()).map_err(unencodable)?),
        }
        Ok(())
    }

    /// Encodes the message, signed when a key is given.
    pub(crate) fn finish(self, key: Option<&Key>) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = MessageEncoder::<Attr>::new()
            .encode_into_bytes(self.message)
            .map_err(unencodable)?;
        // `stun_codec` loses the upper bits of methods that nobody has defined yet; a refusal repeats them.
        bytes[..2].copy_from_slice(&self.message_type.to_be_bytes());
        if bytes.len() + self.raw.len() * 8 + envelope::INTEGRITY_LEN > MAX_MESSAGE {
            return Err(EncodeError::TooLong);
        }
        for (kind, value) in self.raw {
            append(&mut bytes, kind, &value);
        }
        if let Some(key) = key {
            let mac = envelope::integrity_of(key, &bytes);
            append(&mut bytes, attribute::MESSAGE_INTEGRITY, &mac);
        }
        Ok(bytes)
    }
}

/// Text attributes, whose length is limited.
pub(crate) enum Text<'a> {
    Username(&'a str),
    Realm(&'a str),
    Nonce(&'a str),
    Software(&'a str),
}

/// Appends an attribute whose value needs no padding.
fn append(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    fingerprint::grow_length(message, 4 + value.len());
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&(value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4,
            Family::V6 => Self::V6,
        }
    }
}

impl From<AddressFamily> for Family {
    fn from(family: AddressFamily) -> Self {
        match family {
            AddressFamily::V4 => Self::V4,
            AddressFamily::V6 => Self::V6,
        }
    }
}

fn bad_attribute(error: bytecodec::Error) -> DecodeError {
    DecodeError::BadAttribute(cause(&error))
}

pub(crate) fn unencodable(error: bytecodec::Error) -> EncodeError {
    EncodeError::BadAttribute(cause(&error))
}

/// The codec's cause on one line, without its source locations.
fn cause(error: &bytecodec::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => format!("{:?}", error.kind()),
    }
}

//! The checked envelope of a received STUN message.
//!
//! One walk over the received bytes finds every attribute, MESSAGE-INTEGRITY and FINGERPRINT. Invariants of an
//! [`Envelope`]:
//!
//! * the header announces exactly the bytes of the datagram;
//! * every attribute lies, with its padding, within the message;
//! * [`Envelope::attributes`] ends in front of MESSAGE-INTEGRITY or FINGERPRINT, so nothing unauthenticated is ever
//!   visible behind a verified MAC (RFC 8489 §14.5: attributes behind it are ignored);
//! * a FINGERPRINT, if present, is the last attribute and correct.

use hmac::Mac;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::{
    attribute,
    credentials::Key,
    fingerprint,
    header::{Class, HEADER_LEN, Header, Method, TransactionId},
};

/// Size of MESSAGE-INTEGRITY with its header.
pub(crate) const INTEGRITY_LEN: usize = ATTRIBUTE_HEADER_LEN + MAC_LEN;
const ATTRIBUTE_HEADER_LEN: usize = 4;
const MAC_LEN: usize = 20;
const CRC_LEN: usize = 4;

/// A STUN message whose frame has been checked, borrowed from its datagram.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    bytes: &'a [u8],
    header: Header,
    /// Where the attributes end that count: offset of MESSAGE-INTEGRITY, of FINGERPRINT, or the end.
    body_end: usize,
    has_integrity: bool,
    has_fingerprint: bool,
}

/// Outcome of [`Envelope::verify_integrity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY is there and made with the key.
    Valid,
    /// MESSAGE-INTEGRITY is there and made with another key, or over other bytes.
    Invalid,
    /// There is no MESSAGE-INTEGRITY.
    Missing,
}

impl<'a> Envelope<'a> {
    /// Checks a received datagram.
    ///
    /// # Errors
    /// See [`EnvelopeError`]: what is not STUN is dropped, a broken request can still be answered.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, EnvelopeError> {
        let header = Header::parse(datagram).ok_or(EnvelopeError::NotStun)?;
        let marks = Marks::find(datagram).map_err(|flaw| match flaw {
            Flaw::Fingerprint => EnvelopeError::WrongFingerprint,
            flaw => EnvelopeError::Broken { header, flaw },
        })?;
        let body_end = marks
            .integrity
            .or(marks.fingerprint)
            .unwrap_or(datagram.len());
        Ok(Self {
            bytes: datagram,
            header,
            body_end,
            has_integrity: marks.integrity.is_some(),
            has_fingerprint: marks.fingerprint.is_some(),
        })
    }

    /// Class, method and transaction id.
    #[must_use]
    pub const fn header(&self) -> Header {
        self.header
    }

    /// Message class.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.header.class
    }

    /// Message method.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.header.method
    }

    /// Transaction id.
    #[must_use]
    pub const fn transaction_id(&self) -> TransactionId {
        self.header.transaction_id
    }

    /// The attributes in front of MESSAGE-INTEGRITY and FINGERPRINT, in order, known and unknown.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes {
            rest: &self.bytes[HEADER_LEN..self.body_end],
        }
    }

    /// The value of the first attribute of this type; later duplicates do not count.
    #[must_use]
    pub fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes()
            .find(|attribute| attribute.kind == kind)
            .map(|attribute| attribute.value)
    }

    /// Whether the message carries a MESSAGE-INTEGRITY (correct or not).
    #[must_use]
    pub const fn has_integrity(&self) -> bool {
        self.has_integrity
    }

    /// Whether the message carries a FINGERPRINT; if so, it is correct.
    #[must_use]
    pub const fn has_fingerprint(&self) -> bool {
        self.has_fingerprint
    }

    /// Compares MESSAGE-INTEGRITY, in constant time, with the MAC over exactly the received bytes in front of it.
    #[must_use]
    pub fn verify_integrity(&self, key: &Key) -> Integrity {
        if !self.has_integrity {
            return Integrity::Missing;
        }
        let signed = &self.bytes[..self.body_end];
        let received = &self.bytes[self.body_end + ATTRIBUTE_HEADER_LEN..][..MAC_LEN];
        if bool::from(integrity_of(key, signed)[..].ct_eq(received)) {
            Integrity::Valid
        } else {
            Integrity::Invalid
        }
    }

    /// Types of comprehension-required attributes that this crate does not know, in order, for UNKNOWN-ATTRIBUTES.
    #[must_use]
    pub fn unknown_required(&self) -> Vec<u16> {
        self.attributes()
            .map(|attribute| attribute.kind)
            .filter(|kind| {
                attribute::is_comprehension_required(*kind) && !attribute::is_known(*kind)
            })
            .collect()
    }

    /// A message of its own that ends with the last attribute that counts: what the attribute codec may see.
    pub(crate) fn cut(&self) -> Vec<u8> {
        let mut message = self.bytes[..self.body_end].to_vec();
        fingerprint::grow_length(&mut message, 0);
        message
    }
}

/// MAC for a message whose bytes in front of MESSAGE-INTEGRITY are `signed`; the length field is counted as if the
/// message ended with that attribute (RFC 8489 §14.5).
pub(crate) fn integrity_of(key: &Key, signed: &[u8]) -> [u8; MAC_LEN] {
    // `body_len` fits: the message with the attribute was received, or is being built, below 64 KiB.
    let body_len = (signed.len() - HEADER_LEN + INTEGRITY_LEN) as u16;
    key.mac()
        .chain_update(&signed[..2])
        .chain_update(body_len.to_be_bytes())
        .chain_update(&signed[4..])
        .finalize()
        .into_bytes()
        .into()
}

/// Offsets found by the walk.
#[derive(Default)]
struct Marks {
    integrity: Option<usize>,
    fingerprint: Option<usize>,
}

impl Marks {
    /// Walks over all attributes of a datagram with a valid header.
    fn find(datagram: &[u8]) -> Result<Self, Flaw> {
        if !datagram.len().is_multiple_of(4) {
            return Err(Flaw::Alignment);
        }
        let mut marks = Self::default();
        let mut offset = HEADER_LEN;
        while offset < datagram.len() {
            let attribute = read_attribute(&datagram[offset..]).ok_or(Flaw::Overrun)?;
            marks.visit(datagram, offset, attribute)?;
            offset += ATTRIBUTE_HEADER_LEN + attribute.value.len().next_multiple_of(4);
        }
        Ok(marks)
    }

    fn visit(
        &mut self,
        datagram: &[u8],
        offset: usize,
        attribute: Attribute<'_>,
    ) -> Result<(), Flaw> {
        if self.fingerprint.is_some() {
            return Err(Flaw::Fingerprint);
        }
        match attribute.kind {
            attribute::MESSAGE_INTEGRITY if self.integrity.is_none() => {
                if attribute.value.len() != MAC_LEN {
                    return Err(Flaw::IntegritySize);
                }
                self.integrity = Some(offset);
            }
            attribute::FINGERPRINT => {
                let value: [u8; CRC_LEN] =
                    attribute.value.try_into().map_err(|_| Flaw::Fingerprint)?;
                if u32::from_be_bytes(value) != fingerprint::value(&datagram[..offset]) {
                    return Err(Flaw::Fingerprint);
                }
                self.fingerprint = Some(offset);
            }
            _ => {}
        }
        Ok(())
    }
}

/// One attribute as it stands in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Attribute type, see [`crate::attribute`].
    pub kind: u16,
    /// The value without padding.
    pub value: &'a [u8],
}

/// Iterator over the attributes of an [`Envelope`].
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let attribute = read_attribute(self.rest)?;
        let size = ATTRIBUTE_HEADER_LEN + attribute.value.len().next_multiple_of(4);
        self.rest = &self.rest[size..];
        Some(attribute)
    }
}

/// The first attribute of `bytes`; `None` when it does not fit with its padding.
fn read_attribute(bytes: &[u8]) -> Option<Attribute<'_>> {
    let (&[k0, k1, l0, l1], rest) = bytes.split_first_chunk::<ATTRIBUTE_HEADER_LEN>()?;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let padded = rest.get(..len.next_multiple_of(4))?;
    Some(Attribute {
        kind: u16::from_be_bytes([k0, k1]),
        value: &padded[..len],
    })
}

/// Why a datagram is not a usable STUN message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// Too short, wrong magic cookie, wrong top bits, or a length that differs from the datagram's. Drop it.
    #[error("not a STUN message")]
    NotStun,
    /// FINGERPRINT is wrong, misplaced or of wrong size: some other protocol. Drop it.
    #[error("FINGERPRINT is wrong")]
    WrongFingerprint,
    /// The header is sound, the attributes are not. A request may be answered 400.
    #[error("STUN message with broken attributes: {flaw}")]
    Broken {
        /// What the header says.
        header: Header,
        /// What is wrong.
        flaw: Flaw,
    },
}

/// What is wrong with the attributes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Flaw {
    /// The message length is not a multiple of four.
    #[error("length is not a multiple of 4")]
    Alignment,
    /// An attribute ends behind the message.
    #[error("an attribute overruns the message")]
    Overrun,
    /// MESSAGE-INTEGRITY is not 20 bytes long.
    #[error("MESSAGE-INTEGRITY has a wrong size")]
    IntegritySize,
    /// FINGERPRINT is wrong, misplaced or of wrong size.
    #[error("FINGERPRINT is wrong")]
    Fingerprint,
}

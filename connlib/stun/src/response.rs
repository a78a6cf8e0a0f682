//! Success and error responses, and the error codes of TURN (relay spec §2.9).

use std::{fmt, net::SocketAddr};

use stun_codec::AttributeType;

use crate::{
    Class, EncodeError, Family, Key, Method, TransactionId, attribute,
    codec::{
        self, Attr, Builder, Decoded, ErrorCode as ErrorCodeAttribute, Lifetime, MappedAddress,
        Software, Text, UnknownAttributes, XorMappedAddress, XorRelayAddress,
    },
    envelope::Envelope,
    error::DecodeError,
    request::{AuthAttributes, lifetime},
};

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// That of the request.
    pub transaction_id: TransactionId,
    /// That of the request.
    pub method: Method,
    /// SOFTWARE; never in unsigned replies (amplification, relay spec §6.1).
    pub software: Option<String>,
    /// What came of the request.
    pub outcome: Outcome,
}

/// Success or refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The request took effect.
    Success(Success),
    /// The request was refused.
    Error(ErrorResponse),
}

/// Attributes of a success response.
///
/// Attributes are optional where a foreign relay may leave them out; the client decides what it can do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Success {
    /// Binding.
    Binding {
        /// The sender's address as the relay sees it.
        mapped: Option<SocketAddr>,
    },
    /// Allocate.
    Allocate {
        /// One or two relayed addresses, IPv4 first.
        relayed: Vec<SocketAddr>,
        /// The sender's address as the relay sees it.
        mapped: Option<SocketAddr>,
        /// Granted lifetime in seconds.
        lifetime: Option<u32>,
        /// A family that was asked for and is not granted.
        address_error: Option<AddressError>,
    },
    /// Refresh.
    Refresh {
        /// Granted lifetime in seconds; 0 confirms deletion.
        lifetime: Option<u32>,
    },
    /// CreatePermission.
    CreatePermission,
    /// ChannelBind.
    ChannelBind,
}

/// ADDRESS-ERROR-CODE: a family that an otherwise successful Allocate did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressError {
    /// The family that is missing.
    pub family: Family,
    /// Why.
    pub code: ErrorCode,
}

/// Attributes of an error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// ERROR-CODE.
    pub code: ErrorCode,
    /// REALM to authenticate in.
    pub realm: Option<String>,
    /// NONCE to authenticate with.
    pub nonce: Option<String>,
    /// UNKNOWN-ATTRIBUTES, with code 420.
    pub unknown_attributes: Vec<u16>,
}

impl ErrorResponse {
    /// A refusal without a challenge.
    #[must_use]
    pub const fn new(code: ErrorCode) -> Self {
        Self {
            code,
            realm: None,
            nonce: None,
            unknown_attributes: Vec::new(),
        }
    }
}

/// An error code, 300–699.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(u16);

impl ErrorCode {
    /// 400.
    pub const BAD_REQUEST: Self = Self(400);
    /// 401.
    pub const UNAUTHORIZED: Self = Self(401);
    /// 403.
    pub const FORBIDDEN: Self = Self(403);
    /// 420.
    pub const UNKNOWN_ATTRIBUTE: Self = Self(420);
    /// 437.
    pub const ALLOCATION_MISMATCH: Self = Self(437);
    /// 438.
    pub const STALE_NONCE: Self = Self(438);
    /// 440.
    pub const ADDRESS_FAMILY_NOT_SUPPORTED: Self = Self(440);
    /// 441.
    pub const WRONG_CREDENTIALS: Self = Self(441);
    /// 442.
    pub const UNSUPPORTED_TRANSPORT: Self = Self(442);
    /// 443.
    pub const PEER_FAMILY_MISMATCH: Self = Self(443);
    /// 486.
    pub const QUOTA_REACHED: Self = Self(486);
    /// 500.
    pub const SERVER_ERROR: Self = Self(500);
    /// 508.
    pub const INSUFFICIENT_CAPACITY: Self = Self(508);

    /// `None` outside 300–599, the range of the wire format.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            300..=599 => Some(Self(code)),
            _ => None,
        }
    }

    /// The three-digit code.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The recommended reason phrase; empty for codes without a name here.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self.0 {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            420 => "Unknown Attribute",
            437 => "Allocation Mismatch",
            438 => "Stale Nonce",
            440 => "Address Family not Supported",
            441 => "Wrong Credentials",
            442 => "Unsupported Transport Protocol",
            443 => "Peer Address Family Mismatch",
            486 => "Allocation Quota Reached",
            500 => "Server Error",
            508 => "Insufficient Capacity",
            _ => "",
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

impl Response {
    /// An error response to the request with this header.
    #[must_use]
    pub const fn error(header: crate::Header, error: ErrorResponse) -> Self {
        Self {
            transaction_id: header.transaction_id,
            method: header.method,
            software: None,
            outcome: Outcome::Error(error),
        }
    }

    /// Decodes a success or error response.
    ///
    /// # Errors
    /// Not a response, a method that has no success response here, a known attribute with an impossible value, or an
    /// error response without ERROR-CODE.
    pub fn decode(envelope: &Envelope<'_>) -> Result<Self, DecodeError> {
        if !matches!(envelope.class(), Class::Success | Class::Error) {
            return Err(DecodeError::WrongClass);
        }
        let decoded = Decoded::new(envelope)?;
        let outcome = if envelope.class() == Class::Success {
            Outcome::Success(Success::read(envelope, &decoded)?)
        } else {
            Outcome::Error(ErrorResponse::read(&decoded)?)
        };
        Ok(Self {
            transaction_id: envelope.transaction_id(),
            method: envelope.method(),
            software: decoded
                .get::<Software>()
                .map(|software| software.description().to_owned()),
            outcome,
        })
    }

    /// Encodes the response, with MESSAGE-INTEGRITY when a key is given.
    ///
    /// The order of attributes is that of relay spec §2.4 and §2.6.
    ///
    /// # Errors
    /// A text is longer than RFC 8489 allows.
    pub fn encode(&self, key: Option<&Key>) -> Result<Vec<u8>, EncodeError> {
        let class = match self.outcome {
            Outcome::Success(_) => Class::Success,
            Outcome::Error(_) => Class::Error,
        };
        let mut builder = Builder::new(class, self.method, self.transaction_id);
        if let Some(software) = &self.software {
            builder.push_text(Text::Software(software))?;
        }
        match &self.outcome {
            Outcome::Success(success) => success.write(&mut builder),
            Outcome::Error(error) => error.write(&mut builder)?,
        }
        builder.finish(key)
    }
}

impl Success {
    fn read(envelope: &Envelope<'_>, decoded: &Decoded) -> Result<Self, DecodeError> {
        Ok(match envelope.method() {
            Method::Binding => Self::Binding {
                mapped: mapped(decoded),
            },
            Method::Allocate => Self::Allocate {
                relayed: relayed(decoded),
                mapped: mapped(decoded),
                lifetime: lifetime(decoded),
                address_error: AddressError::read(envelope)?,
            },
            Method::Refresh => Self::Refresh {
                lifetime: lifetime(decoded),
            },
            Method::CreatePermission => Self::CreatePermission,
            Method::ChannelBind => Self::ChannelBind,
            Method::Send | Method::Data | Method::Other(_) => {
                return Err(DecodeError::UnknownMethod(envelope.method().codepoint()));
            }
        })
    }

    fn write(&self, builder: &mut Builder) {
        match self {
            Self::Binding { mapped } => push_mapped(builder, *mapped),
            Self::Allocate {
                relayed,
                mapped,
                lifetime,
                address_error,
            } => {
                for address in relayed {
                    builder.push(XorRelayAddress::new(*address));
                }
                push_mapped(builder, *mapped);
                push_lifetime(builder, *lifetime);
                if let Some(error) = address_error {
                    error.write(builder);
                }
            }
            Self::Refresh { lifetime } => push_lifetime(builder, *lifetime),
            Self::CreatePermission | Self::ChannelBind => {}
        }
    }
}

impl ErrorResponse {
    fn read(decoded: &Decoded) -> Result<Self, DecodeError> {
        let code = decoded
            .get::<ErrorCodeAttribute>()
            .ok_or(DecodeError::MissingAttribute(attribute::ERROR_CODE))?;
        let AuthAttributes { realm, nonce, .. } = AuthAttributes::read(decoded);
        let unknown = decoded.get::<UnknownAttributes>();
        Ok(Self {
            code: ErrorCode(code.code()),
            realm,
            nonce,
            unknown_attributes: unknown
                .map(|unknown| {
                    unknown
                        .unknowns()
                        .iter()
                        .map(|kind| kind.as_u16())
                        .collect()
                })
                .unwrap_or_default(),
        })
    }

    fn write(&self, builder: &mut Builder) -> Result<(), EncodeError> {
        let ErrorCode(code) = self.code;
        builder.push(
            ErrorCodeAttribute::new(code, self.code.reason().to_owned())
                .map_err(codec::unencodable)?,
        );
        if !self.unknown_attributes.is_empty() {
            let kinds = self.unknown_attributes.iter();
            builder.push(UnknownAttributes::new(
                kinds.map(|kind| AttributeType::new(*kind)).collect(),
            ));
        }
        if let Some(realm) = &self.realm {
            builder.push_text(Text::Realm(realm))?;
        }
        if let Some(nonce) = &self.nonce {
            builder.push_text(Text::Nonce(nonce))?;
        }
        Ok(())
    }
}

impl AddressError {
    fn read(envelope: &Envelope<'_>) -> Result<Option<Self>, DecodeError> {
        let Some([family, _, class, number]) =
            codec::raw_word(envelope, attribute::ADDRESS_ERROR_CODE)?
        else {
            return Ok(None);
        };
        let family = match family {
            1 => Family::V4,
            2 => Family::V6,
            _ => return Ok(None),
        };
        let code = ErrorCode::new(u16::from(class & 7) * 100 + u16::from(number));
        Ok(code.map(|code| Self { family, code }))
    }

    fn write(self, builder: &mut Builder) {
        let family = match self.family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        let ErrorCode(code) = self.code;
        let value = [family, 0, (code / 100) as u8, (code % 100) as u8];
        builder.push_raw(attribute::ADDRESS_ERROR_CODE, value);
    }
}

fn push_mapped(builder: &mut Builder, mapped: Option<SocketAddr>) {
    if let Some(address) = mapped {
        builder.push(XorMappedAddress::new(address));
    }
}

fn push_lifetime(builder: &mut Builder, lifetime: Option<u32>) {
    if let Some(seconds) = lifetime {
        builder.push(Lifetime::from_u32(seconds));
    }
}

/// XOR-MAPPED-ADDRESS, or the MAPPED-ADDRESS of older servers.
fn mapped(decoded: &Decoded) -> Option<SocketAddr> {
    let xored = decoded
        .get::<XorMappedAddress>()
        .map(XorMappedAddress::address);
    xored.or_else(|| decoded.get::<MappedAddress>().map(MappedAddress::address))
}

fn relayed(decoded: &Decoded) -> Vec<SocketAddr> {
    let addresses = decoded.all().filter_map(|attribute| match attribute {
        Attr::XorRelayAddress(relayed) => Some(relayed.address()),
        _ => None,
    });
    addresses.collect()
}

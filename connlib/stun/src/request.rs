//! Requests: Binding, Allocate, Refresh, CreatePermission, ChannelBind (RFC 8489, RFC 8656).

use std::net::SocketAddr;

use crate::{
    ChannelNumber, Class, EncodeError, Family, Key, Method, TransactionId, attribute,
    codec::{
        self, AdditionalAddressFamily, Attr, Builder, Decoded, DontFragment, EvenPort, Lifetime,
        Nonce, Realm, RequestedAddressFamily, RequestedTransport, ReservationToken, Software, Text,
        Username, XorPeerAddress,
    },
    envelope::Envelope,
    error::DecodeError,
};

/// A request, as decoded by a relay or about to be sent by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Repeated by the response.
    pub transaction_id: TransactionId,
    /// What identifies the sender.
    pub auth: AuthAttributes,
    /// SOFTWARE: free text, at most 127 characters, for logs only.
    pub software: Option<String>,
    /// The method and its attributes.
    pub body: RequestBody,
}

/// Attributes of the long-term credential mechanism, without MESSAGE-INTEGRITY.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthAttributes {
    /// USERNAME.
    pub username: Option<String>,
    /// REALM.
    pub realm: Option<String>,
    /// NONCE.
    pub nonce: Option<String>,
}

/// The method of a request and its attributes.
///
/// Attributes are optional even where the RFC demands them: a relay refuses their absence only after authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestBody {
    /// Asks for the sender's address as the relay sees it.
    Binding,
    /// Asks for a relayed address.
    Allocate(Allocate),
    /// Prolongs or deletes the sender's allocation.
    Refresh(Refresh),
    /// Admits peers by IP address.
    CreatePermission(CreatePermission),
    /// Binds a channel number to a peer.
    ChannelBind(ChannelBind),
}

/// Attributes of Allocate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocate {
    /// REQUESTED-TRANSPORT: IP protocol number; only 17 (UDP) can be granted.
    pub requested_transport: Option<u8>,
    /// REQUESTED-ADDRESS-FAMILY.
    pub requested_family: Option<Family>,
    /// ADDITIONAL-ADDRESS-FAMILY.
    pub additional_family: Option<Family>,
    /// LIFETIME in seconds.
    pub lifetime: Option<u32>,
    /// EVEN-PORT; the value is its R bit ("reserve the next port too").
    pub even_port: Option<bool>,
    /// DONT-FRAGMENT.
    pub dont_fragment: bool,
    /// RESERVATION-TOKEN.
    pub reservation_token: Option<u64>,
}

impl Allocate {
    /// IP protocol number of UDP, for [`Self::requested_transport`].
    pub const UDP: u8 = 17;
}

/// Attributes of Refresh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refresh {
    /// LIFETIME in seconds; 0 deletes the allocation.
    pub lifetime: Option<u32>,
    /// REQUESTED-ADDRESS-FAMILY.
    pub requested_family: Option<Family>,
    /// REQUESTED-TRANSPORT; has no meaning here, but published clients send it.
    pub requested_transport: Option<u8>,
    /// ADDITIONAL-ADDRESS-FAMILY; has no meaning here, but published clients send it.
    pub additional_family: Option<Family>,
}

/// Attributes of CreatePermission.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreatePermission {
    /// Every XOR-PEER-ADDRESS; the only attribute that may repeat.
    pub peers: Vec<SocketAddr>,
}

/// Attributes of ChannelBind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelBind {
    /// CHANNEL-NUMBER, anywhere in the wide range; check it against the [`crate::ChannelRange`] in force.
    pub number: Option<ChannelNumber>,
    /// XOR-PEER-ADDRESS.
    pub peer: Option<SocketAddr>,
}

impl Request {
    /// Decodes a request. Attributes that its method does not use are ignored; unknown comprehension-required ones are
    /// reported by [`Envelope::unknown_required`].
    ///
    /// # Errors
    /// Not a request, an unknown method, or a known attribute with an impossible value.
    pub fn decode(envelope: &Envelope<'_>) -> Result<Self, DecodeError> {
        if envelope.class() != Class::Request {
            return Err(DecodeError::WrongClass);
        }
        let decoded = Decoded::new(envelope)?;
        let number = channel_number(envelope)?;
        let body = match envelope.method() {
            Method::Binding => RequestBody::Binding,
            Method::Allocate => RequestBody::Allocate(Allocate::read(&decoded)),
            Method::Refresh => RequestBody::Refresh(Refresh::read(&decoded)),
            Method::CreatePermission => {
                RequestBody::CreatePermission(CreatePermission::read(&decoded))
            }
            Method::ChannelBind => RequestBody::ChannelBind(ChannelBind {
                number,
                peer: decoded.get::<XorPeerAddress>().map(XorPeerAddress::address),
            }),
            Method::Send | Method::Data | Method::Other(_) => {
                return Err(DecodeError::UnknownMethod(envelope.method().codepoint()));
            }
        };
        Ok(Self {
            transaction_id: envelope.transaction_id(),
            auth: AuthAttributes::read(&decoded),
            software: decoded
                .get::<Software>()
                .map(|software| software.description().to_owned()),
            body,
        })
    }

    /// Encodes the request, with MESSAGE-INTEGRITY when a key is given.
    ///
    /// # Errors
    /// A text is longer than RFC 8489 allows.
    pub fn encode(&self, key: Option<&Key>) -> Result<Vec<u8>, EncodeError> {
        let mut builder = Builder::new(Class::Request, self.body.method(), self.transaction_id);
        if let Some(software) = &self.software {
            builder.push_text(Text::Software(software))?;
        }
        self.body.write(&mut builder);
        self.auth.write(&mut builder)?;
        builder.finish(key)
    }

    /// The method of the request.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.body.method()
    }
}

impl RequestBody {
    /// The method of the request.
    #[must_use]
    pub const fn method(&self) -> Method {
        match self {
            Self::Binding => Method::Binding,
            Self::Allocate(_) => Method::Allocate,
            Self::Refresh(_) => Method::Refresh,
            Self::CreatePermission(_) => Method::CreatePermission,
            Self::ChannelBind(_) => Method::ChannelBind,
        }
    }

    fn write(&self, builder: &mut Builder) {
        match self {
            Self::Binding => {}
            Self::Allocate(allocate) => allocate.write(builder),
            Self::Refresh(refresh) => refresh.write(builder),
            Self::CreatePermission(permission) => {
                for peer in &permission.peers {
                    builder.push(XorPeerAddress::new(*peer));
                }
            }
            Self::ChannelBind(bind) => bind.write(builder),
        }
    }
}

impl AuthAttributes {
    pub(crate) fn read(decoded: &Decoded) -> Self {
        Self {
            username: decoded.get::<Username>().map(|name| name.name().to_owned()),
            realm: decoded.get::<Realm>().map(|realm| realm.text().to_owned()),
            nonce: decoded.get::<Nonce>().map(|nonce| nonce.value().to_owned()),
        }
    }

    fn write(&self, builder: &mut Builder) -> Result<(), EncodeError> {
        if let Some(username) = &self.username {
            builder.push_text(Text::Username(username))?;
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

impl Allocate {
    fn read(decoded: &Decoded) -> Self {
        Self {
            requested_transport: requested_transport(decoded),
            requested_family: requested_family(decoded),
            additional_family: additional_family(decoded),
            lifetime: lifetime(decoded),
            even_port: decoded.get::<EvenPort>().map(EvenPort::is_requested),
            dont_fragment: decoded.get::<DontFragment>().is_some(),
            reservation_token: decoded
                .get::<ReservationToken>()
                .map(ReservationToken::token),
        }
    }

    fn write(&self, builder: &mut Builder) {
        push_common(
            builder,
            self.requested_transport,
            self.requested_family,
            self.additional_family,
            self.lifetime,
        );
        if let Some(reserve) = self.even_port {
            builder.push(EvenPort::new(reserve));
        }
        if self.dont_fragment {
            builder.push(DontFragment);
        }
        if let Some(token) = self.reservation_token {
            builder.push(ReservationToken::new(token));
        }
    }
}

impl Refresh {
    fn read(decoded: &Decoded) -> Self {
        Self {
            lifetime: lifetime(decoded),
            requested_family: requested_family(decoded),
            requested_transport: requested_transport(decoded),
            additional_family: additional_family(decoded),
        }
    }

    fn write(&self, builder: &mut Builder) {
        push_common(
            builder,
            self.requested_transport,
            self.requested_family,
            self.additional_family,
            self.lifetime,
        );
    }
}

impl CreatePermission {
    fn read(decoded: &Decoded) -> Self {
        let peers = decoded.all().filter_map(|attribute| match attribute {
            Attr::XorPeerAddress(peer) => Some(peer.address()),
            _ => None,
        });
        Self {
            peers: peers.collect(),
        }
    }
}

impl ChannelBind {
    fn write(&self, builder: &mut Builder) {
        if let Some(peer) = self.peer {
            builder.push(XorPeerAddress::new(peer));
        }
        if let Some(number) = self.number {
            let [high, low] = number.get().to_be_bytes();
            builder.push_raw(attribute::CHANNEL_NUMBER, [high, low, 0, 0]);
        }
    }
}

fn channel_number(envelope: &Envelope<'_>) -> Result<Option<ChannelNumber>, DecodeError> {
    let Some([high, low, ..]) = codec::raw_word(envelope, attribute::CHANNEL_NUMBER)? else {
        return Ok(None);
    };
    let number = u16::from_be_bytes([high, low]);
    match ChannelNumber::new(number) {
        Some(number) => Ok(Some(number)),
        None => Err(DecodeError::BadAttribute(format!(
            "channel number {number:#06x} does not exist"
        ))),
    }
}

fn push_common(
    builder: &mut Builder,
    transport: Option<u8>,
    requested: Option<Family>,
    additional: Option<Family>,
    lifetime: Option<u32>,
) {
    if let Some(transport) = transport {
        builder.push(RequestedTransport::new(transport));
    }
    if let Some(family) = requested {
        builder.push(RequestedAddressFamily::new(family.into()));
    }
    if let Some(family) = additional {
        builder.push(AdditionalAddressFamily::new(family.into()));
    }
    if let Some(seconds) = lifetime {
        builder.push(Lifetime::from_u32(seconds));
    }
}

fn requested_transport(decoded: &Decoded) -> Option<u8> {
    decoded
        .get::<RequestedTransport>()
        .map(RequestedTransport::protocol)
}

fn requested_family(decoded: &Decoded) -> Option<Family> {
    decoded
        .get::<RequestedAddressFamily>()
        .map(|family| family.address_family().into())
}

fn additional_family(decoded: &Decoded) -> Option<Family> {
    decoded
        .get::<AdditionalAddressFamily>()
        .map(|family| family.address_family().into())
}

pub(crate) fn lifetime(decoded: &Decoded) -> Option<u32> {
    // The attribute holds 32 bits of seconds.
    decoded
        .get::<Lifetime>()
        .map(|lifetime| lifetime.lifetime().as_secs() as u32)
}

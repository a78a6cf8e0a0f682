//! Send and Data indications (RFC 8656 §11): datagrams without a channel. Only relays in the open profile use them.

use std::net::SocketAddr;

use crate::{
    Class, EncodeError, Method, TransactionId, attribute,
    codec::{Builder, Data, Decoded, XorPeerAddress, unencodable},
    envelope::Envelope,
    error::DecodeError,
};

/// A datagram to or from a peer, wrapped in a STUN message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Indication {
    /// Client to relay: send `data` to `peer`.
    Send {
        /// Where the relay shall send it.
        peer: SocketAddr,
        /// The datagram.
        data: Vec<u8>,
    },
    /// Relay to client: `data` came from `peer`.
    Data {
        /// Who sent it to the relayed address.
        peer: SocketAddr,
        /// The datagram.
        data: Vec<u8>,
    },
}

impl Indication {
    /// Decodes an indication.
    ///
    /// # Errors
    /// Not an indication, another method, a known attribute with an impossible value, or a missing one.
    pub fn decode(envelope: &Envelope<'_>) -> Result<Self, DecodeError> {
        if envelope.class() != Class::Indication {
            return Err(DecodeError::WrongClass);
        }
        let decoded = Decoded::new(envelope)?;
        let peer = decoded
            .get::<XorPeerAddress>()
            .map(XorPeerAddress::address)
            .ok_or(DecodeError::MissingAttribute(attribute::XOR_PEER_ADDRESS));
        let data = decoded
            .get::<Data>()
            .map(|data| data.data().to_vec())
            .ok_or(DecodeError::MissingAttribute(attribute::DATA));
        match envelope.method() {
            Method::Send => Ok(Self::Send {
                peer: peer?,
                data: data?,
            }),
            Method::Data => Ok(Self::Data {
                peer: peer?,
                data: data?,
            }),
            other => Err(DecodeError::UnknownMethod(other.codepoint())),
        }
    }

    /// Encodes the indication; indications are never signed.
    ///
    /// # Errors
    /// `data` does not fit into an attribute.
    pub fn encode(&self, transaction_id: TransactionId) -> Result<Vec<u8>, EncodeError> {
        let (method, peer, data) = match self {
            Self::Send { peer, data } => (Method::Send, peer, data),
            Self::Data { peer, data } => (Method::Data, peer, data),
        };
        let mut builder = Builder::new(Class::Indication, method, transaction_id);
        builder.push(XorPeerAddress::new(*peer));
        builder.push(Data::new(data.clone()).map_err(unencodable)?);
        builder.finish(None)
    }
}

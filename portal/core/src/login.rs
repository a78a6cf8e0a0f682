//! The upgrade request: who knocks, and what it says about itself (portal protocol §1.2–§1.4, §1.12).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connlib_messages::{
    Dialect, Key, MAX_RELAY_USERS, RELAY_USERS_PARAMETER, gateway::Device as DeviceAttributes,
};

use crate::{derive::key_from_query, location::Location, relays::Listen, token::Component};

/// Longest query parameter that is kept; what is longer is refused (id) or cut (name and attributes).
pub const MAX_PARAMETER_LEN: usize = 255;
/// STUN/TURN port of a relay that names none.
const DEFAULT_RELAY_PORT: u16 = 3478;

/// An upgrade request.
#[derive(Debug, Clone)]
pub struct Login {
    /// From the path.
    pub component: Component,
    /// From the path.
    pub dialect: Dialect,
    /// From the header or the query.
    pub token: Option<String>,
    /// From the query.
    pub parameters: LoginParameters,
    /// The header.
    pub user_agent: Option<String>,
    /// The component's address.
    pub remote_ip: IpAddr,
    /// The component's place.
    pub location: Location,
}

/// The query of an upgrade request, not yet checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginParameters {
    external_id: Option<String>,
    name: Option<String>,
    public_key: Option<String>,
    ipv4: Option<String>,
    ipv6: Option<String>,
    port: Option<String>,
    relay_users: Option<String>,
    pub(crate) device: DeviceAttributes,
}

/// Why a component is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No token at all.
    #[error("the request has no token")]
    MissingToken,
    /// Unknown, expired, revoked, or of another kind of component.
    #[error("the token is not valid")]
    InvalidToken,
    /// A parameter is missing or cannot be used.
    #[error("parameter '{0}' is missing or not valid")]
    InvalidParameter(&'static str),
    /// The token's owner has as many devices as it may have.
    #[error("the limit of devices is reached")]
    LimitsExceeded,
    /// Another process with the same gateway id is connected.
    #[error("a gateway with this id is already connected")]
    GatewayAlreadyConnected,
}

impl ConnectError {
    /// HTTP status of the answer.
    pub const fn status(&self) -> u16 {
        match self {
            Self::MissingToken | Self::InvalidToken => 401,
            Self::InvalidParameter(_) => 400,
            Self::LimitsExceeded => 402,
            Self::GatewayAlreadyConnected => 409,
        }
    }

    /// Member `code` of the problem document.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MissingToken => "missing_token",
            Self::InvalidToken => "invalid_token",
            Self::InvalidParameter(_) => "invalid_connect_params",
            Self::LimitsExceeded => "limits_exceeded",
            Self::GatewayAlreadyConnected => "gateway_already_connected",
        }
    }
}

impl LoginParameters {
    /// Picks the known parameters out of a decoded query; the first of a name counts.
    pub fn from_query<'a>(query: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut parameters = Self::default();
        for (name, value) in query {
            let device = &mut parameters.device;
            let slot = match name {
                "external_id" => &mut parameters.external_id,
                "name" => &mut parameters.name,
                "public_key" => &mut parameters.public_key,
                "ipv4" => &mut parameters.ipv4,
                "ipv6" => &mut parameters.ipv6,
                "port" => &mut parameters.port,
                RELAY_USERS_PARAMETER => &mut parameters.relay_users,
                "device_serial" => &mut device.device_serial,
                "device_uuid" => &mut device.device_uuid,
                "identifier_for_vendor" => &mut device.identifier_for_vendor,
                "firebase_installation_id" => &mut device.firebase_installation_id,
                _ => continue,
            };
            // One character more than allowed, so that checks see that it is too long.
            let cut = || value.chars().take(MAX_PARAMETER_LEN + 1).collect();
            slot.get_or_insert_with(cut);
        }
        parameters
    }

    pub(crate) fn external_id(&self) -> Result<String, ConnectError> {
        let id = self.external_id.as_deref().unwrap_or_default();
        let valid = !id.is_empty() && id.chars().count() <= MAX_PARAMETER_LEN;
        let id = valid.then(|| id.to_owned());
        id.ok_or(ConnectError::InvalidParameter("external_id"))
    }

    pub(crate) fn public_key(&self) -> Result<Key, ConnectError> {
        let key = self.public_key.as_deref().and_then(key_from_query);
        key.ok_or(ConnectError::InvalidParameter("public_key"))
    }

    /// The display name, trimmed and cut; a made-up one when there is none.
    pub(crate) fn name(&self, fallback: &str) -> String {
        let name: String = self.name.as_deref().unwrap_or_default().trim().into();
        match name.chars().take(MAX_PARAMETER_LEN).collect::<String>() {
            empty if empty.is_empty() => fallback.to_owned(),
            name => name,
        }
    }

    /// As how many users a gateway wants to use each relay; more than allowed is cut.
    pub(crate) fn relay_users(&self) -> Result<usize, ConnectError> {
        let users = parse(RELAY_USERS_PARAMETER, self.relay_users.as_deref())?;
        Ok(users.unwrap_or(1).clamp(1, MAX_RELAY_USERS))
    }

    /// Where a relay listens: at least one address.
    pub(crate) fn listen(&self) -> Result<Listen, ConnectError> {
        let ipv4: Option<Ipv4Addr> = parse("ipv4", self.ipv4.as_deref())?;
        let ipv6: Option<Ipv6Addr> = parse("ipv6", self.ipv6.as_deref())?;
        let port = parse("port", self.port.as_deref())?.unwrap_or(DEFAULT_RELAY_PORT);
        if ipv4.is_none() && ipv6.is_none() {
            return Err(ConnectError::InvalidParameter("ipv4"));
        }
        if port == 0 {
            return Err(ConnectError::InvalidParameter("port"));
        }
        Ok(Listen { ipv4, ipv6, port })
    }
}

fn parse<T: std::str::FromStr>(
    name: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, ConnectError> {
    let text = text.filter(|text| !text.is_empty());
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|_| ConnectError::InvalidParameter(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &[(&str, &str)]) -> LoginParameters {
        LoginParameters::from_query(query.iter().copied())
    }

    #[test]
    fn relay_needs_an_address_and_has_a_default_port() {
        let listen = parameters(&[("ipv4", "203.0.113.1")]).listen().unwrap();
        assert_eq!(listen.port, 3478);
        let both = parameters(&[
            ("ipv4", "203.0.113.1"),
            ("ipv6", "2001:db8::1"),
            ("port", "5"),
        ]);
        assert!(both.listen().unwrap().ipv6.is_some());
        for (query, bad) in [
            (&[("port", "3478")][..], "ipv4"),
            (&[("ipv4", "relay.example")], "ipv4"),
            (&[("ipv4", "203.0.113.1"), ("ipv6", "[::1]")], "ipv6"),
            (&[("ipv4", "203.0.113.1"), ("port", "0")], "port"),
            (&[("ipv4", "203.0.113.1"), ("port", "70000")], "port"),
        ] {
            let error = parameters(query).listen().unwrap_err();
            assert_eq!(error, ConnectError::InvalidParameter(bad));
        }
    }

    #[test]
    fn users_of_relays_are_one_unless_asked_for_and_bounded() {
        for (text, users) in [("", Ok(1)), ("0", Ok(1)), ("2", Ok(2)), ("999", Ok(32))] {
            let query = [("relay_users", text)];
            assert_eq!(parameters(&query).relay_users(), users);
        }
        assert_eq!(parameters(&[]).relay_users(), Ok(1));
        assert!(parameters(&[("relay_users", "-1")]).relay_users().is_err());
    }

    #[test]
    fn ids_are_checked_and_names_are_made_to_fit() {
        let long = "x".repeat(300);
        assert!(parameters(&[]).external_id().is_err());
        assert!(parameters(&[("external_id", &long)]).external_id().is_err());
        assert_eq!(parameters(&[("name", "  lab  ")]).name("x"), "lab");
        assert_eq!(parameters(&[("name", "   ")]).name("made up"), "made up");
        assert_eq!(parameters(&[("name", &long)]).name("x").len(), 255);
        assert!(parameters(&[("public_key", "short")]).public_key().is_err());
    }

    #[test]
    fn status_and_code_of_refusals() {
        assert_eq!(ConnectError::InvalidToken.status(), 401);
        assert_eq!(ConnectError::MissingToken.code(), "missing_token");
        assert_eq!(ConnectError::InvalidParameter("x").status(), 400);
    }
}

//! Where a component connects, and as whom: login URL, token, device identity, display name.
//!
//! The token is a secret and may be part of the query, so the full URL never appears in `Debug` or `Display` output.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};
use url::Url;
use uuid::Uuid;

/// Port when the URL names none: the portal's, whatever the scheme.
const DEFAULT_PORT: u16 = 443;

/// Longest display name that the portal takes, in characters.
const MAX_NAME_CHARS: usize = 255;

/// Serial number of boards whose maker left it blank.
const PLACEHOLDER_SERIAL: &str = "123456789";

/// Why no login URL can be made from what was configured.
#[derive(Debug, thiserror::Error)]
pub enum LoginUrlError {
    /// Not a URL at all.
    #[error("the portal URL is not a valid URL: {0}")]
    Unparsable(#[from] url::ParseError),
    /// The scheme is none of the four that are known.
    #[error("the portal URL has the scheme `{0}`; it must be one of wss, https, ws, http")]
    InvalidUrlScheme(String),
    /// There is no host in the URL.
    #[error("the portal URL names no host")]
    MissingHost,
    /// A relay must say where it can be reached.
    #[error("a relay needs a public IPv4 or IPv6 address")]
    MissingRelayAddress,
}

/// Authentication token. Hidden in `Debug`; white space, as left by copy and paste, is removed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes the text of a token; opaque apart from white space.
    pub fn new(text: &str) -> Self {
        Self(text.chars().filter(|c| !c.is_whitespace()).collect())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where the token is sent. Old portals read only the query, new ones prefer the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenPlacement {
    /// Both: every portal understands it.
    #[default]
    HeaderAndQuery,
    /// Header only: for portals known to be new, so that no access log shows the token.
    Header,
}

impl TokenPlacement {
    /// Environment variable that leaves the query out when it is `false`.
    pub const ENVIRONMENT: &'static str = "FIREZONE_TOKEN_IN_QUERY";

    /// Reads the value of [`Self::ENVIRONMENT`]; `None` when it is neither true nor false.
    pub fn from_flag(value: &str) -> Option<Self> {
        match value.trim().to_ascii_lowercase().as_str() {
            "false" | "0" | "no" | "off" => Some(Self::Header),
            "" | "true" | "1" | "yes" | "on" => Some(Self::HeaderAndQuery),
            _ => None,
        }
    }
}

/// What a client tells about its hardware; every part is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Serial number from the firmware.
    pub device_serial: Option<String>,
    /// System UUID from the firmware.
    pub device_uuid: Option<String>,
    /// Apple's identifier for vendor.
    pub identifier_for_vendor: Option<String>,
    /// Android's installation id.
    pub firebase_installation_id: Option<String>,
}

/// Everything static about a login: where, on which topic, as whom.
#[derive(Clone)]
pub struct LoginUrl {
    base: Url,
    host: String,
    port: u16,
    port_is_explicit: bool,
    topic: &'static str,
    token: Option<Token>,
    placement: TokenPlacement,
    parameters: Vec<(&'static str, String)>,
}

impl LoginUrl {
    /// Login of a client. `device_id` is any text that identifies the device for good.
    pub fn client(
        url: &str,
        token: Option<Token>,
        device_id: &str,
        name: &str,
        device: DeviceInfo,
    ) -> Result<Self, LoginUrlError> {
        let serial = device
            .device_serial
            .filter(|serial| serial != PLACEHOLDER_SERIAL);
        let optional = [
            ("device_serial", serial),
            ("device_uuid", device.device_uuid),
            ("identifier_for_vendor", device.identifier_for_vendor),
            ("firebase_installation_id", device.firebase_installation_id),
        ];
        let mut parameters = identity(device_id, name);
        parameters.extend(
            optional
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        Self::new(url, "client", token, parameters)
    }

    /// Login of a gateway.
    pub fn gateway(
        url: &str,
        token: Option<Token>,
        device_id: &str,
        name: &str,
    ) -> Result<Self, LoginUrlError> {
        Self::new(url, "gateway", token, identity(device_id, name))
    }

    /// Login of a relay that serves STUN and TURN at `port` of its public addresses.
    pub fn relay(
        url: &str,
        token: Option<Token>,
        name: Option<&str>,
        port: u16,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    ) -> Result<Self, LoginUrlError> {
        if ipv4.is_none() && ipv6.is_none() {
            return Err(LoginUrlError::MissingRelayAddress);
        }
        let parameters = [
            ("name", name.map(str::to_owned)),
            ("ipv4", ipv4.map(|ip| ip.to_string())),
            ("ipv6", ipv6.map(|ip| ip.to_string())),
            ("port", Some(port.to_string())),
        ];
        let parameters = parameters
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        Self::new(url, "relay", token, parameters.collect())
    }

    /// Chooses where the token is sent; both places unless told otherwise.
    pub fn with_token_placement(mut self, placement: TokenPlacement) -> Self {
        self.placement = placement;
        self
    }

    /// Topic to join: `client`, `gateway` or `relay`.
    pub fn topic(&self) -> &'static str {
        self.topic
    }

    /// Host to look up; an IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Address in the URL itself, when its host is no name.
    pub fn host_address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// TCP port; 443 unless the URL names another, also without TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is protected by TLS.
    pub fn is_tls(&self) -> bool {
        self.base.scheme() == "wss"
    }

    /// Value of the `Host` header: with the port when the URL names one.
    pub fn host_header(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        match self.port_is_explicit {
            true => format!("{host}:{}", self.port),
            false => host.to_owned(),
        }
    }

    /// Token for the `X-Authorization` header.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Path and query of the upgrade request. `parameters` belong to this connection alone and come last, e.g. the
    /// public key. Secret: contains the token unless that is sent in the header only.
    pub fn request_target(&self, parameters: &[(String, String)]) -> String {
        let mut url = self.base.clone();
        {
            let mut query = url.query_pairs_mut();
            if let (Some(token), TokenPlacement::HeaderAndQuery) = (&self.token, self.placement) {
                query.append_pair("token", token.expose());
            }
            query.extend_pairs(&self.parameters);
            query.extend_pairs(parameters);
        }
        match url.query() {
            Some(query) if !query.is_empty() => format!("{}?{query}", url.path()),
            _ => url.path().to_owned(),
        }
    }

    fn new(
        url: &str,
        topic: &'static str,
        token: Option<Token>,
        parameters: Vec<(&'static str, String)>,
    ) -> Result<Self, LoginUrlError> {
        let mut base = Url::parse(url.trim())?;
        let scheme = match base.scheme() {
            "http" | "ws" => "ws",
            "https" | "wss" => "wss",
            other => return Err(LoginUrlError::InvalidUrlScheme(other.to_owned())),
        };
        let explicit_port = explicit_port(&base, url.trim());
        let host = match base.host().ok_or(LoginUrlError::MissingHost)? {
            url::Host::Domain(name) => name.to_owned(),
            url::Host::Ipv4(ip) => ip.to_string(),
            url::Host::Ipv6(ip) => ip.to_string(),
        };
        base.set_scheme(scheme)
            .and_then(|()| base.set_username(""))
            .and_then(|()| base.set_password(None))
            .map_err(|()| LoginUrlError::MissingHost)?;
        base.set_query(None);
        base.set_fragment(None);
        base.path_segments_mut()
            .map_err(|()| LoginUrlError::MissingHost)?
            .pop_if_empty()
            .extend([topic, "websocket"]);
        Ok(Self {
            base,
            host,
            port: explicit_port.unwrap_or(DEFAULT_PORT),
            port_is_explicit: explicit_port.is_some(),
            topic,
            token,
            placement: TokenPlacement::default(),
            parameters,
        })
    }
}

/// Scheme, host, port and path, without the query: fit for logs.
impl fmt::Display for LoginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.base.host_str().unwrap_or_default();
        let (scheme, port, path) = (self.base.scheme(), self.port, self.base.path());
        write!(f, "{scheme}://{host}:{port}{path}")
    }
}

impl fmt::Debug for LoginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginUrl({self})")
    }
}

/// Display name of a device: the explicit one, else the host's, else a random UUID made by the caller. White space
/// around it is removed, and what is longer than the portal takes is cut off.
pub fn display_name(explicit: Option<&str>, host_name: Option<&str>, random: Uuid) -> String {
    [explicit, host_name]
        .into_iter()
        .flatten()
        .map(|name| name.trim().chars().take(MAX_NAME_CHARS).collect::<String>())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| random.to_string())
}

/// Identity as sent: a UUID is hashed, any other device id goes as it is.
pub fn external_id(device_id: &str) -> String {
    if Uuid::parse_str(device_id).is_err() {
        return device_id.to_owned();
    }
    Sha256::digest(device_id)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn identity(device_id: &str, name: &str) -> Vec<(&'static str, String)> {
    vec![
        ("external_id", external_id(device_id)),
        ("name", name.to_owned()),
    ]
}

/// The port that stands in the text. The parser forgets one that is its scheme's default, and `ws://host:80` must not
/// become 443; read as `https`, only 443 is forgotten, which is the default here anyway.
fn explicit_port(parsed: &Url, text: &str) -> Option<u16> {
    let (_, rest) = text.split_once(':')?;
    let secure = Url::parse(&format!("https:{rest}")).ok()?;
    secure.port().or(parsed.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = "2f1c9b6e-7a40-4d0a-9d55-0c8f5b1e2a77";
    const DEVICE_HASH: &str = "91716062d5e1e2ea1c619e9e1f189bb3bc64ca67d52bd8ef1f7f450f9192be11";

    fn gateway(url: &str) -> Result<LoginUrl, LoginUrlError> {
        LoginUrl::gateway(url, Some(Token::new(".tok+en/=")), "plain id", "My Gateway")
    }

    #[test]
    fn portal_01_schemes() {
        for (url, tls) in [
            ("http://h", false),
            ("ws://h", false),
            ("https://h", true),
            ("WSS://h", true),
        ] {
            assert_eq!(gateway(url).unwrap().is_tls(), tls, "{url}");
        }
        assert!(matches!(
            gateway("ftp://h"),
            Err(LoginUrlError::InvalidUrlScheme(_))
        ));
        assert!(gateway("no url").is_err());
        assert!(gateway("wss://").is_err());
    }

    #[test]
    fn portal_02_base_path_kept_slash_dropped_query_discarded() {
        let login = gateway("wss://user:pw@h/x/?a=b#c").unwrap();
        assert_eq!(login.to_string(), "wss://h:443/x/gateway/websocket");
        assert!(!login.request_target(&[]).contains("a=b"));
    }

    #[test]
    fn portal_03_path_per_component() {
        let client = LoginUrl::client("wss://h", None, DEVICE, "n", DeviceInfo::default()).unwrap();
        assert_eq!(client.to_string(), "wss://h:443/client/websocket");
        let relay =
            LoginUrl::relay("wss://h", None, None, 3478, Some(Ipv4Addr::LOCALHOST), None).unwrap();
        assert_eq!(relay.to_string(), "wss://h:443/relay/websocket");
        assert_eq!((client.topic(), relay.topic()), ("client", "relay"));
    }

    #[test]
    fn portal_04_order_and_encoding_of_parameters() {
        let device = DeviceInfo {
            device_serial: Some("S 1".to_owned()),
            device_uuid: Some("U".to_owned()),
            identifier_for_vendor: Some("V".to_owned()),
            firebase_installation_id: Some("F".to_owned()),
        };
        let token = Some(Token::new("a.b+c"));
        let login = LoginUrl::client("wss://h", token, "id", "my name", device).unwrap();
        let key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB+/E=".to_owned();
        assert_eq!(
            login.request_target(&[("public_key".to_owned(), key)]),
            "/client/websocket?token=a.b%2Bc&external_id=id&name=my+name&device_serial=S+1&device_uuid=U\
             &identifier_for_vendor=V&firebase_installation_id=F\
             &public_key=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB%2B%2FE%3D"
        );
    }

    #[test]
    fn placeholder_serial_is_left_out() {
        let device = DeviceInfo {
            device_serial: Some("123456789".to_owned()),
            ..DeviceInfo::default()
        };
        let login = LoginUrl::client("wss://h", None, "id", "n", device).unwrap();
        assert_eq!(
            login.request_target(&[]),
            "/client/websocket?external_id=id&name=n"
        );
    }

    #[test]
    fn portal_05_only_uuids_are_hashed() {
        assert_eq!(external_id(DEVICE), DEVICE_HASH);
        assert_eq!(external_id("my-device"), "my-device");
    }

    #[test]
    fn portal_06_name_falls_back_to_host_and_uuid() {
        let random = Uuid::from_u128(1);
        assert_eq!(display_name(Some(" me "), Some("host"), random), "me");
        assert_eq!(display_name(Some("  "), Some("host"), random), "host");
        assert_eq!(display_name(None, None, random), random.to_string());
        assert_eq!(
            display_name(Some(&"ä".repeat(300)), None, random)
                .chars()
                .count(),
            255
        );
    }

    #[test]
    fn portal_07_relay_sends_addresses_and_no_identity() {
        let login = LoginUrl::relay(
            "wss://h",
            Some(Token::new(".t")),
            Some("r"),
            3479,
            Some(Ipv4Addr::new(192, 0, 2, 1)),
            Some("2001:DB8:0::1".parse().unwrap()),
        );
        assert_eq!(
            login.unwrap().request_target(&[]),
            "/relay/websocket?token=.t&name=r&ipv4=192.0.2.1&ipv6=2001%3Adb8%3A%3A1&port=3479"
        );
        let nowhere = LoginUrl::relay("wss://h", None, None, 3478, None, None);
        assert!(matches!(nowhere, Err(LoginUrlError::MissingRelayAddress)));
    }

    #[test]
    fn portal_08_token_loses_white_space_and_may_leave_the_query() {
        let login =
            LoginUrl::gateway("wss://h", Some(Token::new(" .ab\n cd\t")), "id", "n").unwrap();
        assert_eq!(login.token().unwrap().expose(), ".abcd");
        assert!(login.request_target(&[]).contains("token=.abcd"));
        let header_only = login.with_token_placement(TokenPlacement::Header);
        assert!(!header_only.request_target(&[]).contains("token"));
        assert_eq!(
            TokenPlacement::from_flag("false"),
            Some(TokenPlacement::Header)
        );
        assert_eq!(TokenPlacement::from_flag("maybe"), None);
    }

    #[test]
    fn portal_10_no_vsn_is_sent() {
        assert!(
            !gateway("wss://h?vsn=2.0.0")
                .unwrap()
                .request_target(&[])
                .contains("vsn")
        );
    }

    #[test]
    fn ports_default_to_443_and_explicit_ones_are_kept() {
        for (url, port, header) in [
            ("ws://h", 443, "h"),
            ("ws://h:80/x", 80, "h:80"),
            ("http://h:8080", 8080, "h:8080"),
            ("wss://h:80", 80, "h:80"),
            ("wss://h:443", 443, "h"),
            ("wss://[::1]:9000", 9000, "[::1]:9000"),
        ] {
            let login = gateway(url).unwrap();
            assert_eq!(
                (login.port(), login.host_header()),
                (port, header.to_owned()),
                "{url}"
            );
        }
    }

    #[test]
    fn portal_13_literal_hosts_are_addresses() {
        let address = |url| gateway(url).unwrap().host_address();
        assert_eq!(
            address("wss://192.0.2.1"),
            Some("192.0.2.1".parse().unwrap())
        );
        assert_eq!(
            address("wss://[2001:db8::1]"),
            Some("2001:db8::1".parse().unwrap())
        );
        assert_eq!(address("wss://portal.example"), None);
    }

    #[test]
    fn portal_44_token_is_hidden_from_debug_and_display() {
        let login = gateway("wss://h").unwrap();
        let shown = format!("{login} {login:?} {:?}", login.token());
        assert!(!shown.contains("tok+en"), "{shown}");
    }
}

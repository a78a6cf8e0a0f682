//! What can be written in the file. Values that may be wrong in a way TOML does not see carry their place.

use std::path::PathBuf;

use serde::Deserialize;
use toml::{Spanned, value::Datetime};
use uuid::Uuid;

pub(super) type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) server: Server,
    #[serde(default)]
    pub(super) account: Account,
    #[serde(default)]
    pub(super) dns: Dns,
    #[serde(default)]
    pub(super) devices: Devices,
    #[serde(default)]
    pub(super) site: Vec<Site>,
    #[serde(default)]
    pub(super) resource: Vec<Resource>,
    #[serde(default)]
    pub(super) person: Vec<Person>,
    #[serde(default)]
    pub(super) group: Vec<Group>,
    #[serde(default)]
    pub(super) policy: Vec<Policy>,
    #[serde(default)]
    pub(super) token: Vec<Token>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) listen: Text,
    pub(super) tls_certificate: Option<Spanned<PathBuf>>,
    pub(super) tls_key: Option<Spanned<PathBuf>>,
    pub(super) database: Option<PathBuf>,
    pub(super) max_connections: Option<Spanned<usize>>,
    #[serde(default)]
    pub(super) trust_proxy_headers: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) id: Option<Uuid>,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            id: None,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    #[serde(default)]
    pub(super) servers: Vec<Text>,
    pub(super) search_domain: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Devices {
    #[serde(default)]
    pub(super) verified: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    pub(super) name: Text,
    pub(super) id: Option<Uuid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    pub(super) name: Text,
    pub(super) id: Option<Uuid>,
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) address: Option<Text>,
    pub(super) description: Option<String>,
    pub(super) site: Option<Text>,
    #[serde(default)]
    pub(super) sites: Vec<Text>,
    #[serde(default)]
    pub(super) filters: Vec<Text>,
    pub(super) ip_stack: Option<Spanned<IpStack>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Cidr,
    Ip,
    Dns,
    Internet,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(super) enum IpStack {
    Dual,
    Ipv4Only,
    Ipv6Only,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    pub(super) name: Text,
    pub(super) id: Option<Uuid>,
    pub(super) email: Option<String>,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) name: Text,
    #[serde(default)]
    pub(super) members: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) id: Option<Uuid>,
    pub(super) group: Text,
    pub(super) resource: Text,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    #[serde(default)]
    pub(super) conditions: Conditions,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Conditions {
    #[serde(default)]
    pub(super) remote_ip: Vec<Text>,
    #[serde(default)]
    pub(super) regions: Vec<Text>,
    #[serde(default)]
    pub(super) times: Vec<Text>,
    #[serde(default)]
    pub(super) verified: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    #[serde(rename = "type")]
    pub(super) kind: Text,
    pub(super) name: String,
    pub(super) hash: Text,
    pub(super) person: Option<Text>,
    pub(super) site: Option<Text>,
    pub(super) expires: Option<Spanned<Datetime>>,
}

fn yes() -> bool {
    true
}

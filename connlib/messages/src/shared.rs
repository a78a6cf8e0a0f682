//! Small payloads that several messages share.

use connlib_model::{ClientId, ResourceId};
use serde::{Deserialize, Serialize};

/// `{}`; any members are ignored when reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// One entry of a gateway's `init.authorizations`: what stays allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// Who.
    pub client_id: ClientId,
    /// May reach what.
    pub resource_id: ResourceId,
    /// Until when, Unix seconds; `None` is for ever.
    #[serde(default)]
    pub expires_at: Option<u64>,
}

/// Where flow records would be uploaded to. Read and written for the sake of other implementations, which require it;
/// nothing is uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLogs {
    /// Base address of the upload interface.
    pub api_url: String,
    /// Seconds between uploads; 0 is off.
    #[serde(default)]
    pub upload_interval_secs: u64,
    /// Records per upload; 0 is the component's default.
    #[serde(default)]
    pub upload_batch_size: u64,
}

/// What the sender's connection layer can do (portal protocol §9.3); read and not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SnownetCapabilities {
    /// Connections without ICE.
    #[serde(default)]
    pub iceless: bool,
}

//! Sites.

use serde::{Deserialize, Serialize};

use crate::SiteId;

/// A site: the gateways behind which a resource sits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Site {
    /// Identity; two sites with one id are the same site whatever their names.
    pub id: SiteId,
    /// For display only.
    pub name: String,
}

//! Ingest tokens for flow records (portal protocol §9.5). Nothing is uploaded anywhere, but newer components insist on a
//! well-formed token with each authorization.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use connlib_messages::Secret;
use serde::Serialize;

use crate::derive::hmac_sha256;

const DAY: u64 = 86_400;
/// How long records of an ended authorization could still be uploaded.
const UPLOAD_GRACE: u64 = 30 * DAY;
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Which end of a flow the token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// The client.
    Initiator,
    /// The gateway.
    Responder,
}

/// What a token says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Claims {
    pub(crate) account_id: String,
    pub(crate) iat: u64,
    pub(crate) exp: u64,
    pub(crate) uploads_enabled: bool,
    pub(crate) role: Role,
    pub(crate) initiator_device_id: String,
    pub(crate) responder_device_id: String,
    pub(crate) policy_authorization_id: String,
    pub(crate) policy_id: String,
    pub(crate) resource_id: String,
    pub(crate) resource_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource_address: Option<String>,
    pub(crate) initiator_actor_id: String,
    pub(crate) initiator_actor_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) initiator_actor_email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) initiator_client_version: Option<String>,
    pub(crate) authorized_at: u64,
    pub(crate) authorization_expires_at: u64,
}

/// The end of a token for an authorization that ends at `expires_at`.
pub(crate) const fn token_end(expires_at: u64) -> u64 {
    expires_at.saturating_add(UPLOAD_GRACE)
}

/// Signs the claims as an HS256 JWT (RFC 7519).
pub(crate) fn sign(claims: &Claims, key: &[u8; 32]) -> Secret {
    let claims = serde_json::to_vec(claims).expect("claims are text and numbers");
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(HEADER),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = hmac_sha256(key, &[signed.as_bytes()]);
    Secret::from(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            account_id: "a".to_owned(),
            iat: 1,
            exp: token_end(10),
            uploads_enabled: false,
            role: Role::Initiator,
            initiator_device_id: "c".to_owned(),
            responder_device_id: "g".to_owned(),
            policy_authorization_id: "f".to_owned(),
            policy_id: "p".to_owned(),
            resource_id: "r".to_owned(),
            resource_name: "Lab".to_owned(),
            resource_address: None,
            initiator_actor_id: "u".to_owned(),
            initiator_actor_name: "Jo".to_owned(),
            initiator_actor_email: None,
            initiator_client_version: None,
            authorized_at: 1,
            authorization_expires_at: 10,
        }
    }

    #[test]
    fn token_has_three_segments_and_the_required_claims() {
        let token = sign(&claims(), &[9; 32]);
        let segments: Vec<_> = token.expose().split('.').collect();
        assert_eq!(segments.len(), 3);
        assert_eq!(segments[2].len(), 43);
        let claims: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segments[1]).unwrap()).unwrap();
        assert_eq!(claims["role"], "initiator");
        assert_eq!(claims["uploads_enabled"], false);
        assert_eq!(claims["exp"], 10 + 30 * 86_400);
        assert!(claims.get("resource_address").is_none());
    }

    #[test]
    fn signature_depends_on_the_key() {
        assert_ne!(sign(&claims(), &[1; 32]), sign(&claims(), &[2; 32]));
        assert_eq!(sign(&claims(), &[1; 32]), sign(&claims(), &[1; 32]));
    }
}

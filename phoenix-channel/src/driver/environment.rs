//! What a program around a channel takes from its environment: token, placement of the token, protocol version.

use std::path::Path;

use super::Options;
use crate::login::{Token, TokenPlacement};
use crate::user_agent::{Component, InvalidVersion, OsInfo, ProtocolVersion, user_agent};

/// Name of the environment variable, and of the service manager's credential, with the token.
pub const TOKEN_VARIABLE: &str = "FIREZONE_TOKEN";

/// Nobody gave a token.
#[derive(Debug, thiserror::Error)]
#[error("no token: set {TOKEN_VARIABLE}, or give the service a credential of this name")]
pub struct MissingToken;

/// The variable that says where the token is sent is neither true nor false.
#[derive(Debug, thiserror::Error)]
#[error("{} is neither true nor false", TokenPlacement::ENVIRONMENT)]
pub struct InvalidPlacement;

/// Takes the token's text out of the environment, where children and other users could see it.
///
/// Must be called before any other thread exists, first thing in a program.
pub fn take_token_variable() -> Option<String> {
    // SAFETY: the caller guarantees that there is no other thread.
    let token = unsafe { crate::platform::take_from_environment(TOKEN_VARIABLE) };
    token.filter(|text| !text.trim().is_empty())
}

/// The token of a program without a token file: environment, then command line (old scripts), then the service
/// manager's credential (clients spec §1.5).
///
/// # Errors
///
/// If none of them has one.
pub fn find_token(
    environment: Option<&str>,
    argument: Option<&str>,
) -> Result<Token, MissingToken> {
    if let Some(text) = environment.filter(|text| !text.trim().is_empty()) {
        return Ok(Token::new(text));
    }
    if let Some(text) = argument {
        tracing::warn!(
            "A token on the command line can be seen by every user; use {TOKEN_VARIABLE} instead"
        );
        return Ok(Token::new(text));
    }
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(MissingToken)?;
    let file = Path::new(&directory).join(TOKEN_VARIABLE);
    let text = std::fs::read_to_string(file).map_err(|_| MissingToken)?;
    Ok(Token::new(&text))
}

impl TokenPlacement {
    /// The placement that the environment asks for.
    ///
    /// # Errors
    ///
    /// If the variable is neither true nor false.
    pub fn from_environment() -> Result<Self, InvalidPlacement> {
        let value = std::env::var(Self::ENVIRONMENT).unwrap_or_default();
        Self::from_flag(&value).ok_or(InvalidPlacement)
    }
}

impl Options {
    /// The options of a program of ours: its `User-Agent` from the running system, everything else ordinary.
    ///
    /// # Errors
    ///
    /// If `FIREZONE_PROTOCOL_VERSION` is no version.
    pub fn for_program(
        component: Component,
        product_version: &str,
    ) -> Result<Self, InvalidVersion> {
        let protocol = ProtocolVersion::from_environment()?;
        let system = OsInfo::detect();
        Ok(Self::new(user_agent(
            component,
            &protocol,
            product_version,
            &system,
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_beats_the_command_line() {
        let token = find_token(Some("env"), Some("argument")).unwrap();
        assert_eq!(token.expose(), "env");
        let token = find_token(Some(" "), Some("argument")).unwrap();
        assert_eq!(token.expose(), "argument");
    }

    #[test]
    fn missing_token_says_where_to_put_it() {
        let error = find_token(None, None).unwrap_err();
        assert!(error.to_string().contains(TOKEN_VARIABLE));
    }
}

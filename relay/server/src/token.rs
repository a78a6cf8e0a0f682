//! Where the relay's token comes from (clients spec §1.6).

use std::path::Path;

use anyhow::{Context as _, Result};
use phoenix_channel::Token;

/// Name of the environment variable and of the service manager's credential.
const NAME: &str = "FIREZONE_TOKEN";

/// Takes the token out of the environment, where children and other users could see it. Before any thread exists.
pub(crate) fn take_from_environment() -> Option<String> {
    // SAFETY: no other thread exists yet, see `run`.
    unsafe { phoenix_channel::take_from_environment(NAME) }
}

/// Environment, then command line (old scripts), then the service manager's credential.
pub(crate) fn find(environment: Option<String>, argument: Option<&str>) -> Result<Token> {
    if let Some(text) = environment.filter(|text| !text.trim().is_empty()) {
        return Ok(Token::new(&text));
    }
    if let Some(text) = argument {
        tracing::warn!("A token on the command line can be seen by every user; use {NAME} instead");
        return Ok(Token::new(text));
    }
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
    let credential = directory
        .and_then(|directory| std::fs::read_to_string(Path::new(&directory).join(NAME)).ok());
    let text = credential.with_context(|| {
        format!("no token: set {NAME}, or give the service a credential of this name, or use --standalone")
    })?;
    Ok(Token::new(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_beats_the_command_line() {
        let token = find(Some("env".into()), Some("argument")).unwrap();
        assert_eq!(token.expose(), "env");
        let token = find(Some(" ".into()), Some("argument")).unwrap();
        assert_eq!(token.expose(), "argument");
    }

    #[test]
    fn missing_token_says_where_to_put_it() {
        let error = find(None, None).unwrap_err();
        assert!(error.to_string().contains(NAME));
    }
}

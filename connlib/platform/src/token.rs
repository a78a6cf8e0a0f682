//! The token of a program that runs without a user: environment first, then a file (clients spec §1.10).

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Permission bits that a token file must not have.
const FORBIDDEN_MODE: u32 = 0o177;

/// A secret. Never printed; overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token as a person pasted it: surrounding and inner white space is removed.
    ///
    /// # Errors
    ///
    /// If nothing is left.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.split_whitespace().collect::<String>();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        Ok(Self(text))
    }

    /// The secret itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(<redacted>)")
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // The compiler must not see that nobody reads this again.
        std::hint::black_box(&bytes);
    }
}

/// Why there is no usable token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Neither place has one.
    #[error("no token: set FIREZONE_TOKEN, or put the token into {path} (owner root, mode 0400 or 0600)", path = path.display())]
    Missing {
        /// Where a file was looked for.
        path: PathBuf,
    },
    /// A token of white space.
    #[error("the token is empty")]
    Empty,
    /// The file could be read or changed by others.
    #[error("token file {path} {problem}; run `chown root:root {path} && chmod 600 {path}`", path = path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The token from the environment's value if there is one, else from the file.
///
/// # Errors
///
/// If neither has a token, or the file is accessible to others than root.
pub fn read_token(environment: Option<&str>, path: &Path) -> Result<Token, TokenError> {
    if let Some(text) = environment.filter(|text| !text.trim().is_empty()) {
        return Token::new(text);
    }
    let missing = || TokenError::Missing {
        path: path.to_owned(),
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "Cannot look at the token file");
            }
            return Err(missing());
        }
    };
    let unsafe_because = |problem| TokenError::Unsafe {
        path: path.to_owned(),
        problem,
    };
    if metadata.uid() != 0 {
        return Err(unsafe_because("is not owned by root"));
    }
    if metadata.gid() != 0 {
        return Err(unsafe_because("does not belong to the group root"));
    }
    if metadata.mode() & FORBIDDEN_MODE != 0 {
        return Err(unsafe_because("is accessible to others than its owner"));
    }
    let text = fs::read_to_string(path).map_err(|error| {
        tracing::warn!(path = %path.display(), %error, "Cannot read the token file");
        missing()
    })?;
    Token::new(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn token_file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, " secret \n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn clients_07_environment_beats_the_file() {
        let (_directory, path) = token_file(0o600);

        let token = read_token(Some("from-env"), &path).unwrap();

        assert_eq!(token.expose(), "from-env");
    }

    #[test]
    fn clients_06_content_is_trimmed_and_never_printed() {
        let token = Token::new(" a b\n").unwrap();

        assert_eq!(token.expose(), "ab");
        assert_eq!(format!("{token:?}"), "Token(<redacted>)");
    }

    #[test]
    fn clients_05_files_that_others_can_read_are_refused() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: only root can own a token file");
            return;
        }
        for (mode, accepted) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            let (_directory, path) = token_file(mode);
            let result = read_token(None, &path);
            assert_eq!(result.is_ok(), accepted, "{mode:o}: {result:?}");
        }
    }

    #[test]
    fn clients_04_missing_token_names_both_places() {
        let error = read_token(None, Path::new("/nonexistent/token")).unwrap_err();

        let text = error.to_string();
        assert!(text.contains("FIREZONE_TOKEN") && text.contains("/nonexistent/token"));
    }
}

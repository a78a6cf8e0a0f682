//! `--stamp-secret-file`: keeps credentials valid over restarts (relay spec §3.3).

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use relay_core::StampSecret;

/// Reads the secret, or makes the file with a fresh one that only its owner can read.
pub(crate) fn load_or_create(path: &Path) -> Result<StampSecret> {
    match load(path) {
        Err(error) if is_absent(&error) => create(path),
        result => result,
    }
}

/// Reads the secret.
pub(crate) fn load(path: &Path) -> Result<StampSecret> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the stamp secret file {}", path.display()))?;
    text.parse()
        .with_context(|| format!("cannot use the stamp secret file {}", path.display()))
}

fn is_absent(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn create(path: &Path) -> Result<StampSecret> {
    let secret = StampSecret::random(&mut rand::rng());
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    crate::platform::owner_only(&mut options);
    let mut file = options
        .open(path)
        .with_context(|| format!("cannot create the stamp secret file {}", path.display()))?;
    writeln!(file, "{}", secret.expose())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write the stamp secret file {}", path.display()))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    // relay C-52
    #[test]
    fn relay_52_secret_survives_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let secret = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap(), secret);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_broken_file_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "not a secret").unwrap();
        assert!(load_or_create(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "not a secret");
    }
}

//! `--stamp-secret-file`: keeps credentials valid over restarts (relay spec §3.3).
//!
//! Its first line is the secret that credentials are minted from. A second line, if any, is the secret before: what was
//! minted from it stays valid until the line is taken out, which is safe once the longest-lived credentials are over.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result, bail};
use relay_core::StampSecret;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secrets {
    pub(crate) present: StampSecret,
    pub(crate) previous: Option<StampSecret>,
}

/// Reads the secrets, or makes the file with a fresh one that only its owner can read.
pub(crate) fn load_or_create(path: &Path) -> Result<Secrets> {
    match load(path) {
        Err(error) if is_absent(&error) => {
            let present = StampSecret::random(&mut rand::rng());
            write_new(path, present.expose())?;
            let previous = None;
            Ok(Secrets { present, previous })
        }
        result => result,
    }
}

/// Puts a fresh secret in front; the present one becomes the previous one. The file is replaced at once.
pub(crate) fn rotate(path: &Path) -> Result<()> {
    let present = load(path)?.present;
    let fresh = StampSecret::random(&mut rand::rng());
    let next = path.with_added_extension("new");
    write_new(&next, &format!("{}\n{}", fresh.expose(), present.expose()))?;
    fs::rename(&next, path)
        .with_context(|| format!("cannot replace the stamp secret file {}", path.display()))
}

fn load(path: &Path) -> Result<Secrets> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the stamp secret file {}", path.display()))?;
    parse(&text).with_context(|| format!("cannot use the stamp secret file {}", path.display()))
}

fn parse(text: &str) -> Result<Secrets> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let present = lines.next().unwrap_or_default().parse()?;
    let previous = lines.next().map(str::parse).transpose()?;
    if lines.next().is_some() {
        bail!("it holds more than the present and the previous secret");
    }
    Ok(Secrets { present, previous })
}

fn is_absent(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    crate::platform::owner_only(&mut options);
    let mut file = options
        .open(path)
        .with_context(|| format!("cannot create the stamp secret file {}", path.display()))?;
    writeln!(file, "{text}")
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write the stamp secret file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // relay C-52
    #[test]
    fn relay_52_secret_survives_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let secrets = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap(), secrets);
        assert_owner_only(&path);
    }

    #[test]
    fn rotation_keeps_the_secret_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        assert!(rotate(&path).is_err(), "nothing to rotate");
        let first = load_or_create(&path).unwrap();
        rotate(&path).unwrap();
        let second = load(&path).unwrap();
        assert_ne!(second.present, first.present);
        assert_eq!(second.previous, Some(first.present));
        rotate(&path).unwrap();
        assert_eq!(load(&path).unwrap().previous, Some(second.present));
        assert_owner_only(&path);
    }

    #[test]
    fn a_broken_file_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "not a secret").unwrap();
        assert!(load_or_create(&path).is_err() && rotate(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "not a secret");
    }

    fn assert_owner_only(path: &Path) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}

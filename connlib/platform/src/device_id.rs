//! The device id: made once, kept for ever (clients spec §1.9).

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest id that is taken from a file.
const MAX_LENGTH: usize = 256;
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o770;

/// Whose id it is; the two differ in how they treat a corrupt file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A corrupt file is replaced: the user signs in again.
    Client,
    /// A corrupt file is an error: replacing it would silently make a new gateway.
    Gateway,
}

/// Why there is no device id.
#[derive(Debug, thiserror::Error)]
pub enum DeviceIdError {
    /// The file cannot be read or made.
    #[error("cannot {action} the device id in {path}: {source}; give one with FIREZONE_ID instead", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The gateway's file holds neither an id nor JSON with one.
    #[error("{path} does not hold a gateway id; restore it, or remove it to register as a new gateway", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
}

/// Reads the id, in any of its historic forms, or makes a random one and stores it as JSON.
///
/// # Errors
///
/// If the file cannot be read or written, or a gateway's file is corrupt.
pub fn load_or_create_device_id(path: &Path, kind: DeviceKind) -> Result<String, DeviceIdError> {
    let failed = |action| {
        move |source| DeviceIdError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    match fs::read_to_string(path) {
        Ok(text) => {
            // Best effort: an id that others can read is no reason to stop.
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(FILE_MODE));
            match (parse(&text), kind) {
                (Some(id), _) => return Ok(id),
                (None, DeviceKind::Gateway) if !text.trim().is_empty() => {
                    return Err(DeviceIdError::Corrupt {
                        path: path.to_owned(),
                    });
                }
                (None, _) => {
                    tracing::warn!(path = %path.display(), "Replacing a corrupt device id");
                    fs::remove_file(path).map_err(failed("replace"))?;
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if kind == DeviceKind::Client && error.kind() == io::ErrorKind::InvalidData => {
            fs::remove_file(path).map_err(failed("replace"))?;
        }
        Err(error) => return Err(failed("read")(error)),
    }
    create(path).map_err(failed("store"))
}

fn parse(text: &str) -> Option<String> {
    let text = text.trim();
    let id = match serde_json::from_str::<Stored>(text) {
        Ok(stored) => stored.id,
        Err(_) => text.to_owned(),
    };
    let is_id = !id.is_empty()
        && id.len() <= MAX_LENGTH
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    is_id.then_some(id)
}

/// Writes a new id to a file beside the target and links it there, so that neither a crash nor a second process can
/// leave a half-written or overwritten id.
fn create(path: &Path) -> io::Result<String> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)?;
    let id = Uuid::new_v4().to_string();
    let temporary = directory.join(format!(".{id}.new"));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&temporary)?;
    let written = serde_json::to_writer(&mut file, &Stored { id: id.clone() })
        .map_err(io::Error::from)
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&temporary, path));
    fs::remove_file(&temporary)?;
    match written {
        Ok(()) => Ok(id),
        // Somebody else was faster: theirs counts.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(path)
            .and_then(|text| parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0b6c1f5e-8f0e-4a0c-9f53-6d2f3d7c1a11";

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn clients_14_made_once_with_narrow_permissions() {
        let directory = directory();
        let path = directory.path().join("config/firezone-id.json");

        let first = load_or_create_device_id(&path, DeviceKind::Client).unwrap();
        let second = load_or_create_device_id(&path, DeviceKind::Client).unwrap();

        assert_eq!(first, second);
        assert!(Uuid::parse_str(&first).is_ok());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn clients_15_18_every_historic_form_is_read_unchanged() {
        let hex = "a".repeat(64);
        for text in [
            format!("{{\"id\":\"{UUID}\"}}"),
            UUID.to_owned(),
            format!("{UUID}\n"),
            hex.clone(),
        ] {
            let directory = directory();
            let path = directory.path().join("gateway_id");
            fs::write(&path, &text).unwrap();

            let id = load_or_create_device_id(&path, DeviceKind::Gateway).unwrap();

            assert!(id == UUID || id == hex, "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn clients_16_corrupt_client_id_is_replaced_gateway_id_is_not() {
        let directory = directory();
        let path = directory.path().join("id");
        fs::write(&path, "{\"id\": 7}").unwrap();

        let refused = load_or_create_device_id(&path, DeviceKind::Gateway);
        assert!(matches!(refused, Err(DeviceIdError::Corrupt { .. })));
        let replaced = load_or_create_device_id(&path, DeviceKind::Client).unwrap();
        assert!(Uuid::parse_str(&replaced).is_ok());
    }
}

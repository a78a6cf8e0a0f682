//! Reading lists and optional members so that one bad entry costs only itself (portal protocol §8).

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// A list of which entries that cannot be read are skipped with a warning; `null` is the empty list.
pub(crate) fn list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    list_with(deserializer, |entry| {
        serde_json::from_value(entry).map(Some)
    })
}

/// [`list`] with a reader of its own: `Ok(None)` skips the entry without a warning.
pub(crate) fn list_with<'de, T, D, E>(
    deserializer: D,
    read: impl Fn(Value) -> Result<Option<T>, E>,
) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    E: std::fmt::Display,
{
    let entries = Option::<Vec<Value>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(entries
        .into_iter()
        .filter_map(|entry| match read(entry) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(%error, "skipping an entry of a portal message that cannot be used");
                None
            }
        })
        .collect())
}

/// [`list`], but a missing member stays distinguishable from an empty list.
pub(crate) fn present_list<'de, T, D>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    list(deserializer).map(Some)
}

/// A member that is not needed: whatever cannot be read counts as absent.
pub(crate) fn optional<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// A member for which `null` means the default.
pub(crate) fn null_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

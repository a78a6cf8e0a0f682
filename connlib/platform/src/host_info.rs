//! What a component tells the portal about its host.

/// The host's name, if it has a readable one.
pub fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let name = name.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

//! What a service manager and the firmware say and want to hear.

use std::{fs, io, os::unix::net::UnixDatagram, path::Path};

/// Tells the service manager that start-up is complete (`sd_notify(3)`); without one this does nothing.
///
/// # Errors
///
/// If there is a service manager that cannot be told.
pub fn notify_ready() -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to(b"READY=1", Path::new(&path)).map(drop)
}

/// Serial number and UUID of the machine, as far as the firmware delivers them and the process may read them.
pub fn hardware_identity() -> (Option<String>, Option<String>) {
    let read = |name: &str| {
        let text = fs::read_to_string(Path::new("/sys/class/dmi/id").join(name)).ok()?;
        let text = text.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    (read("product_serial"), read("product_uuid"))
}

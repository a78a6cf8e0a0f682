//! Ctrl-C and SIGTERM: noted, and acted upon at the next step, so that everything is taken down in order.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Installs the handlers.
///
/// # Errors
///
/// If the system refuses.
pub fn install() -> Result<()> {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::SeqCst);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action)? };
    }
    Ok(())
}

/// Whether somebody asked to stop.
pub fn is_pending() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Fails if somebody asked to stop.
///
/// # Errors
///
/// Then.
pub fn check() -> Result<()> {
    if is_pending() {
        bail!("interrupted");
    }
    Ok(())
}

//! Signals of the operating system.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::Signals;

#[cfg(not(unix))]
mod windows;
#[cfg(not(unix))]
pub(crate) use windows::Signals;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Read the configuration again.
    Reload,
    /// End.
    Stop,
}

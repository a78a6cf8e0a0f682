//! Socket options that only some systems have.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{configure, disable_gro, disable_timestamps, enlarge_buffers, is_too_large};

#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{configure, disable_gro, disable_timestamps, enlarge_buffers, is_too_large};

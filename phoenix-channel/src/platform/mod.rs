//! What operating systems do differently.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::take_from_environment;

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub use other::take_from_environment;

//! The programs inside the test executable: those of the demo, and a name server.

use std::process::ExitCode;

use demo::role::ROLE_ARGUMENT;

use crate::resolver;

/// Role of the name server.
pub const RESOLVER: &str = "resolver";

/// Plays the role that the command line names; returns `None` if it names none. Call first thing in `main`.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let (first, role) = (arguments.next(), arguments.next());
    if first.as_deref() != Some(ROLE_ARGUMENT) || role.as_deref() != Some(RESOLVER) {
        return demo::role::run_if_asked();
    }
    let address = arguments.next().unwrap_or_default();
    Some(match resolver::serve(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

//! A secret leaves the environment without a trace. A process of its own, since the environment belongs to the whole
//! process: the test starts itself again.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::{Command, ExitCode};

const NAME: &str = "FIREZONE_TOKEN";
const SECRET: &str = "s3cret-of-the-test";

fn main() -> ExitCode {
    if std::env::var_os("STARTED_AGAIN").is_some() {
        clients_02_token_is_gone_from_the_environment();
        return ExitCode::SUCCESS;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .env("BEFORE", "1")
        .env(NAME, SECRET)
        .env("STARTED_AGAIN", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    println!("test clients_02_token_is_gone_from_the_environment ... ok");
    ExitCode::SUCCESS
}

fn clients_02_token_is_gone_from_the_environment() {
    let shows = |text: &str| {
        let shown = std::fs::read("/proc/self/environ").unwrap();
        let mut windows = shown.windows(text.len());
        windows.any(|window| window == text.as_bytes())
    };
    assert!(shows(SECRET) && shows("BEFORE=1"));

    // SAFETY: this process has one thread.
    let taken = unsafe { phoenix_channel::take_from_environment(NAME) };

    assert_eq!(taken.as_deref(), Some(SECRET));
    assert!(!shows(SECRET) && !shows(NAME));
    assert!(std::env::var_os(NAME).is_none());
    assert_eq!(std::env::var("BEFORE").as_deref(), Ok("1"));
    assert!(shows("BEFORE=1") && shows("STARTED_AGAIN=1"));
    // SAFETY: as above.
    assert!(unsafe { phoenix_channel::take_from_environment(NAME) }.is_none());
}

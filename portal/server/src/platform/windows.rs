//! Ctrl-C stops; the configuration is reloaded when its file changes.

use std::io;

use super::Signal;

pub(crate) struct Signals(());

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(()))
    }

    pub(crate) async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Stop
    }
}

//! The threads of all workers, as the control thread sees them.

use std::{panic::AssertUnwindSafe, sync::Arc};

use anyhow::{Context as _, Result, anyhow};
use relay_core::Server;
use tokio::sync::mpsc;

use crate::{
    platform::scheduling::forward_in_bulk,
    shared::Shared,
    worker::{self, BindOptions, Handle, Order, Worker},
};

pub(crate) struct Workers {
    handles: Vec<Handle>,
    ended: mpsc::UnboundedReceiver<Result<()>>,
    running: usize,
}

impl Workers {
    /// Binds the listen port and starts a thread per server.
    pub(crate) fn start(
        servers: Vec<Server>,
        options: BindOptions,
        shared: &Arc<Shared>,
    ) -> Result<Self> {
        let (workers, handles) = worker::group(servers, options, shared)?;
        let (end, ended) = mpsc::unbounded_channel();
        let running = workers.len();
        for (index, worker) in workers.into_iter().enumerate() {
            let end = end.clone();
            std::thread::Builder::new()
                .name(format!("relay-worker-{index}"))
                .spawn(move || {
                    forward_in_bulk();
                    end.send(run(worker))
                })
                .context("cannot start a worker")?;
        }
        Ok(Self {
            handles,
            ended,
            running,
        })
    }

    /// To all of them.
    pub(crate) fn give(&self, order: Order) {
        for handle in &self.handles {
            handle.give(order);
        }
    }

    /// Waits for the first one to end. None does unless it is told to or fails.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        let result = self.ended.recv().await;
        self.running -= 1;
        result.unwrap_or_else(|| Err(anyhow!("the workers are gone")))
    }

    /// Ends all.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.give(Order::Stop);
        while self.running > 0 {
            self.ended().await?;
        }
        Ok(())
    }
}

fn run(worker: Worker) -> Result<()> {
    std::panic::catch_unwind(AssertUnwindSafe(|| worker.run()))
        .unwrap_or_else(|_| Err(anyhow!("a worker crashed")))
}

//! Starting and stopping a data thread and its portal channel.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use connlib_session::PortalOutput;
use connlib_sockets::{BindError, SocketOptions, Sockets};
use connlib_tun::Tun;
use mio::Waker;
use phoenix_channel::{Channel, LoginUrl, Options, driver::TlsError};
use rand::RngCore as _;
use tokio::sync::{mpsc, oneshot};

use crate::{
    clock::{self, Clock},
    portal,
    role::Role,
    worker::{Input, Worker},
};

/// Inputs that wait for the data thread. Portal messages come one at a time; look-ups may come by the hundred.
const INPUT_QUEUE: usize = 1024;
/// Messages that wait for the portal channel; the session keeps the rest.
const PORTAL_QUEUE: usize = 64;
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a client or gateway could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No UDP socket.
    #[error(transparent)]
    Sockets(#[from] BindError),
    /// The portal channel's TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operating system gives no thread or no event queue.
    #[error("cannot start the data thread: {0}")]
    Thread(#[from] io::Error),
}

/// The queue into the data thread.
pub(crate) struct Inbox<R: Role> {
    queue: mpsc::Sender<Input<R>>,
    waker: Arc<Waker>,
}

impl<R: Role> Clone for Inbox<R> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            waker: Arc::clone(&self.waker),
        }
    }
}

impl<R: Role> Inbox<R> {
    /// Hands over an input, waiting for room. False: the data thread has ended.
    pub(crate) async fn send(&self, input: Input<R>) -> bool {
        let sent = self.queue.send(input).await.is_ok();
        sent && self.waker.wake().is_ok()
    }

    /// Hands over a wish if there is room.
    pub(crate) fn try_send(&self, command: R::Command) {
        self.try_input(Input::Command(command));
    }

    fn try_input(&self, input: Input<R>) {
        match self.queue.try_send(input) {
            Ok(()) => {
                // A thread that cannot be woken has ended.
                let _ = self.waker.wake();
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!("The data thread is overloaded; dropping a request to it");
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }
}

/// A running data thread.
pub(crate) struct DataThread<R: Role> {
    inbox: Inbox<R>,
    abandoned: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    portal: tokio::task::JoinHandle<()>,
}

/// Starts the data thread and the portal channel. `failed` is told when the thread ends because of the system.
pub(crate) fn start<R: Role>(
    login: LoginUrl,
    channel: Options,
    tun: Tun,
    offload: bool,
    role: impl FnOnce([u8; 32], Instant, Duration) -> R,
    failed: impl FnOnce(io::Error) + Send + 'static,
) -> Result<DataThread<R>, StartError> {
    let channel = Channel::new(login, portal::bypassing(channel))?;
    let sockets = Sockets::bind(socket_options(offload))?;
    let poll = mio::Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), Worker::<R>::WAKER)?);

    let (input_tx, input_rx) = mpsc::channel(INPUT_QUEUE);
    let (portal_tx, portal_rx) = mpsc::channel(PORTAL_QUEUE);
    let inbox = Inbox {
        queue: input_tx,
        waker,
    };
    let abandoned = Arc::new(AtomicBool::new(false));

    let mut clock = Clock::start();
    let role = role(seed(), clock.now(), clock::unix_now());
    let first = PortalOutput::Reconnect {
        public_key: role.public_key(),
    };
    // The queue is empty: there is room.
    let _ = portal_tx.try_send(first);
    let report = inbox.clone();
    let portal = tokio::spawn(portal::drive(channel, portal_rx, move |input| {
        let report = report.clone();
        async move { report.send(Input::Portal(input)).await }
    }));

    let worker = Worker::new(
        role,
        clock,
        poll,
        tun,
        sockets,
        input_rx,
        portal_tx,
        Arc::clone(&abandoned),
    )?;
    let thread = std::thread::Builder::new()
        .name("firezone-data".to_owned())
        .spawn(move || {
            if let Err(error) = worker.run() {
                tracing::error!(%error, "The data thread ended");
                failed(error);
            }
        })?;
    Ok(DataThread {
        inbox,
        abandoned,
        thread: Some(thread),
        portal,
    })
}

impl<R: Role> DataThread<R> {
    /// The queue for the program's wishes.
    pub(crate) fn commands(&self) -> Inbox<R> {
        self.inbox.clone()
    }

    /// Starts over after a change of network.
    pub(crate) fn reset(&self) {
        self.inbox.try_input(Input::Reset);
    }

    /// Says goodbye to all peers, then to the portal.
    pub(crate) async fn stop(mut self) {
        let (done_tx, done) = oneshot::channel();
        if self.inbox.send(Input::Stop(done_tx)).await {
            let _ = tokio::time::timeout(FAREWELL, done).await;
        }
        // The channel's task notices that the data thread is gone and closes the WebSocket.
        let _ = tokio::time::timeout(FAREWELL, &mut self.portal).await;
    }
}

impl<R: Role> Drop for DataThread<R> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Release);
        let _ = self.inbox.waker.wake();
        if let Some(thread) = self.thread.take() {
            // It owns the TUN device, which must be gone before the interface is taken down.
            let _ = thread.join();
        }
        self.portal.abort();
    }
}

fn socket_options(offload: bool) -> SocketOptions {
    SocketOptions {
        prepare: Some(Arc::new(|socket| {
            connlib_platform::mark_socket(std::os::fd::AsFd::as_fd(socket))
        })),
        gso: offload,
        gro: offload,
        ..SocketOptions::default()
    }
}

/// The seed of everything random in the state machines, from the operating system.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    seed
}

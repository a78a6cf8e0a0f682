//! Starting and stopping the data threads and their portal channel.

use std::{
    io,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use connlib_session::{Known, PortalOutput};
use connlib_sockets::{BindError, PREFERRED_PORT, SocketOptions, Sockets};
use connlib_tun::Tun;
use connlib_tunnel::PublicKey;
use mio::Waker;
use phoenix_channel::{Channel, LoginUrl, Options, driver::TlsError};
use rand::RngCore as _;
use tokio::sync::{mpsc, oneshot};

use crate::{
    clock::{self, Clock},
    portal::{self, Desk},
    role::Role,
    worker::{Input, Output, Worker},
};

/// Inputs that wait for the data thread. Portal messages come one at a time; look-ups may come by the hundred.
const INPUT_QUEUE: usize = 1024;
/// Messages that wait for the portal channel; the session keeps the rest.
const PORTAL_QUEUE: usize = 64;
const OVERLOADED: &str = "The data thread is overloaded; dropping a request to it";
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
        match self.queue.try_send(Input::Command(command)) {
            Ok(()) => {
                // A thread that cannot be woken has ended.
                let _ = self.waker.wake();
            }
            Err(mpsc::error::TrySendError::Full(_)) => tracing::warn!(OVERLOADED),
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }
}

/// The running data threads of a program.
pub(crate) struct DataThreads<R: Role> {
    inboxes: Vec<Inbox<R>>,
    abandoned: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    portal: tokio::task::JoinHandle<()>,
}

/// What all data threads have in common.
pub(crate) struct Common {
    pub(crate) login: LoginUrl,
    pub(crate) channel: Options,
    pub(crate) offload: bool,
}

/// A data thread that is being made.
pub(crate) struct Member<'a> {
    /// Its number.
    pub(crate) index: usize,
    pub(crate) seed: [u8; 32],
    /// The same for all.
    pub(crate) key_seed: [u8; 32],
    pub(crate) now: Instant,
    pub(crate) unix_now: Duration,
    /// What wakes each of them.
    pub(crate) wakers: &'a [Arc<Waker>],
}

/// Starts a data thread for each queue of the TUN device, at least one, and the portal channel. `failed` is told when a
/// thread ends by itself.
pub(crate) fn start<R: Role, D>(
    common: Common,
    tuns: Vec<Tun>,
    mut role: impl FnMut(Member<'_>) -> R,
    desk: impl FnOnce(Vec<Inbox<R>>, PublicKey) -> D,
    failed: impl Fn(io::Error) + Clone + Send + 'static,
) -> Result<DataThreads<R>, StartError>
where
    D: Desk<FromPortal = R::FromPortal, ToPortal = R::ToPortal> + 'static,
{
    let channel = Channel::new(common.login, portal::bypassing(common.channel))?;
    let abandoned = Arc::new(AtomicBool::new(false));
    let (portal_tx, portal_rx) = mpsc::channel(PORTAL_QUEUE);
    let key_seed = seed();
    let (polls, wakers) = tuns
        .iter()
        .map(|_| poll::<R>())
        .collect::<io::Result<(Vec<_>, Vec<_>)>>()?;
    let (mut workers, mut inboxes, mut key) = (Vec::new(), Vec::new(), None);
    for (index, (tun, poll)) in tuns.into_iter().zip(polls).enumerate() {
        let mut clock = Clock::start();
        let role = role(Member {
            index,
            seed: seed(),
            key_seed,
            now: clock.now(),
            unix_now: clock::unix_now(),
            wakers: &wakers,
        });
        key.get_or_insert_with(|| role.public_key());
        let (queue, inputs) = mpsc::channel(INPUT_QUEUE);
        let waker = Arc::clone(&wakers[index]);
        inboxes.push(Inbox { queue, waker });
        workers.push(Worker::new(
            role,
            clock,
            poll,
            tun,
            sockets(index, common.offload)?,
            inputs,
            index,
            portal_tx.clone(),
            Arc::clone(&abandoned),
        )?);
    }
    let key = key.ok_or_else(|| io::Error::other("no TUN device"))?;
    // The queue is empty: there is room.
    let _ = portal_tx.try_send(Output {
        worker: 0,
        known: Known::default(),
        output: PortalOutput::Reconnect { public_key: key },
    });
    let portal = portal::drive(channel, portal_rx, desk(inboxes.clone(), key));
    let mut this = DataThreads {
        inboxes,
        abandoned,
        threads: Vec::new(),
        portal: tokio::spawn(portal),
    };
    for (index, worker) in workers.into_iter().enumerate() {
        this.threads.push(spawn(index, worker, failed.clone())?);
    }
    Ok(this)
}

fn poll<R: Role>() -> io::Result<(mio::Poll, Arc<Waker>)> {
    let poll = mio::Poll::new()?;
    let waker = Waker::new(poll.registry(), Worker::<R>::WAKER)?;
    Ok((poll, Arc::new(waker)))
}

/// Each worker has a port of its own, at the start those behind the preferred one.
fn sockets(index: usize, offload: bool) -> Result<Sockets, BindError> {
    let index = u16::try_from(index).unwrap_or_default();
    Sockets::bind_to(
        PREFERRED_PORT.saturating_add(index),
        socket_options(offload),
    )
}

fn spawn<R: Role>(
    index: usize,
    worker: Worker<R>,
    failed: impl Fn(io::Error) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let name = match index {
        0 => "firezone-data".to_owned(),
        _ => format!("firezone-data-{index}"),
    };
    std::thread::Builder::new().name(name).spawn(move || {
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| worker.run()));
        let crashed = || Err(io::Error::other("the data thread crashed"));
        if let Err(error) = ended.unwrap_or_else(|_| crashed()) {
            tracing::error!(%error, "The data thread ended");
            failed(error);
        }
    })
}

impl<R: Role> DataThreads<R> {
    /// The queue of each for the program's wishes; there is at least one.
    pub(crate) fn commands(&self) -> &[Inbox<R>] {
        &self.inboxes
    }

    /// Starts over after a change of network: all of them with the same new key, or none.
    pub(crate) fn reset(&self) {
        let key_seed = seed();
        let rooms: Result<Vec<_>, _> = self
            .inboxes
            .iter()
            .map(|inbox| inbox.queue.try_reserve())
            .collect();
        match rooms {
            Ok(rooms) => {
                for room in rooms {
                    room.send(Input::Reset { key_seed });
                }
            }
            Err(mpsc::error::TrySendError::Full(())) => tracing::warn!(OVERLOADED),
            Err(mpsc::error::TrySendError::Closed(())) => {}
        }
        self.wake();
    }

    /// Says goodbye to all peers, then to the portal.
    pub(crate) async fn stop(mut self) {
        let mut farewells = Vec::new();
        for inbox in &self.inboxes {
            let (done_tx, done) = oneshot::channel();
            if inbox.send(Input::Stop(done_tx)).await {
                farewells.push(done);
            }
        }
        let all = async {
            for done in farewells {
                let _ = done.await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, all).await;
        // The channel's task notices that the data threads are gone and closes the WebSocket.
        let _ = tokio::time::timeout(FAREWELL, &mut self.portal).await;
    }

    fn wake(&self) {
        for inbox in &self.inboxes {
            // A thread that cannot be woken has ended.
            let _ = inbox.waker.wake();
        }
    }
}

impl<R: Role> Drop for DataThreads<R> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Release);
        self.wake();
        for thread in self.threads.drain(..) {
            // It owns a queue of the TUN device, which must be gone before the interface is taken down.
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

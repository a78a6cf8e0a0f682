//! The channel with socket and clock: [`PhoenixCore`] driven on tokio.
//!
//! [`Channel`] is polled by its owner, has no task of its own and is safe to use inside `select!`:
//!
//! ```text
//! let mut channel = Channel::new(login, options)?;
//! channel.connect(vec![("public_key".into(), key)]);
//! loop {
//!     select! {
//!         event = channel.next() => match event? { … },
//!         message = outgoing.recv() => channel.send(message),
//!     }
//! }
//! ```
//!
//! The host name is looked up before every attempt, by a resolver that the owner may replace: look-ups must not depend
//! on a tunnel that is not up yet. Sockets come from a factory for the same reason.

mod dial;
mod environment;
mod os_info;
mod socket;
mod tls;
mod upgrade;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::time::Sleep;

use crate::channel::{
    Action, ClosedWhileConnecting, Config, Event, FirstConnect, HEARTBEAT_INTERVAL, PhoenixCore,
    SendError,
};
use crate::error::{ConnectionError, FatalError};
use crate::frame::Outgoing;
use crate::login::LoginUrl;
use dial::Dialer;
use socket::{Incoming, Socket};

pub use environment::{
    InvalidPlacement, MissingToken, TOKEN_VARIABLE, find_token, take_token_variable,
};
pub use tls::{TlsError, TlsRoots};

/// Makes the TCP socket for a remote address, e.g. with a mark that keeps it out of the tunnel.
pub type SocketFactory = Arc<dyn Fn(SocketAddr) -> io::Result<TcpSocket> + Send + Sync>;

/// Looks up the portal's host name.
pub type Resolver = Arc<dyn Fn(String) -> Lookup + Send + Sync>;

/// A look-up in flight.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Settings of a channel beside its login.
pub struct Options {
    /// Value of the `User-Agent` header; see [`crate::user_agent()`].
    pub user_agent: String,
    /// Payload of the join.
    pub join_payload: Value,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// Longest partition that is survived; `None` means for ever.
    pub budget: Option<Duration>,
    /// Patience of the first connect.
    pub first_connect: FirstConnect,
    /// Makes TCP sockets.
    pub sockets: SocketFactory,
    /// Looks up host names.
    pub resolver: Resolver,
    /// Authorities that may vouch for the portal.
    pub tls_roots: TlsRoots,
    /// Seed of the back-off's jitter.
    pub seed: [u8; 32],
}

impl Options {
    /// Ordinary sockets, the system's resolver and authorities, heartbeat of 10 s, a day of patience.
    pub fn new(user_agent: String) -> Self {
        Self {
            user_agent,
            join_payload: Value::Null,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            budget: Some(Duration::from_secs(24 * 60 * 60)),
            first_connect: FirstConnect::Patient,
            sockets: plain_sockets(),
            resolver: system_resolver(),
            tls_roots: TlsRoots::System,
            seed: rand::random(),
        }
    }

    /// What the state machine is told of this.
    pub fn channel(&self, topic: &str) -> Config {
        Config {
            topic: topic.to_owned(),
            join_payload: self.join_payload.clone(),
            heartbeat_interval: self.heartbeat_interval,
            budget: self.budget,
            first_connect: self.first_connect,
            seed: self.seed,
        }
    }
}

/// TCP sockets without any option set.
pub fn plain_sockets() -> SocketFactory {
    Arc::new(|address| match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    })
}

/// The operating system's resolver.
pub fn system_resolver() -> Resolver {
    Arc::new(|host| {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    })
}

/// A channel to the portal. See the module's documentation for its use.
pub struct Channel {
    core: PhoenixCore,
    dialer: Arc<Dialer>,
    parameters: Vec<(String, String)>,
    link: Link,
    /// The previous connection, on its way out.
    retiring: Option<BoxFuture<()>>,
    timer: Pin<Box<Sleep>>,
    waker: Option<Waker>,
}

enum Link {
    None,
    Dialing(BoxFuture<Result<Socket, ConnectionError>>),
    Open(Box<Socket>),
    Closing(BoxFuture<()>),
}

impl Channel {
    /// A closed channel; nothing happens before [`Self::connect`]. Must be called within a tokio runtime.
    pub fn new(login: LoginUrl, options: Options) -> Result<Self, TlsError> {
        let core = PhoenixCore::new(options.channel(login.topic()));
        tracing::debug!(portal = %login, "effective address");
        let tls = login
            .is_tls()
            .then(|| tls::config(options.tls_roots))
            .transpose()?;
        Ok(Self {
            core,
            dialer: Arc::new(Dialer {
                login,
                user_agent: options.user_agent,
                sockets: options.sockets,
                resolver: options.resolver,
                tls,
            }),
            parameters: Vec::new(),
            link: Link::None,
            retiring: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            waker: None,
        })
    }

    /// Connects at once, in place of any connection or attempt. `parameters` end the query of this and all later
    /// attempts, e.g. the public key of the tunnel.
    pub fn connect(&mut self, parameters: Vec<(String, String)>) {
        self.connect_after(Duration::ZERO, parameters);
    }

    /// Like [`Self::connect`], after `delay`.
    pub fn connect_after(&mut self, delay: Duration, parameters: Vec<(String, String)>) {
        self.parameters = parameters;
        self.core.connect(delay, now());
        self.wake();
    }

    /// Queues a message; it comes back when there is no connection or the queue is full.
    pub fn send(&mut self, message: Outgoing) -> Result<(), SendError> {
        let result = self.core.send(message);
        self.wake();
        result
    }

    /// Ends the channel gracefully; [`Event::Closed`] follows, unless it was still connecting.
    pub fn close(&mut self) -> Result<(), ClosedWhileConnecting> {
        let result = self.core.close(now());
        self.wake();
        result
    }

    /// Whether messages are accepted.
    pub fn is_connected(&self) -> bool {
        self.core.is_connected()
    }

    /// Where and as whom the channel connects.
    pub fn login(&self) -> &LoginUrl {
        &self.dialer.login
    }

    /// Waits for the next event. Nothing is lost when the future is dropped. After an error it waits for ever.
    pub async fn next(&mut self) -> Result<Event, FatalError> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Does whatever can be done now and returns the next event.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, FatalError>> {
        loop {
            while let Some(action) = self.core.poll_action() {
                self.act(action);
            }
            if let Some(event) = self.core.poll_event() {
                return Poll::Ready(event);
            }
            if self.poll_link(cx).is_ready() || self.poll_timer(cx).is_ready() {
                continue;
            }
            if let Some(retiring) = &mut self.retiring
                && retiring.as_mut().poll(cx).is_ready()
            {
                self.retiring = None;
            }
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Dial => {
                let (dialer, parameters) = (Arc::clone(&self.dialer), self.parameters.clone());
                self.link = Link::Dialing(Box::pin(async move { dialer.dial(&parameters).await }));
            }
            Action::Abort => self.link = Link::None,
            Action::Retire => {
                if let Link::Open(socket) = std::mem::replace(&mut self.link, Link::None) {
                    self.retiring = Some(Box::pin(socket.close()));
                }
            }
            Action::Close => {
                if let Link::Open(socket) = std::mem::replace(&mut self.link, Link::None) {
                    self.link = Link::Closing(Box::pin(socket.close()));
                }
            }
        }
    }

    /// Ready when the state machine was told something.
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.link {
            Link::None => Poll::Pending,
            Link::Dialing(attempt) => {
                let result = std::task::ready!(attempt.as_mut().poll(cx));
                match result {
                    Ok(socket) => {
                        self.link = Link::Open(Box::new(socket));
                        self.core.handle_connected(now());
                    }
                    Err(error) => {
                        self.link = Link::None;
                        self.core.handle_failure(error, now());
                    }
                }
                Poll::Ready(())
            }
            Link::Open(socket) => {
                let incoming = std::task::ready!(poll_socket(socket, &mut self.core, cx));
                self.handle_incoming(incoming);
                Poll::Ready(())
            }
            Link::Closing(closing) => {
                std::task::ready!(closing.as_mut().poll(cx));
                self.link = Link::None;
                self.core
                    .handle_closed(ConnectionError::ChannelClosed, now());
                Poll::Ready(())
            }
        }
    }

    fn handle_incoming(&mut self, incoming: Option<Incoming>) {
        match incoming {
            None => {}
            Some(Incoming::Text(text)) => self.core.handle_text(&text, now()),
            Some(Incoming::End(error)) => {
                self.act(Action::Retire);
                self.core.handle_closed(error, now());
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.core.poll_timeout() else {
            return Poll::Pending;
        };
        let deadline = tokio::time::Instant::from_std(deadline);
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        std::task::ready!(self.timer.as_mut().poll(cx));
        self.core.handle_timeout(now());
        Poll::Ready(())
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Writes what is due, then reads one message. Ready without a message when writing changed the state machine.
fn poll_socket(
    socket: &mut Socket,
    core: &mut PhoenixCore,
    cx: &mut Context<'_>,
) -> Poll<Option<Incoming>> {
    loop {
        match socket.poll_flush(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Some(Incoming::End(error))),
            Poll::Pending => break,
        }
        match core.poll_transmit(now()) {
            Some(text) => {
                if let Err(error) = socket.start_send(text) {
                    return Poll::Ready(Some(Incoming::End(error)));
                }
            }
            None if core.is_connected() => break,
            None => return Poll::Ready(None),
        }
    }
    socket.poll_read(cx).map(Some)
}

/// Tokio's clock, so that tests may pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

//! Accepts connections: at most so many at once, TLS or not, and none that dawdles.
//!
//! TLS handshakes run beside each other. Until a connection has become a WebSocket it must be done within
//! [`REQUEST_TIMEOUT`], so that connections without a valid token are short.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::server::TlsStream;

use crate::{http::Peer, tls::Acceptor};

/// How long TLS handshake and HTTP request may take together.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause after an error of `accept`, which usually means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listening socket.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<Acceptor>,
    permits: Arc<Semaphore>,
    handshakes: JoinSet<Option<(Stream, SocketAddr)>>,
}

impl Listener {
    pub(crate) fn new(tcp: TcpListener, tls: Option<Acceptor>, max_connections: usize) -> Self {
        Self {
            tcp,
            tls,
            permits: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))),
            handshakes: JoinSet::new(),
        }
    }
}

async fn accept_tcp(
    tcp: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let permit = permits.clone().acquire_owned();
    let permit = permit.await.expect("the semaphore is never closed");
    loop {
        match tcp.accept().await {
            Ok((tcp, address)) => {
                // Frames are small and nobody else batches them.
                let _ = tcp.set_nodelay(true);
                return (tcp, address, permit);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            let tls = self.tls.as_ref().map(Acceptor::current);
            let accepted = tokio::select! {
                Some(finished) = self.handshakes.join_next() => match finished {
                    Ok(Some(ready)) => return ready,
                    Ok(None) | Err(_) => continue,
                },
                accepted = accept_tcp(&self.tcp, &self.permits) => accepted,
            };
            let (tcp, address, permit) = accepted;
            let Some(tls) = tls else {
                return (Stream::new(Transport::Plain(tcp), permit), address);
            };
            self.handshakes.spawn(async move {
                let handshake = timeout(REQUEST_TIMEOUT, tls.accept(tcp)).await;
                let stream = handshake.ok()?.ok()?;
                let transport = Transport::Tls(Box::new(stream));
                Some((Stream::new(transport, permit), address))
            });
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self {
            address: *stream.remote_addr(),
            upgraded: stream.io().upgraded.clone(),
        }
    }
}

/// A connection, counted as long as it lives.
pub(crate) struct Stream {
    transport: Transport,
    upgraded: Arc<AtomicBool>,
    deadline: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn new(transport: Transport, permit: OwnedSemaphorePermit) -> Self {
        Self {
            transport,
            upgraded: Arc::default(),
            deadline: Box::pin(sleep(REQUEST_TIMEOUT)),
            _permit: permit,
        }
    }

    /// Fails once the time for requests is over.
    fn check_deadline(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let waits = !self.upgraded.load(Ordering::Relaxed);
        if waits && self.deadline.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_deadline(context)?;
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Transport::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_deadline(context)?;
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Transport::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}

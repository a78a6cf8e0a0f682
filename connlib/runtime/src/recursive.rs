//! Host-side DNS look-ups of the client: a fresh socket per query, outside the tunnel (tunnel spec §3.8).

use std::{io, net::SocketAddr, os::fd::AsFd as _, sync::Arc, time::Duration};

use connlib_dns::{DnsTransport, RecursiveError, RecursiveQuery, RecursiveResponse};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

/// A query that is not answered by then has failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Look-ups in flight; more are dropped, since their askers repeat them.
const MAX_IN_FLIGHT: usize = 1000;
/// Longest UDP response that is accepted.
const MAX_UDP_RESPONSE: usize = 1500;

/// Runs look-ups until the queue of queries closes. `None` in the queue drops everything in flight (network change).
pub(crate) async fn serve(
    mut queries: mpsc::Receiver<Option<RecursiveQuery>>,
    answer: impl Fn(RecursiveResponse) + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    let permits = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut tasks = JoinSet::new();
    loop {
        let query = tokio::select! {
            query = queries.recv() => match query {
                Some(Some(query)) => query,
                Some(None) => {
                    tasks.shutdown().await;
                    continue;
                }
                None => break,
            },
            Some(_) = tasks.join_next() => continue,
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::debug!(upstream = %query.upstream, "Too many DNS queries in flight");
            continue;
        };
        let answer = answer.clone();
        tasks.spawn(async move {
            let response = resolve(query).await;
            drop(permit);
            answer(response);
        });
    }
}

async fn resolve(query: RecursiveQuery) -> RecursiveResponse {
    RecursiveResponse {
        id: query.id,
        result: exchange(query.upstream, query.transport, &query.message).await,
    }
}

/// Asks a server outside the tunnel.
pub(crate) async fn exchange(
    upstream: SocketAddr,
    transport: DnsTransport,
    message: &[u8],
) -> Result<Vec<u8>, RecursiveError> {
    let exchange = async {
        match transport {
            DnsTransport::Udp => over_udp(upstream, message).await,
            DnsTransport::Tcp => over_tcp(upstream, message).await,
        }
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            tracing::debug!(%upstream, %error, "DNS look-up failed");
            Err(classify(&error))
        }
        Err(_) => Err(RecursiveError::TimedOut),
    }
}

fn classify(error: &io::Error) -> RecursiveError {
    match error.kind() {
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            RecursiveError::Unreachable
        }
        _ => RecursiveError::ConnectionFailed,
    }
}

async fn over_udp(upstream: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    connlib_platform::mark_socket(socket.as_fd())?;
    // Connected: the kernel lets only this server answer, and hands over ICMP errors.
    socket.connect(upstream).await?;
    socket.send(message).await?;
    let mut response = vec![0; MAX_UDP_RESPONSE];
    let length = socket.recv(&mut response).await?;
    response.truncate(length);
    Ok(response)
}

async fn over_tcp(upstream: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let length =
        u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut stream = connlib_platform::tcp_socket(upstream)?
        .connect(upstream)
        .await?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    let length = stream.read_u16().await?;
    let mut response = vec![0; length.into()];
    stream.read_exact(&mut response).await?;
    Ok(response)
}

//! The gateway's DNS server for its clients: SRV and TXT of DNS resources are resolved in the resource's site
//! (tunnel spec §5.9).
//!
//! It listens on the gateway's tunnel addresses and forwards every query verbatim to the nameserver of the host's
//! configuration that answers fastest.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use connlib_dns::{DnsTransport, Query};
use connlib_model::ranges::GATEWAY_DNS_PORT;
use connlib_tunnel::TunAddresses;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::recursive::exchange;

/// Attempts to bind, since an address may take a moment to become usable.
const BIND_ATTEMPTS: u32 = 3;
const BIND_DELAY: Duration = Duration::from_millis(100);
/// Queries in flight; more are dropped, since their askers repeat them.
const MAX_IN_FLIGHT: usize = 256;
/// A TCP connection may be idle for this long.
const IDLE: Duration = Duration::from_secs(10);
/// How often the nameservers are compared.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);
/// How long a nameserver may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const DNS_PORT: u16 = 53;
const MAX_QUERY: usize = 1500;

/// A probe: A of `firezone.dev`, recursion desired.
const PROBE: &[u8] =
    b"\x46\x5a\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08firezone\x03dev\x00\x00\x01\x00\x01";

/// The running server; dropping it ends all its tasks.
#[derive(Debug)]
pub struct DnsServer {
    _tasks: JoinSet<()>,
}

impl DnsServer {
    /// Listens on the gateway's tunnel addresses, UDP and TCP. A family that the host lacks is skipped.
    ///
    /// # Errors
    ///
    /// If neither address can be bound.
    pub async fn start(addresses: TunAddresses) -> io::Result<Self> {
        let (best_tx, best) = watch::channel(None);
        let permits = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let mut tasks = JoinSet::new();
        let mut failure = None;
        let mut listening = false;
        for address in [IpAddr::V4(addresses.v4), IpAddr::V6(addresses.v6)] {
            match bind(SocketAddr::new(address, GATEWAY_DNS_PORT)).await {
                Ok((udp, tcp)) => {
                    tasks.spawn(serve_udp(Arc::new(udp), best.clone(), Arc::clone(&permits)));
                    tasks.spawn(serve_tcp(tcp, best.clone(), Arc::clone(&permits)));
                    listening = true;
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if !listening => return Err(error),
            Some(error) => tracing::info!(%error, "DNS for clients is served over one family only"),
            None => {}
        }
        tasks.spawn(keep_choosing(best_tx));
        Ok(Self { _tasks: tasks })
    }
}

async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut attempt = 1;
    loop {
        let bound = async {
            Ok((
                UdpSocket::bind(address).await?,
                TcpListener::bind(address).await?,
            ))
        };
        match bound.await {
            Ok(sockets) => return Ok(sockets),
            Err(error) if attempt == BIND_ATTEMPTS => return Err(error),
            Err(_) => {
                attempt += 1;
                tokio::time::sleep(BIND_DELAY).await;
            }
        }
    }
}

type Best = watch::Receiver<Option<IpAddr>>;

async fn serve_udp(socket: Arc<UdpSocket>, best: Best, permits: Arc<Semaphore>) {
    let mut buffer = vec![0; MAX_QUERY];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            continue;
        };
        let (socket, query, upstream) = (
            Arc::clone(&socket),
            buffer[..length].to_vec(),
            *best.borrow(),
        );
        tokio::spawn(async move {
            if let Some(response) = answer(upstream, DnsTransport::Udp, &query).await {
                let _ = socket.send_to(&response, from).await;
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(listener: TcpListener, best: Best, permits: Arc<Semaphore>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(BIND_DELAY).await;
            continue;
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            continue;
        };
        let best = best.clone();
        tokio::spawn(async move {
            // A client that breaks off needs no answer.
            let _ = serve_connection(stream, best).await;
            drop(permit);
        });
    }
}

async fn serve_connection(mut stream: TcpStream, best: Best) -> io::Result<()> {
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read_u16()).await {
            Ok(length) => length?,
            Err(_) => return Ok(()),
        };
        let mut query = vec![0; length.into()];
        stream.read_exact(&mut query).await?;
        let upstream = *best.borrow();
        let Some(response) = answer(upstream, DnsTransport::Tcp, &query).await else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(response.len()) else {
            return Ok(());
        };
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&response).await?;
    }
}

/// The upstream's response, or SERVFAIL; nothing to what is no query.
async fn answer(
    upstream: Option<IpAddr>,
    transport: DnsTransport,
    query: &[u8],
) -> Option<Vec<u8>> {
    let parsed = Query::parse(query).ok()?;
    if let Some(upstream) = upstream {
        let upstream = SocketAddr::new(upstream, DNS_PORT);
        if let Ok(response) = exchange(upstream, transport, query).await {
            return Some(response);
        }
    }
    Some(parsed.server_failure())
}

/// Compares the nameservers now and then; the fastest that answers over UDP wins.
async fn keep_choosing(best: watch::Sender<Option<IpAddr>>) {
    let mut interval = tokio::time::interval(PROBE_INTERVAL);
    loop {
        interval.tick().await;
        let mut fastest = None;
        for server in connlib_platform::system_nameservers() {
            let started = Instant::now();
            let probe = exchange(SocketAddr::new(server, DNS_PORT), DnsTransport::Udp, PROBE);
            let answered = tokio::time::timeout(PROBE_TIMEOUT, probe).await;
            let took = started.elapsed();
            if matches!(answered, Ok(Ok(_))) && fastest.is_none_or(|(best, _)| took < best) {
                fastest = Some((took, server));
            }
        }
        // Without an answer keep the first: it may be up again when somebody asks.
        let chosen = fastest
            .map(|(_, server)| server)
            .or_else(|| connlib_platform::system_nameservers().first().copied());
        best.send_replace(chosen);
    }
}

//! One attempt: look-up, TCP to all addresses at once, TLS, upgrade.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::socket::{Socket, Transport};
use super::{Resolver, SocketFactory, upgrade};
use crate::error::ConnectionError;
use crate::login::LoginUrl;

/// Longest wait for the first of all addresses to accept.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses tried at once; more would only be a burden on the machine.
const MAX_ADDRESSES: usize = 16;

/// Everything an attempt needs beside the connection's own parameters.
pub(super) struct Dialer {
    pub(super) login: LoginUrl,
    pub(super) user_agent: String,
    pub(super) sockets: SocketFactory,
    pub(super) resolver: Resolver,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    pub(super) async fn dial(
        &self,
        parameters: &[(String, String)],
    ) -> Result<Socket, ConnectionError> {
        let addresses = self.addresses().await?;
        let tcp = tokio::time::timeout(TCP_TIMEOUT, self.connect_any(addresses))
            .await
            .unwrap_or_else(|_| {
                Err(ConnectionError::Tcp(
                    "no address answered in time".to_owned(),
                ))
            })?;
        let transport = self.secure(tcp).await?;
        let request = upgrade::Request {
            target: self.login.request_target(parameters),
            host: self.login.host_header(),
            user_agent: self.user_agent.clone(),
            token: self.login.token().cloned(),
        };
        upgrade::upgrade(transport, &request).await
    }

    /// The host's addresses without duplicates, in the resolver's order. A literal needs no look-up.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectionError> {
        let found = match self.login.host_address() {
            Some(ip) => vec![ip],
            None => (self.resolver)(self.login.host().to_owned())
                .await
                .map_err(|error| ConnectionError::Resolve(error.to_string()))?,
        };
        let mut seen = BTreeSet::new();
        let addresses: Vec<_> = found
            .into_iter()
            .filter(|ip: &IpAddr| seen.insert(*ip))
            .take(MAX_ADDRESSES)
            .map(|ip| SocketAddr::new(ip, self.login.port()))
            .collect();
        match addresses.is_empty() {
            true => Err(ConnectionError::NoAddresses),
            false => Ok(addresses),
        }
    }

    /// All at once, the first to accept wins: some machines only pretend to have IPv6.
    async fn connect_any(&self, addresses: Vec<SocketAddr>) -> Result<TcpStream, ConnectionError> {
        let mut attempts: FuturesUnordered<_> = addresses
            .into_iter()
            .map(|address| async move { (address, self.connect_one(address).await) })
            .collect();
        let mut errors = Vec::new();
        while let Some((address, result)) = attempts.next().await {
            match result {
                Ok(stream) => return Ok(stream),
                Err(error) => errors.push(format!("{address}: {error}")),
            }
        }
        Err(ConnectionError::Tcp(errors.join("; ")))
    }

    async fn connect_one(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = (self.sockets)(address)?.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn secure(&self, tcp: TcpStream) -> Result<Box<dyn Transport>, ConnectionError> {
        let Some(config) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let tls_error = |error: &dyn std::fmt::Display| ConnectionError::Tls(error.to_string());
        let name = ServerName::try_from(self.login.host().to_owned())
            .map_err(|error| tls_error(&error))?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, tcp)
            .await
            .map_err(|error| tls_error(&error))?;
        Ok(Box::new(stream))
    }
}

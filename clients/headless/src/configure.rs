//! Putting the tunnel's configuration into the operating system.

use std::time::Instant;

use anyhow::Result;
use connlib_model::TunConfig;
use connlib_platform::{DnsControl, TunInterface};

/// The interface, the host's DNS, and what they were set to last.
pub(crate) struct Configurator {
    interface: TunInterface,
    dns: DnsControl,
    current: Option<TunConfig>,
    started: Instant,
}

impl Configurator {
    pub(crate) fn new(interface: TunInterface, dns: DnsControl) -> Self {
        Self {
            interface,
            dns,
            current: None,
            started: Instant::now(),
        }
    }

    /// Sets addresses, then DNS, then routes. The result says whether this was the first time.
    pub(crate) async fn apply(&mut self, config: TunConfig) -> Result<bool> {
        let current = self.current.as_ref();
        if current.map(|c| (c.ipv4, c.ipv6)) != Some((config.ipv4, config.ipv6)) {
            self.interface
                .set_addresses(config.ipv4, config.ipv6)
                .await?;
        }
        let search = config.search_domain.as_ref().map(ToString::to_string);
        if current.map(|c| (&c.dns_sentinels, &c.search_domain))
            != Some((&config.dns_sentinels, &config.search_domain))
        {
            self.dns.set(&config.dns_sentinels, search.as_deref())?;
        }
        self.interface
            .set_routes(&config.routes_v4, &config.routes_v6)
            .await?;
        self.dns.flush();
        let is_first = self.current.replace(config).is_none();
        if is_first {
            let elapsed_ms = self.started.elapsed().as_millis();
            tracing::info!(elapsed_ms, "Tunnel ready");
        }
        Ok(is_first)
    }

    /// Makes the host forget answers from before a change of resources.
    pub(crate) fn flush_dns(&self) {
        self.dns.flush();
    }

    /// The servers that the host would use without us.
    pub(crate) fn system_resolvers(&self) -> Vec<std::net::IpAddr> {
        self.dns.system_resolvers()
    }

    /// Gives everything back.
    pub(crate) async fn restore(self) {
        drop(self.dns);
        self.interface.detach().await;
    }
}

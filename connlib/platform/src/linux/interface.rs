//! Addresses and routes of the TUN interface over rtnetlink (clients spec §2.2).

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::AddressHeaderFlags,
        route::{RouteMessage, RouteProtocol, RouteScope},
    },
};
use tokio::task::JoinHandle;

use super::{
    TABLE_DEFAULT, TABLE_LINK_SCOPE, TABLE_RESOURCES, link_scope,
    netlink::{ADD_IGNORED, REMOVE_IGNORED, is_code},
    rules,
};

/// MTU of the TUN interface: the IPv6 minimum, so that a packet fits every path (tunnel spec §1.2).
const MTU: u32 = 1280;
/// Length of the transmit queue, in packets or super-packets. A program that sends UDP without offload fills the kernel's
/// default of 500 within 10 ms at 500 Mbit/s; whenever the data thread had no processor for that long, packets were lost
/// (0.02 to 0.18 % measured, with 2000 none). It adds no latency to TCP with offload, whose windows fill 100 slots, but up
/// to 40 ms to a sender of UDP that is faster than the tunnel.
const TX_QUEUE_LENGTH: u32 = 2000;

/// The interface's name that administrators and scripts know.
pub fn default_tun_name() -> &'static str {
    "tun-firezone"
}

/// The address families that the host lets us use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// Why the interface could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// No netlink socket.
    #[error("cannot talk to the kernel's routing: {0}")]
    Socket(std::io::Error),
    /// The device does not exist.
    #[error("network interface {0} does not exist")]
    Missing(String),
    /// The kernel refused both address families.
    #[error("the kernel refused both tunnel addresses; IPv4: {v4}; IPv6: {v6}")]
    NoFamily {
        /// Answer for IPv4.
        v4: rtnetlink::Error,
        /// Answer for IPv6.
        v6: rtnetlink::Error,
    },
    /// Another request failed.
    #[error("cannot {action} of {interface}: {source}")]
    Request {
        /// What was tried.
        action: &'static str,
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
}

/// Addresses, routes and rules of one TUN interface.
#[derive(Debug)]
pub struct TunInterface {
    name: String,
    handle: Handle,
    connection: JoinHandle<()>,
    link_scope: Option<JoinHandle<()>>,
    families: Families,
    routes: BTreeSet<IpNet>,
}

impl TunInterface {
    /// Takes over an existing device and removes what a crashed predecessor left in our routing tables.
    ///
    /// # Errors
    ///
    /// Without a netlink socket.
    pub async fn attach(name: &str) -> Result<Self, InterfaceError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(InterfaceError::Socket)?;
        let connection = tokio::spawn(connection);
        let this = Self {
            name: name.to_owned(),
            handle,
            connection,
            link_scope: None,
            families: Families {
                v4: false,
                v6: false,
            },
            routes: BTreeSet::new(),
        };
        this.flush_tables().await;
        Ok(this)
    }

    /// Replaces all addresses, sets MTU and queue, brings the device up and makes sure of the policy rules.
    /// The result names the families that took; routes of the other are not set.
    ///
    /// # Errors
    ///
    /// If the device is missing or neither family takes.
    pub async fn set_addresses(
        &mut self,
        v4: Ipv4Addr,
        v6: Ipv6Addr,
    ) -> Result<Families, InterfaceError> {
        // No link-local address: before "up", since deleting a tentative one fails.
        let mode = format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", self.name);
        let _ = fs::write(mode, "1");

        let index = self.index().await?;
        self.remove_addresses(index).await?;
        let link = LinkUnspec::new_with_index(index)
            .mtu(MTU)
            .txqueuelen(TX_QUEUE_LENGTH)
            .build();
        self.set_link(link, "set the MTU").await?;

        let add = |address: IpAddr, length| {
            let mut request = self.handle.address().add(index, address, length);
            // The portal assigns addresses uniquely, and servers of ours bind them at once.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            async move { ignore(request.execute().await, &[libc::EEXIST]) }
        };
        let (v4, v6) = (add(v4.into(), 32).await, add(v6.into(), 128).await);
        self.families = Families {
            v4: v4.is_ok(),
            v6: v6.is_ok(),
        };
        match (v4, v6) {
            (Err(v4), Err(v6)) => return Err(InterfaceError::NoFamily { v4, v6 }),
            (Err(error), Ok(())) => tracing::info!(%error, "No IPv4 in the tunnel"),
            (Ok(()), Err(error)) => tracing::info!(%error, "No IPv6 in the tunnel"),
            (Ok(()), Ok(())) => {}
        }

        let up = LinkUnspec::new_with_index(index).up().build();
        self.set_link(up, "bring up the device").await?;
        rules::ensure(&self.handle, self.families).await;
        Ok(self.families)
    }

    /// Makes the routes through the device exactly these: removes what is no longer wanted, then adds all of them
    /// again (the kernel drops routes when an interface flaps).
    ///
    /// # Errors
    ///
    /// If the device is missing. A single refused route is a warning.
    pub async fn set_routes(
        &mut self,
        v4: &BTreeSet<Ipv4Net>,
        v6: &BTreeSet<Ipv6Net>,
    ) -> Result<(), InterfaceError> {
        let index = self.index().await?;
        let v4 = v4
            .iter()
            .copied()
            .map(IpNet::V4)
            .filter(|_| self.families.v4);
        let v6 = v6
            .iter()
            .copied()
            .map(IpNet::V6)
            .filter(|_| self.families.v6);
        let wanted = v4.chain(v6).collect::<BTreeSet<_>>();

        for route in self.routes.difference(&wanted) {
            let request = self.handle.route().del(message(*route, index));
            if let Err(error) = ignore(request.execute().await, &REMOVE_IGNORED) {
                tracing::warn!(%route, %error, "Cannot remove a route");
            }
        }
        for route in &wanted {
            let request = self.handle.route().add(message(*route, index));
            if let Err(error) = ignore(request.execute().await, &ADD_IGNORED) {
                tracing::warn!(%route, %error, "Cannot add a route");
            }
        }
        let has_default = wanted.iter().any(|route| route.prefix_len() == 0);
        self.keep_lan_reachable(has_default);
        self.routes = wanted;
        Ok(())
    }

    /// Removes the policy rules and the copied routes; the device's own routes go with the device.
    pub async fn detach(mut self) {
        self.keep_lan_reachable(false);
        rules::remove(&self.handle).await;
        self.flush_tables().await;
    }

    /// Copies link-scope routes into a table of ours while a default route of ours exists.
    fn keep_lan_reachable(&mut self, wanted: bool) {
        match (&self.link_scope, wanted) {
            (None, true) => self.link_scope = Some(tokio::spawn(link_scope::keep_copied())),
            (Some(task), false) => {
                task.abort();
                self.link_scope = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    async fn index(&self) -> Result<u32, InterfaceError> {
        let mut links = self
            .handle
            .link()
            .get()
            .match_name(self.name.clone())
            .execute();
        match links.try_next().await {
            Ok(Some(link)) => Ok(link.header.index),
            Ok(None) | Err(_) => Err(InterfaceError::Missing(self.name.clone())),
        }
    }

    async fn set_link(
        &self,
        message: rtnetlink::packet_route::link::LinkMessage,
        action: &'static str,
    ) -> Result<(), InterfaceError> {
        let result = self.handle.link().set(message).execute().await;
        result.map_err(|source| self.failed(action, source))
    }

    async fn remove_addresses(&self, index: u32) -> Result<(), InterfaceError> {
        let addresses = self.handle.address();
        let mut stream = addresses.get().set_link_index_filter(index).execute();
        let mut old = Vec::new();
        loop {
            match stream.try_next().await {
                Ok(Some(address)) => old.push(address),
                Ok(None) => break,
                Err(error) => return Err(self.failed("list the addresses", error)),
            }
        }
        for address in old {
            let request = self.handle.address().del(address);
            ignore(request.execute().await, &REMOVE_IGNORED)
                .map_err(|source| self.failed("remove an address", source))?;
        }
        Ok(())
    }

    async fn flush_tables(&self) {
        for table in [TABLE_RESOURCES, TABLE_LINK_SCOPE, TABLE_DEFAULT] {
            link_scope::flush_table(&self.handle, table).await;
        }
    }

    fn failed(&self, action: &'static str, source: rtnetlink::Error) -> InterfaceError {
        InterfaceError::Request {
            action,
            interface: self.name.clone(),
            source,
        }
    }
}

impl Drop for TunInterface {
    fn drop(&mut self) {
        self.keep_lan_reachable(false);
        self.connection.abort();
    }
}

/// A route through the device, in the table of its kind.
fn message(route: IpNet, index: u32) -> RouteMessage {
    let table = match route.prefix_len() {
        0 => TABLE_DEFAULT,
        _ => TABLE_RESOURCES,
    };
    match route {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .table_id(table)
            .protocol(RouteProtocol::Static)
            .scope(RouteScope::Universe)
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .table_id(table)
            .protocol(RouteProtocol::Static)
            .scope(RouteScope::Universe)
            .build(),
    }
}

fn ignore(result: Result<(), rtnetlink::Error>, codes: &[i32]) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if is_code(&error, codes) => Ok(()),
        other => other,
    }
}

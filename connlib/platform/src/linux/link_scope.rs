//! Copies of the main table's link-scope routes, so that the LAN stays reachable when a default route of ours would
//! otherwise take it (clients spec §2.2).

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope},
    },
};

use super::{
    TABLE_LINK_SCOPE,
    netlink::{ADD_IGNORED, AbortOnDrop, REMOVE_IGNORED, is_code},
};

/// Changes come in bursts; they are acted upon after this much silence.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Destination, prefix length and interface of a route.
type Key = (Ipv4Addr, u8, u32);

/// Copies now and after every change of routes, links or addresses. Runs until aborted.
pub(super) async fn keep_copied() {
    let groups = [
        MulticastGroup::Ipv4Route,
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
    ];
    let (connection, handle, mut changes) = match rtnetlink::new_multicast_connection(&groups) {
        Ok(parts) => parts,
        Err(error) => {
            tracing::warn!(%error, "Cannot watch routes; the local network may be unreachable");
            return;
        }
    };
    let connection = AbortOnDrop(tokio::spawn(connection));
    loop {
        copy(&handle).await;
        if changes.next().await.is_none() {
            break;
        }
        while let Ok(Some(_)) = tokio::time::timeout(DEBOUNCE, changes.next()).await {}
    }
    drop(connection);
}

/// Removes every route of a table.
pub(super) async fn flush_table(handle: &Handle, table: u32) {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for route in routes(handle, family).await {
            if table_of(&route) != table {
                continue;
            }
            if let Err(error) = handle.route().del(route).execute().await
                && !is_code(&error, &REMOVE_IGNORED)
            {
                tracing::debug!(%error, "Cannot remove a left-over route");
            }
        }
    }
}

async fn copy(handle: &Handle) {
    let all = routes(handle, AddressFamily::Inet).await;
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let wanted = all
        .iter()
        .filter(|route| table_of(route) == main && route.header.scope == RouteScope::Link)
        .filter_map(key)
        .collect::<BTreeSet<_>>();
    let present = all
        .iter()
        .filter(|route| table_of(route) == TABLE_LINK_SCOPE)
        .filter_map(key)
        .collect::<BTreeSet<_>>();

    for key in present.difference(&wanted) {
        let result = handle.route().del(message(*key)).execute().await;
        if let Err(error) = result
            && !is_code(&error, &REMOVE_IGNORED)
        {
            tracing::warn!(%error, "Cannot remove the copy of a link-scope route");
        }
    }
    for key in wanted.difference(&present) {
        let result = handle.route().add(message(*key)).execute().await;
        if let Err(error) = result
            && !is_code(&error, &ADD_IGNORED)
        {
            tracing::warn!(%error, "Cannot copy a link-scope route");
        }
    }
}

async fn routes(handle: &Handle, family: AddressFamily) -> Vec<RouteMessage> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    let mut stream = handle.route().get(request).execute();
    let mut all = Vec::new();
    while let Ok(Some(route)) = stream.try_next().await {
        all.push(route);
    }
    all
}

fn table_of(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or(u32::from(route.header.table))
}

fn key(route: &RouteMessage) -> Option<Key> {
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut interface = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    // A link-scope *default* route (point-to-point uplinks) must not shadow ours.
    if route.header.destination_prefix_length == 0 {
        return None;
    }
    Some((
        destination,
        route.header.destination_prefix_length,
        interface?,
    ))
}

fn message((destination, length, interface): Key) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination, length)
        .output_interface(interface)
        .table_id(TABLE_LINK_SCOPE)
        .scope(RouteScope::Link)
        .build()
}

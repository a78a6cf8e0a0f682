//! Links, addresses, routes and rules of a host, to be compared: what a program left behind is what is there after its
//! end and was not there before its start.

use std::collections::BTreeSet;

use anyhow::Result;
use futures_util::{Stream, TryStreamExt as _};
use rtnetlink::{
    Error, Handle, IpVersion, RouteMessageBuilder,
    packet_route::{link::LinkAttribute, route::RouteAttribute},
};
use std::net::{Ipv4Addr, Ipv6Addr};
use testbed::Host;

/// Everything, one text per object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsState(BTreeSet<String>);

impl OsState {
    /// The state of a host now.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn of(host: &Host) -> Result<Self> {
        host.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                let connection = tokio::spawn(connection);
                let state = read(&handle).await;
                connection.abort();
                Ok(Self(state?))
            })
        })
    }

    /// What is here and not in `earlier`.
    pub fn added_since<'a>(&'a self, earlier: &'a Self) -> Vec<&'a str> {
        self.0.difference(&earlier.0).map(String::as_str).collect()
    }

    /// What was in `earlier` and is not here.
    pub fn missing_since<'a>(&'a self, earlier: &'a Self) -> Vec<&'a str> {
        earlier.added_since(self)
    }

    /// Whether a link of this name exists.
    pub fn has_link(&self, name: &str) -> bool {
        self.0.contains(&format!("link {name}"))
    }
}

async fn read(handle: &Handle) -> Result<BTreeSet<String>, Error> {
    let mut all = BTreeSet::new();
    let links = handle.link().get().execute();
    collect(&mut all, links, |link| {
        link.attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(format!("link {name}")),
                _ => None,
            })
    })
    .await?;
    let addresses = handle.address().get().execute();
    collect(&mut all, addresses, |address| {
        let header = &address.header;
        let attributes = address.attributes.iter().map(|a| format!("{a:?}"));
        let own = attributes.filter(|text| text.starts_with("Address("));
        Some(format!(
            "address {} on {}, {}",
            own.collect::<String>(),
            header.index,
            header.prefix_len
        ))
    })
    .await?;
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    for family in [v4, v6] {
        let routes = handle.route().get(family).execute();
        collect(&mut all, routes, |route| {
            // Counters and ages are no difference.
            let attributes = route
                .attributes
                .iter()
                .filter(|attribute| !matches!(attribute, RouteAttribute::CacheInfo(_)));
            Some(format!(
                "route {:?} in table {}: {:?}",
                route.header.kind,
                route.header.table,
                attributes.collect::<Vec<_>>()
            ))
        })
        .await?;
    }
    for version in [IpVersion::V4, IpVersion::V6] {
        let rules = handle.rule().get(version).execute();
        collect(&mut all, rules, |rule| Some(format!("rule {rule:?}"))).await?;
    }
    Ok(all)
}

async fn collect<T>(
    all: &mut BTreeSet<String>,
    stream: impl Stream<Item = Result<T, Error>>,
    describe: impl Fn(T) -> Option<String>,
) -> Result<(), Error> {
    let mut stream = std::pin::pin!(stream);
    while let Some(object) = stream.try_next().await? {
        all.extend(describe(object));
    }
    Ok(())
}

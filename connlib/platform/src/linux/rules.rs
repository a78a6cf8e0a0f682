//! Policy rules: everything without our mark looks into our tables first (clients spec §2.2, §2.3).

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, IpVersion,
    packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};

use super::{
    Families, TABLE_DEFAULT, TABLE_LINK_SCOPE, TABLE_RESOURCES,
    netlink::{REMOVE_IGNORED, is_code},
};
use crate::FIREWALL_MARK;

/// (priority, table): resources before copied link-scope routes before our default routes.
const RULES: [(u32, u32); 3] = [
    (100, TABLE_RESOURCES),
    (200, TABLE_LINK_SCOPE),
    (300, TABLE_DEFAULT),
];

/// Adds the rules that are missing. A kernel without policy routing is a warning.
pub(super) async fn ensure(handle: &Handle, families: Families) {
    for (version, wanted) in [(IpVersion::V4, families.v4), (IpVersion::V6, families.v6)] {
        if !wanted {
            continue;
        }
        let present = ours(handle, version.clone()).await;
        for (priority, table) in RULES {
            if present.iter().any(|rule| is_rule(rule, priority, table)) {
                continue;
            }
            if let Err(error) = add(handle, &version, priority, table).await
                && !is_code(&error, &[libc::EEXIST])
            {
                tracing::warn!(%error, "Cannot add a routing rule; traffic of this program may loop into the tunnel");
            }
        }
    }
}

/// Removes all our rules.
pub(super) async fn remove(handle: &Handle) {
    for version in [IpVersion::V4, IpVersion::V6] {
        for rule in ours(handle, version).await {
            if let Err(error) = handle.rule().del(rule).execute().await
                && !is_code(&error, &REMOVE_IGNORED)
            {
                tracing::warn!(%error, "Cannot remove a routing rule");
            }
        }
    }
}

async fn add(
    handle: &Handle,
    version: &IpVersion,
    priority: u32,
    table: u32,
) -> Result<(), rtnetlink::Error> {
    let mut request = handle
        .rule()
        .add()
        .fw_mark(FIREWALL_MARK)
        .table_id(table)
        .priority(priority)
        .action(RuleAction::ToTable);
    request.message_mut().header.flags.insert(RuleFlags::Invert);
    match version {
        IpVersion::V4 => request.v4().execute().await,
        IpVersion::V6 => request.v6().execute().await,
    }
}

async fn ours(handle: &Handle, version: IpVersion) -> Vec<RuleMessage> {
    let mut stream = handle.rule().get(version).execute();
    let mut found = Vec::new();
    while let Ok(Some(rule)) = stream.try_next().await {
        if RULES
            .iter()
            .any(|(priority, table)| is_rule(&rule, *priority, *table))
        {
            found.push(rule);
        }
    }
    found
}

fn is_rule(rule: &RuleMessage, priority: u32, table: u32) -> bool {
    let has = |wanted: RuleAttribute| rule.attributes.contains(&wanted);
    has(RuleAttribute::Priority(priority))
        && has(RuleAttribute::Table(table))
        && has(RuleAttribute::FwMark(FIREWALL_MARK))
}

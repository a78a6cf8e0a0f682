//! Hosts joined by veth pairs: the kernel moves the packets, as fast as it can and by no rules. For throughput.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::{
    host::Host,
    interface,
    namespace::Namespace,
    topology::{HostSpec, InterfaceSpec},
};

/// Makes the hosts and a veth pair for each network that their interfaces name; a network has exactly two interfaces.
///
/// Of an interface's specification only device, network, addresses and routes count: a cable has no edge, no latency
/// and no loss. The hosts live as long as the values or a process inside.
///
/// # Errors
///
/// If a network does not have two interfaces, or the kernel refuses (see [`crate::isolate`]).
pub fn connect_by_cables(specs: &[HostSpec]) -> Result<Vec<Host>> {
    let cables = cables(specs)?;
    let hosts = specs
        .iter()
        .map(|spec| {
            let (namespace, ()) = Namespace::create(&spec.etc, || Ok(()))
                .with_context(|| format!("cannot make host {}", spec.name))?;
            Ok(Host {
                name: spec.name.clone(),
                namespace,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    for [near, far] in cables {
        let far_namespace = hosts[far.host].namespace.net_fd();
        hosts[near.host]
            .run(|| interface::add_cable(near.device, far.device, far_namespace))
            .with_context(|| format!("cannot make the veth pair {}", near.device))?;
    }
    for (host, spec) in hosts.iter().zip(specs) {
        host.run(|| interface::configure_all(spec))?;
    }
    Ok(hosts)
}

/// One end of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End<'a> {
    /// Index of its host.
    host: usize,
    device: &'a str,
}

fn cables(specs: &[HostSpec]) -> Result<Vec<[End<'_>; 2]>> {
    let mut networks = BTreeMap::<&str, Vec<End<'_>>>::new();
    for (host, spec) in specs.iter().enumerate() {
        for InterfaceSpec {
            device, network, ..
        } in &spec.interfaces
        {
            networks
                .entry(network)
                .or_default()
                .push(End { host, device });
        }
    }
    networks
        .into_iter()
        .map(|(network, ends)| match <[End<'_>; 2]>::try_from(ends) {
            Ok(ends) => Ok(ends),
            Err(ends) => bail!("a cable has two ends, network {network} has {}", ends.len()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, interfaces: &[(&str, &str)]) -> HostSpec {
        HostSpec {
            name: name.to_owned(),
            interfaces: interfaces
                .iter()
                .map(|(device, network)| InterfaceSpec {
                    device: (*device).to_owned(),
                    network: (*network).to_owned(),
                    ..InterfaceSpec::default()
                })
                .collect(),
            ..HostSpec::default()
        }
    }

    #[test]
    fn a_network_becomes_a_cable() {
        let hosts = [
            host("a", &[("eth0", "ab"), ("eth1", "ac")]),
            host("b", &[("eth0", "ab")]),
            host("c", &[("eth0", "ac")]),
        ];
        let end = |host, device| End { host, device };
        assert_eq!(
            cables(&hosts).unwrap(),
            [
                [end(0, "eth0"), end(1, "eth0")],
                [end(0, "eth1"), end(2, "eth0")]
            ]
        );
    }

    #[test]
    fn a_network_of_three_is_refused() {
        let hosts = ["a", "b", "c"].map(|name| host(name, &[("eth0", "lan")]));
        let error = cables(&hosts).unwrap_err().to_string();
        assert_eq!(error, "a cable has two ends, network lan has 3");
    }
}

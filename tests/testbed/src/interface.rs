//! Making and configuring the devices of a host. Runs on a thread inside the host's namespace.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use anyhow::{Context, Result};
use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth, RouteMessageBuilder, packet_route::address::AddressHeaderFlags,
};

use crate::topology::{Address, HostSpec, InterfaceSpec};

/// MTU of the networks between hosts.
const MTU: u32 = 1500;

/// The transmit queue of a device that stands for a cable: long enough that the sender's kernel drops nothing of a
/// batch of 64 KB while the worker is busy elsewhere.
const TX_QUEUE: u32 = 4000;

/// Makes all interfaces of a host and returns the worker's ends, in the order of the specification.
pub(crate) fn create_all(host: &HostSpec) -> Result<Vec<OwnedFd>> {
    let devices = host
        .interfaces
        .iter()
        .map(|interface| {
            open_tun(&interface.device)
                .with_context(|| format!("cannot create TUN device {}", interface.device))
        })
        .collect::<Result<Vec<_>>>()?;

    configure_all(host)?;
    Ok(devices)
}

/// Brings up all interfaces of a host, whose devices exist.
pub(crate) fn configure_all(host: &HostSpec) -> Result<()> {
    with_netlink(async |handle| configure(&handle, host).await)?;
    set_sysctls(host);
    Ok(())
}

/// Takes all addresses from a device, and with them the IPv4 routes that need one.
pub(crate) fn remove_addresses(device: &str) -> Result<()> {
    with_netlink(async |handle| {
        let index = index_of(&handle, device).await?;
        let addresses = handle.address().get().set_link_index_filter(index);
        let addresses = addresses.execute().try_collect::<Vec<_>>().await?;
        for address in addresses {
            handle.address().del(address).execute().await?;
        }
        Ok(())
    })
}

/// Gives a device that has lost its addresses new ones, and its routes back.
pub(crate) fn configure_again(spec: &InterfaceSpec) -> Result<()> {
    with_netlink(async |handle| configure_interface(&handle, spec).await)
}

/// Makes a veth pair: one end here, the other one under the name `far` in the namespace behind `far_namespace`.
pub(crate) fn add_cable(near: &str, far: &str, far_namespace: RawFd) -> Result<()> {
    // Both ends are made here, where `far` may be taken.
    const TRANSIT: &str = "cable-end";
    with_netlink(async |handle| {
        let pair = LinkVeth::new(near, TRANSIT).build();
        handle.link().add(pair).execute().await?;
        let end = LinkUnspec::new_with_index(index_of(&handle, TRANSIT).await?)
            .name(far)
            .setns_by_fd(far_namespace)
            .build();
        Ok(handle.link().set(end).execute().await?)
    })
}

/// Gives a device of the calling thread's namespace an address and an MTU, and brings it up.
pub(crate) fn bring_up(device: &str, address: Address, mtu: u32) -> Result<()> {
    with_netlink(async |handle| {
        let index = index_of(&handle, device).await?;
        let up = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        handle.link().set(up).execute().await?;
        add_address(&handle, index, address.address, address.length).await
    })
}

/// Adds addresses to the loopback device of the calling thread's namespace.
pub(crate) fn add_to_loopback(addresses: &[IpAddr]) -> Result<()> {
    with_netlink(async |handle| {
        let loopback = index_of(&handle, "lo").await?;
        for address in addresses {
            let length = if address.is_ipv4() { 32 } else { 128 };
            add_address(&handle, loopback, *address, length).await?;
        }
        Ok(())
    })
}

/// Runs requests to the kernel of the calling thread's namespace.
fn with_netlink<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let result = work(handle).await;
        connection.abort();
        result
    })
}

/// Without duplicate detection: an address must be usable as soon as the kernel has confirmed it.
async fn add_address(handle: &Handle, index: u32, address: IpAddr, length: u8) -> Result<()> {
    let mut request = handle.address().add(index, address, length);
    request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    Ok(request.execute().await?)
}

fn open_tun(name: &str) -> Result<OwnedFd> {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: an all-zero `ifreq` is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    anyhow::ensure!(name.len() < request.ifr_name.len(), "device name too long");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: `request` is a valid `ifreq` that outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: plain `fcntl` on our own descriptor.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(file.into())
}

async fn configure(handle: &Handle, host: &HostSpec) -> Result<()> {
    let loopback = index_of(handle, "lo").await?;
    let up = LinkUnspec::new_with_index(loopback).up().build();
    handle.link().set(up).execute().await?;
    for interface in &host.interfaces {
        configure_interface(handle, interface)
            .await
            .with_context(|| format!("cannot configure {} of {}", interface.device, host.name))?;
    }
    Ok(())
}

async fn configure_interface(handle: &Handle, spec: &InterfaceSpec) -> Result<()> {
    // No link-local address: nothing here speaks neighbour discovery.
    let _ = fs::write(
        format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", spec.device),
        "1",
    );
    let index = index_of(handle, &spec.device).await?;
    let up = LinkUnspec::new_with_index(index)
        .mtu(MTU)
        .txqueuelen(TX_QUEUE)
        .up()
        .build();
    handle.link().set(up).execute().await?;
    if let Some(v4) = spec.v4 {
        add_address(handle, index, v4.into(), 32).await?;
    }
    if let Some(v6) = spec.v6 {
        add_address(handle, index, v6.into(), 128).await?;
    }
    for route in &spec.routes {
        let message = match route.to.address {
            IpAddr::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to, route.to.length)
                .output_interface(index)
                .build(),
            IpAddr::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to, route.to.length)
                .output_interface(index)
                .build(),
        };
        // IPv6 routes outlive the addresses.
        handle.route().add(message).replace().execute().await?;
    }
    Ok(())
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await?;
    Ok(link
        .with_context(|| format!("no device {name}"))?
        .header
        .index)
}

/// Best effort: a missing sysctl (IPv6 compiled out, read-only `/proc/sys`) shows up as a failing step later.
fn set_sysctls(host: &HostSpec) {
    // Group 0 is the one that is mapped in every user namespace.
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0");
    if host.forwarding {
        let _ = fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        let _ = fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    }
}

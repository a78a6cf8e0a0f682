//! One host of a running testbed.

use std::{ffi::OsStr, net::IpAddr, process::Command};

use crate::{
    interface,
    namespace::{Namespace, die_with_parent},
    topology::Address,
};

/// A host: a network namespace and a mount namespace in which processes can be started.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
}

impl Host {
    /// The host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run on this host, and end when the thread that starts it ends.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        die_with_parent(&mut command);
        self.namespace.enter(&mut command);
        command
    }

    /// Runs a closure on a thread inside the host's network namespace.
    pub fn run<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.namespace.run(work)
    }

    /// Gives the host further addresses of its own, on its loopback device.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn add_addresses(&self, addresses: &[IpAddr]) -> anyhow::Result<()> {
        self.namespace.run(|| interface::add_to_loopback(addresses))
    }

    /// Gives a device that a process on the host has made an address and an MTU in bytes, and brings it up.
    ///
    /// # Errors
    ///
    /// If the device does not exist or the kernel refuses.
    pub fn bring_up(&self, device: &str, address: Address, mtu: u32) -> anyhow::Result<()> {
        self.namespace
            .run(|| interface::bring_up(device, address, mtu))
    }

    /// A shell command with which a person enters the host from outside, while this process runs.
    pub fn enter_hint(&self) -> String {
        let (pid, net, mnt) = (
            std::process::id(),
            self.namespace.net_fd(),
            self.namespace.mnt_fd(),
        );
        // Entering one's own user namespace is an error, so the flags are there only if there is another.
        let user = match crate::namespace::is_in_user_namespace() {
            true => format!(" --user=/proc/{pid}/ns/user --preserve-credentials"),
            false => String::new(),
        };
        format!("nsenter{user} --net=/proc/{pid}/fd/{net} --mount=/proc/{pid}/fd/{mnt}")
    }
}

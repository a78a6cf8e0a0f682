//! Systems without a device of ours yet: the same interface, which cannot be opened.

use std::{io, num::NonZeroUsize};

use crate::{Offload, OpenError, Options, VnetHeader};

/// A TUN device.
#[derive(Debug)]
pub enum Tun {}

impl Tun {
    /// Opens or creates the device `name`.
    pub fn open(name: &str, _: Options) -> Result<Self, OpenError> {
        Err(OpenError::Io {
            name: name.to_owned(),
            source: io::Error::from(io::ErrorKind::Unsupported),
        })
    }

    /// Opens or creates the device `name` with several queues.
    pub fn open_queues(
        name: &str,
        options: Options,
        _: NonZeroUsize,
    ) -> Result<Vec<Self>, OpenError> {
        Self::open(name, options).map(|tun| vec![tun])
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        match *self {}
    }

    /// What crosses the device as super-packets.
    pub fn offload(&self) -> Offload {
        match *self {}
    }

    /// What may be written as super-packets.
    pub fn write_offload(&self) -> Offload {
        match *self {}
    }

    /// Reads one packet or super-packet.
    pub fn read(&mut self, _: &mut [u8]) -> io::Result<Option<(VnetHeader, usize)>> {
        match *self {}
    }

    /// Writes one packet or super-packet.
    pub fn write(&mut self, _: VnetHeader, _: &[u8]) -> io::Result<()> {
        match *self {}
    }
}

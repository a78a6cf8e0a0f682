//! The TUN device, as the state machine sees it.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use connlib_tun::{Checksum, Offload, READ_BUFFER, Segmentation, Tun, VnetHeader};
use connlib_tunnel::{
    TunPacket,
    segment::{ChecksumState, Coalescer, Coalescing, GsoKind, GsoMeta, Splitter},
};
use ip_packet::PacketBatch as _;

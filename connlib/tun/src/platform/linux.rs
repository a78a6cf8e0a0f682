//! Linux: `/dev/net/tun`, opened and configured by `tun-rs`; read and written here.
//!
//! One queue, unless several are asked for. A device of several lets a second process attach silently, and the kernel
//! spreads the packets over both; so a device that is there already is only taken if it is a persistent one.
//!
//! With several queues the kernel hands a packet to the queue from which its flow's other direction was written last
//! (`tests/queues.rs`), and one of a flow that it does not know, or has not seen for three seconds, to any.

use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::uio::{readv, writev};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::header::{Gso, LENGTH, VnetHeader};
use crate::{Offload, OpenError, Options};

/// Longest name of an interface (`IFNAMSIZ` without its terminator).
const MAX_NAME_BYTES: usize = 15;

/// Device node and its numbers.
const NODE: &str = "/dev/net/tun";
const NODE_MAJOR: u64 = 10;
const NODE_MINOR: u64 = 200;

/// A TUN device, non-blocking.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    offload: Offload,
    /// Less than `offload` once the kernel refused a super-packet.
    write_offload: Offload,
}

impl Tun {
    /// Opens or creates the device `name`: TUN, no packet information, one queue, and super-packets if `options` ask for
    /// them and the kernel has them. Its link stays down and without addresses.
    pub fn open(name: &str, options: Options) -> Result<Self, OpenError> {
        let device = open_device(name, options, Queues::One)?;
        Self::from_device(device, name)
    }

    /// [`open`](Self::open) with several queues of one device, each to be used by a thread of its own.
    pub fn open_queues(
        name: &str,
        options: Options,
        count: NonZeroUsize,
    ) -> Result<Vec<Self>, OpenError> {
        if count == NonZeroUsize::MIN {
            return Ok(vec![Self::open(name, options)?]);
        }
        if is_held(name) {
            return Err(OpenError::InUse(name.to_owned()));
        }
        let first = open_device(name, options, Queues::Several)?;
        let mut devices = Vec::with_capacity(count.get());
        for _ in 1..count.get() {
            let further = first.try_clone().map_err(|source| explain(name, source))?;
            devices.push(further);
        }
        devices.insert(0, first);
        let wrap = |device| Self::from_device(device, name);
        devices.into_iter().map(wrap).collect()
    }

    fn from_device(device: SyncDevice, name: &str) -> Result<Self, OpenError> {
        let offload = match (device.tcp_gso(), device.udp_gso()) {
            (false, _) => Offload::None,
            (true, false) => Offload::Tcp,
            (true, true) => Offload::TcpAndUdp,
        };
        tracing::info!(name, ?offload, "TUN device is open");
        // SAFETY: `into_raw_fd` gives up the descriptor, so it has exactly one owner again.
        let fd = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
        Self::from_fd(fd, name, offload).map_err(|source| OpenError::Io {
            name: name.to_owned(),
            source,
        })
    }

    /// Wraps a descriptor that is open already. With any `offload` but none, each packet on it is preceded by the
    /// 10-byte header.
    pub fn from_fd(fd: OwnedFd, name: &str, offload: Offload) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self {
            fd,
            name: name.to_owned(),
            offload,
            write_offload: offload,
        })
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the kernel may hand over as super-packets.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// What may be written as super-packets. Drops to none when the kernel refuses one; look again after an error.
    pub fn write_offload(&self) -> Offload {
        self.write_offload
    }

    /// Reads one packet or super-packet into the front of `buffer`, which must hold [`crate::READ_BUFFER_BYTES`]; what
    /// does not fit is cut off by the kernel. Returns what the kernel says about it and its length; `None` when nothing
    /// waits.
    ///
    /// An error of kind `InvalidData` concerns one packet and may be passed over; `UnexpectedEof` means that the device
    /// is gone.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<(VnetHeader, usize)>> {
        let mut header = [0; LENGTH];
        let read = match self.offload {
            Offload::None => self.read_slices(&mut [IoSliceMut::new(buffer)]),
            Offload::Tcp | Offload::TcpAndUdp => {
                self.read_slices(&mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)])
            }
        };
        let len = match read {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        if self.offload == Offload::None {
            return Ok(Some((VnetHeader::PLAIN, len)));
        }
        match len.checked_sub(LENGTH) {
            None | Some(0) => Err(io::ErrorKind::InvalidData.into()),
            Some(len) => {
                let header = VnetHeader::decode(header).map_err(invalid_data)?;
                Ok(Some((header, len)))
            }
        }
    }

    /// Writes one packet or super-packet.
    ///
    /// `InvalidInput` means that the kernel refuses this super-packet, or that the device takes none; afterwards
    /// [`Self::write_offload`] says so and packets must be written one by one. `WouldBlock` means that the device takes
    /// nothing now. Either way `packet` was not written.
    pub fn write(&mut self, header: VnetHeader, packet: &[u8]) -> io::Result<()> {
        if !self.takes(&header) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let encoded = header.encode();
        let result = match self.offload {
            Offload::None => self.write_slices(&[IoSlice::new(packet)]),
            Offload::Tcp | Offload::TcpAndUdp => {
                self.write_slices(&[IoSlice::new(&encoded), IoSlice::new(packet)])
            }
        };
        match result {
            Err(error)
                if error.kind() == io::ErrorKind::InvalidInput && header.gso != Gso::None =>
            {
                tracing::warn!(
                    name = self.name,
                    "the kernel refuses super-packets; writing packets one by one"
                );
                self.write_offload = Offload::None;
                Err(error)
            }
            result => result,
        }
    }

    fn takes(&self, header: &VnetHeader) -> bool {
        match (header.gso, self.write_offload) {
            (Gso::None, _) => self.offload != Offload::None || header.is_plain(),
            (_, Offload::None) => false,
            (Gso::TcpV4 | Gso::TcpV6, Offload::Tcp | Offload::TcpAndUdp) => true,
            (Gso::Udp, offload) => offload == Offload::TcpAndUdp,
        }
    }

    fn read_slices(&self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        retry_interrupted(|| readv(&self.fd, slices))
    }

    fn write_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        retry_interrupted(|| writev(&self.fd, slices)).map(drop)
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check_name(name: &str) -> Result<(), OpenError> {
    let is_allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%');
    let is_valid = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.chars().all(is_allowed)
        && !matches!(name, "." | "..");
    match is_valid {
        true => Ok(()),
        false => Err(OpenError::InvalidName(name.to_owned())),
    }
}

/// Containers often lack the device node; whoever may use it may create it too.
fn create_node() -> io::Result<()> {
    let node = Path::new(NODE);
    if node.exists() {
        return Ok(());
    }
    if let Some(directory) = node.parent().filter(|directory| !directory.exists()) {
        nix::unistd::mkdir(directory, Mode::from_bits_truncate(0o751))?;
    }
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    mknod(node, SFlag::S_IFCHR, mode, makedev(NODE_MAJOR, NODE_MINOR))?;
    Ok(())
}

/// How many queues a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queues {
    One,
    Several,
}

fn open_device(name: &str, options: Options, queues: Queues) -> Result<SyncDevice, OpenError> {
    check_name(name)?;
    create_node().map_err(|source| OpenError::Io {
        name: name.to_owned(),
        source,
    })?;
    let device = match options.offload {
        true => create(name, true, queues).or_else(|error| without_offload(name, queues, error)),
        false => create(name, false, queues),
    };
    device.map_err(|source| explain(name, source))
}

/// Whether the device is there without being persistent: then some process holds it.
fn is_held(name: &str) -> bool {
    /// `IFF_PERSIST` of `linux/if_tun.h`.
    const PERSIST: u32 = 0x0800;
    let Ok(flags) = std::fs::read_to_string(format!("/sys/class/net/{name}/tun_flags")) else {
        return nix::net::if_::if_nametoindex(name).is_ok();
    };
    let flags = flags.trim().trim_start_matches("0x");
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & PERSIST == 0)
}

fn create(name: &str, offload: bool, queues: Queues) -> io::Result<SyncDevice> {
    DeviceBuilder::new()
        .name(name)
        .layer(Layer::L3)
        .enable(false)
        .with(|linux| {
            linux
                .offload(offload)
                .multi_queue(queues == Queues::Several)
                .packet_information(false);
        })
        .build_sync()
}

/// A kernel without offload refuses the whole device; one that is busy or forbidden stays so.
fn without_offload(name: &str, queues: Queues, error: io::Error) -> io::Result<SyncDevice> {
    if matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy
    ) {
        return Err(error);
    }
    tracing::info!(%error, name, "no offload on this system; using plain packets");
    create(name, false, queues)
}

fn explain(name: &str, source: io::Error) -> OpenError {
    let name = name.to_owned();
    match source.kind() {
        io::ErrorKind::ResourceBusy => OpenError::InUse(name),
        io::ErrorKind::PermissionDenied => OpenError::NoPermission(name),
        _ => OpenError::Io { name, source },
    }
}

fn retry_interrupted(mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

fn invalid_data(error: crate::InvalidHeader) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::header::Checksum;

    /// A device whose other end is a socket.
    fn pair(offload: Offload) -> (Tun, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Tun::from_fd(ours.into(), "test", offload).unwrap(), theirs)
    }

    fn tcp() -> VnetHeader {
        VnetHeader {
            gso: Gso::TcpV4,
            segment_size: 1240,
            header_len: 40,
            checksum: Checksum::Partial {
                start: 20,
                offset: 16,
            },
        }
    }

    #[test]
    fn header_and_packet_are_kept_apart() {
        let (mut tun, kernel) = pair(Offload::TcpAndUdp);
        tun.write(tcp(), b"packet").unwrap();
        let mut raw = [0; 64];
        let len = kernel.recv(&mut raw).unwrap();
        assert_eq!(raw[..len], [&tcp().encode()[..], b"packet"].concat());

        kernel.send(&raw[..len]).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(tun.read(&mut buffer).unwrap(), Some((tcp(), 6)));
        assert_eq!(&buffer[..6], b"packet");
    }

    #[test]
    fn nothing_waiting_is_no_error() {
        for offload in [Offload::None, Offload::TcpAndUdp] {
            let (mut tun, _kernel) = pair(offload);
            assert_eq!(tun.read(&mut [0; 64]).unwrap(), None);
        }
    }

    #[test]
    fn plain_devices_have_no_header() {
        let (mut tun, kernel) = pair(Offload::None);
        kernel.send(b"in").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(tun.read(&mut buffer).unwrap(), Some((VnetHeader::PLAIN, 2)));
        tun.write(VnetHeader::PLAIN, b"out").unwrap();
        let len = kernel.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"out");
    }

    #[test]
    fn what_a_device_cannot_take_is_refused_before_it_is_written() {
        let udp = VnetHeader {
            gso: Gso::Udp,
            ..tcp()
        };
        let partial = VnetHeader {
            gso: Gso::None,
            ..tcp()
        };
        for (offload, header) in [
            (Offload::None, tcp()),
            (Offload::None, partial),
            (Offload::Tcp, udp),
        ] {
            let (mut tun, kernel) = pair(offload);
            let error = tun.write(header, b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(kernel.recv(&mut [0; 64]).is_err(), "nothing was written");
        }
    }

    #[test]
    fn short_and_unknown_headers_cost_one_packet() {
        let (mut tun, kernel) = pair(Offload::TcpAndUdp);
        let mut unknown = [0; 20];
        unknown[1] = 3;
        for raw in [&[0; 4][..], &[0; 10], &unknown] {
            kernel.send(raw).unwrap();
            let error = tun.read(&mut [0; 64]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        kernel.send(&[0; 11]).unwrap();
        assert_eq!(
            tun.read(&mut [0; 64]).unwrap(),
            Some((VnetHeader::PLAIN, 1))
        );
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "sixteen-letters-", "a b", "a/b", "tun%d", "..", "ü"] {
            assert!(
                matches!(check_name(bad), Err(OpenError::InvalidName(_))),
                "{bad}"
            );
        }
        assert!(check_name(crate::DEFAULT_NAME).is_ok());
    }
}

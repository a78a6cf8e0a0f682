//! `recvmmsg`, `sendmsg` and `sendmmsg` with UDP receive and segmentation offload (udp(7), cmsg(3)).
//!
//! Addresses and control messages are read and written as bytes, in the kernel's layout; unsafe are only the calls and
//! what they need for their arguments.

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
    ptr,
};

use super::{Arrival, Departure, Ecn, MAX_DEPARTURES, MAX_MESSAGES};
use crate::platform::unix::set_option;

/// Bytes of an IPv4 socket address, with its padding.
const NAME_V4: usize = size_of::<libc::sockaddr_in>();
/// Bytes of an IPv6 socket address.
const NAME_V6: usize = size_of::<libc::sockaddr_in6>();
/// Room for the control messages of one datagram: mark and segment size in, source address besides out.
const CONTROL_BYTES: usize = 96;
/// Control messages begin at multiples of this.
const ALIGNMENT: usize = size_of::<usize>();
/// Header of a control message as the kernel has it: length (a `size_t`), level and type.
const CONTROL_HEADER: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();

/// Has the kernel tell the mark of each datagram and, if `offload`, join those of one sender.
///
/// # Errors
/// The system does not know the marks. One that does not join datagrams just does not.
pub(crate) fn prepare(socket: &impl AsRawFd, is_v6: bool, offload: bool) -> io::Result<()> {
    match is_v6 {
        false => set_option(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?,
        true => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?,
    }
    if offload && let Err(error) = set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1) {
        tracing::debug!(%error, "The system does not join datagrams");
    }
    Ok(())
}

/// Whether the kernel knows segmentation offload; one that does not would send a train as one large datagram.
pub(crate) fn can_segment(socket: &impl AsRawFd) -> bool {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// Receives batches; keeps the memory that this takes besides the buffers.
pub(crate) struct Receiver {
    names: [Name; MAX_MESSAGES],
    controls: [Control; MAX_MESSAGES],
    arrivals: [Arrival; MAX_MESSAGES],
}

/// A socket address as the kernel writes it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME_V6]);

/// Control messages, one behind the other.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Receiver {
    pub(crate) fn new() -> Self {
        Self {
            names: [Name([0; NAME_V6]); MAX_MESSAGES],
            controls: [Control([0; CONTROL_BYTES]); MAX_MESSAGES],
            arrivals: [Arrival::NONE; MAX_MESSAGES],
        }
    }

    /// Fills buffers with what is there, at most [`MAX_MESSAGES`] of them; returns how many are filled.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing is there; what the kernel says otherwise.
    pub(crate) fn receive<'a>(
        &mut self,
        socket: &impl AsRawFd,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        let mut vectors = [EMPTY_VECTOR; MAX_MESSAGES];
        let mut count = 0;
        for (vector, buffer) in vectors.iter_mut().zip(buffers) {
            *vector = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            count += 1;
        }
        let mut headers: [libc::mmsghdr; MAX_MESSAGES] = empty_headers();
        let places = vectors
            .iter_mut()
            .zip(&mut self.names)
            .zip(&mut self.controls);
        for (header, ((vector, name), control)) in headers.iter_mut().zip(places).take(count) {
            let header = &mut header.msg_hdr;
            header.msg_name = name.0.as_mut_ptr().cast();
            header.msg_namelen = NAME_V6 as libc::socklen_t;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        let filled = retry(|| {
            // SAFETY: the first `count` headers point to vectors, names and control buffers that live until the call
            // returns and are as long as they say; so do the vectors to buffers, borrowed mutably for `'a`. Nothing of
            // it is referred to by anybody else meanwhile.
            let result = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    count as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    ptr::null_mut(),
                )
            };
            result as isize
        })?;
        let received = headers.iter().zip(&self.names).zip(&self.controls);
        let places = self.arrivals.iter_mut().zip(received);
        for (place, ((header, name), control)) in places.take(filled) {
            #[allow(clippy::unnecessary_cast, reason = "some C libraries have it shorter")]
            let control_len = header.msg_hdr.msg_controllen as usize;
            let control = control.0.get(..control_len).unwrap_or(&control.0);
            *place = arrival(name, control, header.msg_len as usize);
        }
        Ok(filled)
    }

    /// What the last call filled its buffers with, in their order.
    pub(crate) fn arrivals(&self) -> &[Arrival; MAX_MESSAGES] {
        &self.arrivals
    }
}

/// Sends one message.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if the socket's buffer is full; what the kernel says otherwise.
pub(crate) fn send(socket: &impl AsRawFd, departure: &Departure<'_>) -> io::Result<()> {
    let mut message = Message::EMPTY;
    let [mut header] = empty_headers::<1>();
    message.describe(departure, &mut header.msg_hdr);
    let header = &raw const header.msg_hdr;
    // SAFETY: the header points into `message`, which lives until the call returns and is as long as the header says; so
    // does its vector to the departure's bytes, which the kernel only reads.
    retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), header, libc::MSG_DONTWAIT) }).map(drop)
}

/// Sends several messages by one call, at most [`MAX_DEPARTURES`], in their order; returns how many the kernel took.
///
/// # Errors
/// What the kernel says about the first one. Errors of the others show when they are the first.
pub(crate) fn send_many(socket: &impl AsRawFd, departures: &[Departure<'_>]) -> io::Result<usize> {
    let mut messages = [Message::EMPTY; MAX_DEPARTURES];
    let mut headers = empty_headers::<MAX_DEPARTURES>();
    let count = departures.len().min(MAX_DEPARTURES);
    let places = messages.iter_mut().zip(&mut headers);
    for ((message, header), departure) in places.zip(departures) {
        message.describe(departure, &mut header.msg_hdr);
    }
    retry(|| {
        // SAFETY: the first `count` headers point into `messages`, which live until the call returns and are as long as
        // the headers say; so do their vectors to the departures' bytes, which the kernel only reads.
        let result = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        result as isize
    })
}

/// What the header of a message that is sent points to.
#[derive(Clone, Copy)]
struct Message {
    name: Name,
    control: Control,
    vector: libc::iovec,
}

impl Message {
    const EMPTY: Self = Self {
        name: Name([0; NAME_V6]),
        control: Control([0; CONTROL_BYTES]),
        vector: EMPTY_VECTOR,
    };

    /// Fills an empty message and its header, which points to both from then on.
    fn describe(&mut self, departure: &Departure<'_>, header: &mut libc::msghdr) {
        let name_len = write_name(&mut self.name, departure.to);
        let control_len = write_control(&mut self.control, departure);
        self.vector = libc::iovec {
            iov_base: departure.bytes.as_ptr().cast_mut().cast(),
            iov_len: departure.bytes.len(),
        };
        header.msg_name = self.name.0.as_mut_ptr().cast();
        header.msg_namelen = name_len as libc::socklen_t;
        header.msg_iov = &raw mut self.vector;
        header.msg_iovlen = 1;
        if control_len > 0 {
            header.msg_control = self.control.0.as_mut_ptr().cast();
            header.msg_controllen = control_len as _;
        }
    }
}

const EMPTY_VECTOR: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

fn empty_headers<const N: usize>() -> [libc::mmsghdr; N] {
    // SAFETY: null pointers with lengths of zero are valid headers; some C libraries have private padding besides.
    unsafe { mem::zeroed() }
}

/// Calls until nothing interrupts it.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(result) = usize::try_from(call()) {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn arrival(name: &Name, control: &[u8], len: usize) -> Arrival {
    let mut arrival = Arrival {
        from: read_name(name),
        ecn: Ecn::default(),
        len,
        segment_size: len,
    };
    for (level, kind, data) in control_messages(control) {
        match (level, kind, data) {
            (libc::IPPROTO_IP, libc::IP_TOS, [byte, ..]) => {
                arrival.ecn = Ecn::of_traffic_class(*byte);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, data) => {
                arrival.ecn = Ecn::of_traffic_class(read_int(data) as u8);
            }
            (libc::SOL_UDP, libc::UDP_GRO, data) => {
                arrival.segment_size = usize::try_from(read_int(data)).unwrap_or(len);
            }
            _ => {}
        }
    }
    arrival
}

/// Level, type and data of each control message. What is cut short ends the list.
fn control_messages(mut bytes: &[u8]) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let len = usize::from_ne_bytes(*len);
        let (level, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let data = bytes.get(CONTROL_HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
        let (level, kind) = (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind));
        Some((level, kind, data))
    })
}

fn read_int(data: &[u8]) -> libc::c_int {
    data.first_chunk()
        .map_or(0, |bytes| libc::c_int::from_ne_bytes(*bytes))
}

/// A datagram that names no sender comes from nowhere: port 0, which nobody is answered at.
fn read_name(Name(bytes): &Name) -> SocketAddr {
    let family = u16::from_ne_bytes([bytes[0], bytes[1]]);
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    match libc::c_int::from(family) {
        libc::AF_INET => {
            let [_, _, _, _, a, b, c, d, ..] = *bytes;
            (Ipv4Addr::new(a, b, c, d), port).into()
        }
        libc::AF_INET6 => {
            let mut address = [0; 16];
            address.copy_from_slice(&bytes[8..24]);
            (Ipv6Addr::from(address), port).into()
        }
        _ => Arrival::NONE.from,
    }
}

/// Returns how many bytes the address has.
fn write_name(Name(bytes): &mut Name, to: SocketAddr) -> usize {
    let (family, len) = match to.ip() {
        IpAddr::V4(ip) => {
            bytes[4..8].copy_from_slice(&ip.octets());
            (libc::AF_INET, NAME_V4)
        }
        IpAddr::V6(ip) => {
            bytes[8..24].copy_from_slice(&ip.octets());
            (libc::AF_INET6, NAME_V6)
        }
    };
    bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&to.port().to_be_bytes());
    len
}

/// Returns how many bytes the control messages have; those that say what the kernel does anyway are left out.
fn write_control(Control(bytes): &mut Control, departure: &Departure<'_>) -> usize {
    let mut len = 0;
    let mut put = |level: libc::c_int, kind: libc::c_int, data: &[u8]| {
        let message = &mut bytes[len..];
        let end = CONTROL_HEADER + data.len();
        message[..ALIGNMENT].copy_from_slice(&end.to_ne_bytes());
        message[ALIGNMENT..ALIGNMENT + 4].copy_from_slice(&level.to_ne_bytes());
        message[ALIGNMENT + 4..CONTROL_HEADER].copy_from_slice(&kind.to_ne_bytes());
        message[CONTROL_HEADER..end].copy_from_slice(data);
        len += end.next_multiple_of(ALIGNMENT);
    };
    if departure.ecn != Ecn::default() {
        let mark = libc::c_int::from(departure.ecn.0).to_ne_bytes();
        match departure.to {
            SocketAddr::V4(_) => put(libc::IPPROTO_IP, libc::IP_TOS, &mark),
            SocketAddr::V6(_) => put(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &mark),
        }
    }
    if let Some(size) = departure.segment_size {
        put(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }
    match departure.source {
        // Interface (an int), source, destination (not for sending): `in_pktinfo`.
        Some(IpAddr::V4(source)) => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&source.octets());
            put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        // Source, interface (an int): `in6_pktinfo`.
        Some(IpAddr::V6(source)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&source.octets());
            put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    len
}

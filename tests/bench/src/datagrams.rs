//! Many datagrams per system call, in both directions: the generator must cost much less than the server it loads.
//!
//! Out, two ways that the server can tell apart: `sendmmsg` makes as many separate packets as there are datagrams, UDP
//! segmentation offload makes one train that a veth pair carries whole. In, `recvmmsg` with UDP receive offload takes
//! both.

use std::{
    io, mem,
    net::UdpSocket,
    os::fd::{AsRawFd, RawFd},
    ptr,
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockAddr;

/// Most datagrams of a train: the kernel's UDP_MAX_SEGMENTS of long ago, which all kernels take.
pub(crate) const MAX_DATAGRAMS: usize = 64;
/// Most bytes of a train: what fits into an IPv4 packet.
const MAX_BYTES: usize = 65_507;
/// Datagrams or trains per receive call.
const ARRIVALS: usize = 32;
/// Room for one arrival.
const ARRIVAL_BYTES: usize = 65_536;
/// Kernel buffers wanted on the generator's sockets, so that it is never the generator who loses.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Makes a socket fit for [`Outbox`] and [`Inbox`].
pub(crate) fn prepare(socket: &UdpSocket) -> io::Result<()> {
    widen(socket)?;
    socket2::SockRef::from(socket).set_send_buffer_size(BUFFER_BYTES)?;
    // Without it, trains arrive as separate packets, and cost accordingly.
    let _ = setsockopt(socket, sockopt::UdpGroSegment, &true);
    socket.set_nonblocking(true)
}

/// Makes room for what arrives. The system's limit applies unless root may exceed it.
pub(crate) fn widen(socket: &UdpSocket) -> io::Result<()> {
    match setsockopt(socket, sockopt::RcvBufForce, &BUFFER_BYTES) {
        Ok(()) => Ok(()),
        Err(_) => socket2::SockRef::from(socket).set_recv_buffer_size(BUFFER_BYTES),
    }
}

/// How many datagrams did not fit into a socket's receive buffer since it was made.
pub(crate) fn drops(socket: &UdpSocket) -> u64 {
    /// Of the words that SO_MEMINFO yields (linux/sock_diag.h, SK_MEMINFO_DROPS).
    const DROPS: usize = 8;
    let mut words = [0u32; DROPS + 1];
    let mut bytes = mem::size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` to `words`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &mut bytes,
        )
    };
    match result {
        0 => words[DROPS].into(),
        _ => 0,
    }
}

/// Datagrams of one size, to be filled in and sent.
pub(crate) struct Outbox {
    datagram_bytes: usize,
    bytes: Vec<u8>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Outbox {
    /// For datagrams of this many bytes.
    pub(crate) fn new(datagram_bytes: usize) -> Self {
        Self {
            datagram_bytes,
            bytes: vec![0; datagram_bytes * MAX_DATAGRAMS],
            vectors: Vec::with_capacity(MAX_DATAGRAMS),
            headers: Vec::with_capacity(MAX_DATAGRAMS),
        }
    }

    /// Most datagrams of one train.
    pub(crate) fn train_len(&self) -> usize {
        (MAX_BYTES / self.datagram_bytes).clamp(1, MAX_DATAGRAMS)
    }

    /// The datagrams, [`MAX_DATAGRAMS`] in all.
    pub(crate) fn datagrams(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_exact_mut(self.datagram_bytes)
    }

    /// Sends the first `count` datagrams as separate packets; returns how many the kernel took.
    pub(crate) fn send_separately(
        &mut self,
        socket: &UdpSocket,
        to: Option<&SockAddr>,
        count: usize,
    ) -> io::Result<usize> {
        self.vectors.clear();
        self.headers.clear();
        for datagram in self.bytes.chunks_exact_mut(self.datagram_bytes).take(count) {
            self.vectors.push(vector(datagram));
        }
        for vector in &mut self.vectors {
            self.headers.push(libc::mmsghdr {
                msg_hdr: header(vector, to),
                msg_len: 0,
            });
        }
        let (headers, count) = (self.headers.as_mut_ptr(), self.headers.len());
        // SAFETY: `headers` points to `count` headers; they point to vectors, these to datagrams, and all of them to
        // `to`, which this function keeps in place until the call returns.
        retry(|| unsafe { libc::sendmmsg(socket.as_raw_fd(), headers, count as u32, 0) } as isize)
    }

    /// Sends the first `count` datagrams, at most [`Self::train_len`], as one train; returns how many the kernel took:
    /// all or none.
    pub(crate) fn send_as_train(
        &mut self,
        socket: &UdpSocket,
        to: Option<&SockAddr>,
        count: usize,
    ) -> io::Result<usize> {
        let mut control = Control::new();
        let mut vector = vector(&mut self.bytes[..self.datagram_bytes * count]);
        let mut header = header(&mut vector, to);
        control.put_segment_size(&mut header, self.datagram_bytes as u16);
        // SAFETY: `header` points to `vector` and `control`, these to live buffers of the sizes they name.
        retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &header, 0) })
            .map(|sent| if sent > 0 { count } else { 0 })
    }
}

/// Room for whatever arrives.
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    controls: Vec<Control>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Inbox {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; ARRIVALS * ARRIVAL_BYTES],
            controls: (0..ARRIVALS).map(|_| Control::new()).collect(),
            vectors: Vec::with_capacity(ARRIVALS),
            headers: Vec::with_capacity(ARRIVALS),
        }
    }

    /// Takes what waits at a socket, as far as there is room; returns whether there may be more.
    pub(crate) fn receive(
        &mut self,
        socket: &UdpSocket,
        mut handle: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        let arrived = self.fill(socket.as_raw_fd())?;
        let arrivals = self.bytes.chunks_exact(ARRIVAL_BYTES).zip(&self.headers);
        for (bytes, header) in arrivals.take(arrived) {
            let bytes = &bytes[..header.msg_len as usize];
            let datagram = segment_size(&header.msg_hdr).unwrap_or(bytes.len());
            bytes.chunks(datagram.max(1)).for_each(&mut handle);
        }
        Ok(arrived == ARRIVALS)
    }

    fn fill(&mut self, socket: RawFd) -> io::Result<usize> {
        self.vectors.clear();
        self.headers.clear();
        for buffer in self.bytes.chunks_exact_mut(ARRIVAL_BYTES) {
            self.vectors.push(vector(buffer));
        }
        for (vector, control) in self.vectors.iter_mut().zip(&mut self.controls) {
            let mut msg_hdr = header(vector, None);
            control.attach(&mut msg_hdr);
            self.headers.push(libc::mmsghdr {
                msg_hdr,
                msg_len: 0,
            });
        }
        let (headers, count) = (self.headers.as_mut_ptr(), self.headers.len() as u32);
        // SAFETY: as for sending; every header has a vector, a buffer and a control buffer of its own.
        retry(|| unsafe { libc::recvmmsg(socket, headers, count, 0, ptr::null_mut()) } as isize)
    }
}

/// Room for one control message that holds an `int` or less, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 32]);

impl Control {
    fn new() -> Self {
        Self([0; 32])
    }

    fn attach(&mut self, header: &mut libc::msghdr) {
        header.msg_control = self.0.as_mut_ptr().cast();
        header.msg_controllen = self.0.len() as _;
    }

    fn put_segment_size(&mut self, header: &mut libc::msghdr, bytes: u16) {
        self.attach(header);
        // SAFETY: the control buffer is aligned and longer than one header with a `u16`; CMSG_FIRSTHDR points to its
        // beginning.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(mem::size_of::<u16>() as u32) as _;
            let message = libc::CMSG_FIRSTHDR(header);
            (*message).cmsg_level = libc::SOL_UDP;
            (*message).cmsg_type = libc::UDP_SEGMENT;
            (*message).cmsg_len = libc::CMSG_LEN(mem::size_of::<u16>() as u32) as _;
            ptr::write_unaligned(libc::CMSG_DATA(message).cast(), bytes);
        }
    }
}

/// Of a train that receive offload has put together.
fn segment_size(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has filled the control buffer that `header` points to and set its length.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header).as_ref()?;
        if (message.cmsg_level, message.cmsg_type) != (libc::SOL_UDP, libc::UDP_GRO) {
            return None;
        }
        let size = ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::c_int>());
        usize::try_from(size).ok()
    }
}

fn vector(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

fn header(vector: &mut libc::iovec, to: Option<&SockAddr>) -> libc::msghdr {
    // SAFETY: all zeroes are a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    if let Some(to) = to {
        header.msg_name = to.as_ptr().cast_mut().cast();
        header.msg_namelen = to.len();
    }
    header
}

/// Zero if the socket would block. An error that an earlier datagram caused (a closed port) is passed over.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        let result = call();
        if let Ok(count) = usize::try_from(result) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(0),
            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused => {}
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 100;

    fn pair() -> (UdpSocket, UdpSocket) {
        let (a, b) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        a.connect(b.local_addr().unwrap()).unwrap();
        prepare(&a).unwrap();
        prepare(&b).unwrap();
        (a, b)
    }

    fn numbered() -> Outbox {
        let mut outbox = Outbox::new(SIZE);
        for (number, datagram) in outbox.datagrams().enumerate() {
            datagram.fill(number as u8);
        }
        outbox
    }

    fn receive_all(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        let mut inbox = Inbox::new();
        let mut all = Vec::new();
        let started = std::time::Instant::now();
        while all.len() < count && started.elapsed().as_secs() < 10 {
            inbox.receive(socket, |d| all.push(d.to_vec())).unwrap();
        }
        all
    }

    #[test]
    fn separate_datagrams_arrive_each_for_itself() {
        let (a, b) = pair();
        assert_eq!(numbered().send_separately(&a, None, 40).unwrap(), 40);
        let expected = (0..40).map(|number| vec![number; SIZE]);
        assert_eq!(receive_all(&b, 40), expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_train_arrives_cut_into_datagrams() {
        let (a, b) = pair();
        let mut outbox = numbered();
        assert_eq!(outbox.send_as_train(&a, None, 64).unwrap(), 64);
        let expected = (0..64).map(|number| vec![number; SIZE]);
        assert_eq!(receive_all(&b, 64), expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_destination_is_used() {
        let (a, b) = pair();
        let to = SockAddr::from(a.local_addr().unwrap());
        let sent = numbered().send_separately(&b, Some(&to), 2).unwrap();
        assert_eq!((sent, receive_all(&a, 2).len()), (2, 2));
    }

    #[test]
    fn a_train_fits_into_a_packet() {
        assert_eq!(Outbox::new(64).train_len(), 64);
        assert_eq!(Outbox::new(1284).train_len(), 51);
    }
}

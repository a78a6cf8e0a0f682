//! Opening datagrams that arrived together: session, expiry and accounting once, replay window and tag for each.

use std::time::Instant;

use super::common::{Common, OpenError, Opened};
use crate::engine::{Engine, OpenJob};
use crate::message::{Inbound, MAX_DATAGRAM, REJECT_AFTER_MESSAGES, classify, counter};

/// Takes the packets of a train, in order.
pub trait OpenSink {
    /// Room for the next packet: at least its datagram's length less 16 bytes.
    fn room(&mut self) -> &mut [u8];

    /// Whether the packet in the first `len` bytes of the room, which is authentic but not yet checked as such, is done
    /// with. If not, it stays where it is and the train ends with it.
    fn take(&mut self, len: usize) -> bool;
}

/// What became of the datagrams at the front of a train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenedTrain {
    /// Packets that the sink took.
    pub taken: usize,
    /// The datagram behind them, if it brought none that the sink took. `None`: what follows, if anything, belongs to
    /// another session or is no data message.
    pub last: Option<Result<Opened, OpenError>>,
}

impl OpenedTrain {
    /// Whether it brought at least one packet.
    pub fn has_packet(&self) -> bool {
        self.taken > 0 || matches!(self.last, Some(Ok(Opened::Packet { .. })))
    }

    /// Whether at least one datagram was made by the peer.
    pub(super) fn is_authentic(&self) -> bool {
        self.taken > 0 || matches!(self.last, Some(Ok(_) | Err(OpenError::NotIp)))
    }
}

impl From<Result<Opened, OpenError>> for OpenedTrain {
    fn from(only: Result<Opened, OpenError>) -> Self {
        Self {
            taken: 0,
            last: Some(only),
        }
    }
}

/// Opens `first` and the data messages behind it that are of the same session, as long as `sink` takes their packets.
/// The session, whose index is `receiver`, is valid.
#[inline]
pub(super) fn open_run<'d, E: Engine, S: OpenSink>(
    engine: &mut E,
    common: &mut Common,
    (receiver, first): (u32, &'d [u8]),
    train: &mut (impl Iterator<Item = &'d [u8]> + Clone),
    now: Instant,
    sink: &mut S,
) -> OpenedTrain {
    let (mut packets, mut bytes) = (0, 0);
    let mut opened = OpenedTrain::default();
    let mut next = Some(first);

    while let Some(datagram) = next {
        opened.last = match open_one(engine, datagram, sink.room()) {
            Ok(0) => Some(Ok(Opened::Keepalive)),
            Ok(len) => {
                packets += 1;
                bytes += len as u64;
                (!sink.take(len)).then_some(Ok(Opened::Packet { len }))
            }
            Err(error) => Some(Err(error)),
        };
        if opened.last.is_some() {
            break;
        }
        opened.taken += 1;
        next = next_of(receiver, train);
    }
    if packets > 0 {
        common.received(packets, bytes, now);
    }

    opened
}

/// The length of the packet in `datagram`, 0 for a keepalive.
#[inline]
fn open_one<E: Engine>(
    engine: &mut E,
    datagram: &[u8],
    out: &mut [u8],
) -> Result<usize, OpenError> {
    if datagram.len() > MAX_DATAGRAM || out.len() < datagram.len() - 16 {
        return Err(OpenError::TooLarge);
    }
    if counter(datagram).is_none_or(|counter| counter >= REJECT_AFTER_MESSAGES) {
        return Err(OpenError::CounterExhausted);
    }
    let mut job = OpenJob::new(datagram, out);
    engine.open(std::slice::from_mut(&mut job));

    Ok(job.result?)
}

/// Takes the next datagram if it is a data message of the session `receiver`.
#[inline]
fn next_of<'d>(
    receiver: u32,
    train: &mut (impl Iterator<Item = &'d [u8]> + Clone),
) -> Option<&'d [u8]> {
    let mut ahead = train.clone();
    let next = ahead.next()?;
    if classify(next) != Ok(Inbound::Data { receiver }) {
        return None;
    }
    *train = ahead;

    Some(next)
}

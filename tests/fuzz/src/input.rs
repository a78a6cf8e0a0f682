//! Reads structured values off a string of bytes, front to back.
//!
//! Reading never fails: an exhausted input reads as zeros. Targets loop until [`Input::is_empty`], so every input ends.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// What is left of an input.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// The input of one run.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let len = N.min(self.rest.len());
        array[..len].copy_from_slice(&self.rest[..len]);
        self.rest = &self.rest[len..];
        array
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    /// A number below `limit`, which is 1 to 256.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.u8()) % limit
    }

    /// One bit, at the cost of a byte.
    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// The value, or nothing.
    pub fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| read(self))
    }

    /// One of several; `choices` is not empty and has at most 256 entries.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// A string of bytes with its length in front (two bytes); at most `max`, and at most what is left.
    pub fn bytes(&mut self, max: usize) -> &'a [u8] {
        let len = usize::from(self.u16()) % (max + 1);
        let (bytes, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// An address: one of a few that meet again, one with a meaning of its own, or any.
    pub fn ip(&mut self) -> IpAddr {
        match self.below(8) {
            0 | 1 => Ipv4Addr::new(203, 0, 113, self.u8() % 4).into(),
            2 | 3 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(self.u8() % 4)).into(),
            4 => self.pick(&SPECIAL_V4).into(),
            5 => self.pick(&SPECIAL_V6).into(),
            6 => Ipv4Addr::from(self.array::<4>()).into(),
            _ => Ipv6Addr::from(self.array::<16>()).into(),
        }
    }

    /// A socket address; the port may be 0.
    pub fn socket(&mut self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.u16())
    }

    /// A step of time, from nothing to more than an hour.
    pub fn duration(&mut self) -> Duration {
        let count = u64::from(self.u8());
        match self.below(4) {
            0 => Duration::from_millis(count),
            1 => Duration::from_millis(100 * count),
            2 => Duration::from_secs(count),
            _ => Duration::from_secs(20 * count),
        }
    }
}

/// Addresses at which policies decide.
const SPECIAL_V4: [Ipv4Addr; 8] = [
    Ipv4Addr::UNSPECIFIED,
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::BROADCAST,
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(100, 64, 0, 1),
    Ipv4Addr::new(100, 96, 0, 1),
];
/// Addresses at which policies decide.
const SPECIAL_V6: [Ipv6Addr; 8] = [
    Ipv6Addr::UNSPECIFIED,
    Ipv6Addr::LOCALHOST,
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1),
    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0x7f00, 1),
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_input_reads_as_zeros() {
        let mut input = Input::new(&[7]);
        assert_eq!(input.u16(), 0x0700);
        assert!(input.is_empty());
        assert_eq!(input.u32(), 0);
        assert_eq!(input.bytes(10), b"");
        assert_eq!(input.ip(), Ipv4Addr::new(203, 0, 113, 0));
    }

    #[test]
    fn strings_are_bounded_by_their_maximum_and_by_the_input() {
        let mut input = Input::new(&[0, 3, 1, 2, 3, 0, 9, 4]);
        assert_eq!(input.bytes(3), [1, 2, 3]);
        assert_eq!(input.bytes(100), [4]);
        assert_eq!(Input::new(&[0, 12]).bytes(10), b"");
    }
}

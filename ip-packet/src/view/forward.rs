//! The accessors of [`PacketRef`](crate::PacketRef) on the types that hold a packet otherwise.

/// Gives a type with a `view()` the accessors of [`PacketRef`].
macro_rules! forward_accessors {
    () => {
        $crate::view::forward_accessors! {
            /// See [`PacketRef::layout`](crate::PacketRef::layout).
            layout -> crate::Layout;
            /// See [`PacketRef::as_slice`](crate::PacketRef::as_slice).
            as_slice -> &[u8];
            /// See [`PacketRef::version`](crate::PacketRef::version).
            version -> crate::IpVersion;
            /// See [`PacketRef::source`](crate::PacketRef::source).
            source -> std::net::IpAddr;
            /// See [`PacketRef::destination`](crate::PacketRef::destination).
            destination -> std::net::IpAddr;
            /// See [`PacketRef::next_header`](crate::PacketRef::next_header).
            next_header -> u8;
            /// See [`PacketRef::hop_limit`](crate::PacketRef::hop_limit).
            hop_limit -> u8;
            /// See [`PacketRef::payload`](crate::PacketRef::payload).
            payload -> &[u8];
            /// See [`PacketRef::l4_payload`](crate::PacketRef::l4_payload).
            l4_payload -> &[u8];
            /// See [`PacketRef::header_len`](crate::PacketRef::header_len).
            header_len -> usize;
            /// See [`PacketRef::source_protocol`](crate::PacketRef::source_protocol).
            source_protocol -> Result<crate::Protocol, crate::UnsupportedProtocol>;
            /// See [`PacketRef::destination_protocol`](crate::PacketRef::destination_protocol).
            destination_protocol -> Result<crate::Protocol, crate::UnsupportedProtocol>;
            /// See [`PacketRef::as_tcp`](crate::PacketRef::as_tcp).
            as_tcp -> Option<crate::Tcp<'_>>;
            /// See [`PacketRef::as_udp`](crate::PacketRef::as_udp).
            as_udp -> Option<crate::Udp<'_>>;
            /// See [`PacketRef::as_icmpv4`](crate::PacketRef::as_icmpv4).
            as_icmpv4 -> Option<crate::Icmpv4<'_>>;
            /// See [`PacketRef::as_icmpv6`](crate::PacketRef::as_icmpv6).
            as_icmpv6 -> Option<crate::Icmpv6<'_>>;
            /// See [`PacketRef::icmp_error`](crate::PacketRef::icmp_error).
            icmp_error -> Option<crate::IcmpError<'_>>;
            /// See [`PacketRef::is_control`](crate::PacketRef::is_control).
            is_control -> bool;
            /// See [`PacketRef::as_control`](crate::PacketRef::as_control).
            as_control -> Option<crate::Control<'_>>;
            /// See [`PacketRef::ecn`](crate::PacketRef::ecn).
            ecn -> crate::Ecn;
            /// See [`PacketRef::has_valid_checksums`](crate::PacketRef::has_valid_checksums).
            has_valid_checksums -> bool;
        }
    };
    ($($(#[$doc:meta])* $name:ident -> $output:ty;)*) => {
        $($(#[$doc])*
        #[inline]
        pub fn $name(&self) -> $output {
            self.view().$name()
        })*
    };
}
pub(crate) use forward_accessors;

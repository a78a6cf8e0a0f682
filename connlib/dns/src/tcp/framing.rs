//! Length-prefixed messages in a byte stream (RFC 1035 §4.2.2).

//! Identities of peers and relays.

use std::fmt::{Debug, Display};
use std::hash::Hash;

/// An opaque identity of a peer or a relay, chosen by the layer above. Implemented by everything that can be one.
///
/// The order decides the order of events, so that equal inputs give equal outputs.
pub trait Id: Copy + Ord + Hash + Display + Debug {}

impl<T: Copy + Ord + Hash + Display + Debug> Id for T {}

//! An output of which only the newest value matters.
//!
//! The resource list and the TUN configuration are pushed to the app and to the operating system; each push is expensive
//! there (routes are diffed, DNS caches flushed). So at most one is pending, a newer one replaces it, and a value equal
//! to the one that was handed out last is never handed out again (tunnel spec 2, "Outputs").

/// Holds at most one undelivered value and suppresses repeats.
#[derive(Debug)]
pub(crate) struct Latest<T> {
    /// What the receiver believes.
    delivered: Option<T>,
    /// What it has to be told.
    pending: Option<T>,
}

impl<T: Clone + PartialEq> Latest<T> {
    pub(crate) fn new() -> Self {
        Self {
            delivered: None,
            pending: None,
        }
    }

    /// The newest value, delivered or not.
    pub(crate) fn current(&self) -> Option<&T> {
        self.pending.as_ref().or(self.delivered.as_ref())
    }

    /// Makes `value` the newest one. Returns whether it differs from the one before.
    pub(crate) fn set(&mut self, value: T) -> bool {
        if self.current() == Some(&value) {
            return false;
        }

        self.pending = (self.delivered.as_ref() != Some(&value)).then_some(value);

        true
    }

    /// Whether [`Latest::take`] would return a value.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Hands the pending value out.
    pub(crate) fn take(&mut self) -> Option<T> {
        let value = self.pending.take()?;
        self.delivered = Some(value.clone());

        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // tunnel 10
    #[test]
    fn tunnel_10_only_the_newest_value_is_delivered() {
        let mut latest = Latest::new();
        for i in 0..50 {
            assert!(latest.set(i));
        }
        assert_eq!(latest.take(), Some(49));
        assert_eq!(latest.take(), None);
    }

    #[test]
    fn returning_to_the_delivered_value_withdraws_the_pending_one() {
        let mut latest = Latest::new();
        latest.set(1);
        assert_eq!(latest.take(), Some(1));
        assert!(latest.set(2));
        assert!(latest.set(1));
        assert!(!latest.is_pending());
        assert_eq!(latest.current(), Some(&1));
    }

    #[test]
    fn equal_value_is_no_change() {
        let mut latest = Latest::new();
        latest.set("a");
        assert!(!latest.set("a"));
        latest.take();
        assert!(!latest.set("a"));
        assert_eq!(latest.take(), None);
    }
}

//! States of a connection and the moves between them.

use std::time::Instant;

use super::Path;
use crate::ice::Pair;

/// State with exactly the data that is valid in it.
pub(super) enum State<R> {
    /// ICE looks for a path.
    Connecting {
        /// When to give up unless the peer has signalled a candidate; `None` once it has.
        candidate_deadline: Option<Instant>,
        /// WireGuard's answers to handshakes that arrived before our own nomination.
        held: Vec<Vec<u8>>,
    },
    /// Packets flow, or did recently.
    Connected {
        path: Path<R>,
        last_activity: Instant,
    },
    /// Nothing was tunnelled for a while; the path is checked rarely.
    Idle { path: Path<R> },
}

/// What a nomination did.
pub(super) enum Nomination {
    /// It is the current path.
    Unchanged,
    /// There was no path before; `held` now leaves on it.
    First { held: Vec<Vec<u8>> },
    /// It replaced another path.
    Swapped,
}

impl<R> State<R> {
    pub(super) fn connecting(candidate_deadline: Instant) -> Self {
        Self::Connecting {
            candidate_deadline: Some(candidate_deadline),
            held: Vec::new(),
        }
    }

    pub(super) fn path(&self) -> Option<&Path<R>> {
        match self {
            Self::Connecting { .. } => None,
            Self::Connected { path, .. } | Self::Idle { path } => Some(path),
        }
    }

    /// Whether this pair is the path, or there is none yet.
    #[inline]
    pub(super) fn is_on_path(&self, pair: Pair) -> bool {
        self.path().is_none_or(|path| path.pair() == pair)
    }

    pub(super) fn candidate_deadline(&self) -> Option<Instant> {
        match self {
            Self::Connecting {
                candidate_deadline, ..
            } => *candidate_deadline,
            Self::Connected { .. } | Self::Idle { .. } => None,
        }
    }

    /// The peer has signalled a candidate.
    pub(super) fn candidate_arrived(&mut self) {
        if let Self::Connecting {
            candidate_deadline, ..
        } = self
        {
            *candidate_deadline = None;
        }
    }

    /// Takes a nominated path. An idle connection stays idle.
    pub(super) fn nominate(&mut self, new: Path<R>, now: Instant) -> Nomination {
        let pair = new.pair();
        match self {
            Self::Connecting { held, .. } => {
                let held = std::mem::take(held);
                *self = Self::Connected {
                    path: new,
                    last_activity: now,
                };
                Nomination::First { held }
            }
            Self::Connected { path, .. } | Self::Idle { path } if path.pair() == pair => {
                Nomination::Unchanged
            }
            Self::Connected { path, .. } | Self::Idle { path } => {
                *path = new;
                Nomination::Swapped
            }
        }
    }

    /// Connected to idle. Returns whether it was connected.
    pub(super) fn fall_asleep(&mut self) -> bool
    where
        R: Copy,
    {
        let Self::Connected { path, .. } = self else {
            return false;
        };
        *self = Self::Idle { path: *path };
        true
    }

    /// Notes activity. Returns whether the connection was idle.
    #[inline]
    pub(super) fn wake(&mut self, now: Instant) -> bool
    where
        R: Copy,
    {
        match self {
            Self::Connecting { .. } => false,
            Self::Connected { last_activity, .. } => {
                *last_activity = now;
                false
            }
            Self::Idle { path } => {
                *self = Self::Connected {
                    path: *path,
                    last_activity: now,
                };
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::connection::Route;

    fn path(remote: &str, since: Instant) -> Path<u8> {
        Path {
            route: Route::Direct {
                local: "10.0.0.1:1".parse().expect("address"),
            },
            remote: remote.parse().expect("address"),
            since,
        }
    }

    #[test]
    fn first_nomination_releases_what_was_held() {
        let now = Instant::now();
        let mut state = State::connecting(now);
        if let State::Connecting { held, .. } = &mut state {
            held.push(vec![2]);
        }
        let Nomination::First { held } = state.nominate(path("10.0.0.2:2", now), now) else {
            panic!("expected the first nomination");
        };
        assert_eq!(held, [vec![2]]);
        assert!(state.path().is_some());
    }

    #[test]
    fn snownet_31_nomination_swaps_the_path_of_an_idle_connection() {
        let now = Instant::now();
        let mut state = State::connecting(now);
        state.nominate(path("10.0.0.2:2", now), now);
        assert!(state.fall_asleep());
        let swapped = state.nominate(path("10.0.0.3:3", now), now);
        assert!(matches!(swapped, Nomination::Swapped));
        let State::Idle { path } = state else {
            panic!("stays idle");
        };
        assert_eq!(path.remote, "10.0.0.3:3".parse().expect("address"));
    }

    #[test]
    fn equal_nomination_changes_nothing() {
        let now = Instant::now();
        let mut state = State::connecting(now);
        state.nominate(path("10.0.0.2:2", now), now);
        let later = now + Duration::from_secs(1);
        let again = state.nominate(path("10.0.0.2:2", later), later);
        assert!(matches!(again, Nomination::Unchanged));
        assert_eq!(state.path().map(|p| p.since), Some(now));
    }

    #[test]
    fn waking_is_reported_once() {
        let now = Instant::now();
        let mut state = State::connecting(now);
        assert!(!state.wake(now));
        state.nominate(path("10.0.0.2:2", now), now);
        assert!(!state.wake(now));
        state.fall_asleep();
        assert!(state.wake(now));
        assert!(!state.wake(now));
    }
}

//! A1, in part: where NATs and firewalls allow a direct path, a connection has one (testing §5.3).

use std::time::Duration;

use connlib_tunnel::PathKind;

use super::Failure;

/// A connection may begin with a path by relay and has to find the direct one in this time: the checks of a few pairs one
/// after the other, over the slowest links.
const SEARCH: Duration = Duration::from_secs(15);

/// A failure if a connection that has existed long enough still takes a detour. To be asked only where no NAT requires it.
pub fn check(client: usize, paths: &[(PathKind, Duration)]) -> Option<Failure> {
    let is_detour = |(kind, age): &&(PathKind, Duration)| !kind.is_direct() && *age >= SEARCH;
    let (kind, age) = paths.iter().find(is_detour)?;
    let text =
        format!("client {client} has a path {kind:?} after {age:?}, and nothing requires a relay");
    Some(Failure::new(1, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detours_are_noticed_after_a_while() {
        let after = |seconds| Duration::from_secs(seconds);
        let early = [(PathKind::PeerToRelay, after(2))];
        assert_eq!(check(0, &early), None);
        let late = [
            (PathKind::PeerToPeer, after(60)),
            (PathKind::PeerToRelay, after(60)),
        ];
        assert_eq!(check(0, &late).map(|failure| failure.assertion), Some(1));
        assert_eq!(check(0, &late[..1]), None);
    }
}

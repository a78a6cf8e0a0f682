//! Which gateway serves a request (portal protocol §7.5).

use connlib_messages::FailureReason;
use connlib_model::GatewayId;
use rand::{Rng, seq::IndexedRandom as _};

use crate::{
    location::{Coordinates, distance},
    portal::ConnectionId,
    version::Version,
};

/// A gateway that is joined and in one of the resource's sites.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) connection: ConnectionId,
    pub(crate) id: GatewayId,
    pub(crate) version: Option<Version>,
    pub(crate) coordinates: Option<Coordinates>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) version: Option<Version>,
    pub(crate) coordinates: Option<Coordinates>,
    /// Gateways already in use, the preferred one first.
    pub(crate) connected: &'a [GatewayId],
}

/// The gateway: one already in use if there is one, then the nearest, then the newest version; among equals the
/// client's preference, else chance.
pub(crate) fn choose(
    mut candidates: Vec<Candidate>,
    wish: &Wish<'_>,
    rng: &mut impl Rng,
) -> Result<Candidate, FailureReason> {
    if candidates.is_empty() {
        return Err(FailureReason::Offline);
    }
    candidates.retain(|gateway| suits(gateway.version, wish.version));
    if candidates.is_empty() {
        return Err(FailureReason::VersionMismatch);
    }
    let preference = |gateway: &Candidate| wish.connected.iter().position(|id| *id == gateway.id);
    let in_use = candidates
        .iter()
        .any(|gateway| preference(gateway).is_some());
    if in_use {
        candidates.retain(|gateway| preference(gateway).is_some());
    }
    if let Some(place) = wish.coordinates {
        keep_best(&mut candidates, |gateway| {
            distance(place, gateway.coordinates)
        });
    }
    keep_best(&mut candidates, |gateway| {
        std::cmp::Reverse(gateway.version)
    });
    keep_best(&mut candidates, preference);
    let chosen = candidates.choose(rng);
    Ok(*chosen.expect("keeping the best keeps at least one"))
}

/// A component that does not say its version suits everybody.
fn suits(gateway: Option<Version>, client: Option<Version>) -> bool {
    match (gateway, client) {
        (Some(gateway), Some(client)) => gateway.serves(client),
        (None, _) | (_, None) => true,
    }
}

fn keep_best<K: Ord>(candidates: &mut Vec<Candidate>, key: impl Fn(&Candidate) -> K) {
    if let Some(best) = candidates.iter().map(&key).min() {
        candidates.retain(|candidate| key(candidate) == best);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn gateway(id: u128, version: &str, place: Option<&str>) -> Candidate {
        Candidate {
            connection: ConnectionId(id as u64),
            id: GatewayId::from_u128(id),
            version: Version::parse(version),
            coordinates: place.and_then(Coordinates::parse),
        }
    }

    fn pick(candidates: &[Candidate], wish: &Wish<'_>) -> Result<u128, FailureReason> {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        choose(candidates.to_vec(), wish, &mut rng).map(|gateway| gateway.id.as_u128())
    }

    fn anyone() -> Wish<'static> {
        Wish {
            version: Version::parse("1.5.0"),
            coordinates: None,
            connected: &[],
        }
    }

    // portal 94
    #[test]
    fn portal_94_connected_then_distance_then_version() {
        let all = [
            gateway(1, "1.5.0", Some("52.5,13.4")),
            gateway(2, "1.6.0", Some("52.5,13.4")),
            gateway(3, "1.6.0", Some("-33.9,151.2")),
            gateway(4, "1.6.9", None),
        ];
        assert_eq!(
            pick(&all, &anyone()),
            Ok(4),
            "newest when places are unknown"
        );
        let paris = Wish {
            coordinates: Coordinates::parse("48.9,2.4"),
            ..anyone()
        };
        assert_eq!(pick(&all, &paris), Ok(2), "nearest, then newest");
        let connected = [GatewayId::from_u128(3), GatewayId::from_u128(9)];
        let connected = Wish {
            connected: &connected,
            ..paris
        };
        assert_eq!(pick(&all, &connected), Ok(3), "in use beats near");
        let gone = [GatewayId::from_u128(9)];
        let gone = Wish {
            connected: &gone,
            ..paris
        };
        assert_eq!(pick(&all, &gone), Ok(2), "what is gone does not count");
    }

    #[test]
    fn preference_decides_among_equals() {
        let all = [gateway(1, "1.5.0", None), gateway(2, "1.5.0", None)];
        for order in [[1, 2], [2, 1]] {
            let connected = order.map(GatewayId::from_u128);
            let wish = Wish {
                connected: &connected,
                ..anyone()
            };
            assert_eq!(pick(&all, &wish), Ok(order[0]));
        }
    }

    #[test]
    fn chance_reaches_every_equal_gateway() {
        let all = [gateway(1, "1.5.0", None), gateway(2, "1.5.0", None)];
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let picked: std::collections::BTreeSet<_> = (0..50)
            .map(|_| choose(all.to_vec(), &anyone(), &mut rng).unwrap().id)
            .collect();
        assert_eq!(picked.len(), 2);
    }

    #[test]
    fn nobody_there_and_nobody_suitable() {
        assert_eq!(pick(&[], &anyone()), Err(FailureReason::Offline));
        let old = [gateway(1, "1.2.0", None)];
        assert_eq!(pick(&old, &anyone()), Err(FailureReason::VersionMismatch));
        let unknown = [gateway(1, "development", None)];
        assert_eq!(pick(&unknown, &anyone()), Ok(1));
    }
}

//! The link between a host and its edge: latency, loss, reordering, duplication, rate and a bounded queue.

use std::time::{Duration, Instant};

use rand::Rng;

/// Properties of a host's link, the same in both directions.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkConfig {
    /// One-way latency.
    pub latency: Duration,
    /// Probability that a packet is lost, 0.0 to 1.0, per direction.
    pub loss: f64,
    /// Probability that a packet is held up and overtaken by later ones, per direction.
    pub reordered: f64,
    /// How long a packet is held up.
    pub hold: Duration,
    /// Probability that a packet arrives at this host twice, the copy after `hold`.
    pub duplicated: f64,
    /// Rate in bits per second; `None` is unlimited.
    pub rate: Option<u64>,
    /// How long a packet may wait for the rate limit before it is dropped (tail drop).
    pub max_queue: Duration,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            loss: 0.0,
            reordered: 0.0,
            hold: Duration::from_millis(20),
            duplicated: 0.0,
            rate: None,
            max_queue: Duration::from_millis(100),
        }
    }
}

impl LinkConfig {
    /// Whether a packet happens to arrive twice.
    pub(crate) fn duplicates(&self, rng: &mut impl Rng) -> bool {
        happens(self.duplicated, rng)
    }
}

/// Draws nothing for what never happens, so that a perfect link leaves the sequence of random numbers alone.
fn happens(probability: f64, rng: &mut impl Rng) -> bool {
    probability > 0.0 && rng.random_bool(probability.min(1.0))
}

/// One direction of a link.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    busy_until: Option<Instant>,
}

impl Direction {
    /// When a packet of `size` bytes that enters at `now` leaves at the other end; `None`: it is lost.
    pub(crate) fn transit(
        &mut self,
        config: &LinkConfig,
        size: usize,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Instant> {
        if happens(config.loss, rng) {
            return None;
        }
        let latency = match happens(config.reordered, rng) {
            true => config.latency + config.hold,
            false => config.latency,
        };
        let Some(rate) = config.rate else {
            return Some(now + latency);
        };

        let start = self.busy_until.map_or(now, |busy| busy.max(now));
        if start.duration_since(now) > config.max_queue {
            return None;
        }
        let done = start + Duration::from_secs_f64(size as f64 * 8.0 / rate.max(1) as f64);
        self.busy_until = Some(done);
        Some(done + latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn rate_spaces_packets_and_drops_the_tail() {
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
        let now = Instant::now();
        let config = LinkConfig {
            rate: Some(8_000_000),
            max_queue: Duration::from_millis(2),
            ..LinkConfig::default()
        };
        let mut direction = Direction::default();

        let arrivals = (0..5)
            .map(|_| direction.transit(&config, 1000, now, &mut rng))
            .collect::<Vec<_>>();

        let at = |ms| Some(now + Duration::from_millis(ms));
        assert_eq!(arrivals, [at(1), at(2), at(3), None, None]);
    }

    #[test]
    fn loss_is_about_as_configured() {
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([2; 32]);
        let config = LinkConfig {
            loss: 0.05,
            ..LinkConfig::default()
        };
        let mut direction = Direction::default();
        let now = Instant::now();

        let lost = (0..10_000)
            .filter(|_| direction.transit(&config, 100, now, &mut rng).is_none())
            .count();

        assert!((400..600).contains(&lost), "{lost} of 10000 lost at 5 %");
    }
}

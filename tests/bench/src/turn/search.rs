//! The highest rate that a server forwards with (almost) no loss.

use anyhow::Result;

use crate::turn::load::{Outcome, Pace};

/// Rates that are tried at most, the flood not counted.
const MAX_STEPS: u32 = 9;
/// The search ends when the highest rate that passed and the lowest that did not are this close.
const PRECISION: f64 = 1.03;

/// Largest step upwards: what was delivered of a flood is a good guess.
const MAX_RISE: f64 = 1.25;

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found<T> {
    /// The measurement at the highest rate that passed, `None` if none did.
    pub(crate) best: Option<T>,
    /// The measurement with as much as the generator can send.
    pub(crate) flood: T,
    /// The server passed the flood, so the result says something about the generator.
    pub(crate) is_generator_limit: bool,
}

/// Floods, then halves the interval between what passed and what did not. A measurement passes if it lost at most
/// `max_loss_percent` and the generator kept the pace.
///
/// # Errors
///
/// Those of `measure`.
pub(crate) fn highest_rate<T: Copy>(
    max_loss_percent: f64,
    outcome: impl Fn(&T) -> &Outcome,
    mut measure: impl FnMut(Pace) -> Result<T>,
) -> Result<Found<T>> {
    let passes = |measured: &T| {
        let totals = &outcome(measured).totals;
        totals.received > 0 && totals.loss_percent() <= max_loss_percent
    };
    let flood = measure(Pace::Flood)?;
    if passes(&flood) {
        return Ok(Found {
            best: Some(flood),
            flood,
            is_generator_limit: true,
        });
    }
    let mut best = None;
    let mut low = 0.0;
    let mut high = outcome(&flood).offered_pps();
    // A server under too much load may deliver more or less than it can without loss.
    let mut rate = outcome(&flood).delivered_pps().min(high * 0.97).max(1.0);
    for _ in 0..MAX_STEPS {
        let measured = measure(Pace::Rate(rate))?;
        if passes(&measured) && outcome(&measured).is_on_pace() {
            low = rate;
            best = Some(measured);
        } else {
            high = rate;
        }
        if high <= low * PRECISION {
            break;
        }
        rate = match low > 0.0 {
            true => (low * high).sqrt().min(low * MAX_RISE),
            false => high * 0.7,
        };
    }
    Ok(Found {
        best,
        flood,
        is_generator_limit: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::tally::Totals;

    /// A server that forwards so much and drops the rest, loaded for a second by a generator that can do so much.
    fn server(capacity: f64, generator: f64) -> impl FnMut(Pace) -> Result<Outcome> {
        move |pace| {
            let offered = match pace {
                Pace::Flood => generator,
                Pace::Rate(rate) => rate.min(generator),
            };
            Ok(Outcome {
                seconds: 1.0,
                totals: Totals {
                    sent: offered as u64,
                    received: offered.min(capacity) as u64,
                    late: 0,
                    strange: 0,
                    worst_loss_percent: 0.0,
                    latency: None,
                },
                quiet: None,
                skipped: 0,
                refreshes: None,
            })
        }
    }

    #[test]
    fn the_limit_is_found() {
        for capacity in [3_000.0, 163_000.0, 1_700_000.0] {
            let found = highest_rate(0.1, |o| o, server(capacity, 2_000_000.0)).unwrap();
            let best = found.best.unwrap().delivered_pps();
            assert!((0.96..=1.002).contains(&(best / capacity)), "{best}");
            assert!(!found.is_generator_limit);
        }
    }

    #[test]
    fn a_server_faster_than_the_generator_is_said_to_be() {
        let found = highest_rate(0.1, |o| o, server(2e6, 1e6)).unwrap();
        assert!(found.is_generator_limit);
    }

    #[test]
    fn a_server_that_forwards_nothing_has_no_rate() {
        let found = highest_rate(0.1, |o| o, server(0.0, 1e6)).unwrap();
        assert_eq!(found.best, None);
    }
}

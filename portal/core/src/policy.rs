//! Conditions of a policy, and time windows (portal protocol §7.5, §7.6).

use std::{collections::BTreeSet, net::IpAddr};

use connlib_messages::ViolatedProperty;
use ipnet::IpNet;

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
/// The Unix epoch was a Thursday; weekdays count from Monday.
const EPOCH_WEEKDAY: i64 = 3;

/// What must hold for a policy to grant access. Empty lists ask for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// The client's address lies in one of these.
    pub remote_ip: Vec<IpNet>,
    /// The client's country (ISO 3166-1 alpha-2) is one of these.
    pub regions: Vec<String>,
    /// The time lies in one of these.
    pub times: Vec<TimeWindow>,
    /// An administrator verified the device.
    pub verified: bool,
}

/// What conditions look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circumstances<'a> {
    /// The client's address as the portal sees it.
    pub remote_ip: IpAddr,
    /// The client's country, if known.
    pub region: Option<&'a str>,
    /// Whether an administrator verified the device.
    pub verified: bool,
    /// Unix seconds.
    pub unix: u64,
}

/// Whether a policy grants access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, until its current time window ends (Unix seconds); `None` without time windows.
    Granted(Option<u64>),
    /// No, because of these.
    Violated(BTreeSet<ViolatedProperty>),
}

impl Conditions {
    /// Whether all conditions hold.
    pub fn evaluate(&self, circumstances: &Circumstances<'_>) -> Verdict {
        let mut violated = BTreeSet::new();
        let ip = circumstances.remote_ip;
        if !self.remote_ip.is_empty() && !self.remote_ip.iter().any(|net| net.contains(&ip)) {
            violated.insert(ViolatedProperty::RemoteIp);
        }
        let in_region = |region: &String| circumstances.region == Some(region.as_str());
        if !self.regions.is_empty() && !self.regions.iter().any(in_region) {
            violated.insert(ViolatedProperty::RemoteIpLocationRegion);
        }
        if self.verified && !circumstances.verified {
            violated.insert(ViolatedProperty::ClientVerified);
        }
        let ends = self
            .times
            .iter()
            .filter_map(|w| w.end_if_within(circumstances.unix));
        let end = ends.max();
        if !self.times.is_empty() && end.is_none() {
            violated.insert(ViolatedProperty::CurrentUtcDatetime);
        }
        if violated.is_empty() {
            Verdict::Granted(end)
        } else {
            Verdict::Violated(violated)
        }
    }

    /// When the verdict may change by itself: the next start or end of a time window after `unix`.
    pub fn next_change(&self, unix: u64) -> Option<u64> {
        self.times.iter().map(|window| window.next_edge(unix)).min()
    }
}

/// A time of day on some days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    /// Bit 0 is Monday, bit 6 is Sunday.
    days: u8,
    /// Minutes since midnight.
    start: u16,
    /// Minutes since midnight, later than `start`, at most 1440.
    end: u16,
    /// Seconds east of UTC.
    offset: i32,
}

impl TimeWindow {
    /// A window from `start` to `end` (minutes since local midnight, `end` up to 1440 and not included) on some days
    /// (0 is Monday) at a fixed offset from UTC in seconds. `None` when it would be empty or out of range.
    pub fn new(
        days: impl IntoIterator<Item = u8>,
        start: u16,
        end: u16,
        offset: i32,
    ) -> Option<Self> {
        let days = days
            .into_iter()
            .map(|day| (day < 7).then(|| 1 << day))
            .try_fold(0, |all, bit| bit.map(|bit: u8| all | bit))?;
        let valid = days != 0 && start < end && end <= 24 * 60 && offset.abs() <= 14 * 3600;
        valid.then_some(Self {
            days,
            start,
            end,
            offset,
        })
    }

    /// The end of the window that contains `unix`.
    fn end_if_within(&self, unix: u64) -> Option<u64> {
        let (local, midnight) = self.local(unix);
        let weekday = (local.div_euclid(DAY) + EPOCH_WEEKDAY).rem_euclid(7);
        let today = self.days & (1 << weekday) != 0;
        let since = local - midnight;
        let within = today && self.start() <= since && since < self.end();
        within.then(|| self.utc(midnight + self.end()))
    }

    /// The first start or end after `unix`.
    fn next_edge(&self, unix: u64) -> u64 {
        let (_, midnight) = self.local(unix);
        let days = (0..=WEEK / DAY).map(|day| midnight + day * DAY);
        days.filter(|midnight| {
            let weekday = (midnight.div_euclid(DAY) + EPOCH_WEEKDAY).rem_euclid(7);
            self.days & (1 << weekday) != 0
        })
        .flat_map(|midnight| [midnight + self.start(), midnight + self.end()])
        .map(|edge| self.utc(edge))
        .find(|edge| *edge > unix)
        .expect("a window has at least one day, so an edge within a week")
    }

    /// Local time and its midnight, as seconds since the epoch.
    fn local(&self, unix: u64) -> (i64, i64) {
        let local = unix as i64 + i64::from(self.offset);
        (local, local - local.rem_euclid(DAY))
    }

    fn utc(&self, local: i64) -> u64 {
        u64::try_from(local - i64::from(self.offset)).unwrap_or(0)
    }

    fn start(&self) -> i64 {
        i64::from(self.start) * MINUTE
    }

    fn end(&self) -> i64 {
        i64::from(self.end) * MINUTE
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Monday 2026-01-05, 00:00 UTC.
    const MONDAY: u64 = 1_767_571_200;
    const HOUR: u64 = 3600;

    fn at(unix: u64) -> Circumstances<'static> {
        Circumstances {
            remote_ip: "198.51.100.7".parse().unwrap(),
            region: Some("DE"),
            verified: false,
            unix,
        }
    }

    fn office_hours() -> TimeWindow {
        TimeWindow::new(0..5, 9 * 60, 17 * 60, 0).unwrap()
    }

    #[test]
    fn no_conditions_grant_for_ever() {
        assert_eq!(
            Conditions::default().evaluate(&at(0)),
            Verdict::Granted(None)
        );
        assert_eq!(Conditions::default().next_change(0), None);
    }

    #[test]
    fn time_window_ends_at_its_end() {
        let conditions = Conditions {
            times: vec![office_hours()],
            ..Conditions::default()
        };
        let within = conditions.evaluate(&at(MONDAY + 10 * HOUR));
        assert_eq!(within, Verdict::Granted(Some(MONDAY + 17 * HOUR)));
        let violated = Verdict::Violated([ViolatedProperty::CurrentUtcDatetime].into());
        assert_eq!(conditions.evaluate(&at(MONDAY + 17 * HOUR)), violated);
        assert_eq!(conditions.evaluate(&at(MONDAY + 8 * HOUR)), violated);
        assert_eq!(
            conditions.evaluate(&at(MONDAY + 5 * 24 * HOUR + 10 * HOUR)),
            violated
        );
        assert_eq!(conditions.next_change(MONDAY), Some(MONDAY + 9 * HOUR));
        let friday_evening = MONDAY + 4 * 24 * HOUR + 17 * HOUR;
        assert_eq!(
            conditions.next_change(friday_evening),
            Some(MONDAY + 7 * 24 * HOUR + 9 * HOUR)
        );
    }

    #[test]
    fn offset_moves_the_window_over_midnight() {
        let window = TimeWindow::new([0], 0, 60, 2 * 3600).unwrap();
        assert_eq!(window.end_if_within(MONDAY - 2 * HOUR), Some(MONDAY - HOUR));
        assert_eq!(window.end_if_within(MONDAY - HOUR), None);
        assert_eq!(window.end_if_within(MONDAY), None);
    }

    #[test]
    fn every_violated_property_is_named() {
        let conditions = Conditions {
            remote_ip: vec!["10.0.0.0/8".parse().unwrap()],
            regions: vec!["FR".to_owned()],
            times: vec![office_hours()],
            verified: true,
        };
        let Verdict::Violated(violated) = conditions.evaluate(&at(MONDAY)) else {
            panic!("granted");
        };
        assert_eq!(violated.len(), 4);
    }

    #[test]
    fn empty_windows_are_refused() {
        assert!(TimeWindow::new([], 0, 60, 0).is_none());
        assert!(TimeWindow::new([7], 0, 60, 0).is_none());
        assert!(TimeWindow::new([1], 60, 60, 0).is_none());
        assert!(TimeWindow::new([1], 0, 1441, 0).is_none());
        assert!(TimeWindow::new([1], 0, 60, 15 * 3600).is_none());
    }

    proptest! {
        #[test]
        fn verdict_is_constant_between_changes(
            days in prop::collection::vec(0u8..7, 1..4), start in 0u16..1439, len in 1u16..600,
            offset in -12i32..=14, unix in 0u64..4_000_000_000,
        ) {
            let end = (start + len).min(1440);
            let window = TimeWindow::new(days, start, end, offset * 3600).unwrap();
            let edge = window.next_edge(unix);
            prop_assert!(edge > unix && edge <= unix + 8 * DAY as u64);
            prop_assert_eq!(window.end_if_within(unix), window.end_if_within(edge - 1));
            if let Some(end) = window.end_if_within(unix) {
                prop_assert_eq!(end, edge);
            }
        }
    }
}

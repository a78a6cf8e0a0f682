//! Times as they are written: time windows such as `Mon-Fri 09:00-17:00 +01:00`, and the ends of tokens.

use portal_core::TimeWindow;
use toml::value::{Date, Datetime, Offset};

/// What to write instead of something that is no time window.
pub(super) const EXAMPLES: &str = r#"Write days, hours and offset from UTC, such as "Mon-Fri 09:00-17:00 +01:00" or "Sat,Sun 00:00-24:00"."#;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// One letter per day, as portals store them.
const LETTERS: &str = "mtwrfsu";

/// Reads a time window; `None` when it is none. Without an offset it is UTC.
pub(super) fn parse_window(text: &str) -> Option<TimeWindow> {
    let mut words = text.split_whitespace();
    let days = parse_days(words.next()?)?;
    let (start, end) = words.next()?.split_once('-')?;
    let offset = words.next().map_or(Some(0), parse_offset)?;
    if words.next().is_some() {
        return None;
    }
    TimeWindow::new(days, parse_clock(start)?, parse_clock(end)?, offset)
}

fn parse_days(text: &str) -> Option<Vec<u8>> {
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (parse_day(first)?, parse_day(last)?);
        if first > last {
            return None;
        }
        days.extend(first..=last);
    }
    Some(days)
}

fn parse_day(text: &str) -> Option<u8> {
    let text = text.to_ascii_lowercase();
    let by_name = DAYS.iter().position(|day| *day == text);
    let by_letter = || (text.len() == 1).then(|| LETTERS.find(&text)).flatten();
    by_name
        .or_else(by_letter)
        .and_then(|day| u8::try_from(day).ok())
}

/// `HH:MM` as minutes since midnight; 24:00 is the end of the day.
fn parse_clock(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && total <= 24 * 60).then_some(total)
}

fn parse_offset(text: &str) -> Option<i32> {
    if text.eq_ignore_ascii_case("utc") {
        return Some(0);
    }
    let (sign, clock) = match text.strip_prefix('-') {
        Some(clock) => (-1, clock),
        None => (1, text.strip_prefix('+')?),
    };
    Some(sign * i32::from(parse_clock(clock)?) * 60)
}

/// A TOML date, or date and time, as Unix seconds. A date alone is its end; without an offset it is UTC.
pub(crate) fn unix_seconds(datetime: &Datetime) -> Option<u64> {
    let date = datetime.date?;
    let seconds = match datetime.time {
        Some(time) => {
            let minutes = i64::from(time.hour) * 60 + i64::from(time.minute);
            minutes * 60 + i64::from(time.second.unwrap_or(0))
        }
        None => 86_400,
    };
    let offset = match datetime.offset {
        Some(Offset::Custom { minutes }) => i64::from(minutes) * 60,
        Some(Offset::Z) | None => 0,
    };
    u64::try_from(days_since_epoch(date) * 86_400 + seconds - offset).ok()
}

/// Days from 1970-01-01 in the Gregorian calendar. Years start in March here, so that the leap day is a year's last.
fn days_since_epoch(date: Date) -> i64 {
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719 468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        let office = TimeWindow::new(0..5, 540, 1020, 3600);
        assert_eq!(parse_window("Mon-Fri 09:00-17:00 +01:00"), office);
        assert_eq!(parse_window("m,t,w,r,f 9:00-17:00 +01:00"), office);
        let west = TimeWindow::new([5, 6], 0, 1440, -16_200);
        assert_eq!(parse_window("sat,SUN 00:00-24:00 -04:30"), west);
        assert!(parse_window("Mon 00:00-01:00 UTC").is_some());
        for bad in [
            "",
            "Mon",
            "Mon 9-17",
            "Mon 17:00-09:00",
            "Mon 09:00-25:00",
            "Mon 09:60-10:00",
            "Fri-Mon 09:00-17:00",
            "Xyz 09:00-17:00",
            "Mon 09:00-17:00 Berlin",
            "Mon 09:00-17:00 UTC again",
        ] {
            assert_eq!(parse_window(bad), None, "{bad}");
        }
    }

    #[test]
    fn ends_of_tokens() {
        let unix = |text: &str| unix_seconds(&text.parse().unwrap());
        assert_eq!(unix("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix("2026-01-01T00:00:00Z"), Some(1_767_225_600));
        assert_eq!(unix("2026-01-01T01:00:00+01:00"), Some(1_767_225_600));
        assert_eq!(unix("2025-12-31"), Some(1_767_225_600));
        assert_eq!(unix("2024-02-29T00:00:00"), Some(1_709_164_800));
        assert_eq!(unix("2000-03-01T00:00:00Z"), Some(951_868_800));
        assert_eq!(unix("12:00:00"), None);
        assert_eq!(unix("1969-12-30"), None);
    }
}

//! UTC time as text, in the three shapes that logs use.

use time::OffsetDateTime;

/// `2026-01-05T10:11:12.345Z`
pub(crate) fn milliseconds(t: OffsetDateTime) -> String {
    format!("{}.{:03}Z", seconds(t), t.millisecond())
}

/// `2026-01-05T10:11:12.345678901Z`, without trailing zeros.
pub(crate) fn full(t: OffsetDateTime) -> String {
    let digits = format!("{:09}", t.nanosecond());
    match digits.trim_end_matches('0') {
        "" => format!("{}Z", seconds(t)),
        digits => format!("{}.{digits}Z", seconds(t)),
    }
}

/// `2026-01-05-10-11-12`, fit for file names and sortable.
pub(crate) fn file_stamp(t: OffsetDateTime) -> String {
    let (year, month, day) = t.to_calendar_date();
    let (hour, minute, second) = t.to_hms();
    format!(
        "{year:04}-{:02}-{day:02}-{hour:02}-{minute:02}-{second:02}",
        u8::from(month)
    )
}

fn seconds(t: OffsetDateTime) -> String {
    let (year, month, day) = t.to_calendar_date();
    let (hour, minute, second) = t.to_hms();
    format!(
        "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}",
        u8::from(month)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let t = OffsetDateTime::from_unix_timestamp_nanos(1_767_607_872_345_678_900).unwrap();
        assert_eq!(milliseconds(t), "2026-01-05T10:11:12.345Z");
        assert_eq!(full(t), "2026-01-05T10:11:12.3456789Z");
        assert_eq!(file_stamp(t), "2026-01-05-10-11-12");
        assert_eq!(full(OffsetDateTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
    }
}

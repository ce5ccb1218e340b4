//! Timestamps of records, and their text form. Nothing here reads a clock.

/// Milliseconds since the Unix epoch, as in the timestamps of records.
pub type TimestampMs = i64;

/// A timestamp as RFC 3339 text in UTC with milliseconds.
#[must_use]
pub fn rfc3339(time_ms: TimestampMs) -> String {
    match jiff::Timestamp::from_millisecond(time_ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{:.3}", jiff::Timestamp::UNIX_EPOCH),
    }
}

/// RFC 3339 text as a timestamp; `None` if the text is malformed.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<TimestampMs> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_round_trips_through_text() {
        assert_eq!(rfc3339(1_790_000_000_123), "2026-09-21T14:13:20.123Z");
        assert_eq!(parse_rfc3339(&rfc3339(1_790_000_000_123)), Some(1_790_000_000_123));
        assert_eq!(parse_rfc3339("2026-09-21T16:13:20.123+02:00"), Some(1_790_000_000_123));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn a_time_outside_the_calendar_does_not_panic() {
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00.000Z");
    }
}

//! The wall clock, read at edges only. Deciders and folds never see it: their time is the record's.

use crate::decider::TimestampMs;

/// Now, in milliseconds since the Unix epoch; zero on a clock before it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn now_ms() -> TimestampMs {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A timestamp as RFC 3339 text in UTC with milliseconds.
#[must_use]
pub fn rfc3339(time_ms: TimestampMs) -> String {
    match jiff::Timestamp::from_millisecond(time_ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{:.3}", jiff::Timestamp::UNIX_EPOCH),
    }
}

/// RFC 3339 text as a timestamp; `None` if it is not one.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<TimestampMs> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_goes_to_text_and_back() {
        assert_eq!(rfc3339(1_790_000_000_123), "2026-09-21T14:13:20.123Z");
        assert_eq!(parse_rfc3339(&rfc3339(1_790_000_000_123)), Some(1_790_000_000_123));
        assert_eq!(parse_rfc3339("2026-09-21T16:13:20.123+02:00"), Some(1_790_000_000_123));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn a_time_outside_the_calendar_is_no_panic() {
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00.000Z");
    }
}

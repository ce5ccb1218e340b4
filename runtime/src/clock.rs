//! The wall clock. Deciders and folds never read it: their time is the record's.

pub use runtime_core::time::{TimestampMs, parse_rfc3339, rfc3339};

/// Now, in milliseconds since the Unix epoch; zero if the clock shows an earlier time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn now_ms() -> TimestampMs {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

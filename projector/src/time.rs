//! How the projector writes a point in time: RFC 3339 with milliseconds, the same in replies, lists and canonical forms.

/// A timestamp in milliseconds since the epoch, as RFC 3339.
pub(crate) fn rfc3339(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| format!("{at:.3}"))
}

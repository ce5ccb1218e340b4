//! The subscribed topics: the only part of a consumer's opaque metadata that the broker reads.

use bytes::Bytes;

/// Bytes of the version, which the topics follow.
const VERSION_LEN: usize = 2;

/// The topics in a consumer's subscription; none if the metadata has another format.
///
/// Every version starts with the topics. They are read here and not by the codec, which would also read what later versions added
/// and reserve memory for whatever number of items is announced there.
pub(super) fn topics(metadata: &Bytes) -> Vec<String> {
    metadata.get(VERSION_LEN..).and_then(listed).unwrap_or_default()
}

fn listed(bytes: &[u8]) -> Option<Vec<String>> {
    let (count, mut rest) = bytes.split_first_chunk()?;
    let mut topics = Vec::new();
    for _ in 0..i32::from_be_bytes(*count) {
        let (length, text) = rest.split_first_chunk()?;
        let (name, after) = text.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        topics.push(std::str::from_utf8(name).ok()?.to_owned());
        rest = after;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(version: i16, count: i32, rest: &[u8]) -> Bytes {
        [&version.to_be_bytes()[..], &count.to_be_bytes(), rest].concat().into()
    }

    #[test]
    fn topics_are_read_in_every_version() {
        for version in [0, 1, 3, 99] {
            assert_eq!(topics(&metadata(version, 2, b"\0\x01a\0\x02bc\xff\xff\xff\xff")), ["a", "bc"]);
        }
    }

    #[test]
    fn impossible_counts_reserve_no_memory() {
        assert!(topics(&metadata(0, i32::MAX, b"\0\x01a")).is_empty());
        assert!(topics(&metadata(0, -1, b"")).is_empty());
        // No topics, no user data, and two thousand million owned partitions.
        assert!(topics(&metadata(1, 0, b"\xff\xff\xff\xff\x7f\xff\xff\xff")).is_empty());
        assert!(topics(&Bytes::from_static(b"\0")).is_empty());
    }
}

//! The one thing the broker reads in a consumer's opaque metadata: the topics it subscribes to.

use bytes::Bytes;
use kafka_protocol::messages::ConsumerProtocolSubscription;
use kafka_protocol::protocol::{Decodable, Message};

/// Topics named in a consumer's subscription; none when the metadata is of another kind.
pub(super) fn topics(metadata: &Bytes) -> Vec<String> {
    let Some(version) = metadata.first_chunk::<2>().map(|bytes| i16::from_be_bytes(*bytes)) else {
        return Vec::new();
    };
    // Every later version begins with the fields of the earlier ones.
    let version = version.clamp(0, ConsumerProtocolSubscription::VERSIONS.max);
    let mut body = metadata.slice(2..);
    let Some(count) = body.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)) else {
        return Vec::new();
    };
    // A count that cannot be true would cost memory before it is found out.
    if usize::try_from(count).is_ok_and(|count| count > body.len()) {
        return Vec::new();
    }
    ConsumerProtocolSubscription::decode(&mut body, version)
        .map(|subscription| subscription.topics.iter().map(|topic| topic.to_string()).collect())
        .unwrap_or_default()
}

//! The subscribed topics: the only part of a consumer's opaque metadata that the broker reads.

use bytes::Bytes;
use kafka_protocol::messages::ConsumerProtocolSubscription;
use kafka_protocol::protocol::{Decodable, Message};

/// The topics in a consumer's subscription; none if the metadata has another format.
pub(super) fn topics(metadata: &Bytes) -> Vec<String> {
    let Some(version) = metadata.first_chunk::<2>().map(|bytes| i16::from_be_bytes(*bytes)) else {
        return Vec::new();
    };
    // Every version starts with the fields of the earlier versions.
    let version = version.clamp(0, ConsumerProtocolSubscription::VERSIONS.max);
    let mut body = metadata.slice(2..);
    let Some(count) = body.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)) else {
        return Vec::new();
    };
    // The codec reserves memory for the count before it reads the items: an impossible count is rejected here.
    if usize::try_from(count).is_ok_and(|count| count > body.len()) {
        return Vec::new();
    }
    ConsumerProtocolSubscription::decode(&mut body, version)
        .map(|subscription| subscription.topics.iter().map(|topic| topic.to_string()).collect())
        .unwrap_or_default()
}

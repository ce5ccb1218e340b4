//! Envelopes as librdkafka's headers, and librdkafka's messages as records of the core.

use rdkafka::message::{BorrowedHeaders, Header, Headers, Message, OwnedHeaders};

use crate::{
    core::{OutputHeaders, Record},
    envelope::{Envelope, EnvelopeError, RecordMetadata},
};

/// The headers of a record with this envelope.
#[must_use]
pub fn to_headers(envelope: &Envelope) -> OwnedHeaders {
    const MAX_HEADERS: usize = 14;
    let mut headers = Some(OwnedHeaders::new_with_capacity(MAX_HEADERS));
    envelope.for_each_header(|key, value| {
        headers = headers.take().map(|so_far| so_far.insert(Header { key, value: Some(value) }));
    });
    headers.unwrap_or_default()
}

/// The headers of one output of a batch.
#[must_use]
pub fn of_output(headers: &OutputHeaders) -> OwnedHeaders {
    match headers {
        OutputHeaders::Envelope(envelope) => to_headers(envelope),
        OutputHeaders::Verbatim(headers) => {
            let owned = OwnedHeaders::new_with_capacity(headers.len());
            headers.iter().fold(owned, |so_far, (key, value)| so_far.insert(Header { key, value: value.as_deref() }))
        }
    }
}

/// Reads the envelope of a message from librdkafka.
///
/// # Errors
/// A header is malformed.
pub fn envelope_of(metadata: RecordMetadata<'_>, headers: Option<&BorrowedHeaders>) -> Result<Envelope, EnvelopeError> {
    Envelope::read(metadata, headers.into_iter().flat_map(Headers::iter).map(|header| (header.key, header.value)))
}

/// Passes a client's message to `take` as a record of the core.
pub fn with_record<M: Message, T>(message: &M, take: impl FnOnce(&Record<'_>) -> T) -> T {
    let headers: Vec<(&str, Option<&[u8]>)> = message
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key, header.value)).collect())
        .unwrap_or_default();
    take(&Record {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key(),
        value: message.payload(),
        headers: &headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::derived_id;

    #[test]
    fn an_envelope_round_trips_through_headers() {
        let metadata =
            RecordMetadata { topic: "t", partition: 3, offset: 42, timestamp_ms: 1_000, key: Some("order-1") };
        let envelope =
            Envelope::new(derived_id(&["id"]), "/musiccorp/payment", "com.musiccorp.payment.PaymentTaken", 5)
                .about("order-1")
                .correlated("order-1");
        let headers = to_headers(&envelope);
        assert_eq!(envelope_of(metadata, Some(headers.as_borrowed())), Ok(envelope));
        assert_eq!(envelope_of(metadata, None).map(|read| read.subject), Ok("order-1".to_owned()));
    }
}

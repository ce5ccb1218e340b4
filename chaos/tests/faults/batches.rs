//! Reads a partition batch by batch, with the producer of each batch. Client libraries show records only.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        BrokerId, FetchRequest, FetchResponse, RequestHeader, ResponseHeader, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
    records::RecordBatchDecoder,
};

/// The last version of Fetch that names topics instead of ids.
const FETCH: i16 = 12;
const READ_COMMITTED: i8 = 1;
const MOST_BYTES: i32 = 32 << 20;

/// A batch that is visible to a `read_committed` reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) offset: i64,
    pub(crate) producer: i64,
    pub(crate) is_transactional: bool,
}

/// The visible batches of partition 0 from an offset on.
pub(crate) fn read(kafka: SocketAddr, topic: &str, from: i64) -> Vec<Batch> {
    let mut client = FetchClient::connect(kafka);
    let (mut shown, mut next) = (Vec::new(), from);
    loop {
        let (batches, reached) = client.fetch(topic, next);
        if reached == next {
            return shown;
        }
        shown.extend(batches);
        next = reached;
    }
}

struct FetchClient(TcpStream);

impl FetchClient {
    fn connect(kafka: SocketAddr) -> Self {
        let stream = TcpStream::connect(kafka).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    /// The batches of one response that were not aborted, and the offset that follows.
    fn fetch(&mut self, topic: &str, from: i64) -> (Vec<Batch>, i64) {
        let partition = FetchPartition::default()
            .with_current_leader_epoch(-1)
            .with_fetch_offset(from)
            .with_partition_max_bytes(MOST_BYTES);
        let of_topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(0)
            .with_min_bytes(0)
            .with_max_bytes(MOST_BYTES)
            .with_isolation_level(READ_COMMITTED)
            .with_session_epoch(-1)
            .with_topics(vec![of_topic]);
        let response: FetchResponse = self.call(FETCH, &request);
        let response = &response.responses[0].partitions[0];
        assert_eq!(response.error_code, 0, "fetching {topic} from {from}");
        let mut records = response.records.clone().unwrap_or_default();
        let mut aborted = response.aborted_transactions.clone().unwrap_or_default();
        let (mut shown, mut next) = (Vec::new(), from);
        for batch in RecordBatchDecoder::decode_batch_info(&mut records).unwrap() {
            // The topics of this test are not compacted, so a batch has as many offsets as records.
            next = next.max(batch.min_offset + i64::from(batch.record_count));
            let of_this = aborted.iter().position(|transaction| {
                transaction.producer_id.0 == batch.producer_id && transaction.first_offset <= batch.min_offset
            });
            match of_this {
                // A marker ends this transaction of the producer; its next one is independent.
                Some(ended) if batch.control => drop(aborted.remove(ended)),
                Some(_) => {}
                None if batch.control => {}
                None => shown.push(Batch {
                    offset: batch.min_offset,
                    producer: batch.producer_id,
                    is_transactional: batch.transactional,
                }),
            }
        }
        (shown, next)
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let mut body = BytesMut::new();
        let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version);
        header.encode(&mut body, R::header_version(version)).unwrap();
        request.encode(&mut body, version).unwrap();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        self.0.write_all(&[&length[..], &body].concat()).unwrap();
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut response = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut response).unwrap();
        let mut response = Bytes::from(response);
        ResponseHeader::decode(&mut response, R::Response::header_version(version)).unwrap();
        R::Response::decode(&mut response, version).unwrap()
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

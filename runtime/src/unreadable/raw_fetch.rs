//! One fetch request on the wire: what a client library does not hand out, because it cannot open it.
//!
//! A client library reports a batch that it cannot decompress as an error without bytes. This connection returns the batch as the
//! broker stores it. It asks for one partition at a time and is used only for partitions that do not advance.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        BrokerId, FetchRequest, MetadataRequest, RequestHeader, ResponseHeader, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

/// The versions of the requests: the newest that name topics by name. Brokers from Kafka 2.1 to 4.x take them.
const METADATA_VERSION: i16 = 5;
const FETCH_VERSION: i16 = 11;
/// How many bytes of batches one fetch asks for. A broker returns the first batch whole, whatever its size.
const FETCH_BYTES: i32 = 64 << 10;
/// The largest response that is read into memory. A topic takes batches of 1 MiB unless its settings say otherwise.
const RESPONSE_BYTES_MAX: usize = 128 << 20;
/// Kafka's code for an offset that the partition does not have.
const OFFSET_OUT_OF_RANGE: i16 = 1;
/// Kafka's code for a reader of committed records.
const READ_COMMITTED: i8 = 1;

/// Why a batch could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum RawFetchError {
    #[error("{0} is not an address")]
    Address(String),
    #[error("no broker of {bootstrap} answers: {source}")]
    Io { bootstrap: String, source: std::io::Error },
    #[error("a response cannot be understood: {0}")]
    Malformed(String),
    #[error("{topic}/{partition} has no leader")]
    NoLeader { topic: String, partition: i32 },
    #[error("the broker refuses to read {topic}/{partition} at {offset}: error {code}")]
    Refused { topic: String, partition: i32, offset: i64, code: i16 },
}

/// What a partition holds from an offset on.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    /// Whole batches, as stored; the last one may be cut off.
    pub(super) batches: Bytes,
    /// The end of the partition, with uncommitted records.
    pub(super) end: i64,
    /// The aborted transactions among them: the producer, and the offset of its first record.
    pub(super) aborted: Vec<(i64, i64)>,
}

/// Fetches the batches of a partition from `offset` on, up to its last stable offset. An offset before the first record counts as
/// that of the first record.
///
/// # Errors
/// [`RawFetchError`].
pub(super) fn fetch(
    bootstrap: &str,
    patience: Duration,
    (topic, partition, offset): (&str, i32, i64),
) -> Result<Fetched, RawFetchError> {
    let mut any = Connection::to_any(bootstrap, patience)?;
    let leader = any.leader(topic, partition)?;
    let mut connection = Connection::open(&leader, patience)?;
    match connection.fetch(topic, partition, offset)? {
        Answer::Fetched(fetched) => Ok(fetched),
        Answer::BeginsAt(first) => match connection.fetch(topic, partition, first)? {
            Answer::Fetched(fetched) => Ok(fetched),
            Answer::BeginsAt(_) => {
                Err(RawFetchError::Refused { topic: topic.to_owned(), partition, offset, code: OFFSET_OUT_OF_RANGE })
            }
        },
    }
}

/// What a broker answers to a fetch.
enum Answer {
    Fetched(Fetched),
    /// The partition begins behind the offset.
    BeginsAt(i64),
}

struct Connection {
    address: String,
    stream: TcpStream,
    sent: i32,
}

impl Connection {
    fn to_any(bootstrap: &str, patience: Duration) -> Result<Self, RawFetchError> {
        let mut last = RawFetchError::Address(bootstrap.to_owned());
        for address in bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            // An address may carry the name of its protocol.
            let address = address.rsplit_once("://").map_or(address, |(_, address)| address);
            match Self::open(address, patience) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open(address: &str, patience: Duration) -> Result<Self, RawFetchError> {
        let io = |source| RawFetchError::Io { bootstrap: address.to_owned(), source };
        let resolved = address.to_socket_addrs().map_err(io)?.next();
        let resolved = resolved.ok_or_else(|| RawFetchError::Address(address.to_owned()))?;
        let stream = TcpStream::connect_timeout(&resolved, patience).map_err(io)?;
        stream.set_read_timeout(Some(patience)).map_err(io)?;
        stream.set_write_timeout(Some(patience)).map_err(io)?;
        Ok(Self { address: address.to_owned(), stream, sent: 0 })
    }

    /// The address of the leader of a partition.
    fn leader(&mut self, topic: &str, partition: i32) -> Result<String, RawFetchError> {
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name))]))
            .with_allow_auto_topic_creation(false);
        let metadata = self.call(METADATA_VERSION, &request)?;
        let found = metadata.topics.iter().flat_map(|topic| &topic.partitions);
        let led_by = found.filter(|found| found.partition_index == partition).map(|found| found.leader_id).next();
        let broker = led_by.and_then(|id| metadata.brokers.iter().find(|broker| broker.node_id == id));
        let broker = broker.ok_or_else(|| RawFetchError::NoLeader { topic: topic.to_owned(), partition })?;
        Ok(format!("{}:{}", broker.host, broker.port))
    }

    fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> Result<Answer, RawFetchError> {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(FETCH_BYTES);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(0)
            .with_min_bytes(0)
            .with_max_bytes(FETCH_BYTES)
            .with_isolation_level(READ_COMMITTED)
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![
                FetchTopic::default()
                    .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
                    .with_partitions(vec![wanted]),
            ]);
        let response = self.call(FETCH_VERSION, &request)?;
        let refused = |code| RawFetchError::Refused { topic: topic.to_owned(), partition, offset, code };
        if response.error_code != 0 {
            return Err(refused(response.error_code));
        }
        let found = response.responses.into_iter().flat_map(|topic| topic.partitions);
        let found = found.filter(|found| found.partition_index == partition).last();
        let found = found.ok_or_else(|| RawFetchError::Malformed("a fetch without the partition".to_owned()))?;
        if found.error_code == OFFSET_OUT_OF_RANGE && found.log_start_offset > offset {
            return Ok(Answer::BeginsAt(found.log_start_offset));
        }
        if found.error_code != 0 {
            return Err(refused(found.error_code));
        }
        let aborted = found.aborted_transactions.unwrap_or_default();
        Ok(Answer::Fetched(Fetched {
            batches: found.records.unwrap_or_default(),
            end: found.high_watermark,
            aborted: aborted.iter().map(|aborted| (aborted.producer_id.0, aborted.first_offset)).collect(),
        }))
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, RawFetchError> {
        self.sent += 1;
        let frame = frame(version, self.sent, request).map_err(|e| RawFetchError::Malformed(e.to_string()))?;
        let mut response = self.exchange(&frame)?;
        let malformed = |e: anyhow::Error| RawFetchError::Malformed(e.to_string());
        let header = <R::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut response, header).map_err(malformed)?;
        if header.correlation_id != self.sent {
            return Err(RawFetchError::Malformed("it answers another request".to_owned()));
        }
        R::Response::decode(&mut response, version).map_err(malformed)
    }

    fn exchange(&mut self, frame: &[u8]) -> Result<Bytes, RawFetchError> {
        let io = |source| RawFetchError::Io { bootstrap: self.address.clone(), source };
        self.stream.write_all(frame).map_err(io)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(io)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > RESPONSE_BYTES_MAX {
            return Err(RawFetchError::Malformed(format!("it has {length} bytes")));
        }
        let mut response = vec![0; length];
        self.stream.read_exact(&mut response).map_err(io)?;
        Ok(response.into())
    }
}

/// A complete request with its length and header.
fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> anyhow::Result<Bytes> {
    let mut body = BytesMut::new();
    body.put_u32(0);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("dacapo.inspector")))
        .encode(&mut body, R::header_version(version))?;
    request.encode(&mut body, version)?;
    let length = u32::try_from(body.len() - 4)?;
    body[..4].copy_from_slice(&length.to_be_bytes());
    Ok(body.freeze())
}

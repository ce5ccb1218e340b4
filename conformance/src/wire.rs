//! The protocol without a client library: frames over TCP, requests of any version, and bytes that are no request.
//!
//! Client libraries pick one version of each request and send nothing wrong; this says the rest. Knows no check.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, FindCoordinatorRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use crate::check::{Doing, Failure, ensure, ensure_eq};
use crate::context::{Context, PATIENCE, until};

/// What a server that must answer, or close, may take for it.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// No response of these checks is larger; a longer length is a broken frame.
const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
    correlation_id: i32,
}

impl Wire {
    /// To the first bootstrap address.
    pub(crate) fn open(cx: &Context) -> Result<Self, Failure> {
        let first = cx.target.bootstrap.split(',').next().doing("the bootstrap address")?;
        Self::connect(first.trim())
    }

    /// To the broker that leads a partition.
    pub(crate) fn to_leader(cx: &Context, topic: &str, partition: i32) -> Result<Self, Failure> {
        let metadata = cx.admin.inner().fetch_metadata(Some(topic), PATIENCE).doing("metadata")?;
        let seen = metadata.topics().first().doing("the topic")?;
        let led = seen.partitions().iter().find(|p| p.id() == partition).doing("the partition")?.leader();
        let broker = metadata.brokers().iter().find(|broker| broker.id() == led).doing("the leader")?;
        Self::connect(&format!("{}:{}", broker.host(), broker.port()))
    }

    /// To the broker that coordinates a group, once it does.
    pub(crate) fn to_coordinator(cx: &Context, group: &str) -> Result<Self, Failure> {
        let mut wire = Self::open(cx)?;
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        until("a coordinator of the group", PATIENCE, || {
            let answer = wire.call(2, &request)?;
            if answer.error_code != 0 {
                return Ok(None);
            }
            Self::connect(&format!("{}:{}", answer.host, answer.port)).map(Some)
        })
    }

    fn connect(address: &str) -> Result<Self, Failure> {
        let resolved = address.to_socket_addrs().doing(address)?.next().doing(address)?;
        let stream = TcpStream::connect_timeout(&resolved, ANSWER).doing(format_args!("connecting to {address}"))?;
        stream.set_read_timeout(Some(ANSWER)).doing("setting a read time-out")?;
        stream.set_write_timeout(Some(ANSWER)).doing("setting a write time-out")?;
        stream.set_nodelay(true).doing("setting no delay")?;
        Ok(Self { stream, correlation_id: 0 })
    }

    /// One request, one response.
    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, Failure> {
        let sent = self.send(version, request)?;
        self.receive::<R>(version, sent)
    }

    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<i32, Failure> {
        self.correlation_id += 1;
        let frame = frame(version, self.correlation_id, request)?;
        self.stream.write_all(&frame).doing("writing a request")?;
        Ok(self.correlation_id)
    }

    pub(crate) fn receive<R: Request>(&mut self, version: i16, sent: i32) -> Result<R::Response, Failure> {
        let mut response = self.frame()?.doing("the connection was closed instead of an answer")?;
        let header = <R::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut response, header).doing("decoding a response header")?;
        ensure_eq!(header.correlation_id, sent, "the correlation id of a response");
        let decoded = R::Response::decode(&mut response, version)
            .doing(format_args!("decoding the response to key {} version {version}", R::KEY))?;
        ensure!(response.is_empty(), "key {} version {version}: {} bytes too many", R::KEY, response.len());
        Ok(decoded)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).doing("writing")
    }

    /// The next frame without its length; none when the far side has closed. A silence is a failure.
    pub(crate) fn frame(&mut self) -> Result<Option<Bytes>, Failure> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(None);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(Failure(format!("neither an answer nor a close within {} s", ANSWER.as_secs())));
            }
            Err(error) => return Err(Failure(format!("reading an answer: {error}"))),
        }
        let length = u32::from_be_bytes(length) as usize;
        ensure!(length <= RESPONSE_BYTES_MAX, "a response of {length} bytes");
        let mut response = vec![0; length];
        self.stream.read_exact(&mut response).doing("reading the rest of an answer")?;
        Ok(Some(response.into()))
    }
}

/// A whole request with its length and header.
pub(crate) fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("conformance")))
        .encode(&mut body, R::header_version(version))
        .doing("encoding a request header")?;
    request.encode(&mut body, version).doing(format_args!("encoding key {} version {version}", R::KEY))?;
    Ok(framed(&body))
}

pub(crate) fn framed(body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(body.len() + 4);
    frame.put_u32(body.len() as u32);
    frame.put_slice(body);
    frame.freeze()
}

/// A header that any version of any request starts with, for requests no codec knows.
pub(crate) fn bare_request(api_key: i16, version: i16, correlation_id: i32, rest: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_i16(api_key);
    body.put_i16(version);
    body.put_i32(correlation_id);
    body.put_i16(-1);
    body.put_slice(rest);
    framed(&body)
}

/// Which producer a batch says it is from.
#[derive(Clone, Copy)]
pub(crate) struct Writer {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) transactional: bool,
    pub(crate) control: bool,
}

/// A writer that says nothing about itself.
pub(crate) const NOBODY: Writer =
    Writer { producer_id: -1, epoch: -1, sequence: -1, transactional: false, control: false };

/// A batch of records with these values.
pub(crate) fn batch(writer: Writer, values: &[&[u8]]) -> Result<BytesMut, Failure> {
    let records: Vec<Record> = values
        .iter()
        .enumerate()
        .map(|(index, value)| Record {
            transactional: writer.transactional,
            control: writer.control,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: writer.producer_id,
            producer_epoch: writer.epoch,
            timestamp_type: TimestampType::Creation,
            offset: index as i64,
            // Also from -1 on: the codec puts into one batch what counts up, and a batch holds the first number only.
            sequence: writer.sequence + index as i32,
            timestamp: 1_700_000_000_000,
            key: None,
            value: Some(Bytes::copy_from_slice(value)),
            headers: Default::default(),
        })
        .collect();
    let mut buffer = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut buffer, &records, &options).doing("encoding a batch")?;
    Ok(buffer)
}

/// The offset of the first record of a batch as a broker returns it.
pub(crate) fn base_offset(mut batch: &[u8]) -> Option<i64> {
    (batch.len() >= 8).then(|| batch.get_i64())
}

/// The highest version of a request that both this codec and the far side know.
pub(crate) fn newest_common(wire: &mut Wire, key: ApiKey) -> Result<Option<i16>, Failure> {
    let versions = wire.call(0, &kafka_protocol::messages::ApiVersionsRequest::default())?;
    let seen = versions.api_keys.iter().find(|entry| entry.api_key == key as i16);
    Ok(seen.map(|entry| entry.max_version.min(key.valid_versions().max)))
}

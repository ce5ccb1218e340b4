//! The protocol without a client library: frames over TCP, requests of any version, and invalid bytes.
//!
//! Client libraries choose one version of each request and send only valid requests; this module covers the rest. Knows no check.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, FindCoordinatorRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use crate::check::{CheckFailure, FailureContext, ensure, ensure_eq};
use crate::context::{CheckContext, REQUEST_TIMEOUT, wait_until};

/// How long a server may take to respond or to close the connection.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// No response in these checks is larger; a larger length means an invalid frame.
const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One connection.
pub(crate) struct RawConnection {
    stream: TcpStream,
    correlation_id: i32,
}

impl RawConnection {
    /// Connects to the first bootstrap address.
    pub(crate) fn open(cx: &CheckContext) -> Result<Self, CheckFailure> {
        let first = cx.target.bootstrap.split(',').next().context("the bootstrap address")?;
        Self::connect(first.trim())
    }

    /// Connects to the leader of a partition.
    pub(crate) fn to_leader(cx: &CheckContext, topic: &str, partition: i32) -> Result<Self, CheckFailure> {
        let metadata = cx.admin.inner().fetch_metadata(Some(topic), REQUEST_TIMEOUT).context("metadata")?;
        let observed = metadata.topics().first().context("the topic")?;
        let led = observed.partitions().iter().find(|p| p.id() == partition).context("the partition")?.leader();
        let broker = metadata.brokers().iter().find(|broker| broker.id() == led).context("the leader")?;
        Self::connect(&format!("{}:{}", broker.host(), broker.port()))
    }

    /// Connects to the coordinator of a group, once there is one.
    pub(crate) fn to_coordinator(cx: &CheckContext, group: &str) -> Result<Self, CheckFailure> {
        let mut wire = Self::open(cx)?;
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        wait_until("a coordinator of the group", REQUEST_TIMEOUT, || {
            let response = wire.call(2, &request)?;
            if response.error_code != 0 {
                return Ok(None);
            }
            Self::connect(&format!("{}:{}", response.host, response.port)).map(Some)
        })
    }

    fn connect(address: &str) -> Result<Self, CheckFailure> {
        let resolved = address.to_socket_addrs().context(address)?.next().context(address)?;
        let stream =
            TcpStream::connect_timeout(&resolved, RESPONSE_TIMEOUT).context(format_args!("connecting to {address}"))?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).context("setting a read timeout")?;
        stream.set_write_timeout(Some(RESPONSE_TIMEOUT)).context("setting a write timeout")?;
        stream.set_nodelay(true).context("setting no delay")?;
        Ok(Self { stream, correlation_id: 0 })
    }

    /// Sends one request and receives its response.
    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, CheckFailure> {
        let sent = self.send(version, request)?;
        self.receive::<R>(version, sent)
    }

    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<i32, CheckFailure> {
        self.correlation_id += 1;
        let frame = frame(version, self.correlation_id, request)?;
        self.stream.write_all(&frame).context("writing a request")?;
        Ok(self.correlation_id)
    }

    pub(crate) fn receive<R: Request>(&mut self, version: i16, sent: i32) -> Result<R::Response, CheckFailure> {
        let mut response = self.frame()?.context("the connection was closed without a response")?;
        let header = <R::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut response, header).context("decoding a response header")?;
        ensure_eq!(header.correlation_id, sent, "the correlation id of a response");
        let decoded = R::Response::decode(&mut response, version)
            .context(format_args!("decoding the response to key {} version {version}", R::KEY))?;
        ensure!(response.is_empty(), "key {} version {version}: {} bytes too many", R::KEY, response.len());
        Ok(decoded)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), CheckFailure> {
        self.stream.write_all(bytes).context("writing")
    }

    /// The next frame without its length; `None` if the server has closed the connection. No response at all is a failure.
    pub(crate) fn frame(&mut self) -> Result<Option<Bytes>, CheckFailure> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(None);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(CheckFailure(format!(
                    "neither a response nor a close within {} s",
                    RESPONSE_TIMEOUT.as_secs()
                )));
            }
            Err(error) => return Err(CheckFailure(format!("reading a response: {error}"))),
        }
        let length = u32::from_be_bytes(length) as usize;
        ensure!(length <= RESPONSE_BYTES_MAX, "a response of {length} bytes");
        let mut response = vec![0; length];
        self.stream.read_exact(&mut response).context("reading the rest of a response")?;
        Ok(Some(response.into()))
    }
}

/// A complete request with its length and header.
pub(crate) fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Result<Bytes, CheckFailure> {
    let mut body = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("conformance")))
        .encode(&mut body, R::header_version(version))
        .context("encoding a request header")?;
    request.encode(&mut body, version).context(format_args!("encoding key {} version {version}", R::KEY))?;
    Ok(framed(&body))
}

pub(crate) fn framed(body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(body.len() + 4);
    frame.put_u32(body.len() as u32);
    frame.put_slice(body);
    frame.freeze()
}

/// A request that the codec does not know, with the header that all requests start with.
pub(crate) fn bare_request(api_key: i16, version: i16, correlation_id: i32, rest: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_i16(api_key);
    body.put_i16(version);
    body.put_i32(correlation_id);
    body.put_i16(-1);
    body.put_slice(rest);
    framed(&body)
}

/// The producer in a batch header.
#[derive(Clone, Copy)]
pub(crate) struct BatchProducer {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) transactional: bool,
    pub(crate) control: bool,
}

/// A producer without an id.
pub(crate) const NO_PRODUCER: BatchProducer =
    BatchProducer { producer_id: -1, epoch: -1, sequence: -1, transactional: false, control: false };

/// A batch of records with these values.
pub(crate) fn batch(writer: BatchProducer, values: &[&[u8]]) -> Result<BytesMut, CheckFailure> {
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
            // Consecutive also from -1 on: the codec starts a new batch at a gap, and a batch holds only the first sequence.
            sequence: writer.sequence + index as i32,
            timestamp: 1_700_000_000_000,
            key: None,
            value: Some(Bytes::copy_from_slice(value)),
            headers: Default::default(),
        })
        .collect();
    let mut buffer = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut buffer, &records, &options).context("encoding a batch")?;
    Ok(buffer)
}

/// The offset of a returned batch's first record.
pub(crate) fn base_offset(mut batch: &[u8]) -> Option<i64> {
    (batch.len() >= 8).then(|| batch.get_i64())
}

/// The highest version of a request that both this codec and the server support.
pub(crate) fn newest_common(wire: &mut RawConnection, key: ApiKey) -> Result<Option<i16>, CheckFailure> {
    let versions = wire.call(0, &kafka_protocol::messages::ApiVersionsRequest::default())?;
    let observed = versions.api_keys.iter().find(|entry| entry.api_key == key as i16);
    Ok(observed.map(|entry| entry.max_version.min(key.valid_versions().max)))
}

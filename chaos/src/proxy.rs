//! A TCP proxy in front of a broker or a registry, with a switchable [`ProxyMode`].
//!
//! Kafka clients connect to the addresses that brokers advertise, not to their bootstrap address. So the proxy replaces the broker's
//! port by its own in every response that contains broker addresses: a client that bootstraps at the proxy stays behind it.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::MetadataResponse,
    protocol::{Decodable, Encodable, HeaderVersion},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// All bytes pass.
    Open,
    /// No bytes pass in either direction; held bytes pass afterwards.
    Frozen,
    /// Requests pass and responses are held: the server acts, and the client does not learn the result.
    ResponsesHeld,
    /// Requests to join a group are held, all others pass: a member that lost its place in the group cannot rejoin.
    JoinsHeld,
    /// Everything passes, but metadata responses contain no broker, as those of a broker that has just started may.
    NoBrokers,
    /// Connections are closed, and new ones are closed at once.
    Disconnected,
}

/// The key of Metadata requests.
const METADATA: i16 = 3;
/// The keys of requests whose responses contain broker addresses: Metadata, FindCoordinator, DescribeCluster.
const WITH_ADDRESSES: [i16; 3] = [METADATA, 10, 60];
/// The key of JoinGroup requests.
const JOIN_GROUP: i16 = 11;
/// The maximum size of a response that is rewritten.
const REWRITE_BYTES_MAX: usize = 16 << 20;
/// Bytes that are passed on at a time.
const CHUNK: usize = 64 << 10;

/// The mode, and how often it was set to [`ProxyMode::Disconnected`], so that even a short disconnection ends existing connections.
#[derive(Debug, Clone, Copy)]
struct Switch {
    mode: ProxyMode,
    disconnects: u64,
}

/// The server behind the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyTarget {
    /// A broker that advertises the address it listens on.
    Kafka,
    /// Anything else over TCP.
    Tcp,
}

/// Counts of what passed.
#[derive(Debug, Default)]
struct Counts {
    renamed: AtomicU64,
    without_brokers_sent: AtomicU64,
    joins: AtomicU64,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    switch: watch::Sender<Switch>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts to listen on a free port.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr, behind: ProxyTarget) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let switch = watch::Sender::new(Switch { mode: ProxyMode::Open, disconnects: 0 });
        let counts = Arc::new(Counts::default());
        let rewriter =
            AddressRewriter { broker: advertised(target), proxy: advertised(address), counts: Arc::clone(&counts) };
        let accepting = tokio::spawn(accept(listener, Route { target, behind, rewriter, switch: switch.clone() }));
        Ok(Self { address, switch, counts, accepting })
    }

    /// The address of the proxy.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the mode.
    pub fn set(&self, mode: ProxyMode) {
        self.switch.send_modify(|switch| {
            switch.disconnects += u64::from(mode == ProxyMode::Disconnected);
            switch.mode = mode;
        });
    }

    /// How often a broker's address was replaced. Zero means that clients bypass the proxy.
    #[must_use]
    pub fn renamed(&self) -> u64 {
        self.counts.renamed.load(Ordering::Relaxed)
    }

    /// How many metadata responses without brokers were sent.
    #[must_use]
    pub fn without_brokers_sent(&self) -> u64 {
        self.counts.without_brokers_sent.load(Ordering::Relaxed)
    }

    /// How many JoinGroup requests arrived, whether they passed or not.
    #[must_use]
    pub fn joins(&self) -> u64 {
        self.counts.joins.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(ProxyMode::Disconnected);
    }
}

/// A broker's address as a response encodes it: the host as text, then the port as a 32-bit number.
fn advertised(address: SocketAddr) -> Vec<u8> {
    let mut bytes = address.ip().to_string().into_bytes();
    bytes.extend(u32::from(address.port()).to_be_bytes());
    bytes
}

/// Replaces the broker's port by the proxy's.
#[derive(Debug, Clone)]
struct AddressRewriter {
    broker: Vec<u8>,
    proxy: Vec<u8>,
    counts: Arc<Counts>,
}

impl AddressRewriter {
    fn replace(&self, response: &mut [u8]) {
        let mut at = 0;
        while let Some(found) = response[at..].windows(self.broker.len()).position(|window| window == self.broker) {
            let from = at + found + self.broker.len() - 4;
            response[from..from + 4].copy_from_slice(&self.proxy[self.proxy.len() - 4..]);
            at = from + 4;
            self.counts.renamed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Clone)]
struct Route {
    target: SocketAddr,
    behind: ProxyTarget,
    rewriter: AddressRewriter,
    switch: watch::Sender<Switch>,
}

async fn accept(listener: TcpListener, route: Route) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(serve(client, route.clone()))),
            Err(error) => tracing::warn!(%error, "the proxy cannot accept a connection"),
        }
    }
}

async fn serve(client: TcpStream, route: Route) {
    let mut switch = route.switch.subscribe();
    let before = switch.borrow_and_update().disconnects;
    let passed = tokio::select! {
        passed = pass(client, route) => passed,
        _ = switch.wait_for(|switch| switch.mode == ProxyMode::Disconnected || switch.disconnects != before) => Ok(()),
    };
    if let Err(error) = passed {
        tracing::debug!(%error, "a connection through the proxy ended");
    }
}

async fn pass(client: TcpStream, route: Route) -> io::Result<()> {
    let server = TcpStream::connect(route.target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let pending = PendingRequests::default();
    let requests = Gate { switch: route.switch.subscribe(), closed_by: &[ProxyMode::Frozen, ProxyMode::Disconnected] };
    let responses = Gate {
        switch: route.switch.subscribe(),
        closed_by: &[ProxyMode::Frozen, ProxyMode::ResponsesHeld, ProxyMode::Disconnected],
    };
    match route.behind {
        ProxyTarget::Kafka => tokio::select! {
            ended = pass_requests(from_client, to_server, requests, &pending, &route.rewriter.counts) => ended,
            ended = pass_responses(from_server, to_client, responses, &pending, &route.rewriter) => ended,
        },
        ProxyTarget::Tcp => tokio::select! {
            ended = pass_bytes(from_client, to_server, requests) => ended,
            ended = pass_bytes(from_server, to_client, responses) => ended,
        },
    }
}

/// Holds bytes back in some modes.
struct Gate {
    switch: watch::Receiver<Switch>,
    closed_by: &'static [ProxyMode],
}

impl Gate {
    async fn open(&mut self) -> io::Result<()> {
        let closed_by = self.closed_by;
        let open = self.switch.wait_for(|switch| !closed_by.contains(&switch.mode)).await;
        open.map(drop).map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }

    fn mode(&self) -> ProxyMode {
        self.switch.borrow().mode
    }
}

async fn pass_bytes(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: Gate,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        gate.open().await?;
        to.write_all(&chunk[..read]).await?;
    }
}

/// Requests in flight whose responses contain broker addresses: key and version by correlation id.
#[derive(Debug, Default)]
struct PendingRequests(Mutex<HashMap<i32, (i16, i16)>>);

impl PendingRequests {
    fn note(&self, correlation_id: i32, key: i16, version: i16) {
        if WITH_ADDRESSES.contains(&key) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(correlation_id, (key, version));
        }
    }

    fn take(&self, correlation_id: i32) -> Option<(i16, i16)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&correlation_id)
    }
}

/// A metadata response without its brokers; `None` if it cannot be decoded.
fn without_brokers(response: &[u8], version: i16) -> Option<Vec<u8>> {
    let mut rest = Bytes::copy_from_slice(response);
    let header_version = MetadataResponse::header_version(version);
    // The correlation id was read already. A flexible header continues with the number of its tags, which is 0.
    let tags = rest.split_to(usize::from(header_version >= 1).min(rest.len()));
    let mut metadata = MetadataResponse::decode(&mut rest, version).ok()?;
    metadata.brokers.clear();
    let mut changed = BytesMut::from(&tags[..]);
    metadata.encode(&mut changed, version).ok()?;
    Some(changed.to_vec())
}

async fn pass_requests(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: Gate,
    pending: &PendingRequests,
    counts: &Counts,
) -> io::Result<()> {
    let mut joins = Gate {
        switch: gate.switch.clone(),
        closed_by: &[ProxyMode::Frozen, ProxyMode::JoinsHeld, ProxyMode::Disconnected],
    };
    loop {
        // Every request of every version begins with length, key, version and correlation id.
        let mut head = [0; 12];
        from.read_exact(&mut head).await?;
        let [l0, l1, l2, l3, k0, k1, v0, v1, c0, c1, c2, c3] = head;
        let key = i16::from_be_bytes([k0, k1]);
        pending.note(i32::from_be_bytes([c0, c1, c2, c3]), key, i16::from_be_bytes([v0, v1]));
        let gate = if key == JOIN_GROUP {
            counts.joins.fetch_add(1, Ordering::Relaxed);
            &mut joins
        } else {
            &mut gate
        };
        gate.open().await?;
        to.write_all(&head).await?;
        let rest = u64::from(u32::from_be_bytes([l0, l1, l2, l3])).saturating_sub(8);
        pass_exactly(&mut from, &mut to, gate, rest).await?;
    }
}

async fn pass_responses(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: Gate,
    pending: &PendingRequests,
    rewriter: &AddressRewriter,
) -> io::Result<()> {
    loop {
        let mut head = [0; 8];
        from.read_exact(&mut head).await?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let rest = u64::from(u32::from_be_bytes([l0, l1, l2, l3])).saturating_sub(4);
        let pending = pending.take(i32::from_be_bytes([c0, c1, c2, c3]));
        let size = usize::try_from(rest).unwrap_or(usize::MAX);
        let Some((key, version)) = pending.filter(|_| size <= REWRITE_BYTES_MAX) else {
            gate.open().await?;
            to.write_all(&head).await?;
            pass_exactly(&mut from, &mut to, &mut gate, rest).await?;
            continue;
        };
        let mut response = vec![0; size];
        from.read_exact(&mut response).await?;
        rewriter.replace(&mut response);
        gate.open().await?;
        if key == METADATA
            && gate.mode() == ProxyMode::NoBrokers
            && let Some(without) = without_brokers(&response, version)
        {
            response = without;
            rewriter.counts.without_brokers_sent.fetch_add(1, Ordering::Relaxed);
        }
        let length = u32::try_from(response.len() + 4).unwrap_or(u32::MAX);
        to.write_all(&[&length.to_be_bytes(), &head[4..], &response].concat()).await?;
    }
}

async fn pass_exactly(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    gate: &mut Gate,
    bytes: u64,
) -> io::Result<()> {
    let (mut left, mut chunk) = (bytes, vec![0; CHUNK]);
    while left > 0 {
        let most = chunk.len().min(usize::try_from(left).unwrap_or(CHUNK));
        let read = from.read(&mut chunk[..most]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        gate.open().await?;
        to.write_all(&chunk[..read]).await?;
        left -= read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_port_of_the_broker_behind_is_replaced() {
        let (broker, ours): (SocketAddr, SocketAddr) =
            ("127.0.0.1:9092".parse().unwrap(), "127.0.0.1:4000".parse().unwrap());
        let other: SocketAddr = "127.0.0.1:9093".parse().unwrap();
        let rewriter = AddressRewriter { broker: advertised(broker), proxy: advertised(ours), counts: Arc::default() };
        let response =
            |first: SocketAddr| [b"..".to_vec(), advertised(first), advertised(other), b".".to_vec()].concat();
        let mut seen = response(broker);
        rewriter.replace(&mut seen);
        assert_eq!(seen, response(ours));
        assert_eq!(rewriter.counts.renamed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_metadata_response_without_brokers_keeps_everything_else() {
        use kafka_protocol::messages::{
            BrokerId, TopicName,
            metadata_response::{MetadataResponseBroker, MetadataResponseTopic},
        };
        let topic = MetadataResponseTopic::default().with_name(Some(TopicName("orders".to_owned().into())));
        let metadata = MetadataResponse::default()
            .with_brokers(vec![MetadataResponseBroker::default().with_node_id(BrokerId(1))])
            .with_topics(vec![topic]);
        for version in [1, 9, 12] {
            let tags = vec![0; usize::from(MetadataResponse::header_version(version) >= 1)];
            let encoded = |metadata: &MetadataResponse| {
                let mut bytes = BytesMut::from(&tags[..]);
                metadata.encode(&mut bytes, version).unwrap();
                bytes.to_vec()
            };
            let empty = metadata.clone().with_brokers(Vec::new());
            assert_eq!(without_brokers(&encoded(&metadata), version), Some(encoded(&empty)), "version {version}");
        }
        assert_eq!(without_brokers(b"\x00\xff\xff", 12), None);
    }

    #[tokio::test]
    async fn held_responses_pass_later_and_a_disconnection_closes() {
        let far = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Proxy::start(far.local_addr().unwrap(), ProxyTarget::Tcp).await.unwrap();
        let mut near = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut far, _) = far.accept().await.unwrap();
        let mut byte = [0];
        near.write_all(b"a").await.unwrap();
        far.read_exact(&mut byte).await.unwrap();
        proxy.set(ProxyMode::ResponsesHeld);
        near.write_all(b"b").await.unwrap();
        far.read_exact(&mut byte).await.unwrap();
        far.write_all(b"c").await.unwrap();
        let response = tokio::time::timeout(std::time::Duration::from_millis(50), near.read_exact(&mut byte)).await;
        assert!(response.is_err(), "a response passed while responses were held");
        proxy.set(ProxyMode::Open);
        near.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"c");
        proxy.set(ProxyMode::Disconnected);
        assert!(!matches!(near.read(&mut byte).await, Ok(1..)), "the connection must be closed");
    }
}

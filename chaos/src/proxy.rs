//! A TCP proxy in front of a broker or a registry, with a switch: open, frozen, deaf, cut, and what only a broker can be.
//!
//! Kafka's clients leave the address they start from for the ones that brokers advertise. So every response that names brokers
//! passes here with the broker's port replaced by the proxy's own: whoever starts at the proxy stays behind it, whatever the
//! broker is and whatever it advertises elsewhere.

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

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// They pass.
    Open,
    /// None pass, in either direction; those that came meanwhile pass afterwards.
    Frozen,
    /// Requests pass, answers wait: what was asked for is done, and nobody learns of it.
    Deaf,
    /// Requests to join a group wait, all others pass: whoever lost its place in a group can do whatever it likes without it.
    Expelled,
    /// Everything passes, but whoever asks which brokers there are is told of none: so answers a broker that has just started.
    Nameless,
    /// Connections are closed, new ones too.
    Cut,
}

/// The request for the brokers and topics of a cluster.
const METADATA: i16 = 3;
/// Requests whose answers name brokers: Metadata, FindCoordinator, DescribeCluster.
const NAMING: [i16; 3] = [METADATA, 10, 60];
/// The request to join a group.
const JOIN_GROUP: i16 = 11;
/// Such an answer is never larger.
const NAMING_BYTES_MAX: usize = 16 << 20;
/// Bytes that are passed on at a time.
const CHUNK: usize = 64 << 10;

/// The switch, and how often it was set to [`Line::Cut`]: a connection that was there before ends, however short the cut was.
#[derive(Debug, Clone, Copy)]
struct Switch {
    line: Line,
    cuts: u64,
}

/// What lies behind the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// A broker that advertises the address it listens on.
    Kafka,
    /// Anything else over TCP.
    Other,
}

/// What went through.
#[derive(Debug, Default)]
struct Counts {
    renamed: AtomicU64,
    nameless: AtomicU64,
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
    /// There is none.
    pub async fn start(target: SocketAddr, behind: Behind) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let switch = watch::Sender::new(Switch { line: Line::Open, cuts: 0 });
        let counts = Arc::new(Counts::default());
        let names = Names { of: advertised(target), ours: advertised(address), counts: Arc::clone(&counts) };
        let accepting = tokio::spawn(accept(listener, Route { target, behind, names, switch: switch.clone() }));
        Ok(Self { address, switch, counts, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the switch.
    pub fn set(&self, line: Line) {
        self.switch.send_modify(|switch| {
            switch.cuts += u64::from(line == Line::Cut);
            switch.line = line;
        });
    }

    /// How often a broker's address was replaced. None at all means that clients go past the proxy.
    #[must_use]
    pub fn renamed(&self) -> u64 {
        self.counts.renamed.load(Ordering::Relaxed)
    }

    /// How many answers went out that named no broker.
    #[must_use]
    pub fn nameless(&self) -> u64 {
        self.counts.nameless.load(Ordering::Relaxed)
    }

    /// How many requests to join a group came here, whether they passed or not.
    #[must_use]
    pub fn joins(&self) -> u64 {
        self.counts.joins.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Line::Cut);
    }
}

/// A broker's address as it stands in an answer: the host's text, then the port as a 32-bit number.
fn advertised(address: SocketAddr) -> Vec<u8> {
    let mut bytes = address.ip().to_string().into_bytes();
    bytes.extend(u32::from(address.port()).to_be_bytes());
    bytes
}

#[derive(Debug, Clone)]
struct Names {
    of: Vec<u8>,
    ours: Vec<u8>,
    counts: Arc<Counts>,
}

impl Names {
    fn replace(&self, answer: &mut [u8]) {
        let mut at = 0;
        while let Some(found) = answer[at..].windows(self.of.len()).position(|window| window == self.of) {
            let from = at + found + self.of.len() - 4;
            answer[from..from + 4].copy_from_slice(&self.ours[self.ours.len() - 4..]);
            at = from + 4;
            self.counts.renamed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Clone)]
struct Route {
    target: SocketAddr,
    behind: Behind,
    names: Names,
    switch: watch::Sender<Switch>,
}

async fn accept(listener: TcpListener, route: Route) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(serve(client, route.clone()))),
            Err(error) => tracing::warn!(%error, "the proxy cannot take a connection"),
        }
    }
}

async fn serve(client: TcpStream, route: Route) {
    let mut switch = route.switch.subscribe();
    let before = switch.borrow_and_update().cuts;
    let passed = tokio::select! {
        passed = pass(client, route) => passed,
        _ = switch.wait_for(|switch| switch.line == Line::Cut || switch.cuts != before) => Ok(()),
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
    let asked = Asked::default();
    let requests = Gate { switch: route.switch.subscribe(), closed_by: &[Line::Frozen, Line::Cut] };
    let answers = Gate { switch: route.switch.subscribe(), closed_by: &[Line::Frozen, Line::Deaf, Line::Cut] };
    match route.behind {
        Behind::Kafka => tokio::select! {
            ended = pass_requests(from_client, to_server, requests, &asked, &route.names.counts) => ended,
            ended = pass_answers(from_server, to_client, answers, &asked, &route.names) => ended,
        },
        Behind::Other => tokio::select! {
            ended = pass_bytes(from_client, to_server, requests) => ended,
            ended = pass_bytes(from_server, to_client, answers) => ended,
        },
    }
}

/// Holds bytes back while the switch stands so.
struct Gate {
    switch: watch::Receiver<Switch>,
    closed_by: &'static [Line],
}

impl Gate {
    async fn open(&mut self) -> io::Result<()> {
        let closed_by = self.closed_by;
        let open = self.switch.wait_for(|switch| !closed_by.contains(&switch.line)).await;
        open.map(drop).map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }

    fn line(&self) -> Line {
        self.switch.borrow().line
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

/// Requests under way, by correlation id, with key and version: those whose answers name brokers.
#[derive(Debug, Default)]
struct Asked(Mutex<HashMap<i32, (i16, i16)>>);

impl Asked {
    fn note(&self, correlation_id: i32, key: i16, version: i16) {
        if NAMING.contains(&key) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(correlation_id, (key, version));
        }
    }

    fn take(&self, correlation_id: i32) -> Option<(i16, i16)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&correlation_id)
    }
}

/// The same answer to a request for metadata, without a broker in it; `None` if it cannot be read.
fn without_brokers(answer: &[u8], version: i16) -> Option<Vec<u8>> {
    let mut rest = Bytes::copy_from_slice(answer);
    let header_version = MetadataResponse::header_version(version);
    // The correlation id was read already. Behind it a flexible header has the number of its tags, which is 0.
    let tags = rest.split_to(usize::from(header_version >= 1).min(rest.len()));
    let mut told = MetadataResponse::decode(&mut rest, version).ok()?;
    told.brokers.clear();
    let mut changed = BytesMut::from(&tags[..]);
    told.encode(&mut changed, version).ok()?;
    Some(changed.to_vec())
}

async fn pass_requests(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: Gate,
    asked: &Asked,
    counts: &Counts,
) -> io::Result<()> {
    let mut joins = Gate { switch: gate.switch.clone(), closed_by: &[Line::Frozen, Line::Expelled, Line::Cut] };
    loop {
        // Length, key, version, correlation id: how every request of every version begins.
        let mut head = [0; 12];
        from.read_exact(&mut head).await?;
        let [l0, l1, l2, l3, k0, k1, v0, v1, c0, c1, c2, c3] = head;
        let key = i16::from_be_bytes([k0, k1]);
        asked.note(i32::from_be_bytes([c0, c1, c2, c3]), key, i16::from_be_bytes([v0, v1]));
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

async fn pass_answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: Gate,
    asked: &Asked,
    names: &Names,
) -> io::Result<()> {
    loop {
        let mut head = [0; 8];
        from.read_exact(&mut head).await?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let rest = u64::from(u32::from_be_bytes([l0, l1, l2, l3])).saturating_sub(4);
        let asked = asked.take(i32::from_be_bytes([c0, c1, c2, c3]));
        let size = usize::try_from(rest).unwrap_or(usize::MAX);
        let Some((key, version)) = asked.filter(|_| size <= NAMING_BYTES_MAX) else {
            gate.open().await?;
            to.write_all(&head).await?;
            pass_exactly(&mut from, &mut to, &mut gate, rest).await?;
            continue;
        };
        let mut answer = vec![0; size];
        from.read_exact(&mut answer).await?;
        names.replace(&mut answer);
        gate.open().await?;
        if key == METADATA
            && gate.line() == Line::Nameless
            && let Some(nameless) = without_brokers(&answer, version)
        {
            answer = nameless;
            names.counts.nameless.fetch_add(1, Ordering::Relaxed);
        }
        let length = u32::try_from(answer.len() + 4).unwrap_or(u32::MAX);
        to.write_all(&[&length.to_be_bytes(), &head[4..], &answer].concat()).await?;
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
        let names = Names { of: advertised(broker), ours: advertised(ours), counts: Arc::default() };
        let answer = |first: SocketAddr| [b"..".to_vec(), advertised(first), advertised(other), b".".to_vec()].concat();
        let mut seen = answer(broker);
        names.replace(&mut seen);
        assert_eq!(seen, answer(ours));
        assert_eq!(names.counts.renamed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_answer_without_brokers_keeps_everything_else() {
        use kafka_protocol::messages::{
            BrokerId, TopicName,
            metadata_response::{MetadataResponseBroker, MetadataResponseTopic},
        };
        let topic = MetadataResponseTopic::default().with_name(Some(TopicName("orders".to_owned().into())));
        let told = MetadataResponse::default()
            .with_brokers(vec![MetadataResponseBroker::default().with_node_id(BrokerId(1))])
            .with_topics(vec![topic]);
        for version in [1, 9, 12] {
            let tags = vec![0; usize::from(MetadataResponse::header_version(version) >= 1)];
            let encoded = |told: &MetadataResponse| {
                let mut bytes = BytesMut::from(&tags[..]);
                told.encode(&mut bytes, version).unwrap();
                bytes.to_vec()
            };
            let nobody = told.clone().with_brokers(Vec::new());
            assert_eq!(without_brokers(&encoded(&told), version), Some(encoded(&nobody)), "version {version}");
        }
        assert_eq!(without_brokers(b"\x00\xff\xff", 12), None);
    }

    #[tokio::test]
    async fn a_frozen_line_keeps_bytes_back_and_a_cut_one_closes() {
        let far = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Proxy::start(far.local_addr().unwrap(), Behind::Other).await.unwrap();
        let mut near = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut far, _) = far.accept().await.unwrap();
        let mut byte = [0];
        near.write_all(b"a").await.unwrap();
        far.read_exact(&mut byte).await.unwrap();
        proxy.set(Line::Deaf);
        near.write_all(b"b").await.unwrap();
        far.read_exact(&mut byte).await.unwrap();
        far.write_all(b"c").await.unwrap();
        let answer = tokio::time::timeout(std::time::Duration::from_millis(50), near.read_exact(&mut byte)).await;
        assert!(answer.is_err(), "an answer came through a deaf line");
        proxy.set(Line::Open);
        near.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"c");
        proxy.set(Line::Cut);
        assert!(!matches!(near.read(&mut byte).await, Ok(1..)), "a cut line is closed");
    }
}

//! A table: the latest row of each key in a compacted topic, each partition written by one instance at a time.
//!
//! For what only folds and has no log of its own: every instance can make every row, and one of them writes it. Ownership is the
//! group's, as for a service: the owner of partition p of the topic writes the rows whose keys lie there, in transactions that
//! carry a position of p and so are fenced by the group's generation. Before it writes, an owner has read its partition to the
//! end that a client of uncommitted records was told after the assignment: nothing of its predecessor comes later. A row that lies
//! there already is not written again: its id is derived from its key and its content. So a restart writes only what differs.
//!
//! What the rows are is the business of [`Rows`]. A table that cannot be written is no trouble to whoever makes its rows: it is
//! tried again for as long as it takes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
    producer::{BaseRecord, Producer},
};
use uuid::Uuid;

use crate::{
    clock,
    codec::{WriterError, Writers},
    config::Config,
    core::partition_of,
    envelope::{self, Envelope, command_id, header},
    kafka::{
        Admin, BrokerLiveness, ClientLog, Connectivity,
        client::{self, WorkerNames},
        headers::to_headers,
    },
    message::{Channel, Message as _, Written, topic},
    registry::RegistryClient,
    telemetry::{build, chain},
    worker::{Change, CommitError, Fences, Member, Teller, Transactor, let_go},
};

/// Rows are written at most this often. What changed several times meanwhile is written once, as it is then.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// The most rows of one transaction.
const BATCH_ROWS: usize = 1_000;
/// How long a poll waits: this bounds a stop.
const POLL: Duration = Duration::from_millis(100);
/// The pauses between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A row as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<M> {
    /// Its key.
    pub key: String,
    /// The saga it belongs to.
    pub correlation_id: String,
    /// The record that made it what it is.
    pub cause: Option<Uuid>,
    /// What it says. Two rows of a key that say the same are the same row.
    pub message: M,
}

/// The rows that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed<M> {
    /// The rows, in the order of their changes.
    pub rows: Vec<Row<M>>,
    /// Where to go on from.
    pub next: u64,
    /// There may be more.
    pub more: bool,
}

/// What a table is made of.
pub trait Rows: Send + 'static {
    /// What a row is written as.
    type Message: Written;

    /// True if everything there is has been read. Before, rows are older than what another instance may have written.
    fn is_current(&self) -> bool;

    /// The rows that changed after `since`, the earliest change first, at most `limit`; every row after 0.
    fn changed(&self, since: u64, limit: usize) -> Changed<Self::Message>;
}

/// A table that is kept. Dropping it asks it to end; [`Table::stop`] waits.
pub struct Table {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    written: AtomicU64,
    partitions: AtomicUsize,
    trouble: Mutex<Option<String>>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} rows written)", self.written())
    }
}

impl Table {
    /// Starts to keep a table in the state topic of the configured service. Neither the cluster nor the registry need be there yet.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start<R: Rows>(config: &Config, registry: RegistryClient, rows: R) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let keeper = Keeper {
            topic: topic(&config.system, &config.service, Channel::State),
            // An instance without a name has one for this life; the pause of a rebalance is all that it costs.
            names: WorkerNames::of(config, &config.service, 0, Uuid::now_v7()),
            source: envelope::source(&config.system, &config.service),
            config: config.clone(),
            registry,
            shared: Arc::clone(&shared),
            rows,
        };
        let thread =
            std::thread::Builder::new().name(format!("table-{}", config.service)).spawn(move || keeper.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How many rows this instance has written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Acquire)
    }

    /// How many partitions of the table this instance writes now.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.shared.partitions.load(Ordering::Acquire)
    }

    /// Why it cannot be written now, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends, within `patience`: the partitions are given back, so that another instance takes them at once. Answers whether all of
    /// it was done in time.
    pub async fn stop(mut self, patience: Duration) -> bool {
        self.shared.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return true };
        let ended = async {
            while !thread.is_finished() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(patience, ended).await.is_ok()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// Why a table is not written for a while.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("there is no topic {0} to write to; hint: `dacapo topics create`")]
    NoTopic(String),
    #[error("the cluster does not say which topics it has")]
    Cluster(#[source] crate::kafka::AdminError),
    #[error("its records cannot be written")]
    Schemas(#[source] WriterError),
    #[error("a row cannot be written as a record")]
    Row(#[source] crate::codec::CodecError),
    #[error("cannot {step}")]
    Kafka { step: &'static str, source: KafkaError },
    #[error("no broker answers")]
    Unreachable,
    #[error("rows are not committed")]
    Commit(#[source] CommitError),
    #[error("another process runs under the name {0}; hint: give every instance its own name, or none")]
    NameTaken(String),
}

fn kafka(step: &'static str) -> impl Fn(KafkaError) -> Trouble {
    move |source| Trouble::Kafka { step, source }
}

struct Keeper<R> {
    config: Config,
    names: WorkerNames,
    topic: String,
    source: Arc<str>,
    registry: RegistryClient,
    shared: Arc<Shared>,
    rows: R,
}

impl<R: Rows> Keeper<R> {
    fn run(self) {
        let (mut pause, mut fences) = (FIRST_PAUSE, Fences::default());
        while !self.is_ending() {
            let born = Instant::now();
            let Err(trouble) = self.live() else { return };
            let reason = chain(&trouble);
            if matches!(trouble, Trouble::NameTaken(_)) && fences.tell_another_process(Instant::now()) {
                tracing::error!(topic = self.topic, reason, "the table is not written by this instance any more");
                self.tell(Some(&reason));
                return;
            }
            if self.tell(Some(&reason)) {
                tracing::info!(topic = self.topic, reason, "the table is not written for now");
            }
            if born.elapsed() > LONGEST_PAUSE * 4 {
                pause = FIRST_PAUSE;
            }
            let until = Instant::now() + pause;
            while !self.is_ending() && Instant::now() < until {
                std::thread::park_timeout(POLL);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn is_ending(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Says what the trouble is. Answers whether that is news.
    fn tell(&self, trouble: Option<&str>) -> bool {
        let mut told = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told.as_deref() != trouble;
        *told = trouble.map(str::to_owned);
        is_news
    }

    /// From fresh clients to the first error, or to the wish that it ends.
    fn live(&self) -> Result<(), Trouble> {
        let counts = Admin::new(&self.config).and_then(|admin| admin.partition_counts()).map_err(Trouble::Cluster)?;
        let partitions = counts.get(&self.topic).copied().ok_or_else(|| Trouble::NoTopic(self.topic.clone()))?;
        let writers = self.registry.writers(&self.config.system, R::Message::RECORDS);
        let writers = writers.map_err(Trouble::Schemas)?;
        let mut life = Life::begin(self, writers, partitions)?;
        self.tell(None);
        let mut lived = Ok(());
        while lived.is_ok() && !self.is_ending() {
            lived = life.turn();
            self.shared.partitions.store(life.written_partitions(), Ordering::Release);
        }
        self.shared.partitions.store(0, Ordering::Release);
        life.end();
        lived
    }
}

/// What is known of a partition that is owned.
struct Kept {
    /// Nothing of a predecessor comes at or after this offset.
    mark: i64,
    /// It was read up to the mark: its rows may be written.
    is_ready: bool,
    /// A position that its transactions carry.
    next: i64,
    /// The id of the latest row of each key.
    latest: HashMap<Box<str>, Uuid>,
}

struct Life<'k, R> {
    keeper: &'k Keeper<R>,
    writers: Writers,
    partitions: i32,
    consumer: BaseConsumer<Member>,
    transactor: Transactor,
    kept: BTreeMap<i32, Kept>,
    since: u64,
    write_at: Instant,
    liveness: BrokerLiveness,
}

/// A row as it goes on the wire.
struct Ready {
    partition: i32,
    key: String,
    value: Vec<u8>,
    envelope: Envelope,
}

impl<'k, R: Rows> Life<'k, R> {
    fn begin(keeper: &'k Keeper<R>, writers: Writers, partitions: i32) -> Result<Self, Trouble> {
        let (config, names) = (&keeper.config, &keeper.names);
        let log = |purpose: &str| ClientLog::new(format!("{}.{purpose}", names.client_id));
        let teller = Teller::new(log("table"), &keeper.topic);
        let transactor = Transactor::new(&client::transactional_producer(config, names), teller);
        let transactor = transactor.map_err(Trouble::Commit)?;
        if let Err(error) = transactor.init(config.timeouts.transaction + config.timeouts.request) {
            transactor.let_go(config.timeouts.shutdown / 2);
            return Err(Trouble::Commit(error));
        }
        let consumer: BaseConsumer<Member> = client::group_member(config, names)
            .set("enable.partition.eof", "true")
            .create_with_context(Member::new(log("rows")))
            .map_err(kafka("set up a reader of the table"))?;
        consumer.subscribe(&[&keeper.topic]).map_err(kafka("join the group"))?;
        let (kept, write_at, liveness) = (BTreeMap::new(), Instant::now(), BrokerLiveness::new(Instant::now()));
        Ok(Self { keeper, writers, partitions, consumer, transactor, kept, since: 0, write_at, liveness })
    }

    fn turn(&mut self) -> Result<(), Trouble> {
        let mut polled = self.consumer.poll(POLL.min(self.write_at.saturating_duration_since(Instant::now())));
        while let Some(event) = polled {
            match event {
                Ok(message) => {
                    self.liveness.received();
                    note(&mut self.kept, &message);
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    self.liveness.received();
                    self.met_end(partition)?;
                }
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Err(kafka("read the table")(error)),
                // The client goes on by itself, and its context has logged it.
                Err(_) => {}
            }
            polled = self.consumer.poll(Duration::ZERO);
        }
        if self.consumer.context().is_fenced() {
            return Err(Trouble::NameTaken(self.keeper.names.client_id.clone()));
        }
        if self.liveness.probe(&self.consumer, &self.keeper.topic) == Some(Connectivity::Lost) {
            return Err(Trouble::Unreachable);
        }
        while let Some(change) = self.consumer.context().next_change() {
            match change {
                Change::Assigned(partitions) => self.take_on(&partitions)?,
                Change::Revoked => {
                    self.kept.clear();
                    self.consumer.unassign().map_err(kafka("give partitions back"))?;
                }
            }
        }
        if Instant::now() >= self.write_at {
            let more = self.write()?;
            self.write_at = if more { Instant::now() } else { Instant::now() + WRITE_EVERY };
        }
        Ok(())
    }

    fn written_partitions(&self) -> usize {
        self.kept.values().filter(|kept| kept.is_ready).count()
    }

    /// Starts to read partitions from their beginning, up to the end that is told now.
    fn take_on(&mut self, partitions: &[i32]) -> Result<(), Trouble> {
        let Keeper { config, topic, .. } = self.keeper;
        let mut asked = TopicPartitionList::new();
        let mut start = TopicPartitionList::new();
        for partition in partitions {
            asked.add_partition(topic, *partition);
            let placed = start.add_partition_offset(topic, *partition, Offset::Beginning);
            placed.map_err(kafka("place the reader"))?;
        }
        if !partitions.is_empty() {
            // As stable: a transaction that is decided and not marked yet ends before this answers.
            let patience = config.timeouts.transaction + config.timeouts.request;
            self.consumer.committed_offsets(asked, patience).map_err(kafka("fetch the group's offsets"))?;
            let asker: BaseConsumer<ClientLog> = client::watermark_client(config)
                .create_with_context(ClientLog::new("watermarks"))
                .map_err(kafka("set up a client for watermarks"))?;
            for partition in partitions {
                let (_, mark) = asker
                    .fetch_watermarks(topic, *partition, config.timeouts.request)
                    .map_err(kafka("fetch the end of the table"))?;
                let kept = Kept { mark, is_ready: false, next: 0, latest: HashMap::new() };
                self.kept.insert(*partition, kept);
            }
            self.since = 0;
        }
        self.consumer.assign(&start).map_err(kafka("take an assignment"))?;
        // A partition that was ours before is still paused from then.
        if start.count() == 0 { Ok(()) } else { self.consumer.resume(&start).map_err(kafka("read the table again")) }
    }

    fn met_end(&mut self, partition: i32) -> Result<(), Trouble> {
        let positions = self.consumer.position().map_err(kafka("tell the position in the table"))?;
        let at = positions.find_partition(&self.keeper.topic, partition).map(|element| element.offset());
        let Some(kept) = self.kept.get_mut(&partition) else { return Ok(()) };
        if let Some(Offset::Offset(at)) = at {
            kept.next = kept.next.max(at);
        }
        if !kept.is_ready && kept.next >= kept.mark {
            kept.is_ready = true;
            // Whatever has changed while nobody wrote here.
            self.since = 0;
            // From here on nobody but us writes here.
            let mut known = TopicPartitionList::new();
            known.add_partition(&self.keeper.topic, partition);
            self.consumer.pause(&known).map_err(kafka("stop reading what is known"))?;
        }
        Ok(())
    }

    /// Writes what has changed, as one transaction. Answers whether there is more.
    fn write(&mut self) -> Result<bool, Trouble> {
        // Of a moment at which nothing has changed hands: the fence of a later one would let through what is not ours any more.
        let group = self.consumer.group_metadata();
        let (Some(group), false) = (group, self.consumer.context().has_change()) else { return Ok(false) };
        if self.written_partitions() == 0 || !self.keeper.rows.is_current() {
            return Ok(false);
        }
        let changed = self.keeper.rows.changed(self.since, BATCH_ROWS);
        let mut ready = Vec::new();
        for row in changed.rows {
            ready.extend(self.ready(row)?);
        }
        if !ready.is_empty() {
            self.commit(&ready, group).map_err(Trouble::Commit)?;
        }
        self.since = changed.next;
        Ok(changed.more)
    }

    /// The row as it is to be written, if it is ours and not there already.
    fn ready(&self, row: Row<R::Message>) -> Result<Option<Ready>, Trouble> {
        let partition = partition_of(row.key.as_bytes(), self.partitions);
        let Some(kept) = self.kept.get(&partition).filter(|kept| kept.is_ready) else { return Ok(None) };
        let mut value = Vec::new();
        let full_name = self.writers.encode(&row.message, &mut value).map_err(Trouble::Row)?;
        let id = command_id(full_name, &row.key, &value);
        if kept.latest.get(row.key.as_str()) == Some(&id) {
            return Ok(None);
        }
        let envelope = Envelope::new(id, Arc::clone(&self.keeper.source), Arc::clone(full_name), clock::now_ms())
            .about(row.key.as_str())
            .correlated(row.correlation_id);
        let envelope = Envelope { causation_id: row.cause, build: Some(build()), ..envelope };
        Ok(Some(Ready { partition, key: row.key, value, envelope }))
    }

    fn commit(&mut self, ready: &[Ready], group: ConsumerGroupMetadata) -> Result<(), CommitError> {
        let patience = self.keeper.config.timeouts.transaction;
        let (producer, deadline) = (self.transactor.producer(), Instant::now() + patience);
        producer.begin_transaction().map_err(CommitError::kafka("begin a transaction"))?;
        let mut offsets = TopicPartitionList::new();
        for row in ready {
            let record = BaseRecord::to(&self.keeper.topic)
                .partition(row.partition)
                .key(&row.key)
                .payload(&row.value)
                .timestamp(row.envelope.time_ms)
                .headers(to_headers(&row.envelope));
            producer.send(record).map_err(|(error, _)| CommitError::kafka("hand a row to the producer")(error))?;
        }
        for (partition, kept) in self.kept.iter().filter(|(_, kept)| kept.is_ready) {
            let added = offsets.add_partition_offset(&self.keeper.topic, *partition, Offset::Offset(kept.next));
            added.map_err(CommitError::kafka("list positions"))?;
        }
        let told = self.transactor.commit(offsets, Arc::new(group), deadline, patience, |_| Ok(()))?;
        for row in ready {
            if let Some(kept) = self.kept.get_mut(&row.partition) {
                kept.latest.insert(row.key.as_str().into(), row.envelope.id);
                kept.next = told.own_ends.get(&row.partition).copied().unwrap_or(0).max(kept.next);
            }
        }
        self.keeper.shared.written.fetch_add(ready.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    fn end(self) {
        let patience = self.keeper.config.timeouts.shutdown / 2;
        self.consumer.context().leave();
        if !let_go(self.consumer, patience) || !self.transactor.let_go(patience) {
            tracing::warn!(topic = self.keeper.topic, "a client did not close in time; it is left behind");
        }
    }
}

/// Notes the latest row of a key.
fn note(kept: &mut BTreeMap<i32, Kept>, message: &BorrowedMessage<'_>) {
    // What was on its way when a partition was ready is our own.
    let Some(kept) = kept.get_mut(&message.partition()).filter(|kept| !kept.is_ready) else { return };
    kept.next = kept.next.max(message.offset() + 1);
    let Some(key) = message.key().and_then(|key| std::str::from_utf8(key).ok()) else { return };
    let id = message.headers().into_iter().flat_map(Headers::iter).find(|found| found.key == header::ID);
    let id = id.and_then(|id| Uuid::try_parse_ascii(id.value?).ok());
    match (message.payload(), id) {
        (Some(_), Some(id)) => drop(kept.latest.insert(key.into(), id)),
        // A deletion, or a row of somebody who knows no ids: what we know is written anew.
        _ => drop(kept.latest.remove(key)),
    }
}

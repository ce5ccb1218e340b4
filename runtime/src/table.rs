//! A table: the latest row of each key in a compacted topic. Each partition is written by one instance at a time.
//!
//! A table is for a projection, which has no log of its own: every instance can compute every row, and one of them writes it. The
//! group assigns the ownership, as for a service. The owner of a partition of the topic writes the rows with keys of that
//! partition, in transactions that carry an offset of the partition and are therefore fenced by the group's generation. Before an
//! owner writes, it passes the [barrier](crate::core::barrier), so no write of its predecessor can follow. A row's id is derived
//! from its key and its content, and a row that the topic already has is not written again. So a restart writes only the rows
//! that differ.
//!
//! [`Rows`] computes the rows. An error of the table does not delay [`Rows`]: writing is retried until it works.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
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
    core::{
        backoff::Backoff,
        barrier::{Barrier, BarrierStep},
        fencing::Fencing,
        partition_of,
        text::panic_message,
    },
    envelope::{self, Envelope, command_id, header},
    health::{CheckResult, DegradedPiece},
    kafka::{
        Admin, BrokerLiveness, ClientLog, Connectivity,
        client::{self, WorkerNames},
        headers::to_headers,
    },
    message::{Channel, Message as _, Written, topic},
    registry::RegistryClient,
    telemetry::{build, chain},
    worker::{Clients, ClientsError, ClientsSetup, CommitError, Rebalance, fetch_bounds, is_fenced},
};

/// The shortest time between two writes. A row that changed several times in between is written once.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// The most rows in one transaction.
const BATCH_ROWS: usize = 1_000;
/// How long a poll waits. It bounds how long a stop takes.
const POLL: Duration = Duration::from_millis(100);
/// The pauses between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The current content of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<M> {
    /// Its key.
    pub key: String,
    /// The saga it belongs to.
    pub correlation_id: String,
    /// The record that caused its content.
    pub cause: Option<Uuid>,
    /// Its content. Two rows of a key with the same content are the same row.
    pub message: M,
}

/// Some of the rows that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangedRows<M> {
    /// The rows, in the order of their changes.
    pub rows: Vec<Row<M>>,
    /// Where the next call starts.
    pub next: u64,
    /// True if there may be more.
    pub more: bool,
}

/// The source of a table's rows.
pub trait Rows: Send + 'static {
    /// The record type of a row.
    type Message: Written;

    /// True if every input has been read to its end. Before that, another instance may have written newer rows.
    fn is_current(&self) -> bool;

    /// At most `limit` of the rows that changed after `since`, in the order of their changes. Every row has changed after 0.
    fn changed(&self, since: u64, limit: usize) -> ChangedRows<Self::Message>;
}

/// A table that this instance writes. Dropping it requests a stop; [`Table::stop`] also waits for it.
pub struct Table {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    topic: String,
    stop: AtomicBool,
    written: AtomicU64,
    partitions: AtomicUsize,
    issue: Mutex<Option<String>>,
}

impl Shared {
    fn issue(&self) -> Option<String> {
        self.issue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} rows written)", self.written())
    }
}

impl Table {
    /// Starts to write a table to the state topic of the configured service. The cluster and the registry may still be unavailable.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start<R: Rows>(config: &Config, registry: RegistryClient, rows: R) -> std::io::Result<Self> {
        let topic = topic(&config.system, &config.service, Channel::State);
        let shared = Arc::new(Shared { topic: topic.clone(), ..Shared::default() });
        let writer = TableWriter {
            topic,
            // An instance without a name gets one for this run. Its restart costs only the pause of a rebalance.
            names: WorkerNames::of(config, &config.service, 0, Uuid::now_v7()),
            source: envelope::source(&config.system, &config.service),
            config: config.clone(),
            registry,
            writers: OnceLock::new(),
            shared: Arc::clone(&shared),
            rows,
        };
        let thread =
            std::thread::Builder::new().name(format!("table-{}", config.service)).spawn(move || writer.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The number of rows that this instance has written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Acquire)
    }

    /// The number of partitions that this instance writes now.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.shared.partitions.load(Ordering::Acquire)
    }

    /// Why the table cannot be written now, if it cannot.
    #[must_use]
    pub fn issue(&self) -> Option<String> {
        self.shared.issue()
    }

    /// A readiness check: degraded while the table cannot be written.
    pub fn check(&self) -> impl Fn() -> CheckResult + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let issue = shared.issue().map(|reason| DegradedPiece::new(&*shared.topic, reason));
            CheckResult::of_pieces(issue.into_iter().collect())
        }
    }

    /// Stops within `patience`. The partitions are unassigned, so that another instance takes them at once. Returns whether all
    /// of this was done in time.
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
enum TableError {
    #[error("topic {0} does not exist; hint: `dacapo topics create`")]
    NoTopic(String),
    #[error("cannot list the topics of the cluster")]
    Cluster(#[source] crate::kafka::AdminError),
    #[error("the schemas of the table cannot be used")]
    Schemas(#[source] WriterError),
    #[error("a row cannot be written as a record")]
    Row(#[source] crate::codec::CodecError),
    #[error("cannot {step}")]
    Kafka { step: &'static str, source: KafkaError },
    #[error("cannot set up the clients of the table")]
    Clients(#[from] ClientsError),
    #[error("the producer of the table cannot continue: {0}")]
    DeadProducer(String),
    #[error("no broker answers")]
    Unreachable,
    #[error("rows are not committed")]
    Commit(#[source] CommitError),
    #[error("another process runs under the name {0}; hint: give every instance its own name, or none")]
    NameTaken(String),
    #[error("the code that makes the rows panicked: {0}")]
    Panicked(String),
}

fn kafka(step: &'static str) -> impl Fn(KafkaError) -> TableError {
    move |source| TableError::Kafka { step, source }
}

struct TableWriter<R> {
    config: Config,
    names: WorkerNames,
    topic: String,
    source: Arc<str>,
    registry: RegistryClient,
    /// The writers, once the registry has been asked for their schemas.
    writers: OnceLock<Writers>,
    shared: Arc<Shared>,
    rows: R,
}

impl<R: Rows> TableWriter<R> {
    /// Runs one incarnation after another, until a stop is requested or another process takes this one's name.
    fn run(self) {
        let (started, mut fencing) = (Instant::now(), Fencing::default());
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        while !self.is_ending() {
            let began = Instant::now();
            let ended = catch_unwind(AssertUnwindSafe(|| self.incarnation()))
                .unwrap_or_else(|panic| Err(TableError::Panicked(panic_message(panic.as_ref()))));
            self.shared.partitions.store(0, Ordering::Release);
            let Err(error) = ended else { return };
            let reason = chain(&error);
            if matches!(error, TableError::NameTaken(_)) && fencing.member_fenced(started.elapsed()) {
                tracing::error!(topic = self.topic, reason, "this instance no longer writes the table");
                self.report(Some(&reason));
                return;
            }
            if self.report(Some(&reason)) {
                tracing::info!(topic = self.topic, reason, "the table is not written for now");
            }
            if began.elapsed() > LONGEST_PAUSE * 4 {
                backoff.reset();
            }
            let until = Instant::now() + backoff.pause();
            while !self.is_ending() && Instant::now() < until {
                std::thread::park_timeout(POLL);
            }
        }
    }

    fn is_ending(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Sets the reported issue. Returns whether it has changed.
    fn report(&self, issue: Option<&str>) -> bool {
        let mut reported = self.shared.issue.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = reported.as_deref() != issue;
        *reported = issue.map(str::to_owned);
        has_changed
    }

    /// Runs from new clients to the first error, or until a stop is requested.
    fn incarnation(&self) -> Result<(), TableError> {
        let counts =
            Admin::new(&self.config).and_then(|admin| admin.partition_counts()).map_err(TableError::Cluster)?;
        let partitions = counts.get(&self.topic).copied().ok_or_else(|| TableError::NoTopic(self.topic.clone()))?;
        let writers = self.writers().map_err(TableError::Schemas)?;
        let mut incarnation = TableIncarnation::begin(self, writers, partitions)?;
        while !self.is_ending() {
            incarnation.turn()?;
            if incarnation.works {
                self.report(None);
            }
            self.shared.partitions.store(incarnation.written_partitions(), Ordering::Release);
        }
        Ok(())
    }
}

impl<R: Rows> TableWriter<R> {
    /// The writers. Their schemas are looked up once; they do not change.
    fn writers(&self) -> Result<Writers, WriterError> {
        if let Some(writers) = self.writers.get() {
            return Ok(writers.clone());
        }
        let writers = self.registry.writers(&self.config.system, R::Message::RECORDS)?;
        Ok(self.writers.get_or_init(|| writers).clone())
    }
}

/// A partition that this instance owns.
#[derive(Default)]
struct OwnedPartition {
    /// True if it has passed the barrier: its rows may be written.
    is_ready: bool,
    /// The position that its transactions commit.
    next: i64,
    /// The id of the latest row of each key.
    latest: HashMap<Box<str>, Uuid>,
}

struct TableIncarnation<'k, R> {
    writer: &'k TableWriter<R>,
    writers: Writers,
    partitions: i32,
    clients: Clients,
    barrier: Barrier<i32>,
    owned: BTreeMap<i32, OwnedPartition>,
    is_assigned: bool,
    /// True after a write without an error. Before that, the last issue may still exist.
    works: bool,
    since: u64,
    write_at: Instant,
    liveness: BrokerLiveness,
}

/// An encoded row.
struct EncodedRow {
    partition: i32,
    key: String,
    value: Vec<u8>,
    envelope: Envelope,
}

impl<'k, R: Rows> TableIncarnation<'k, R> {
    fn begin(writer: &'k TableWriter<R>, writers: Writers, partitions: i32) -> Result<Self, TableError> {
        let (config, names) = (&writer.config, &writer.names);
        let mut consumer = client::group_member(config, names);
        consumer.set("enable.partition.eof", "true");
        let clients = Clients::begin(&ClientsSetup {
            client_id: &names.client_id,
            lag_of: None,
            producer: &client::transactional_producer(config, names),
            consumer: &consumer,
            subscribe_to: &writer.topic,
            own_log: &writer.topic,
            timeouts: config.timeouts,
        })?;
        let (barrier, owned, now) = (Barrier::default(), BTreeMap::new(), Instant::now());
        let liveness = BrokerLiveness::new(now);
        let (is_assigned, works) = (false, false);
        Ok(Self {
            writer,
            writers,
            partitions,
            clients,
            barrier,
            owned,
            is_assigned,
            works,
            since: 0,
            write_at: now,
            liveness,
        })
    }

    fn turn(&mut self) -> Result<(), TableError> {
        self.read()?;
        let consumer = Arc::clone(self.clients.consumer());
        if consumer.context().is_fenced() {
            return Err(TableError::NameTaken(self.writer.names.client_id.clone()));
        }
        let fatal = self.clients.transactor().producer().client().fatal_error();
        // A fence is left to the group, which tells whether another process runs under this name.
        if let Some((code, reason)) = fatal.filter(|(code, _)| !is_fenced(*code)) {
            return Err(TableError::DeadProducer(format!("{code}: {reason}")));
        }
        if self.liveness.probe(&*consumer, &self.writer.topic) == Some(Connectivity::Lost) {
            return Err(TableError::Unreachable);
        }
        while let Some(rebalance) = consumer.context().next_rebalance() {
            match rebalance {
                Rebalance::Assigned(partitions) => {
                    self.start_reading(&partitions.into_iter().collect())?;
                    self.is_assigned = true;
                }
                Rebalance::Revoked => {
                    self.is_assigned = false;
                    self.owned.clear();
                    consumer.unassign().map_err(kafka("unassign partitions"))?;
                }
            }
        }
        if Instant::now() >= self.write_at {
            let more = self.write()?;
            self.write_at = if more { Instant::now() } else { Instant::now() + WRITE_EVERY };
            self.works = self.is_assigned && self.owned.values().all(|owned| owned.is_ready);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), TableError> {
        let consumer = Arc::clone(self.clients.consumer());
        let mut polled = consumer.poll(POLL.min(self.write_at.saturating_duration_since(Instant::now())));
        while let Some(event) = polled {
            match event {
                Ok(message) => {
                    self.liveness.received();
                    record_latest(&mut self.owned, &message);
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    self.liveness.received();
                    self.reached_end(partition)?;
                }
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Err(kafka("read the table")(error)),
                // The client retries. As long as the end is not reached, the partition is not written, and the issue says so.
                Err(error) => drop(self.writer.report(Some(&format!("the table cannot be read for now: {error}")))),
            }
            polled = consumer.poll(Duration::ZERO);
        }
        Ok(())
    }

    fn written_partitions(&self) -> usize {
        self.owned.values().filter(|owned| owned.is_ready).count()
    }

    /// Starts to read assigned partitions from their beginning, up to the barrier.
    fn start_reading(&mut self, partitions: &BTreeSet<i32>) -> Result<(), TableError> {
        self.barrier = Barrier::default();
        while !partitions.is_empty() && self.barrier.step() != BarrierStep::Read {
            match self.barrier.step() {
                BarrierStep::FetchOffsets => self.fetch_stable_offsets(partitions)?,
                BarrierStep::FetchEnds => self.fetch_ends(partitions)?,
                BarrierStep::Read => {}
            }
        }
        self.owned = partitions.iter().map(|partition| (*partition, OwnedPartition::default())).collect();
        self.since = 0;
        let mut start = TopicPartitionList::new();
        for partition in partitions {
            let added = start.add_partition_offset(&self.writer.topic, *partition, Offset::Beginning);
            added.map_err(kafka("list the partitions of the table"))?;
        }
        self.clients.consumer().assign(&start).map_err(kafka("accept an assignment"))?;
        // The client still pauses a partition that this instance owned before.
        if partitions.is_empty() {
            return Ok(());
        }
        self.clients.consumer().resume(&start).map_err(kafka("read the table again"))
    }

    fn fetch_stable_offsets(&mut self, partitions: &BTreeSet<i32>) -> Result<(), TableError> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.writer.topic, *partition);
        }
        let timeouts = self.writer.config.timeouts;
        let fetched = self.clients.consumer().committed_offsets(list, timeouts.transaction + timeouts.request);
        fetched.map_err(kafka("fetch the group's offsets"))?;
        self.barrier.offsets_fetched();
        Ok(())
    }

    fn fetch_ends(&mut self, partitions: &BTreeSet<i32>) -> Result<(), TableError> {
        let (config, topic) = (&self.writer.config, Arc::from(self.writer.topic.as_str()));
        let watermarks: BaseConsumer<ClientLog> = client::watermark_client(config)
            .create_with_context(ClientLog::new("watermarks"))
            .map_err(kafka("set up a client for watermarks"))?;
        let bounds = fetch_bounds(&watermarks, [&topic], partitions, config.timeouts.request)
            .map_err(kafka("fetch the end of the table"))?;
        self.barrier.ends_fetched(partitions.iter().map(|partition| (*partition, bounds.of(&topic, *partition).end)));
        Ok(())
    }

    fn reached_end(&mut self, partition: i32) -> Result<(), TableError> {
        let consumer = self.clients.consumer();
        let positions = consumer.position().map_err(kafka("read the position in the table"))?;
        let at = positions.find_partition(&self.writer.topic, partition).map(|element| element.offset());
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        if let Some(Offset::Offset(at)) = at {
            owned.next = owned.next.max(at);
        }
        self.barrier.reached(&partition, owned.next);
        if !owned.is_ready && self.barrier.is_passed(&partition) {
            owned.is_ready = true;
            // Rows that changed before this partition was ready must still be written.
            self.since = 0;
            // From now on only this instance writes to the partition.
            let mut read = TopicPartitionList::new();
            read.add_partition(&self.writer.topic, partition);
            consumer.pause(&read).map_err(kafka("stop reading the table"))?;
        }
        Ok(())
    }

    /// Writes changed rows in one transaction. Returns whether there are more.
    fn write(&mut self) -> Result<bool, TableError> {
        // The fence is from a moment without a rebalance. The metadata of a later generation would let rows of a lost partition
        // pass.
        let consumer = self.clients.consumer();
        let (Some(group), false) = (consumer.group_metadata(), consumer.context().has_rebalance()) else {
            return Ok(false);
        };
        if self.written_partitions() == 0 || !self.writer.rows.is_current() {
            return Ok(false);
        }
        let changed = self.writer.rows.changed(self.since, BATCH_ROWS);
        let mut encoded = Vec::new();
        for row in changed.rows {
            encoded.extend(self.encode(row)?);
        }
        if !encoded.is_empty() {
            self.commit(&encoded, group).map_err(TableError::Commit)?;
        }
        self.since = changed.next;
        Ok(changed.more)
    }

    /// The encoded row, if this instance owns it and the topic has another content for its key.
    fn encode(&self, row: Row<R::Message>) -> Result<Option<EncodedRow>, TableError> {
        let partition = partition_of(row.key.as_bytes(), self.partitions);
        let Some(owned) = self.owned.get(&partition).filter(|owned| owned.is_ready) else { return Ok(None) };
        let mut value = Vec::new();
        let full_name = self.writers.encode(&row.message, &mut value).map_err(TableError::Row)?;
        let id = command_id(full_name, &row.key, &value);
        if owned.latest.get(row.key.as_str()) == Some(&id) {
            return Ok(None);
        }
        let envelope = Envelope::new(id, Arc::clone(&self.writer.source), Arc::clone(full_name), clock::now_ms())
            .about(row.key.as_str())
            .correlated(row.correlation_id);
        let envelope = Envelope { causation_id: row.cause, build: Some(build()), ..envelope };
        Ok(Some(EncodedRow { partition, key: row.key, value, envelope }))
    }

    fn commit(&mut self, rows: &[EncodedRow], group: ConsumerGroupMetadata) -> Result<(), CommitError> {
        let patience = self.writer.config.timeouts.transaction;
        let (transactor, deadline) = (self.clients.transactor(), Instant::now() + patience);
        let producer = transactor.producer();
        producer.begin_transaction().map_err(CommitError::kafka("begin a transaction"))?;
        for row in rows {
            let record = BaseRecord::to(&self.writer.topic)
                .partition(row.partition)
                .key(&row.key)
                .payload(&row.value)
                .timestamp(row.envelope.time_ms)
                .headers(to_headers(&row.envelope));
            producer.send(record).map_err(|(error, _)| CommitError::kafka("pass a row to the producer")(error))?;
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, owned) in self.owned.iter().filter(|(_, owned)| owned.is_ready) {
            let added = offsets.add_partition_offset(&self.writer.topic, *partition, Offset::Offset(owned.next));
            added.map_err(CommitError::kafka("list positions"))?;
        }
        let deliveries = transactor.commit(offsets, Arc::new(group), deadline, patience, |_| Ok(()))?;
        for row in rows {
            if let Some(owned) = self.owned.get_mut(&row.partition) {
                owned.latest.insert(row.key.as_str().into(), row.envelope.id);
                owned.next = deliveries.own_ends.get(&row.partition).copied().unwrap_or(0).max(owned.next);
            }
        }
        self.writer.shared.written.fetch_add(rows.len() as u64, Ordering::AcqRel);
        Ok(())
    }
}

/// Records the id of the latest row of a key.
fn record_latest(owned: &mut BTreeMap<i32, OwnedPartition>, message: &BorrowedMessage<'_>) {
    // A row that arrives after the partition became ready is from this instance.
    let Some(owned) = owned.get_mut(&message.partition()).filter(|owned| !owned.is_ready) else { return };
    owned.next = owned.next.max(message.offset() + 1);
    let Some(key) = message.key().and_then(|key| std::str::from_utf8(key).ok()) else { return };
    let id = message.headers().into_iter().flat_map(Headers::iter).find(|found| found.key == header::ID);
    let id = id.and_then(|id| Uuid::try_parse_ascii(id.value?).ok());
    match (message.payload(), id) {
        (Some(_), Some(id)) => drop(owned.latest.insert(key.into(), id)),
        // After a deletion, or a row from a writer that sets no ids, the row is written again.
        _ => drop(owned.latest.remove(key)),
    }
}

//! A table: the latest row of each key in a compacted topic, each partition written by one instance at a time.
//!
//! It is for what only folds and has no log of its own: every instance can make every row, and one of them writes it. Ownership is
//! the group's, as for a service: the owner of partition p of the topic writes the rows whose keys lie there, in transactions that
//! carry a position of p and so are fenced by the group's generation. Before it writes, an owner has passed the
//! [barrier](crate::core::barrier): nothing of its predecessor comes later. A row that lies there already is not written again: its id
//! is derived from its key and its content. So a restart writes only what differs.
//!
//! [`Rows`] makes the rows. A table that cannot be written does not hold [`Rows`] up: it is tried again for as long as it takes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
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
    core::{
        backoff::Backoff,
        barrier::{Barrier, BarrierStep},
        fencing::Fencing,
        partition_of,
        text::panic_message,
    },
    envelope::{self, Envelope, command_id, header},
    kafka::{
        Admin, BrokerLiveness, ClientLog, Connectivity,
        client::{self, WorkerNames},
        headers::to_headers,
    },
    message::{Channel, Message as _, Written, topic},
    registry::RegistryClient,
    telemetry::{build, chain},
    worker::{Clients, ClientsError, ClientsSetup, CommitError, Rebalance, fetch_bounds},
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

/// A table that is written. Dropping it asks the writer to end; [`Table::stop`] waits.
pub struct Table {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    written: AtomicU64,
    partitions: AtomicUsize,
    issue: Mutex<Option<String>>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} rows written)", self.written())
    }
}

impl Table {
    /// Starts to write a table in the state topic of the configured service. Neither the cluster nor the registry need be there yet.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start<R: Rows>(config: &Config, registry: RegistryClient, rows: R) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = TableWriter {
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
            std::thread::Builder::new().name(format!("table-{}", config.service)).spawn(move || writer.run())?;
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
    pub fn issue(&self) -> Option<String> {
        self.shared.issue.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
enum TableError {
    #[error("there is no topic {0} to write to; hint: `dacapo topics create`")]
    NoTopic(String),
    #[error("cannot list the topics of the cluster")]
    Cluster(#[source] crate::kafka::AdminError),
    #[error("its records cannot be written")]
    Schemas(#[source] WriterError),
    #[error("a row cannot be written as a record")]
    Row(#[source] crate::codec::CodecError),
    #[error("cannot {step}")]
    Kafka { step: &'static str, source: KafkaError },
    #[error("cannot set up its clients")]
    Clients(#[from] ClientsError),
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
    shared: Arc<Shared>,
    rows: R,
}

impl<R: Rows> TableWriter<R> {
    /// One incarnation after another, until asked to end or fenced by another process of this name.
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
                tracing::error!(topic = self.topic, reason, "the table is not written by this instance any more");
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

    /// Reports what is wrong. Returns whether that is news.
    fn report(&self, problem: Option<&str>) -> bool {
        let mut reported = self.shared.issue.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = reported.as_deref() != problem;
        *reported = problem.map(str::to_owned);
        is_news
    }

    /// From fresh clients to the first error, or until asked to end.
    fn incarnation(&self) -> Result<(), TableError> {
        let counts =
            Admin::new(&self.config).and_then(|admin| admin.partition_counts()).map_err(TableError::Cluster)?;
        let partitions = counts.get(&self.topic).copied().ok_or_else(|| TableError::NoTopic(self.topic.clone()))?;
        let writers = self.registry.writers(&self.config.system, R::Message::RECORDS).map_err(TableError::Schemas)?;
        let mut incarnation = Incarnation::begin(self, writers, partitions)?;
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

/// What is known of a partition that is owned.
#[derive(Default)]
struct OwnedPartition {
    /// It has passed the barrier: its rows may be written.
    is_ready: bool,
    /// A position that its transactions carry.
    next: i64,
    /// The id of the latest row of each key.
    latest: HashMap<Box<str>, Uuid>,
}

struct Incarnation<'k, R> {
    writer: &'k TableWriter<R>,
    writers: Writers,
    partitions: i32,
    clients: Clients,
    barrier: Barrier<i32>,
    owned: BTreeMap<i32, OwnedPartition>,
    is_assigned: bool,
    /// It has tried to write everything that it owns, and nothing failed. Before that, what was wrong may still be wrong.
    works: bool,
    since: u64,
    write_at: Instant,
    liveness: BrokerLiveness,
}

/// A row as it is written.
struct EncodedRow {
    partition: i32,
    key: String,
    value: Vec<u8>,
    envelope: Envelope,
}

impl<'k, R: Rows> Incarnation<'k, R> {
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
        if self.liveness.probe(&*consumer, &self.writer.topic) == Some(Connectivity::Lost) {
            return Err(TableError::Unreachable);
        }
        while let Some(change) = consumer.context().next_change() {
            match change {
                Rebalance::Assigned(partitions) => {
                    self.take_on(&partitions.into_iter().collect())?;
                    self.is_assigned = true;
                }
                Rebalance::Revoked => {
                    self.owned.clear();
                    consumer.unassign().map_err(kafka("give partitions back"))?;
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
                    note(&mut self.owned, &message);
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    self.liveness.received();
                    self.reached_end(partition)?;
                }
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Err(kafka("read the table")(error)),
                // The client tries again by itself, and its context has logged it.
                Err(_) => {}
            }
            polled = consumer.poll(Duration::ZERO);
        }
        Ok(())
    }

    fn written_partitions(&self) -> usize {
        self.owned.values().filter(|owned| owned.is_ready).count()
    }

    /// Starts to read partitions from their beginning, up to the barrier.
    fn take_on(&mut self, partitions: &BTreeSet<i32>) -> Result<(), TableError> {
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
            let placed = start.add_partition_offset(&self.writer.topic, *partition, Offset::Beginning);
            placed.map_err(kafka("place the reader"))?;
        }
        self.clients.consumer().assign(&start).map_err(kafka("accept an assignment"))?;
        // A partition that this instance owned before is still paused from then.
        if partitions.is_empty() {
            return Ok(());
        }
        self.clients.consumer().resume(&start).map_err(kafka("read the table again"))
    }

    fn fetch_stable_offsets(&mut self, partitions: &BTreeSet<i32>) -> Result<(), TableError> {
        let mut asked = TopicPartitionList::new();
        for partition in partitions {
            asked.add_partition(&self.writer.topic, *partition);
        }
        let timeouts = self.writer.config.timeouts;
        let fetched = self.clients.consumer().committed_offsets(asked, timeouts.transaction + timeouts.request);
        fetched.map_err(kafka("fetch the group's offsets"))?;
        self.barrier.offsets_fetched();
        Ok(())
    }

    fn fetch_ends(&mut self, partitions: &BTreeSet<i32>) -> Result<(), TableError> {
        let (config, topic) = (&self.writer.config, Arc::from(self.writer.topic.as_str()));
        let asker: BaseConsumer<ClientLog> = client::watermark_client(config)
            .create_with_context(ClientLog::new("watermarks"))
            .map_err(kafka("set up a client for watermarks"))?;
        let bounds = fetch_bounds(&asker, [&topic], partitions, config.timeouts.request)
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
            // Rows that changed while nobody wrote here are still to be written.
            self.since = 0;
            // From here on nobody but this instance writes here.
            let mut read = TopicPartitionList::new();
            read.add_partition(&self.writer.topic, partition);
            consumer.pause(&read).map_err(kafka("stop reading the table"))?;
        }
        Ok(())
    }

    /// Writes what has changed, as one transaction. Returns whether there is more.
    fn write(&mut self) -> Result<bool, TableError> {
        // Of a moment at which nothing changes hands: the fence of a later one would let through what is not ours any more.
        let consumer = self.clients.consumer();
        let (Some(group), false) = (consumer.group_metadata(), consumer.context().has_change()) else {
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

    /// The row as it is to be written, if this instance owns it and it differs from what lies there.
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
            producer.send(record).map_err(|(error, _)| CommitError::kafka("hand a row to the producer")(error))?;
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

/// Notes the latest row of a key.
fn note(owned: &mut BTreeMap<i32, OwnedPartition>, message: &BorrowedMessage<'_>) {
    // What was on its way when a partition became ready is this instance's own.
    let Some(owned) = owned.get_mut(&message.partition()).filter(|owned| !owned.is_ready) else { return };
    owned.next = owned.next.max(message.offset() + 1);
    let Some(key) = message.key().and_then(|key| std::str::from_utf8(key).ok()) else { return };
    let id = message.headers().into_iter().flat_map(Headers::iter).find(|found| found.key == header::ID);
    let id = id.and_then(|id| Uuid::try_parse_ascii(id.value?).ok());
    match (message.payload(), id) {
        (Some(_), Some(id)) => drop(owned.latest.insert(key.into(), id)),
        // A deletion, or a row of a writer that sets no ids: the row is written again.
        _ => drop(owned.latest.remove(key)),
    }
}

//! The recovery of partitions, on a thread of its own, so that recovered partitions decide meanwhile.
//!
//! It executes the steps of [`Recoveries`] on Kafka; their order, and when a partition may decide, is the core's decision.
//! Checkpoints are loaded in parallel, and a partition is read as soon as its checkpoint is loaded.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};

use super::{Setup, bounds};
use crate::{
    clock,
    core::{
        FoldOutcome, LogCorruption, Task,
        backoff::Backoff,
        envelope::Position,
        log_bounds::{LogLoss, own_end_of},
        recoveries::{
            CommittedOffsets, LoadedCheckpoint, Opened, ReadFrom, Recoveries, RecoveryEnd, RecoveryStart, RecoveryStep,
            StartAt,
        },
        text::panic_message,
    },
    decider::{Decider, Perform},
    kafka::{BrokerLiveness, ClientLog, Connectivity, client, headers::with_record},
    unreadable::{inspect, is_about_a_batch},
};

/// How long a poll waits for records or checkpoints; shorter while it waits for both.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_WHILE_LOADING: Duration = Duration::from_millis(5);
/// How long an own event's schema is requested before the attempt ends and the delay is reported.
const SCHEMA_PATIENCE: Duration = Duration::from_secs(1);

/// What a recovery reports to the worker.
pub(super) enum RecoveryReport<D: Decider> {
    /// The partition may decide.
    Recovered(Box<Task<D>>),
    /// The partition must not decide: until an operator has acted if that is final, else in this generation of the group.
    Refused { partition: i32, position: String, reason: String, is_final: bool },
    /// The topics no longer have the records that the partitions must continue from. The worker must stop for good.
    LogLoss { reason: String },
    /// The recovery is delayed because something is unavailable. It is retried.
    Delayed { partitions: Vec<i32>, reason: String },
}

/// The running recovery of all partitions of a generation. Dropping it cancels the rest.
pub(super) struct RecoveryThread<D: Decider> {
    left: usize,
    cancelled: Arc<AtomicBool>,
    reports: Receiver<RecoveryReport<D>>,
}

#[derive(Debug, thiserror::Error)]
enum RecoveryError {
    #[error("cannot {step}")]
    Kafka { step: &'static str, source: Box<KafkaError> },
    #[error("cannot start a thread to load checkpoints")]
    Thread(#[source] std::io::Error),
    #[error("no broker answers")]
    Unreachable,
    #[error("the schema of the own event at {position} cannot be fetched: {reason}")]
    Schema { position: Position, reason: String },
    #[error(
        "the batch at {position} of the own log cannot be read: {reason}; hint: no service skips a part of its own log; restore the \
         topic (docs/operations.md, \"A batch that cannot be read\")"
    )]
    Unreadable { position: Position, reason: String },
    #[error("the recovery panicked: {reason}")]
    Panicked { reason: String },
    #[error(transparent)]
    LogLoss(#[from] LogLoss),
}

fn kafka(step: &'static str) -> impl Fn(KafkaError) -> RecoveryError {
    move |source| RecoveryError::Kafka { step, source: Box::new(source) }
}

impl<D: Decider> RecoveryThread<D> {
    /// Starts to recover these partitions.
    pub(super) fn start<P: Perform<D>>(setup: &Arc<Setup<D, P>>, partitions: &[i32]) -> std::io::Result<Self> {
        let left: BTreeSet<i32> = partitions.iter().copied().collect();
        let (count, cancelled) = (left.len(), Arc::new(AtomicBool::new(false)));
        let (report, reports) = mpsc::sync_channel(count * 2 + 8);
        let work = Work { setup: Arc::clone(setup), left, cancelled: Arc::clone(&cancelled), report };
        let name = format!("recovery-{}", setup.names.client_id);
        std::thread::Builder::new().name(name).spawn(move || work.run())?;
        Ok(Self { left: count, cancelled, reports })
    }

    /// The reports since the last call.
    pub(super) fn take(&mut self) -> Vec<RecoveryReport<D>> {
        let reports: Vec<RecoveryReport<D>> = self.reports.try_iter().collect();
        let is_last = |report: &&RecoveryReport<D>| {
            matches!(report, RecoveryReport::Recovered(_) | RecoveryReport::Refused { .. })
        };
        self.left = self.left.saturating_sub(reports.iter().filter(is_last).count());
        reports
    }

    /// The number of partitions that have neither recovered nor been refused.
    pub(super) fn left(&self) -> usize {
        self.left
    }
}

impl<D: Decider> Drop for RecoveryThread<D> {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

struct Work<D: Decider, P> {
    setup: Arc<Setup<D, P>>,
    left: BTreeSet<i32>,
    cancelled: Arc<AtomicBool>,
    report: SyncSender<RecoveryReport<D>>,
}

type OwnLogReader = BaseConsumer<ClientLog>;

/// A partition with an open checkpoint, or why it cannot continue from it.
type Loaded<D> = Result<Opened<D>, LogLoss>;

impl<D: Decider, P: Perform<D>> Work<D, P> {
    fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while !self.left.is_empty() && !self.is_cancelled() {
            // After a panic of a decider the partition must not wait without a report.
            let attempted = catch_unwind(AssertUnwindSafe(|| self.attempt()))
                .unwrap_or_else(|panic| Err(RecoveryError::Panicked { reason: panic_message(panic.as_ref()) }));
            let Err(failure) = attempted else { continue };
            let reason = crate::telemetry::chain(&failure);
            if let RecoveryError::LogLoss(_) = failure {
                return self.send(RecoveryReport::LogLoss { reason });
            }
            tracing::warn!(service = D::NAME, %reason, "recovery is delayed; it is retried");
            let partitions = self.left.iter().copied().collect();
            // If the channel is full, the worker has reports to read, and the next delay is reported again.
            let _unreported = self.report.try_send(RecoveryReport::Delayed { partitions, reason });
            super::rest(&self.setup, backoff.pause());
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.setup.stop.is_requested()
    }

    /// One attempt, from new clients to the end of every remaining partition.
    fn attempt(&mut self) -> Result<(), RecoveryError> {
        let setup = Arc::clone(&self.setup);
        let contract = setup.contract.clone();
        let mut recoveries = Recoveries::new(setup.decider.clone(), contract.clone(), self.left.iter().copied());
        let reader = self.own_log_reader()?;
        while !self.is_cancelled() {
            match recoveries.step() {
                RecoveryStep::FetchOffsets => recoveries.offsets_fetched(self.committed_offsets(&reader)?),
                RecoveryStep::FetchBounds => {
                    let bounds = self.bounds()?;
                    // Without metadata the client would look for the leaders of these topics a second later.
                    for topic in [&contract.events_topic, &contract.parked_topic] {
                        reader
                            .fetch_metadata(Some(topic), setup.config.timeouts.request)
                            .map_err(kafka("find the leaders of the own log"))?;
                    }
                    let start = recoveries.bounds_fetched(bounds);
                    self.load_and_read(&reader, &mut recoveries, &start)?;
                }
                RecoveryStep::Read | RecoveryStep::Done => return Ok(()),
            }
        }
        Ok(())
    }

    fn own_log_reader(&self) -> Result<OwnLogReader, RecoveryError> {
        let mut config = client::log_reader(&self.setup.config, "own-log");
        // The client fetches the group's offsets under its name, and does not join. A read-committed client fetches stable offsets.
        config.set("group.id", &self.setup.names.group);
        // The partition waits for an empty response at the end of the log, and brokers delay empty responses by this time.
        config.set("fetch.wait.max.ms", "20");
        config.create_with_context(ClientLog::new("own-log")).map_err(kafka("set up a reader of the own log"))
    }

    fn committed_offsets(&self, reader: &OwnLogReader) -> Result<BTreeMap<i32, CommittedOffsets>, RecoveryError> {
        const STEP: &str = "fetch the group's committed offsets";
        let (inputs, timeouts) = (&self.setup.contract.inputs, self.setup.config.timeouts);
        let mut list = TopicPartitionList::new();
        for input in inputs {
            for partition in &self.left {
                list.add_partition(input, *partition);
            }
        }
        let found = reader.committed_offsets(list, timeouts.transaction + timeouts.request).map_err(kafka(STEP))?;
        let none = || CommittedOffsets { inputs: vec![None; inputs.len()], own_end: 0 };
        let mut committed: BTreeMap<i32, CommittedOffsets> =
            self.left.iter().map(|partition| (*partition, none())).collect();
        for element in found.elements() {
            element.error().map_err(kafka(STEP))?;
            let input = inputs.iter().position(|input| **input == *element.topic());
            if let (Some(input), Offset::Offset(offset)) = (input, element.offset())
                && let Some(committed) = committed.get_mut(&element.partition())
            {
                committed.inputs[input] = Some(offset);
                committed.own_end = committed.own_end.max(own_end_of(element.metadata()));
            }
        }
        Ok(committed)
    }

    fn bounds(&self) -> Result<crate::core::log_bounds::AllBounds, RecoveryError> {
        let (config, contract) = (&self.setup.config, &self.setup.contract);
        let watermarks: BaseConsumer<ClientLog> = client::watermark_client(config)
            .create_with_context(ClientLog::new("watermarks"))
            .map_err(kafka("set up a client for watermarks"))?;
        let fetch = |topics: &[Arc<str>]| bounds::fetch(&watermarks, topics, &self.left, config.timeouts.request);
        let own = fetch(&[Arc::clone(&contract.events_topic), Arc::clone(&contract.parked_topic)])
            .map_err(kafka("fetch the ends of the own log"))?;
        let inputs = fetch(&contract.inputs).map_err(kafka("fetch the ends of the inputs"))?;
        Ok(own.and(inputs))
    }

    fn load_and_read(
        &mut self,
        reader: &OwnLogReader,
        recoveries: &mut Recoveries<D>,
        start: &RecoveryStart,
    ) -> Result<(), RecoveryError> {
        let setup = Arc::clone(&self.setup);
        let waiting: Mutex<VecDeque<i32>> = Mutex::new(self.left.iter().copied().collect());
        let (sender, loaded) = mpsc::sync_channel(self.left.len());
        std::thread::scope(|scope| {
            for _ in 0..loaders(self.left.len()) {
                let (sender, setup, waiting) = (sender.clone(), &setup, &waiting);
                let loader = std::thread::Builder::new().name("load".to_owned());
                loader
                    .spawn_scoped(scope, move || load(setup, start, waiting, &sender))
                    .map_err(RecoveryError::Thread)?;
            }
            drop(sender);
            // The closure drops the receiver when it ends, and then the loading threads stop.
            let loaded = loaded;
            self.read(reader, recoveries, &loaded)
        })
    }

    /// Reads the partitions whose checkpoints are open up to the barrier.
    fn read(
        &mut self,
        reader: &OwnLogReader,
        recoveries: &mut Recoveries<D>,
        loaded: &Receiver<Loaded<D>>,
    ) -> Result<(), RecoveryError> {
        let (mut liveness, mut is_loading) = (BrokerLiveness::new(Instant::now()), true);
        while (is_loading || recoveries.reading().len() > 0) && !self.is_cancelled() {
            is_loading = is_loading && self.take_loaded(reader, recoveries, loaded)?;
            match reader.poll(if is_loading { LOOK_WHILE_LOADING } else { LOOK }) {
                None => {
                    if liveness.probe(reader, &self.setup.contract.events_topic) == Some(Connectivity::Lost) {
                        return Err(RecoveryError::Unreachable);
                    }
                }
                Some(Ok(message)) => {
                    liveness.received();
                    self.fold(recoveries, &message)?;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    liveness.received();
                    // The client does not report whether this is the own log or the parked topic.
                    let contract = &self.setup.contract;
                    recoveries.reached_own(partition, position(reader, &contract.events_topic, partition)?);
                    recoveries.reached_parked(partition, position(reader, &contract.parked_topic, partition)?);
                    self.finish(recoveries)?;
                }
                Some(Err(source)) => return Err(self.unreadable(reader, recoveries, source)),
            }
        }
        Ok(())
    }

    /// The error of a log that cannot be read. The client does not report where, so the partitions are inspected.
    fn unreadable(&self, reader: &OwnLogReader, recoveries: &Recoveries<D>, source: KafkaError) -> RecoveryError {
        let (config, contract) = (&self.setup.config, &self.setup.contract);
        let logs = [&contract.events_topic, &contract.parked_topic];
        let mut logs = recoveries.reading().flat_map(|partition| logs.map(|topic| (topic, partition)));
        let mut inspect_one = |(topic, partition): (&Arc<str>, i32)| {
            let at = position(reader, topic, partition).ok()?;
            inspect(config, config.timeouts.request, (topic, partition, at)).ok().flatten()
        };
        let found = if is_about_a_batch(&source) { logs.find_map(&mut inspect_one) } else { None };
        found.map_or_else(
            || kafka("read the own log")(source),
            |batch| RecoveryError::Unreadable { position: batch.position(), reason: batch.reason },
        )
    }

    /// Starts to read the partitions whose checkpoints are loaded. Returns whether more will follow.
    fn take_loaded(
        &mut self,
        reader: &OwnLogReader,
        recoveries: &mut Recoveries<D>,
        loaded: &Receiver<Loaded<D>>,
    ) -> Result<bool, RecoveryError> {
        loop {
            // While nothing is read, it waits for checkpoints only.
            let patience = if recoveries.reading().len() == 0 { LOOK } else { Duration::ZERO };
            match loaded.recv_timeout(patience) {
                Ok(loaded) => {
                    let read = recoveries.opened(loaded?);
                    if read.is_empty() {
                        self.finish(recoveries)?;
                    } else {
                        start_reading(reader, &read).map_err(kafka("assign the own log"))?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Ok(true),
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    /// Folds one record, of the own log or of the parked topic.
    fn fold(&mut self, recoveries: &mut Recoveries<D>, message: &BorrowedMessage<'_>) -> Result<(), RecoveryError> {
        let until = Instant::now() + SCHEMA_PATIENCE;
        let position = || Position::new(message.topic(), message.partition(), message.offset());
        let readers = &self.setup.readers;
        let folded = with_record(message, |record| {
            loop {
                match recoveries.receive(record)? {
                    FoldOutcome::Taken => return Ok(None),
                    FoldOutcome::NeedsSchema(schema) => recoveries.learn(schema, readers.schema_anew(schema)),
                    FoldOutcome::SchemaUnavailable(reason) => {
                        recoveries.forget_failures();
                        if Instant::now() >= until {
                            return Ok(Some(reason));
                        }
                        std::thread::park_timeout(Duration::from_millis(50));
                    }
                }
            }
        });
        match folded {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => Err(RecoveryError::Schema { position: position(), reason }),
            Err(corruption) => {
                self.refuse(message.partition(), &position().to_string(), &corruption);
                Ok(())
            }
        }
    }

    fn refuse(&mut self, partition: i32, position: &str, corruption: &LogCorruption) {
        let is_final = corruption.is_final();
        if is_final {
            tracing::error!(service = D::NAME, partition, %corruption, "partition stopped");
            self.setup.store.discard(partition);
        } else {
            tracing::error!(service = D::NAME, partition, reason = %corruption, "partition held until it moves");
        }
        self.left.remove(&partition);
        let (position, reason) = (position.to_owned(), corruption.to_string());
        self.send(RecoveryReport::Refused { partition, position, reason, is_final });
    }

    fn finish(&mut self, recoveries: &mut Recoveries<D>) -> Result<(), RecoveryError> {
        for ended in recoveries.finish(clock::now_ms())? {
            match ended {
                RecoveryEnd::Recovered(task) => {
                    let partition = task.partition();
                    self.left.remove(&partition);
                    tracing::debug!(service = D::NAME, partition, entities = task.entities(), "partition recovered");
                    self.send(RecoveryReport::Recovered(task));
                }
                RecoveryEnd::Refused(partition, corruption) => {
                    let position = format!("{}/{partition}", self.setup.contract.events_topic);
                    self.refuse(partition, &position, &corruption);
                }
            }
        }
        Ok(())
    }

    fn send(&self, report: RecoveryReport<D>) {
        // The channel has room for every partition. It fails only if the worker has ended.
        let _unreceived = self.report.send(report);
    }
}

/// The number of threads that load checkpoints: at most one for each core.
fn loaders(partitions: usize) -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(partitions)
}

/// Loads the checkpoints of waiting partitions, until none waits or the recovery has ended.
fn load<D: Decider, P>(
    setup: &Setup<D, P>,
    start: &RecoveryStart,
    waiting: &Mutex<VecDeque<i32>>,
    sender: &SyncSender<Loaded<D>>,
) {
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(partition) = next() {
        if sender.send(load_one(setup, start, partition)).is_err() {
            return;
        }
    }
}

fn load_one<D: Decider, P>(setup: &Setup<D, P>, start: &RecoveryStart, partition: i32) -> Loaded<D> {
    let checkpoint = setup.store.load(partition);
    let positions: Vec<(String, i64)> =
        checkpoint.as_ref().and_then(|checkpoint| serde_json::from_slice(&checkpoint.note).ok()).unwrap_or_default();
    let opened = start.open(
        &setup.decider,
        partition,
        checkpoint.as_ref().map(|checkpoint| LoadedCheckpoint {
            position: checkpoint.position,
            inputs: positions.iter().map(|(topic, position)| (topic.as_str(), *position)),
            entities: checkpoint.entities.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice())),
        }),
    )?;
    if let Some(error) = &opened.discarded {
        tracing::warn!(partition, %error, "checkpoint discarded; the log is read from the beginning");
        setup.store.discard(partition);
    }
    Ok(opened)
}

fn start_reading(reader: &OwnLogReader, read: &[ReadFrom]) -> KafkaResult<()> {
    let mut start = TopicPartitionList::new();
    for (topic, partition, at) in read {
        let offset = match at {
            StartAt::Beginning => Offset::Beginning,
            StartAt::Offset(offset) => Offset::Offset(*offset),
        };
        start.add_partition_offset(topic, *partition, offset)?;
    }
    reader.incremental_assign(&start)
}

fn position(reader: &OwnLogReader, topic: &str, partition: i32) -> Result<i64, RecoveryError> {
    let positions = reader.position().map_err(kafka("read the position in the own log"))?;
    match positions.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Ok(offset),
        // The end was reported and no record was delivered: the log is empty from the start of the reader.
        _ => Ok(0),
    }
}

//! Partitions on their way to the barrier, on a thread of their own: what is owned already goes on deciding meanwhile.
//!
//! The order is the guarantee: committed offsets are fetched as stable, then a client that sees uncommitted records is asked for
//! the ends of the own log and of what is parked, then both are folded by a reader of committed records until it reports ends at
//! or past these marks. Checkpoints are loaded side by side, and each partition is read from the moment its own is there.

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

use super::{
    Setup,
    history::{self, Holdings, Lost},
};
use crate::{
    clock,
    core::{Alarm, Contract, Folded, Recovery, Task, text::panic_message},
    decider::{Decider, Perform},
    envelope::Position,
    kafka::{BrokerLiveness, ClientLog, Connectivity, client, headers::with_record},
};

/// How long it waits for records or checkpoints before it looks around; while there are both to wait for, less.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_WHILE_LOADING: Duration = Duration::from_millis(5);

/// What a recovery tells the worker.
pub(super) enum News<D: Decider> {
    /// The partition may decide.
    Recovered(Box<Task<D>>),
    /// The partition must not decide until an operator has acted.
    Refused { partition: i32, place: String, reason: String },
    /// The topics no longer hold what the partitions have to go on from. The worker must not go on at all.
    Lost { reason: String },
    /// It takes longer: something cannot be reached. It goes on trying.
    Delayed { partitions: Vec<i32>, reason: String },
}

/// A recovery under way, of all that a generation of the group gave. Dropping it gives up what is left.
pub(super) struct Recovering<D: Decider> {
    left: usize,
    cancelled: Arc<AtomicBool>,
    news: Receiver<News<D>>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot {step}")]
    Kafka { step: &'static str, source: Box<KafkaError> },
    #[error("there is no thread to load checkpoints on")]
    Thread(#[source] std::io::Error),
    #[error("no broker answers")]
    Unreachable,
    #[error("the schema of the own event at {place} cannot be got: {reason}")]
    Schema { place: Position, reason: String },
    #[error("the recovery panicked: {reason}")]
    Panicked { reason: String },
    #[error(transparent)]
    Lost(#[from] Lost),
}

fn kafka(step: &'static str) -> impl Fn(KafkaError) -> Failure {
    move |source| Failure::Kafka { step, source: Box::new(source) }
}

impl<D: Decider> Recovering<D> {
    /// Starts to recover these partitions.
    pub(super) fn start<P: Perform<D>>(setup: &Arc<Setup<D, P>>, partitions: &[i32]) -> std::io::Result<Self> {
        let wanted: BTreeSet<i32> = partitions.iter().copied().collect();
        let (left, cancelled) = (wanted.len(), Arc::new(AtomicBool::new(false)));
        let (tell, news) = mpsc::sync_channel(left * 2 + 8);
        let work = Work { setup: Arc::clone(setup), left: wanted, cancelled: Arc::clone(&cancelled), tell };
        let name = format!("recovery-{}", setup.names.client_id);
        std::thread::Builder::new().name(name).spawn(move || work.run())?;
        Ok(Self { left, cancelled, news })
    }

    /// What has come about.
    pub(super) fn take(&mut self) -> Vec<News<D>> {
        let news: Vec<News<D>> = self.news.try_iter().collect();
        let is_last = |news: &&News<D>| matches!(news, News::Recovered(_) | News::Refused { .. });
        self.left = self.left.saturating_sub(news.iter().filter(is_last).count());
        news
    }

    /// How many partitions there is still to hear of.
    pub(super) fn left(&self) -> usize {
        self.left
    }
}

impl<D: Decider> Drop for Recovering<D> {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

struct Work<D: Decider, P> {
    setup: Arc<Setup<D, P>>,
    left: BTreeSet<i32>,
    cancelled: Arc<AtomicBool>,
    tell: SyncSender<News<D>>,
}

/// What the group has committed for a partition.
struct Committed {
    /// The offset of each input.
    offsets: Vec<Option<i64>>,
    /// How far the own log was known to reach.
    own_end: i64,
}

/// What is known of all partitions before they are folded.
struct Known {
    contract: Contract,
    committed: BTreeMap<i32, Committed>,
    holdings: Holdings,
}

/// A partition whose checkpoint is there, or which cannot go on from it.
type Loaded<D> = Result<(i32, Fold<D>), Failure>;

/// A partition being folded.
struct Fold<D: Decider> {
    recovery: Recovery<D>,
    mark: i64,
    /// The end of what is parked.
    parked_mark: i64,
    /// Up to where what is parked has been folded.
    parked_next: i64,
}

impl<D: Decider> Fold<D> {
    fn is_at_its_marks(&self) -> bool {
        self.recovery.next() >= self.mark && self.parked_next >= self.parked_mark
    }

    /// Where to read from.
    fn start(&self, contract: &Contract) -> KafkaResult<TopicPartitionList> {
        let (mut start, partition) = (TopicPartitionList::new(), self.recovery.partition());
        start.add_partition_offset(&contract.events_topic, partition, Offset::Offset(self.recovery.next()))?;
        if self.parked_next < self.parked_mark {
            start.add_partition_offset(&contract.parked_topic, partition, Offset::Beginning)?;
        }
        Ok(start)
    }
}

impl<D: Decider, P: Perform<D>> Work<D, P> {
    fn run(mut self) {
        let mut pause = Duration::from_millis(100);
        while !self.left.is_empty() && !self.is_cancelled() {
            // A decider that panics over a state must not leave its partition waiting in silence.
            let attempted = catch_unwind(AssertUnwindSafe(|| self.attempt()))
                .unwrap_or_else(|panic| Err(Failure::Panicked { reason: panic_message(panic.as_ref()) }));
            if let Err(failure) = attempted {
                let reason = crate::telemetry::chain(&failure);
                if let Failure::Lost(_) = failure {
                    return self.send(News::Lost { reason });
                }
                tracing::warn!(service = D::NAME, %reason, "recovery is delayed; it is tried again");
                // A full channel means that nobody has looked yet; what matters is told again.
                let _untold =
                    self.tell.try_send(News::Delayed { partitions: self.left.iter().copied().collect(), reason });
                super::rest(&self.setup, pause);
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.setup.stop.is_asked()
    }

    fn attempt(&mut self) -> Result<(), Failure> {
        let setup = Arc::clone(&self.setup);
        let contract = setup.contract.clone();
        let mut config = client::log_reader(&setup.config, "own-log");
        // The group's offsets are asked for under its name; nothing is joined. A read-committed client asks for stable ones.
        config.set("group.id", &setup.names.group);
        // The end of the log is told by an empty answer, and the partition waits for it: brokers hold those back this long.
        config.set("fetch.wait.max.ms", "20");
        let reader: BaseConsumer<ClientLog> =
            config.create_with_context(ClientLog::new("own-log")).map_err(kafka("set up a reader of the own log"))?;
        let committed = self.committed(&contract, &reader)?;
        let holdings = self.holdings(&contract)?;
        // Told beforehand: of topics that it does not know yet, the client looks for the leaders at its leisure, a second later.
        for topic in [&contract.events_topic, &contract.parked_topic] {
            reader
                .fetch_metadata(Some(topic), setup.config.timeouts.request)
                .map_err(kafka("find the leaders of the own log"))?;
        }
        let known = Known { contract, committed, holdings };
        let waiting: Mutex<VecDeque<i32>> = Mutex::new(self.left.iter().copied().collect());
        let (tell, loaded) = mpsc::sync_channel(self.left.len());
        std::thread::scope(|scope| {
            for _ in 0..loaders(known.committed.len()) {
                let (tell, setup, known, waiting) = (tell.clone(), &setup, &known, &waiting);
                let loader = std::thread::Builder::new().name("load".to_owned());
                loader.spawn_scoped(scope, move || load(setup, known, waiting, &tell)).map_err(Failure::Thread)?;
            }
            drop(tell);
            // The receiving end goes with this closure, and then nobody loads any more.
            let loaded = loaded;
            self.read(&reader, &known, &loaded)
        })
    }

    /// (c) Reads partitions whose checkpoints are there up to their marks.
    fn read(
        &mut self,
        reader: &BaseConsumer<ClientLog>,
        known: &Known,
        loaded: &Receiver<Loaded<D>>,
    ) -> Result<(), Failure> {
        let (mut contract, mut folds) = (known.contract.clone(), BTreeMap::new());
        let (mut liveness, mut is_loading) = (BrokerLiveness::new(Instant::now()), true);
        while (is_loading || !folds.is_empty()) && !self.is_cancelled() {
            is_loading = is_loading && self.take_loaded(reader, known, loaded, &mut folds)?;
            match reader.poll(if is_loading { LOOK_WHILE_LOADING } else { LOOK }) {
                None => {
                    if liveness.probe(reader, &contract.events_topic) == Some(Connectivity::Lost) {
                        return Err(Failure::Unreachable);
                    }
                }
                Some(Ok(message)) => {
                    liveness.received();
                    self.fold(&mut contract, &mut folds, &message)?;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    liveness.received();
                    // Of one of the two topics; which one is not told.
                    let Some(fold) = folds.get_mut(&partition) else { continue };
                    let reached = position(reader, &contract.events_topic, partition)?.max(fold.recovery.next());
                    fold.parked_next = position(reader, &contract.parked_topic, partition)?.max(fold.parked_next);
                    if reached >= fold.mark && fold.parked_next >= fold.parked_mark {
                        self.finish(known, &mut folds, partition)?;
                    }
                }
                Some(Err(source)) => return Err(kafka("read the own log")(source)),
            }
        }
        Ok(())
    }

    /// Begins to read what has been loaded. Answers whether more will come.
    fn take_loaded(
        &mut self,
        reader: &BaseConsumer<ClientLog>,
        known: &Known,
        loaded: &Receiver<Loaded<D>>,
        folds: &mut BTreeMap<i32, Fold<D>>,
    ) -> Result<bool, Failure> {
        loop {
            // With nothing to read there is nothing else to wait for.
            match loaded.recv_timeout(if folds.is_empty() { LOOK } else { Duration::ZERO }) {
                Ok(loaded) => {
                    let (partition, fold) = loaded?;
                    let is_done = fold.is_at_its_marks();
                    let start = fold.start(&known.contract).map_err(kafka("place the reader"))?;
                    folds.insert(partition, fold);
                    if is_done {
                        self.finish(known, folds, partition)?;
                    } else {
                        reader.incremental_assign(&start).map_err(kafka("place the reader"))?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Ok(true),
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    /// (a) The committed offsets of every input, none of them in an open transaction.
    fn committed(
        &self,
        contract: &Contract,
        reader: &BaseConsumer<ClientLog>,
    ) -> Result<BTreeMap<i32, Committed>, Failure> {
        let mut asked = TopicPartitionList::new();
        for input in &contract.inputs {
            for partition in &self.left {
                asked.add_partition(input, *partition);
            }
        }
        let timeouts = self.setup.config.timeouts;
        let told = reader
            .committed_offsets(asked, timeouts.transaction + timeouts.request)
            .map_err(kafka("fetch the group's committed offsets"))?;
        let none = || Committed { offsets: vec![None; contract.inputs.len()], own_end: 0 };
        let mut committed: BTreeMap<i32, Committed> = self.left.iter().map(|partition| (*partition, none())).collect();
        for element in told.elements() {
            element.error().map_err(kafka("fetch the group's committed offsets"))?;
            let input = contract.inputs.iter().position(|input| **input == *element.topic());
            if let (Some(input), Offset::Offset(offset)) = (input, element.offset())
                && let Some(committed) = committed.get_mut(&element.partition())
            {
                committed.offsets[input] = Some(offset);
                committed.own_end = committed.own_end.max(history::noted(element.metadata()));
            }
        }
        Ok(committed)
    }

    /// (b) What the own log and the inputs hold, uncommitted records counted.
    fn holdings(&self, contract: &Contract) -> Result<Holdings, Failure> {
        let config = &self.setup.config;
        let asker: BaseConsumer<ClientLog> = client::watermark_client(config)
            .create_with_context(ClientLog::new("watermarks"))
            .map_err(kafka("set up a client for watermarks"))?;
        Holdings::ask(&asker, contract, &self.left, config.timeouts.request)
            .map_err(kafka("fetch the ends of the own log and of the inputs"))
    }

    /// Folds one record, of the own log or of what is parked.
    fn fold(
        &mut self,
        contract: &mut Contract,
        folds: &mut BTreeMap<i32, Fold<D>>,
        message: &BorrowedMessage<'_>,
    ) -> Result<(), Failure> {
        let Some(fold) = folds.get_mut(&message.partition()) else { return Ok(()) };
        if message.topic() == &*contract.parked_topic {
            let folded = with_record(message, |record| fold.recovery.fold_parked(contract, record));
            if let Err(alarm) = folded {
                let place = Position::new(message.topic(), message.partition(), message.offset());
                self.alarm(folds, message.partition(), &place, &alarm);
            }
            return Ok(());
        }
        let folded = with_record(message, |record| {
            let until = Instant::now() + Duration::from_secs(1);
            loop {
                match fold.recovery.fold(contract, record) {
                    Ok(Folded::NeedsSchema(schema)) => contract.learn(schema, self.setup.readers.schema(schema)),
                    Ok(Folded::Unready(_)) if Instant::now() < until => {
                        contract.forget_failures();
                        std::thread::park_timeout(Duration::from_millis(50));
                    }
                    other => return other.map_err(|alarm| (record.position(), alarm)),
                }
            }
        });
        match folded {
            Ok(Folded::Taken) => Ok(()),
            Ok(Folded::NeedsSchema(_)) => Ok(()),
            Ok(Folded::Unready(reason)) => {
                contract.forget_failures();
                let place = Position::new(message.topic(), message.partition(), message.offset());
                Err(Failure::Schema { place, reason })
            }
            Err((place, alarm)) => {
                self.alarm(folds, message.partition(), &place, &alarm);
                Ok(())
            }
        }
    }

    fn alarm(&mut self, folds: &mut BTreeMap<i32, Fold<D>>, partition: i32, place: &Position, alarm: &Alarm) {
        tracing::error!(service = D::NAME, partition, %alarm, "partition stopped");
        folds.remove(&partition);
        self.setup.store.discard(partition);
        self.refuse(partition, place.to_string(), alarm.to_string());
    }

    fn refuse(&mut self, partition: i32, place: String, reason: String) {
        self.left.remove(&partition);
        self.send(News::Refused { partition, place, reason });
    }

    fn finish(&mut self, known: &Known, folds: &mut BTreeMap<i32, Fold<D>>, partition: i32) -> Result<(), Failure> {
        let (Some(fold), contract) = (folds.remove(&partition), &known.contract) else { return Ok(()) };
        let offsets = known.committed.get(&partition).map_or(&[][..], |committed| &committed.offsets);
        let task = fold.recovery.finish(contract, offsets, clock::now_ms());
        history::inputs(contract, &task, &known.holdings)?;
        self.left.remove(&partition);
        tracing::debug!(service = D::NAME, partition, entities = task.entities(), "partition recovered");
        self.send(News::Recovered(Box::new(task)));
        Ok(())
    }

    fn send(&self, news: News<D>) {
        // There is room for every partition; the worker is gone if nobody listens.
        let _unheard = self.tell.send(news);
    }
}

/// How many threads load checkpoints: what a core can do is the limit.
fn loaders(partitions: usize) -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(partitions)
}

/// Loads the checkpoints of partitions that wait, until none does or nobody wants them any more.
fn load<D: Decider, P>(
    setup: &Setup<D, P>,
    known: &Known,
    waiting: &Mutex<VecDeque<i32>>,
    tell: &SyncSender<Loaded<D>>,
) {
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(partition) = next() {
        let loaded = load_one(setup, known, partition).map(|fold| (partition, fold));
        if tell.send(loaded).is_err() {
            return;
        }
    }
}

/// The checkpoint to start from, if the own log is still what it was.
fn load_one<D: Decider, P>(setup: &Setup<D, P>, known: &Known, partition: i32) -> Result<Fold<D>, Failure> {
    let Known { contract, committed, holdings } = known;
    let held = holdings.of(&contract.events_topic, partition);
    let checkpoint = setup.store.load(partition);
    let noted = committed.get(&partition).map_or(0, |committed| committed.own_end);
    let saved = checkpoint.as_ref().map(|checkpoint| checkpoint.position);
    history::own_log(contract, partition, held, noted, saved)?;
    let mut recovery = Recovery::new(setup.decider.clone(), contract, partition);
    if let Some(checkpoint) = checkpoint {
        let entities = checkpoint.entities.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice()));
        let positions: Vec<(String, i64)> = serde_json::from_slice(&checkpoint.note).unwrap_or_default();
        let positions = positions.iter().map(|(topic, position)| (topic.as_str(), *position));
        if let Err(error) = recovery.resume(contract, checkpoint.position, positions, entities) {
            tracing::warn!(partition, %error, "checkpoint thrown away; the log is read from the beginning");
            setup.store.discard(partition);
            recovery = Recovery::new(setup.decider.clone(), contract, partition);
        }
    }
    let parked = holdings.of(&contract.parked_topic, partition);
    // Nothing to read is nothing to wait for; no end would be reported with a position.
    let parked_next = if parked.first == parked.end { parked.end } else { 0 };
    Ok(Fold { recovery, mark: held.end, parked_mark: parked.end, parked_next })
}

fn position(reader: &BaseConsumer<ClientLog>, topic: &str, partition: i32) -> Result<i64, Failure> {
    let positions = reader.position().map_err(kafka("tell the position in the own log"))?;
    match positions.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Ok(offset),
        // Nothing was delivered, and the end is reported: the log is empty from where it was read.
        _ => Ok(0),
    }
}

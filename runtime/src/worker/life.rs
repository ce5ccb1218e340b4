//! One life of a worker: from fresh clients to the first indefinite error, or to the wish that it ends.
//!
//! One turn: poll what is there, commit it as one transaction, then everything that belongs between batches: what the group
//! changed, partitions that have recovered, answers, timers, effects, held partitions, checkpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::KafkaError,
    message::BorrowedMessage,
    producer::Producer,
    types::RDKafkaErrorCode,
};

use super::{
    Setup, Transactor, Trouble, WorkerState,
    assignment::Flow,
    commit::{self, CommitError},
    effects::{self, AnswerProducer, Answers, End, IN_FLIGHT_AT_MOST},
    member::{Change, Fences, Member, Teller, let_go},
    recovering::{News, Recovering},
};
use crate::{
    clock,
    core::{CRASHES_AT_MOST, Failure, Limits, Machine, Outcome, Target, Task, text::panic_message},
    decider::{Decider, Perform},
    envelope::Position,
    kafka::{Admin, BrokerLiveness, ClientLog, Connectivity, client, headers::with_record},
    store::CheckpointDelta,
    telemetry::metric,
};

/// A batch ends at this many inputs or bytes.
const BATCH_INPUTS: usize = 1_000;
const BATCH_BYTES: usize = 2_000_000;
/// Under load larger transactions cost less, so the next batch is gathered for a while that grows with the last one. At a low rate
/// a batch has a few inputs and nothing waits; at a rate at which transactions would eat the machine, batches grow until the
/// longest wait is reached.
const GATHER_FROM: usize = 16;
const GATHER_PER_INPUT: Duration = Duration::from_micros(50);
const GATHER_AT_MOST: Duration = Duration::from_millis(50);
/// Positions alone, without anything to say, are committed at leisure.
const POSITIONS_EVERY: Duration = Duration::from_millis(200);
/// Offsets of topics that are assigned but not subscribed expire, so all are committed again now and then.
const RECOMMIT_EVERY: Duration = Duration::from_secs(30 * 60);
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
const ENDS_EVERY: Duration = Duration::from_millis(20);
/// How long a held partition rests before it is tried again, at first and at most.
const HOLD_FIRST: Duration = Duration::from_millis(500);
const HOLD_LONGEST: Duration = Duration::from_secs(30);
/// This many lives in a row ended by the same fence: another process has the name.
const FENCED_LIVES: u32 = 5;
/// Answers of effects that wait for so long to be appended, none of them moving, are in a producer that has lost its brokers.
const ANSWERS_STUCK: Duration = Duration::from_secs(20);

/// How a life ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LifeEnd {
    #[error("cannot {step}: {source}")]
    Kafka { step: &'static str, source: Box<KafkaError> },
    #[error("no broker answers, so the clients are replaced: {0}")]
    Unreachable(String),
    #[error("{}", crate::telemetry::chain(.0))]
    Commit(CommitError),
    #[error("{reason} (at {place})")]
    Broken { place: Position, reason: String },
    #[error(
        "another process runs under the name {name}; hint: give every instance its own name, or none; this one stops"
    )]
    NameTaken { name: String },
    #[error("{0}")]
    History(String),
    #[error("the worker panicked: {reason}")]
    Panicked { reason: String },
    #[error("{0}")]
    Other(String),
}

impl LifeEnd {
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::NameTaken { .. } | Self::History(_))
    }

    /// True if nothing is wrong but that brokers are away. The next life waits for them by itself.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

fn kafka(step: &'static str) -> impl Fn(KafkaError) -> LifeEnd {
    move |source| LifeEnd::Kafka { step, source: Box::new(source) }
}

/// What one life leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Records over which a state was lost, and how often.
    records: BTreeMap<Position, u32>,
    fenced: u32,
    fenced_as_member: Fences,
    /// What the topics take, once it has turned out to be other than at the start.
    limits: Option<Limits>,
}

struct Hold {
    until: Instant,
    pause: Duration,
}

struct Life<'s, D: Decider, P> {
    setup: &'s Arc<Setup<D, P>>,
    suspects: &'s mut Suspects,
    consumer: Arc<BaseConsumer<Member>>,
    transactor: Transactor,
    answers: Arc<AnswerProducer>,
    machine: Machine<D>,
    group: Option<Arc<ConsumerGroupMetadata>>,
    flow: Flow,
    recovering: Option<Recovering<D>>,
    holds: BTreeMap<i32, Hold>,
    to_hold: BTreeSet<i32>,
    last_batch: usize,
    batch_since: Instant,
    ends_asked: Instant,
    saved: Instant,
    recommitted: Instant,
    answers_moved: Instant,
    liveness: BrokerLiveness,
}

/// Lives until an error, or until asked to stop. A panic of our own or of a decider is an end like any other.
pub(super) fn live<D: Decider, P: Perform<D>>(
    setup: &Arc<Setup<D, P>>,
    suspects: &mut Suspects,
) -> Result<(), LifeEnd> {
    catch_unwind(AssertUnwindSafe(|| begin_and_end(setup, suspects)))
        .unwrap_or_else(|panic| Err(LifeEnd::Panicked { reason: panic_message(panic.as_ref()) }))
}

fn begin_and_end<D: Decider, P: Perform<D>>(setup: &Arc<Setup<D, P>>, suspects: &mut Suspects) -> Result<(), LifeEnd> {
    setup.status.set(WorkerState::Joining);
    let mut life = Life::begin(setup, suspects)?;
    let lived = life.run();
    if lived.is_ok() && !setup.status.is_crashing() {
        life.save();
        if !setup.store.flush(setup.config.timeouts.shutdown / 4) {
            tracing::info!(service = D::NAME, "the last checkpoint is not saved; the log is read from an earlier one");
        }
    }
    life.end();
    lived
}

impl<'s, D: Decider, P: Perform<D>> Life<'s, D, P> {
    fn begin(setup: &'s Arc<Setup<D, P>>, suspects: &'s mut Suspects) -> Result<Self, LifeEnd> {
        let (config, names) = (&setup.config, &setup.names);
        let log = |purpose: &str| ClientLog::new(format!("{}.{purpose}", names.client_id));
        let mut producer = client::transactional_producer(config, names);
        // The records of a batch are handed over at once; there is nothing to wait for.
        producer.set("linger.ms", "0");
        let mut contract = setup.contract.clone();
        contract.limits = suspects.limits.unwrap_or(contract.limits).within(client::largest_record(&producer));
        client::bound_batches(&mut producer, contract.limits.least());
        let teller = Teller::new(log("decisions"), &setup.contract.events_topic);
        let transactor = Transactor::new(&producer, teller).map_err(LifeEnd::Commit)?;
        let begun = connect(transactor.producer(), &setup.contract.events_topic, config.timeouts.request)
            .map_err(|error| LifeEnd::Unreachable(format!("asked for {}: {error}", setup.contract.events_topic)))
            .and_then(|()| {
                transactor.init(config.timeouts.transaction + config.timeouts.request).map_err(LifeEnd::Commit)
            });
        if let Err(end) = begun {
            left_behind(transactor.let_go(config.timeouts.shutdown / 2));
            return Err(end);
        }
        let answers: AnswerProducer = client::idempotent_producer(config, "answers")
            .create_with_context(Answers::new(log("answers")))
            .map_err(kafka("set up the producer of answers"))?;
        let member = Member::new(ClientLog::of_member(format!("{}.inputs", names.client_id), names.group.clone()));
        let mut member_config = client::group_member(config, names);
        if setup.contract.consumes_timers() {
            // A timer waits until every input has been read up to an end, and control records lie before ends.
            member_config.set("enable.partition.eof", "true");
        }
        let consumer: BaseConsumer<Member> =
            member_config.create_with_context(member).map_err(kafka("set up the reader of inputs"))?;
        consumer.subscribe(&[&setup.contract.inputs[0]]).map_err(kafka("subscribe to the inbox"))?;
        let now = Instant::now();
        Ok(Self {
            machine: Machine::new(setup.decider.clone(), contract).suspecting(suspects.records.clone()),
            setup,
            suspects,
            consumer: Arc::new(consumer),
            transactor,
            answers: Arc::new(answers),
            group: None,
            flow: Flow::default(),
            recovering: None,
            holds: BTreeMap::new(),
            to_hold: BTreeSet::new(),
            last_batch: 0,
            batch_since: now,
            ends_asked: now,
            saved: now,
            recommitted: now,
            answers_moved: now,
            liveness: BrokerLiveness::new(now),
        })
    }

    fn run(&mut self) -> Result<(), LifeEnd> {
        while !self.setup.stop.is_asked() {
            self.turn()?;
        }
        if self.setup.status.is_crashing() { Ok(()) } else { self.commit(true) }
    }

    fn turn(&mut self) -> Result<(), LifeEnd> {
        self.setup.status.turned();
        if self.machine.batch().is_empty() {
            // Of the moment at which a batch begins: see `commit`.
            self.group = self.consumer.group_metadata().map(Arc::new);
            self.go_on();
        }
        self.gather()?;
        self.timers()?;
        let changed = self.consumer.context().has_change();
        self.commit(changed)?;
        self.hold_failed()?;
        self.changes()?;
        self.recovered()?;
        self.hear_answers()?;
        if self.machine.batch().is_empty() {
            self.perform();
            if self.saved.elapsed() >= CHECKPOINT_EVERY {
                self.save();
            }
        }
        self.let_on()?;
        if self.recommitted.elapsed() >= RECOMMIT_EVERY {
            self.recommitted = Instant::now();
            self.machine.recommit();
        }
        self.look_for_broker()
    }

    /// What was parked and has nothing before it any more is handled like input.
    fn go_on(&mut self) {
        if self.machine.may_go_on() {
            self.batch_since = Instant::now();
            while let Some(schema) = self.machine.schema_to_go_on() {
                self.machine.learn(schema, self.setup.readers.schema(schema));
            }
            self.machine.go_on(clock::now_ms());
            let held = self.machine.held().map(|(partition, _)| partition);
            self.to_hold.extend(held.filter(|partition| !self.holds.contains_key(partition)));
        }
    }

    /// Takes what is there: at once when idle, after a while of gathering under load.
    fn gather(&mut self) -> Result<(), LifeEnd> {
        let consumer = Arc::clone(&self.consumer);
        // Not polled meanwhile: a poll would wake this thread for every answer to a fetch.
        std::thread::park_timeout(gather_for(self.last_batch));
        let mut polled = consumer.poll(self.patience());
        let mut taken = 0;
        while let Some(event) = polled {
            match event {
                Ok(message) => {
                    if self.machine.batch().is_empty() {
                        self.batch_since = Instant::now();
                    }
                    self.take(&message)?;
                    taken += 1;
                }
                Err(KafkaError::PartitionEOF(_)) => self.liveness.received(),
                Err(error) => self.client_error(error)?,
            }
            let batch = self.machine.batch();
            if batch.inputs() >= BATCH_INPUTS || batch.size() >= BATCH_BYTES || consumer.context().has_change() {
                break;
            }
            polled = consumer.poll(Duration::ZERO);
        }
        if taken > 0 {
            self.liveness.received();
        }
        self.last_batch = taken;
        Ok(())
    }

    /// How long to wait for input when there is nothing else to do.
    fn patience(&self) -> Duration {
        if self.machine.may_go_on() {
            return Duration::ZERO;
        }
        let mut patience = Duration::from_millis(100);
        if !self.machine.batch().is_empty() {
            patience = patience.min(POSITIONS_EVERY.saturating_sub(self.batch_since.elapsed()));
        }
        if self.recovering.is_some() || self.machine.in_flight() > 0 || !self.machine.waits_for_positions().is_empty() {
            patience = patience.min(Duration::from_millis(5));
        }
        if let Some(due_ms) = self.machine.next_due() {
            let left = u64::try_from(due_ms.saturating_sub(clock::now_ms())).unwrap_or(0);
            patience = patience.min(Duration::from_millis(left.max(5)));
        }
        patience
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<(), LifeEnd> {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let inputs = &self.machine.contract().inputs;
        let Some(input) = inputs.iter().position(|input| **input == *topic) else { return Ok(()) };
        if message.payload().is_some_and(|value| self.machine.contract().is_unheard(value)) {
            self.machine.pass_over(input, partition, offset);
            return Ok(());
        }
        if !self.suspects.records.is_empty() && self.must_rest(&Position::new(topic, partition, offset))? {
            return Ok(());
        }
        let now_ms = clock::now_ms();
        let readers = &self.setup.readers;
        let outcome = with_record(message, |record| {
            loop {
                match self.machine.hear(input, record, now_ms) {
                    Outcome::NeedsSchema(schema) => self.machine.learn(schema, readers.schema(schema)),
                    outcome => return outcome,
                }
            }
        });
        match outcome {
            Outcome::NeedsSchema(_) | Outcome::Done | Outcome::Ignored => Ok(()),
            Outcome::Unready(_) => {
                self.to_hold.insert(partition);
                Ok(())
            }
            Outcome::Failed(Failure { place, reason, broken: true }) => {
                tracing::error!(service = D::NAME, %place, %reason, "decider failed and a state was lost");
                *self.suspects.records.entry(place.clone()).or_default() += 1;
                Err(LifeEnd::Broken { place, reason })
            }
            Outcome::Failed(Failure { place, reason, broken: false }) => {
                tracing::error!(service = D::NAME, %place, %reason, "decider failed; the partition waits before this record");
                self.to_hold.insert(partition);
                Ok(())
            }
        }
    }

    /// A record that cost a state before is tried alone, and only after its partition has rested.
    fn must_rest(&mut self, place: &Position) -> Result<bool, LifeEnd> {
        let Some(times) = self.suspects.records.get(place).filter(|times| **times < CRASHES_AT_MOST) else {
            return Ok(false);
        };
        if self.holds.contains_key(&place.partition) {
            self.commit(true)?;
            return Ok(false);
        }
        let reason =
            format!("evolve panicked over what this record led to, {times} times; it is tried again after a pause");
        self.machine.hold(place.partition, place.clone(), reason);
        self.to_hold.insert(place.partition);
        Ok(true)
    }

    fn client_error(&mut self, error: KafkaError) -> Result<(), LifeEnd> {
        let fenced = error.rdkafka_error_code() == Some(RDKafkaErrorCode::FencedInstanceId);
        if fenced || self.consumer.context().is_fenced() {
            return Err(self.fenced_as_member());
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                // The next life asks what is there, and refuses by name.
                Err(LifeEnd::Other("an input no longer has the records to go on from".to_owned()))
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.liveness.suspect_loss();
                Ok(())
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => Err(kafka("read inputs")(error)),
            _ => {
                // The client tries again, and its context has said so.
                tracing::debug!(service = D::NAME, %error, "reading inputs is disturbed");
                Ok(())
            }
        }
    }

    fn commit(&mut self, at_once: bool) -> Result<(), LifeEnd> {
        let batch = self.machine.batch();
        let may_wait =
            batch.outputs().is_empty() && batch.inputs() < BATCH_INPUTS && self.batch_since.elapsed() < POSITIONS_EVERY;
        if batch.is_empty() || (may_wait && !at_once) {
            return Ok(());
        }
        let Some(group) = &self.group else {
            return Err(LifeEnd::Other("the consumer has no group".to_owned()));
        };
        let patience = self.setup.config.timeouts.transaction;
        let (begun, inputs, outputs) = (Instant::now(), batch.inputs(), batch.outputs().len());
        let parks = batch.outputs().iter().any(|output| output.to == Target::Parked);
        match commit::commit(&self.transactor, &self.machine, group, patience) {
            Ok(told) => {
                let took = begun.elapsed();
                tracing::debug!(service = D::NAME, inputs, outputs, ?took, "batch committed");
                count_batch(&self.setup.names.group, inputs, outputs, took);
                self.machine.committed(&told.own_ends, clock::now_ms());
                if parks {
                    self.count();
                }
                self.suspects.fenced = 0;
                Ok(())
            }
            Err(error) => Err(self.not_committed(error)),
        }
    }

    fn fenced_as_member(&mut self) -> LifeEnd {
        if self.suspects.fenced_as_member.tell_another_process(Instant::now()) {
            return LifeEnd::NameTaken { name: self.setup.names.client_id.clone() };
        }
        LifeEnd::Other("the group gave this member's place to a newer member of its name".to_owned())
    }

    /// A topic takes less than it did: the next life keeps to what it takes now.
    fn ask_limits(&mut self) {
        let asked = Admin::new(&self.setup.config)
            .and_then(|admin| self.setup.runtime.block_on(admin.limits(&self.setup.contract)));
        match asked {
            Ok((limits, _)) => self.suspects.limits = Some(limits),
            Err(error) => tracing::warn!(service = D::NAME, %error, "what the topics take is not known"),
        }
    }

    fn not_committed(&mut self, error: CommitError) -> LifeEnd {
        if error.is_too_large() {
            self.ask_limits();
        }
        if error.is_fenced() {
            self.suspects.fenced += 1;
            if self.setup.names.group_instance_id.is_some() && self.suspects.fenced >= FENCED_LIVES {
                return LifeEnd::NameTaken { name: self.setup.names.client_id.clone() };
            }
        }
        LifeEnd::Commit(error)
    }

    fn hold_failed(&mut self) -> Result<(), LifeEnd> {
        for partition in std::mem::take(&mut self.to_hold) {
            self.flow.shut(&self.consumer, &self.machine, partition).map_err(kafka("hold a partition"))?;
            let pause = self.holds.get(&partition).map_or(HOLD_FIRST, |hold| (hold.pause * 2).min(HOLD_LONGEST));
            self.holds.insert(partition, Hold { until: Instant::now() + pause, pause });
            if let Some((_, stage)) = self.machine.held().find(|(held, _)| *held == partition) {
                let (place, reason) = (stage.place.to_string(), stage.reason.clone());
                self.setup.status.trouble(partition, Trouble { place, reason, is_final: false });
            }
        }
        Ok(())
    }

    /// Lets held partitions on that have rested. One that then takes a record is well again.
    fn let_on(&mut self) -> Result<(), LifeEnd> {
        let now = Instant::now();
        let mut well = Vec::new();
        for (partition, hold) in &self.holds {
            if self.flow.is_open(*partition) {
                let taken = |((_, of), _): ((usize, i32), i64)| of == *partition;
                if now >= hold.until + Duration::from_secs(1) && !self.machine.batch().positions().any(taken) {
                    well.push(*partition);
                }
            } else if now >= hold.until && self.machine.task(*partition).is_some() {
                self.machine.let_on(*partition);
                self.flow.open(&self.consumer, &self.machine, &[*partition]).map_err(kafka("let a partition on"))?;
            }
        }
        for partition in well {
            self.holds.remove(&partition);
            self.setup.status.no_trouble(partition);
        }
        Ok(())
    }

    /// What the group changed. The open batch is committed by now, under the metadata of its beginning.
    fn changes(&mut self) -> Result<(), LifeEnd> {
        while let Some(change) = self.consumer.context().next_change() {
            match change {
                Change::Assigned(partitions) => {
                    tracing::info!(service = D::NAME, ?partitions, "partitions assigned");
                    self.flow
                        .acknowledge(&self.consumer, self.machine.contract())
                        .map_err(kafka("take an assignment"))?;
                    if !partitions.is_empty() {
                        let started = Recovering::start(self.setup, &partitions)
                            .map_err(|e| LifeEnd::Other(format!("cannot start a recovery: {e}")))?;
                        self.recovering = Some(started);
                    }
                    self.setup.status.set(WorkerState::Member);
                }
                Change::Revoked => {
                    tracing::info!(service = D::NAME, "partitions revoked");
                    self.flow.give_back(&self.consumer).map_err(kafka("give partitions back"))?;
                    self.release();
                }
            }
            self.count();
        }
        Ok(())
    }

    fn release(&mut self) {
        self.save();
        let partitions: Vec<i32> = self.machine.tasks().map(Task::partition).collect();
        for partition in partitions {
            self.machine.release(partition);
        }
        self.holds.clear();
        self.recovering = None;
        self.setup.status.no_troubles();
    }

    fn recovered(&mut self) -> Result<(), LifeEnd> {
        let Some(recovering) = &mut self.recovering else { return Ok(()) };
        let news = recovering.take();
        if recovering.left() == 0 {
            self.recovering = None;
        }
        let mut recovered = Vec::new();
        for news in news {
            match news {
                News::Recovered(task) => {
                    recovered.push(task.partition());
                    self.setup.status.no_trouble(task.partition());
                    self.machine.adopt(*task);
                }
                News::Lost { reason } => return Err(LifeEnd::History(reason)),
                News::Refused { partition, place, reason } => {
                    self.setup.status.trouble(partition, Trouble { place, reason, is_final: true });
                }
                News::Delayed { partitions, reason } => {
                    for partition in partitions {
                        let place = format!("{}/{partition}", self.machine.contract().events_topic);
                        let trouble = Trouble { place, reason: reason.clone(), is_final: false };
                        self.setup.status.trouble(partition, trouble);
                    }
                }
            }
        }
        self.flow.open(&self.consumer, &self.machine, &recovered).map_err(kafka("assign inputs"))?;
        self.count();
        Ok(())
    }

    fn count(&self) {
        let recovering = self.recovering.as_ref().map_or(0, Recovering::left);
        self.setup.status.count(recovering, self.machine.tasks().count());
        let parked: usize = self.machine.tasks().map(|task| task.parked_size().0).sum();
        let labels =
            [("consumergroup", self.setup.names.group.clone()), ("worker", self.setup.names.client_id.clone())];
        metrics::gauge!(metric::PARKED, &labels).set(u32::try_from(parked).unwrap_or(u32::MAX));
    }

    fn hear_answers(&mut self) -> Result<(), LifeEnd> {
        if self.machine.in_flight() == 0 {
            self.answers_moved = Instant::now();
            return Ok(());
        }
        loop {
            // One poll takes one report of deliveries, so it goes on until there is none.
            self.answers.poll(Duration::ZERO);
            let reports = self.answers.context().take();
            if reports.is_empty() {
                break;
            }
            self.answers_moved = Instant::now();
            let now_ms = clock::now_ms();
            for report in reports {
                match report.end {
                    End::Answered => self.machine.effect_answered(report.partition, &report.key, now_ms),
                    End::Unanswered(retry_after) => {
                        let jitter = self.setup.jitter.next();
                        self.machine.effect_unanswered(report.partition, &report.key, retry_after, now_ms, jitter);
                    }
                }
            }
        }
        if let Some(reason) = self.answers.context().fatal() {
            return Err(LifeEnd::Other(format!("the producer of answers can do no more: {reason}")));
        }
        if self.answers.in_flight_count() == 0 {
            self.answers_moved = Instant::now();
        } else if self.answers_moved.elapsed() >= ANSWERS_STUCK {
            return Err(LifeEnd::Unreachable("answers of effects are not appended".to_owned()));
        }
        Ok(())
    }

    fn perform(&mut self) {
        for (partition, due) in self.machine.due_effects(IN_FLIGHT_AT_MOST, clock::now_ms()) {
            effects::perform(self.setup, &self.answers, partition, due);
        }
    }

    /// Asks for the ends of the inputs when a timer is due, and fires it once they are reached.
    fn timers(&mut self) -> Result<(), LifeEnd> {
        let now_ms = clock::now_ms();
        let due = self.machine.wants_ends(now_ms);
        if !due.is_empty() && self.ends_asked.elapsed() >= ENDS_EVERY {
            self.ends_asked = Instant::now();
            if let Err(error) = self.ask_ends(&due, now_ms) {
                tracing::warn!(service = D::NAME, %error, "the ends of the inputs are unknown; timers wait");
            }
        }
        let waiting = self.machine.waits_for_positions();
        if waiting.is_empty() {
            return Ok(());
        }
        let positions = self.consumer.position().map_err(kafka("tell positions"))?;
        for partition in waiting {
            let inputs = &self.machine.contract().inputs;
            let reached: Vec<i64> =
                inputs.iter().map(|topic| offset_in(&positions, topic, partition).unwrap_or(0)).collect();
            self.machine.reached(partition, &reached, clock::now_ms());
        }
        Ok(())
    }

    fn ask_ends(&mut self, partitions: &[i32], now_ms: i64) -> Result<(), KafkaError> {
        let mut asked = TopicPartitionList::new();
        for partition in partitions {
            for topic in &self.machine.contract().inputs {
                asked.add_partition_offset(topic, *partition, Offset::End)?;
            }
        }
        let told = self.consumer.offsets_for_times(asked, self.setup.config.timeouts.request)?;
        for partition in partitions {
            let inputs = &self.machine.contract().inputs;
            let ends: Option<Vec<i64>> = inputs.iter().map(|topic| offset_in(&told, topic, *partition)).collect();
            if let Some(ends) = ends {
                self.machine.ends_known(*partition, now_ms, ends);
            }
        }
        Ok(())
    }

    fn save(&mut self) {
        self.saved = Instant::now();
        for saved in self.machine.save() {
            let positions: Vec<(&str, i64)> = saved.positions.iter().map(|(topic, next)| (&**topic, *next)).collect();
            let Ok(note) = serde_json::to_vec(&positions) else { continue };
            let entities = saved.entities.into_iter().map(|(key, bytes)| (key.to_string(), Some(bytes))).collect();
            self.setup.store.save(saved.partition, CheckpointDelta { position: saved.next, note, entities });
        }
    }

    /// A reader that has lost its brokers for good looks like one to which nothing is said.
    fn look_for_broker(&mut self) -> Result<(), LifeEnd> {
        let inbox = &self.machine.contract().inputs[0];
        let Some(standing) = self.liveness.probe(&*self.consumer, inbox) else { return Ok(()) };
        self.setup.status.reachable(standing == Connectivity::Connected);
        match standing {
            Connectivity::Lost => Err(LifeEnd::Unreachable(format!("asked for {inbox}"))),
            Connectivity::Connected | Connectivity::Unreachable => Ok(()),
        }
    }

    fn end(self) {
        let patience = self.setup.config.timeouts.shutdown / 2;
        drop(self.recovering);
        self.consumer.context().leave();
        left_behind(let_go(self.consumer, patience));
        left_behind(self.transactor.let_go(patience));
        left_behind(let_go(self.answers, patience));
    }
}

/// How long the next batch is gathered after one of so many inputs. After a full one there is more already.
fn gather_for(last_batch: usize) -> Duration {
    if !(GATHER_FROM..BATCH_INPUTS).contains(&last_batch) {
        return Duration::ZERO;
    }
    let inputs = u32::try_from(last_batch).unwrap_or(u32::MAX);
    GATHER_PER_INPUT.saturating_mul(inputs).min(GATHER_AT_MOST)
}

/// Once per batch: what came in, what went out, and how long the transaction took.
fn count_batch(group: &str, inputs: usize, outputs: usize, took: Duration) {
    let group = group.to_owned();
    metrics::counter!(metric::CONSUMED, "consumergroup" => group.clone()).increment(inputs as u64);
    metrics::counter!(metric::SENT, "consumergroup" => group.clone()).increment(outputs as u64);
    metrics::histogram!(metric::OPERATION_DURATION, "consumergroup" => group, "operation" => "commit").record(took);
}

/// Waits for a connection to a broker. A producer looks for one to begin its transactions on twice a second; whoever has one begins
/// at once. It is asked for twice because the first answer names the brokers, and ends the connection to the configured address.
fn connect(producer: &impl Producer<Teller>, topic: &str, patience: Duration) -> Result<(), KafkaError> {
    for _ in 0..2 {
        producer.client().fetch_metadata(Some(topic), patience)?;
    }
    Ok(())
}

fn left_behind(is_gone: bool) {
    if !is_gone {
        tracing::warn!("a client did not close in time; it is left behind");
    }
}

fn offset_in(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<i64> {
    match list.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

//! One incarnation of a worker: from new clients to the first indefinite error, or until a stop is requested.
//!
//! It executes the steps of a [`Turn`] on Kafka and reports the results. The turn decides which step is next.

mod assignment;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{Consumer, ConsumerGroupMetadata},
    error::{KafkaError, KafkaResult},
    message::OwnedMessage,
    producer::Producer,
    types::RDKafkaErrorCode,
};

use super::{
    Clients, ClientsSetup, CommitError, PartitionIssue, Rebalance, Setup, WorkerState, commit,
    effects::AnswerSender,
    error::{WorkerError, kafka},
    recovery::{RecoveryReport, RecoveryThread},
    transactor::is_fenced,
};
use crate::{
    clock,
    codec::SchemaRef,
    core::{
        OutputTopic, Task,
        decider::TimestampMs,
        text::panic_message,
        turn::{Carried, Now, Offer, Pace, Step, Turn},
    },
    decider::{Decider, Perform},
    kafka::{Admin, BrokerLiveness, Connectivity, client, headers::with_record},
    store::CheckpointDelta,
    telemetry::metric,
    unreadable::{Watch, is_about_a_batch},
};

/// How long a worker waits for a topic's metadata. Without a response the client fetches it later by itself.
const TOPIC_METADATA: Duration = Duration::from_secs(1);
/// An effect that is due and not performed for so long is reported.
const OVERDUE: Duration = Duration::from_secs(30);

struct Incarnation<'s, D: Decider, P> {
    setup: &'s Arc<Setup<D, P>>,
    carried: &'s mut Carried,
    /// The inputs that the client cannot read.
    watch: &'s mut Watch,
    /// Dropped first, which cancels it.
    recovery: Option<RecoveryThread<D>>,
    clients: Clients,
    answers: AnswerSender,
    turn: Turn<D, Arc<ConsumerGroupMetadata>>,
    /// A record that the turn takes only after the open batch is committed.
    postponed: Option<OwnedMessage>,
    /// True if the client's positions are those of its present assignment. The client replaces an assignment in the background, and
    /// an event from the new one shows that it has; until then it may report how far it had read before.
    knows_positions: bool,
    knows_topics: bool,
    liveness: BrokerLiveness,
}

/// Runs until an error, or until a stop is requested. A panic is an error as well, so the clients are closed after it.
pub(super) fn run<D: Decider, P: Perform<D>>(
    setup: &Arc<Setup<D, P>>,
    (carried, watch): (&mut Carried, &mut Watch),
) -> Result<(), WorkerError> {
    setup.status.set(WorkerState::Joining);
    watch.released();
    let ended = catch_unwind(AssertUnwindSafe(|| Incarnation::begin(setup, (carried, watch))?.run()))
        .unwrap_or_else(|panic| Err(WorkerError::Panicked { reason: panic_message(panic.as_ref()) }));
    if matches!(ended, Err(WorkerError::Unreachable(_))) {
        watch.suspect_hang();
    }
    if let Err(WorkerError::Turn(error)) = &ended {
        carried.ended(error);
    }
    ended
}

impl<'s, D: Decider, P: Perform<D>> Incarnation<'s, D, P> {
    fn begin(
        setup: &'s Arc<Setup<D, P>>,
        (carried, watch): (&'s mut Carried, &'s mut Watch),
    ) -> Result<Self, WorkerError> {
        let (config, names) = (&setup.config, &setup.names);
        let mut producer = client::transactional_producer(config, names);
        // The producer gets all records of a batch at once, so it must not wait for more.
        producer.set("linger.ms", "0");
        let mut contract = setup.contract.clone();
        contract.limits = carried.limits.unwrap_or(contract.limits).within(client::largest_record(&producer));
        client::bound_batches(&mut producer, contract.limits.least());
        let mut consumer = client::group_member(config, names);
        // The last records before the end of an input may be control records, which only this event reports as read. The positions
        // behind them are committed, and timers wait for them.
        consumer.set("enable.partition.eof", "true");
        let clients = Clients::begin(&ClientsSetup {
            client_id: &names.client_id,
            lag_of: Some(&names.group),
            producer: &producer,
            consumer: &consumer,
            subscribe_to: &contract.inputs[0],
            own_log: &contract.events_topic,
            timeouts: config.timeouts,
        })?;
        let answers = AnswerSender::begin(config, names).map_err(kafka("set up the producer of answers"))?;
        let turn = Turn::new(setup.decider.clone(), contract, carried, Pace::default(), now(setup));
        let liveness = BrokerLiveness::new(Instant::now());
        let (recovery, postponed, knows_positions, knows_topics) = (None, None, false, false);
        Ok(Self {
            setup,
            carried,
            watch,
            recovery,
            clients,
            answers,
            turn,
            postponed,
            knows_positions,
            knows_topics,
            liveness,
        })
    }

    fn run(mut self) -> Result<(), WorkerError> {
        loop {
            if self.setup.stop.is_requested() {
                if self.setup.status.is_crashing() {
                    return Ok(());
                }
                self.turn.stop();
            }
            match self.turn.next(now(self.setup)) {
                Step::Stop => {
                    self.flush();
                    return Ok(());
                }
                step => self.execute(step)?,
            }
        }
    }

    fn execute(&mut self, step: Step<D, Arc<ConsumerGroupMetadata>>) -> Result<(), WorkerError> {
        match step {
            Step::SnapshotFence => self.turn.fence(self.clients.consumer().group_metadata().map(Arc::new)),
            Step::FetchSchema(schema) => self.fetch_schema_anew(schema),
            Step::LoadEntity { partition, key } => self.load_entity(partition, &key)?,
            Step::Gather { rest, wait } => self.gather(rest, wait)?,
            Step::FetchEnds { partitions } => self.fetch_ends(&partitions),
            Step::ReadPositions { partitions } => self.read_positions(&partitions)?,
            Step::Commit { fence } => self.commit(fence)?,
            Step::Pause { partition } => self.pause(partition)?,
            Step::Resume { .. } => self.assign().map_err(kafka("assign inputs"))?,
            Step::HoldEnded { partition } => self.setup.status.clear_issue(partition),
            Step::TakeRebalance => self.take_rebalance(),
            Step::AcceptAssignment => self.accept_assignment().map_err(kafka("accept an assignment"))?,
            Step::Recover { partitions } => self.recover(&partitions)?,
            Step::Unassign => self.clients.consumer().unassign().map_err(kafka("unassign partitions"))?,
            Step::Release => self.release(),
            Step::TakeRecovered => self.take_recovered()?,
            Step::TakeReports => self.take_reports(),
            Step::Perform(due) => self.answers.perform(self.setup, *due),
            Step::Checkpoint => self.checkpoint(),
            Step::EndTurn => self.end_turn()?,
            Step::Fail(error) => return Err(WorkerError::Turn(error)),
            Step::Stop => {}
        }
        Ok(())
    }

    /// Offers the client's records to the turn, under load after a rest.
    fn gather(&mut self, rest: Duration, wait: Duration) -> Result<(), WorkerError> {
        let consumer = Arc::clone(self.clients.consumer());
        self.apply_skips()?;
        // A poll would wake this thread for every fetch response, so it does not poll while it rests.
        std::thread::park_timeout(rest);
        let (mut has_received, mut wait) = (false, wait);
        if let Some(postponed) = self.postponed.take() {
            wait = Duration::ZERO;
            if !self.offer(&postponed)? {
                self.postponed = Some(postponed);
            }
        }
        let may_poll = self.postponed.is_none() && self.turn.has_room();
        let mut polled = if may_poll { consumer.poll(wait) } else { None };
        while let Some(event) = polled {
            match event {
                Ok(message) => {
                    (has_received, self.knows_positions) = (true, true);
                    if !self.offer(&message)? {
                        self.postponed = Some(message.detach());
                    }
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    self.knows_positions = true;
                    self.turn.reached_end(partition);
                }
                Err(error) => self.client_error(error)?,
            }
            if self.postponed.is_some() || !self.turn.has_room() || consumer.context().has_rebalance() {
                break;
            }
            polled = consumer.poll(Duration::ZERO);
        }
        if has_received {
            self.liveness.received();
        }
        self.turn.gathering_ended(consumer.context().has_rebalance());
        Ok(())
    }

    /// Offers a record to the turn. Returns false if the record must be offered again after the open batch is committed.
    fn offer<M: Message>(&mut self, message: &M) -> Result<bool, WorkerError> {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let inputs = &self.turn.contract().inputs;
        let Some(input) = inputs.iter().position(|input| **input == *topic) else { return Ok(true) };
        let now = now(self.setup);
        if self.turn.skips(input, partition, offset, message.payload(), now) {
            return Ok(true);
        }
        with_record(message, |record| {
            loop {
                match self.turn.offer(input, record, now) {
                    Offer::Taken => return Ok(true),
                    Offer::CommitFirst => return Ok(false),
                    Offer::NeedsSchema(schema) => self.fetch_schema(schema),
                    Offer::NeedsSchemaAnew(schema) => self.fetch_schema_anew(schema),
                    Offer::NeedsEntity(key) => self.load_entity(partition, &key)?,
                }
            }
        })
    }

    /// Fetches a schema. A turn may fetch several, and each fetch may wait until its deadline.
    fn fetch_schema(&mut self, schema: SchemaRef) {
        self.turn.learn(schema, self.setup.readers.schema(schema));
        self.setup.status.progressed();
    }

    /// Fetches the schema of a parked record from the registry, also if the registry did not have it a moment ago.
    fn fetch_schema_anew(&mut self, schema: SchemaRef) {
        self.turn.learn(schema, self.setup.readers.schema_anew(schema));
        self.setup.status.progressed();
    }

    /// Loads an evicted entity from its checkpoint.
    fn load_entity(&mut self, partition: i32, key: &str) -> Result<(), WorkerError> {
        let checkpoint = self.setup.store.load(partition);
        let entity = checkpoint.and_then(|found| found.entities.into_iter().find(|(found, _)| found == key));
        let loaded = entity.is_some_and(|(_, bytes)| self.turn.load(partition, key, &bytes).is_ok());
        if !loaded {
            self.setup.store.discard(partition);
            return Err(WorkerError::Other(format!("entity {key} is not in its checkpoint; the log is read instead")));
        }
        Ok(())
    }

    fn client_error(&mut self, error: KafkaError) -> Result<(), WorkerError> {
        let fenced = error.rdkafka_error_code() == Some(RDKafkaErrorCode::FencedInstanceId);
        if fenced || self.clients.consumer().context().is_fenced() {
            return Err(self.fenced_as_member());
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                // The next incarnation fetches the bounds, and stops with an error that names the topic.
                Err(WorkerError::Other("an input no longer has the records to continue from".to_owned()))
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.liveness.suspect_loss();
                Ok(())
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => Err(kafka("read inputs")(error)),
            _ => {
                if is_about_a_batch(&error) {
                    self.watch.suspect();
                }
                // The client retries, and its context has logged the error.
                tracing::debug!(service = D::NAME, %error, "cannot read inputs for now");
                Ok(())
            }
        }
    }

    fn fenced_as_member(&mut self) -> WorkerError {
        if self.carried.fencing.member_fenced(now(self.setup).elapsed) {
            return WorkerError::NameTaken { name: self.setup.names.client_id.clone() };
        }
        WorkerError::Other("the group replaced this member by a newer one with its name".to_owned())
    }

    fn fetch_ends(&mut self, partitions: &[i32]) {
        let now_ms = clock::now_ms();
        if let Err(error) = self.try_to_fetch_ends(partitions, now_ms) {
            tracing::warn!(service = D::NAME, %error, "the ends of the inputs are unknown; timers wait");
        }
    }

    fn try_to_fetch_ends(&mut self, partitions: &[i32], now_ms: TimestampMs) -> KafkaResult<()> {
        let inputs = self.turn.contract().inputs.clone();
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            for topic in &inputs {
                list.add_partition_offset(topic, *partition, Offset::End)?;
            }
        }
        let found = self.clients.consumer().offsets_for_times(list, self.setup.config.timeouts.request)?;
        for partition in partitions {
            let ends: Option<Vec<i64>> = inputs.iter().map(|topic| offset_in(&found, topic, *partition)).collect();
            if let Some(ends) = ends {
                self.turn.ends(*partition, now_ms, ends);
            }
        }
        Ok(())
    }

    fn read_positions(&mut self, partitions: &[i32]) -> Result<(), WorkerError> {
        if !self.knows_positions {
            return Ok(());
        }
        let positions = self.clients.consumer().position().map_err(kafka("read the consumer's positions"))?;
        for partition in partitions {
            let inputs = &self.turn.contract().inputs;
            let reached: Vec<i64> =
                inputs.iter().map(|topic| offset_in(&positions, topic, *partition).unwrap_or(0)).collect();
            self.turn.reached(*partition, &reached, now(self.setup));
        }
        Ok(())
    }

    fn commit(&mut self, fence: Arc<ConsumerGroupMetadata>) -> Result<(), WorkerError> {
        let batch = self.turn.batch();
        let (began, inputs, outputs) = (Instant::now(), batch.inputs(), batch.outputs().len());
        let parks = batch.outputs().iter().any(|output| output.to == OutputTopic::Parked);
        let patience = self.setup.config.timeouts.transaction;
        match commit::commit(self.clients.transactor(), &self.turn, fence, patience) {
            Ok(deliveries) => {
                let took = began.elapsed();
                tracing::debug!(service = D::NAME, inputs, outputs, ?took, "batch committed");
                count_batch(&self.setup.names.group, inputs, outputs, took);
                self.turn.committed(&deliveries.own_ends, now(self.setup));
                if parks {
                    self.count();
                }
                Ok(())
            }
            Err(error) => Err(self.not_committed(error)),
        }
    }

    fn not_committed(&mut self, error: CommitError) -> WorkerError {
        if error.is_too_large() {
            self.read_limits();
        }
        if error.is_fenced() && self.setup.names.group_instance_id.is_some() {
            if self.learns_of_a_fence() {
                return self.fenced_as_member();
            }
            if self.carried.fencing.producer_fenced(now(self.setup).elapsed) {
                return WorkerError::NameTaken { name: self.setup.names.client_id.clone() };
            }
        }
        WorkerError::Commit(error)
    }

    /// Waits for a heartbeat. A process that takes over a name takes the producer first and the membership a moment later, and
    /// only the latter tells which of the two has lost.
    fn learns_of_a_fence(&self) -> bool {
        let consumer = self.clients.consumer();
        let until = Instant::now() + self.setup.config.timeouts.session / 4;
        while Instant::now() < until {
            let polled = consumer.poll(Duration::from_millis(50));
            let error = polled.and_then(Result::err).and_then(|error| error.rdkafka_error_code());
            if error == Some(RDKafkaErrorCode::FencedInstanceId) || consumer.context().is_fenced() {
                return true;
            }
        }
        false
    }

    /// Reads the record limits of the topics again, for the next incarnation, because a topic takes smaller records than before.
    fn read_limits(&mut self) {
        let limits = Admin::new(&self.setup.config)
            .and_then(|admin| self.setup.runtime.block_on(admin.limits(&self.setup.contract)));
        match limits {
            Ok((limits, _)) => self.carried.limits = Some(limits),
            Err(error) => tracing::warn!(service = D::NAME, %error, "the record limits of the topics are unknown"),
        }
    }

    fn pause(&mut self, partition: i32) -> Result<(), WorkerError> {
        if let Some(held) = self.turn.hold_reason(partition) {
            let (position, reason) = (held.position.to_string(), held.reason.clone());
            self.setup.status.set_issue(partition, PartitionIssue { position, reason, is_final: false });
        }
        self.assign().map_err(kafka("pause a partition"))
    }

    fn take_rebalance(&mut self) {
        match self.clients.consumer().context().next_rebalance() {
            Some(Rebalance::Assigned(partitions)) => {
                tracing::info!(service = D::NAME, ?partitions, "partitions assigned");
                if partitions.is_empty() {
                    self.setup.status.set(WorkerState::Member);
                    self.count();
                }
                self.turn.assigned(partitions);
            }
            Some(Rebalance::Revoked) => {
                tracing::info!(service = D::NAME, "partitions revoked");
                self.turn.revoked();
            }
            None => {}
        }
    }

    /// Acknowledges an assignment, and fetches the metadata of the other inputs. Only the inbox is subscribed, so without this
    /// the client would look for the leaders of the others a second later.
    fn accept_assignment(&mut self) -> KafkaResult<()> {
        let consumer = self.clients.consumer();
        if !self.knows_topics {
            let others = self.turn.contract().inputs.iter().skip(1);
            let metadata = others.map(|topic| consumer.fetch_metadata(Some(topic), TOPIC_METADATA));
            self.knows_topics = metadata.collect::<KafkaResult<Vec<_>>>().is_ok();
        }
        consumer.assign(&TopicPartitionList::new())
    }

    fn recover(&mut self, partitions: &[i32]) -> Result<(), WorkerError> {
        let started = RecoveryThread::start(self.setup, partitions)
            .map_err(|e| WorkerError::Other(format!("cannot start a recovery: {e}")))?;
        self.recovery = Some(started);
        self.turn.recovery_began();
        // Only now: a member whose recoveries are not counted would look ready.
        self.setup.status.set(WorkerState::Member);
        self.count();
        Ok(())
    }

    fn release(&mut self) {
        self.turn.released();
        self.postponed = None;
        self.recovery = None;
        self.setup.status.clear_issues();
        self.watch.released();
        self.count();
    }

    fn take_recovered(&mut self) -> Result<(), WorkerError> {
        let Some(recovery) = &mut self.recovery else { return Ok(()) };
        let reports = recovery.take();
        if reports.is_empty() {
            return Ok(());
        }
        let is_done = recovery.left() == 0;
        if is_done {
            self.recovery = None;
        }
        let mut tasks = Vec::new();
        for report in reports {
            match report {
                RecoveryReport::Recovered(task) => {
                    self.setup.status.clear_issue(task.partition());
                    tasks.push(*task);
                }
                RecoveryReport::LogLoss { reason } => return Err(WorkerError::LogLoss(reason)),
                RecoveryReport::Refused { partition, position, reason, is_final } => {
                    self.setup.status.set_issue(partition, PartitionIssue { position, reason, is_final });
                }
                RecoveryReport::Delayed { partitions, reason } => {
                    for partition in partitions {
                        let position = format!("{}/{partition}", self.turn.contract().events_topic);
                        let issue = PartitionIssue { position, reason: reason.clone(), is_final: false };
                        self.setup.status.set_issue(partition, issue);
                    }
                }
            }
        }
        self.turn.recovered(tasks, is_done);
        self.count();
        Ok(())
    }

    fn count(&self) {
        let recovering = self.recovery.as_ref().map_or(0, RecoveryThread::left);
        let tasks = || self.turn.machine().tasks();
        self.setup.status.count(recovering, tasks().count());
        let parked: usize = tasks().map(|task: &Task<D>| task.parked_size().0).sum();
        let labels =
            [("consumergroup", self.setup.names.group.clone()), ("worker", self.setup.names.client_id.clone())];
        metrics::gauge!(metric::PARKED, &labels).set(u32::try_from(parked).unwrap_or(u32::MAX));
    }

    fn take_reports(&mut self) {
        let now = now(self.setup);
        for report in self.answers.take_reports() {
            match report.outcome {
                Ok(()) => self.turn.effect_answered(report.partition, &report.effect_key, now),
                Err(retry_after) => {
                    let jitter = self.setup.jitter.next();
                    self.turn.effect_unanswered(report.partition, &report.effect_key, retry_after, now, jitter);
                }
            }
        }
    }

    fn checkpoint(&mut self) {
        for saved in self.turn.checkpoint(now(self.setup)) {
            let positions: Vec<(&str, i64)> = saved.positions.iter().map(|(topic, next)| (&**topic, *next)).collect();
            let Ok(note) = serde_json::to_vec(&positions) else { continue };
            let entities = saved.entities.into_iter().map(|(key, bytes)| (key.to_string(), Some(bytes))).collect();
            self.setup.store.save(saved.partition, CheckpointDelta { position: saved.next, note, entities });
        }
    }

    fn flush(&self) {
        if !self.setup.store.flush(self.setup.config.timeouts.shutdown / 4) {
            tracing::info!(service = D::NAME, "the last checkpoint is not saved; the log is read from an earlier one");
        }
    }

    /// Checks the connections. A consumer that has lost its brokers for good looks like one without new records.
    fn end_turn(&mut self) -> Result<(), WorkerError> {
        self.setup.status.turned();
        self.setup.status.set_overdue(self.overdue());
        self.check_producer()?;
        self.watch_inputs()?;
        self.answers.check(self.turn.machine().in_flight())?;
        let inbox = &self.turn.contract().inputs[0];
        let Some(connectivity) = self.liveness.probe(&**self.clients.consumer(), inbox) else { return Ok(()) };
        self.setup.status.reachable(connectivity == Connectivity::Connected);
        match connectivity {
            Connectivity::Lost => Err(WorkerError::Unreachable(format!("metadata of {inbox}"))),
            _ => Ok(()),
        }
    }

    /// Fails if the producer of transactions is dead. Without a batch to commit nothing else would notice. A fence is left to the
    /// group and to the next commit: they tell whether another process runs under this name.
    fn check_producer(&self) -> Result<(), WorkerError> {
        let fatal = self.clients.transactor().producer().client().fatal_error();
        match fatal.filter(|(code, _)| !is_fenced(*code)) {
            None => Ok(()),
            Some((_, reason)) => Err(WorkerError::DeadProducer { producer: "the producer of transactions", reason }),
        }
    }

    /// Why effects that have been due for long are not performed, if there are any.
    fn overdue(&self) -> Option<String> {
        let machine = self.turn.machine();
        let (since_ms, in_flight) = (machine.next_effect()?, machine.in_flight());
        let waits = Duration::from_millis(u64::try_from(clock::now_ms() - since_ms).unwrap_or(0));
        (waits >= OVERDUE).then(|| {
            format!("an effect has been due for {} s and is not performed; {in_flight} are in flight", waits.as_secs())
        })
    }
}

fn now<D: Decider, P>(setup: &Setup<D, P>) -> Now {
    Now { wall_ms: clock::now_ms(), elapsed: setup.started.elapsed() }
}

/// Counts a batch: its inputs, its outputs, and the duration of its transaction.
fn count_batch(group: &str, inputs: usize, outputs: usize, took: Duration) {
    let group = group.to_owned();
    metrics::counter!(metric::CONSUMED, "consumergroup" => group.clone()).increment(inputs as u64);
    metrics::counter!(metric::SENT, "consumergroup" => group.clone()).increment(outputs as u64);
    metrics::histogram!(metric::OPERATION_DURATION, "consumergroup" => group, "operation" => "commit").record(took);
}

fn offset_in(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<i64> {
    match list.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

//! A member of a consumer group on its own thread: it polls, logs each record, commits it, and reports its partitions.
//!
//! There are two kinds: with [`RebalanceCounter`] a member takes its assignment as it is, with [`FollowedTopics`] it also takes
//! the same partitions of other topics. Knows no check.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::check::{CheckFailure, FailureContext, ensure, ensure_eq};
use crate::clients::{committed, consumer, consumer_config};
use crate::context::{CheckContext, REQUEST_TIMEOUT, wait_until};

pub(crate) type TopicPartition = (String, i32);

/// Long enough for a rebalance on a busy machine, shorter than the session timeout of the group checks: an event within this
/// time did not wait for a session to expire.
pub(crate) const REBALANCE_TIMEOUT: Duration = Duration::from_secs(25);

/// A member's callbacks.
pub(crate) trait MemberContext: ConsumerContext + 'static {
    /// The error of a callback, which cannot return one.
    fn callback_error(&self) -> Option<String> {
        None
    }
}

/// Counts rebalances.
#[derive(Default)]
pub(crate) struct RebalanceCounter {
    rebalances: AtomicUsize,
}

impl ClientContext for RebalanceCounter {}

impl ConsumerContext for RebalanceCounter {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
    }
}

impl MemberContext for RebalanceCounter {}

/// Assigns the same partitions of further topics, from their committed offsets.
pub(crate) struct FollowedTopics {
    others: Vec<String>,
    callback_error: Mutex<Option<String>>,
}

impl ClientContext for FollowedTopics {}

impl ConsumerContext for FollowedTopics {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, assigned: &mut TopicPartitionList) {
        let result = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign_with_others(consumer, assigned),
            _ => self.unassign_with_others(consumer, assigned),
        };
        // A callback returns nothing. The check that waits for the assignment reads the error.
        if let Err(error) = result {
            *self.callback_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }
    }
}

impl MemberContext for FollowedTopics {
    fn callback_error(&self) -> Option<String> {
        self.callback_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl FollowedTopics {
    pub(crate) fn new(others: Vec<String>) -> Self {
        Self { others, callback_error: Mutex::default() }
    }

    fn with_others(&self, assigned: &TopicPartitionList) -> TopicPartitionList {
        let mut all = TopicPartitionList::new();
        for element in assigned.elements() {
            all.add_partition(element.topic(), element.partition());
            for other in &self.others {
                all.add_partition(other, element.partition());
            }
        }
        all
    }

    fn assign_with_others(&self, consumer: &BaseConsumer<Self>, assigned: &TopicPartitionList) -> KafkaResult<()> {
        let mut committed = TopicPartitionList::new();
        if assigned.count() > 0 {
            committed = consumer.committed_offsets(self.with_others(assigned), Duration::from_secs(15))?;
        }
        let mut start = TopicPartitionList::new();
        for element in committed.elements() {
            let offset = match element.offset() {
                Offset::Invalid => Offset::Beginning,
                known => known,
            };
            start.add_partition_offset(element.topic(), element.partition(), offset)?;
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&start),
            _ => consumer.assign(&start),
        }
    }

    fn unassign_with_others(&self, consumer: &BaseConsumer<Self>, assigned: &TopicPartitionList) -> KafkaResult<()> {
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&self.with_others(assigned)),
            _ => consumer.unassign(),
        }
    }
}

#[derive(Default)]
struct MemberLog {
    owned: BTreeSet<TopicPartition>,
    processed: Vec<(TopicPartition, i64)>,
    failed_commits: usize,
    error: Option<KafkaError>,
}

pub(crate) struct TestMember<C: MemberContext = RebalanceCounter> {
    consumer: Arc<BaseConsumer<C>>,
    log: Arc<Mutex<MemberLog>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TestMember<RebalanceCounter> {
    pub(crate) fn join(
        cx: &CheckContext,
        group: &str,
        topic: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self, CheckFailure> {
        Self::join_as(cx, group, topic, settings, RebalanceCounter::default())
    }

    pub(crate) fn rebalances(&self) -> usize {
        self.consumer.context().rebalances.load(Ordering::Relaxed)
    }
}

impl<C: MemberContext> TestMember<C> {
    pub(crate) fn join_as(
        cx: &CheckContext,
        group: &str,
        topic: &str,
        settings: &[(&str, &str)],
        context: C,
    ) -> Result<Self, CheckFailure> {
        let mut config = consumer_config(cx, group);
        config.set("auto.offset.reset", "earliest").set("session.timeout.ms", "30000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let consumer: BaseConsumer<C> = config.create_with_context(context).context("creating a member")?;
        consumer.subscribe(&[topic]).context("subscribing")?;
        let (consumer, log, stopping) = (Arc::new(consumer), Arc::<Mutex<MemberLog>>::default(), Arc::default());
        let shared = (Arc::clone(&consumer), Arc::clone(&log), Arc::clone(&stopping));
        let thread = thread::spawn(move || poll_until_stopped(&shared.0, &shared.1, &shared.2));
        Ok(Self { consumer, log, stopping, thread: Some(thread) })
    }

    pub(crate) fn owned(&self) -> BTreeSet<TopicPartition> {
        lock(&self.log).owned.clone()
    }

    pub(crate) fn callback_error(&self) -> Option<String> {
        self.consumer.context().callback_error().or_else(|| lock(&self.log).error.as_ref().map(KafkaError::to_string))
    }

    pub(crate) fn fatal_error(&self) -> Option<(rdkafka::error::RDKafkaErrorCode, String)> {
        self.consumer.client().fatal_error()
    }

    pub(crate) fn processed_count(&self) -> usize {
        lock(&self.log).processed.len()
    }

    /// Stops polling and closes. That leaves the group unless the member has an instance id.
    pub(crate) fn leave(mut self) -> MemberHistory {
        self.stop();
        let log = std::mem::take(&mut *lock(&self.log));
        MemberHistory { processed: log.processed, failed_commits: log.failed_commits }
    }

    /// Stops polling. The client stays alive and sends heartbeats, but releases no partition.
    pub(crate) fn stop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The thread has reported its panic; the check fails for the missing records.
            thread.join().ok();
        }
    }
}

impl<C: MemberContext> Drop for TestMember<C> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(log: &Mutex<MemberLog>) -> MutexGuard<'_, MemberLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn poll_until_stopped<C: ConsumerContext>(consumer: &BaseConsumer<C>, log: &Mutex<MemberLog>, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Acquire) {
        let polled = consumer.poll(Duration::from_millis(20));
        if let Ok(assignment) = consumer.assignment() {
            lock(log).owned = assignment.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        }
        match polled {
            Some(Ok(message)) => {
                let topic_partition = (message.topic().to_owned(), message.partition());
                let committed = commit(consumer, &topic_partition, message.offset() + 1).is_ok();
                let mut log = lock(log);
                log.processed.push((topic_partition, message.offset()));
                log.failed_commits += usize::from(!committed);
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => lock(log).error = Some(error),
        }
    }
}

fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic_partition: &TopicPartition,
    next: i64,
) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic_partition.0, topic_partition.1, Offset::Offset(next))?;
    consumer.commit(&list, CommitMode::Sync)
}

/// Waits until the members own every partition of `topics` exactly once, in even shares.
pub(crate) fn await_shares<C: MemberContext>(
    members: &[&TestMember<C>],
    topics: &[&str],
    partitions: i32,
    limit: Duration,
) -> Result<(), CheckFailure> {
    let all: BTreeSet<TopicPartition> =
        topics.iter().flat_map(|topic| (0..partitions).map(|p| ((*topic).to_owned(), p))).collect();
    wait_until(&format!("{} members that share {} partitions evenly", members.len(), all.len()), limit, || {
        let shares: Vec<BTreeSet<TopicPartition>> = members.iter().map(|member| member.owned()).collect();
        if let Some(error) = members.iter().find_map(|member| member.callback_error()) {
            return Err(CheckFailure::new(format!("a member of the group: {error}")));
        }
        let even = shares.iter().all(|share| share.len() >= all.len() / members.len());
        let union: BTreeSet<TopicPartition> = shares.iter().flatten().cloned().collect();
        let sum: usize = shares.iter().map(BTreeSet::len).sum();
        Ok((even && union == all && sum == all.len()).then_some(()))
    })
}

/// Waits until the group has committed `end` in every partition of the topics.
pub(crate) fn await_committed(
    cx: &CheckContext,
    group: &str,
    topics: &[&str],
    partitions: i32,
    end: i64,
) -> Result<(), CheckFailure> {
    let client = consumer(cx, group, &[])?;
    for topic in topics {
        for partition in 0..partitions {
            wait_until(&format!("the group at the end of {topic}/{partition}"), REQUEST_TIMEOUT, || {
                let now = committed(&client, topic, partition, REQUEST_TIMEOUT).context("committed offset")?;
                Ok((now == Some(end)).then_some(()))
            })?;
        }
    }
    Ok(())
}

/// The records that a member processed.
#[derive(Default)]
pub(crate) struct MemberHistory {
    processed: Vec<(TopicPartition, i64)>,
    failed_commits: usize,
}

/// Ensures that every record was processed, by each member in order, and twice only if a commit had failed in between.
pub(crate) fn ensure_all_processed(
    histories: &[MemberHistory],
    expected: &BTreeMap<TopicPartition, i64>,
) -> Result<String, CheckFailure> {
    let mut times: BTreeMap<&TopicPartition, BTreeMap<i64, usize>> = BTreeMap::new();
    for history in histories {
        let mut last: BTreeMap<&TopicPartition, i64> = BTreeMap::new();
        for (topic_partition, offset) in &history.processed {
            *times.entry(topic_partition).or_default().entry(*offset).or_default() += 1;
            let before = last.insert(topic_partition, *offset).unwrap_or(-1);
            ensure!(
                before < *offset || history.failed_commits > 0,
                "{topic_partition:?}: offset {offset} came after {before}"
            );
        }
    }
    let mut repeats = 0;
    for (topic_partition, end) in expected {
        let observed = times.get(topic_partition).map_or(0, BTreeMap::len);
        ensure_eq!(observed as i64, *end, "{topic_partition:?}: offsets processed");
        repeats += times.get(topic_partition).map_or(0, |observed| observed.values().map(|n| n - 1).sum::<usize>());
    }
    let failed: usize = histories.iter().map(|history| history.failed_commits).sum();
    ensure!(repeats <= failed, "{repeats} records were processed twice although only {failed} commits failed");
    Ok(format!("{} records, {repeats} twice", expected.values().sum::<i64>()))
}

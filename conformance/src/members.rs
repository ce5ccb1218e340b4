//! A member of a consumer group on a thread of its own: polls, notes each record, commits it, says what it owns.
//!
//! Two kinds: [`Watch`] takes what the group gives it, [`Follow`] also takes the same partitions of other topics.
//! Knows no check.

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

use crate::check::{Doing, Failure, ensure, ensure_eq};
use crate::clients::consumer_config;
use crate::context::{Context, until};

pub(crate) type Place = (String, i32);

/// Long enough for a rebalance on a busy machine, shorter than the session time-out the group checks set: what
/// happens within it did not wait for a time-out.
pub(crate) const REBALANCE: Duration = Duration::from_secs(25);

/// How a member takes part in its group.
pub(crate) trait Attend: ConsumerContext + 'static {
    /// What went wrong in a callback, which has nobody to tell.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// Counts rebalances.
#[derive(Default)]
pub(crate) struct Watch {
    rebalances: AtomicUsize,
}

impl ClientContext for Watch {}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
    }
}

impl Attend for Watch {}

/// Subscribes to one topic and takes the same partitions of others, from offsets it asks for itself.
pub(crate) struct Follow {
    others: Vec<String>,
    trouble: Mutex<Option<String>>,
}

impl ClientContext for Follow {}

impl ConsumerContext for Follow {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, given: &mut TopicPartitionList) {
        let done = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.take(consumer, given),
            _ => self.let_go(consumer, given),
        };
        // A callback can return nothing; whoever waits for the assignment asks for the trouble there was.
        if let Err(error) = done {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }
    }
}

impl Attend for Follow {
    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Follow {
    pub(crate) fn new(others: Vec<String>) -> Self {
        Self { others, trouble: Mutex::default() }
    }

    fn with_others(&self, given: &TopicPartitionList) -> TopicPartitionList {
        let mut all = TopicPartitionList::new();
        for element in given.elements() {
            all.add_partition(element.topic(), element.partition());
            for other in &self.others {
                all.add_partition(other, element.partition());
            }
        }
        all
    }

    fn take(&self, consumer: &BaseConsumer<Self>, given: &TopicPartitionList) -> KafkaResult<()> {
        let mut places = TopicPartitionList::new();
        if given.count() > 0 {
            places = consumer.committed_offsets(self.with_others(given), Duration::from_secs(15))?;
        }
        let mut start = TopicPartitionList::new();
        for element in places.elements() {
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

    fn let_go(&self, consumer: &BaseConsumer<Self>, given: &TopicPartitionList) -> KafkaResult<()> {
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&self.with_others(given)),
            _ => consumer.unassign(),
        }
    }
}

#[derive(Default)]
struct Notes {
    owned: BTreeSet<Place>,
    processed: Vec<(Place, i64)>,
    failed_commits: usize,
    error: Option<KafkaError>,
}

pub(crate) struct Member<C: Attend = Watch> {
    consumer: Arc<BaseConsumer<C>>,
    notes: Arc<Mutex<Notes>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member<Watch> {
    pub(crate) fn join(cx: &Context, group: &str, topic: &str, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        Self::join_as(cx, group, topic, settings, Watch::default())
    }

    pub(crate) fn rebalances(&self) -> usize {
        self.consumer.context().rebalances.load(Ordering::Relaxed)
    }
}

impl<C: Attend> Member<C> {
    pub(crate) fn join_as(
        cx: &Context,
        group: &str,
        topic: &str,
        settings: &[(&str, &str)],
        context: C,
    ) -> Result<Self, Failure> {
        let mut config = consumer_config(cx, group);
        config.set("auto.offset.reset", "earliest").set("session.timeout.ms", "30000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let consumer: BaseConsumer<C> = config.create_with_context(context).doing("creating a member")?;
        consumer.subscribe(&[topic]).doing("subscribing")?;
        let (consumer, notes, stopping) = (Arc::new(consumer), Arc::<Mutex<Notes>>::default(), Arc::default());
        let worker = (Arc::clone(&consumer), Arc::clone(&notes), Arc::clone(&stopping));
        let thread = thread::spawn(move || work(&worker.0, &worker.1, &worker.2));
        Ok(Self { consumer, notes, stopping, thread: Some(thread) })
    }

    pub(crate) fn owned(&self) -> BTreeSet<Place> {
        lock(&self.notes).owned.clone()
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.consumer.context().trouble().or_else(|| lock(&self.notes).error.as_ref().map(KafkaError::to_string))
    }

    pub(crate) fn fatal_error(&self) -> Option<(rdkafka::error::RDKafkaErrorCode, String)> {
        self.consumer.client().fatal_error()
    }

    pub(crate) fn processed_count(&self) -> usize {
        lock(&self.notes).processed.len()
    }

    /// Stops polling and closes; a member without an instance id leaves the group by that, one with an id does not.
    pub(crate) fn leave(mut self) -> Work {
        self.stop();
        let notes = std::mem::take(&mut *lock(&self.notes));
        Work { processed: notes.processed, failed_commits: notes.failed_commits }
    }

    /// Polls no more. Its client lives on and reports to the group, and gives back nothing that it is asked for.
    pub(crate) fn stop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic in there has left its message; what it did not do is missed by the check.
            thread.join().ok();
        }
    }
}

impl<C: Attend> Drop for Member<C> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work<C: ConsumerContext>(consumer: &BaseConsumer<C>, notes: &Mutex<Notes>, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Acquire) {
        let polled = consumer.poll(Duration::from_millis(20));
        if let Ok(assignment) = consumer.assignment() {
            lock(notes).owned = assignment.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        }
        match polled {
            Some(Ok(message)) => {
                let place = (message.topic().to_owned(), message.partition());
                let committed = commit(consumer, &place, message.offset() + 1).is_ok();
                let mut notes = lock(notes);
                notes.processed.push((place, message.offset()));
                notes.failed_commits += usize::from(!committed);
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => lock(notes).error = Some(error),
        }
    }
}

fn commit<C: ConsumerContext>(consumer: &BaseConsumer<C>, place: &Place, next: i64) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&place.0, place.1, Offset::Offset(next))?;
    consumer.commit(&list, CommitMode::Sync)
}

/// Waits until the members own all of `topics`' partitions, each once, with this many partitions per member.
pub(crate) fn await_shares<C: Attend>(
    members: &[&Member<C>],
    topics: &[&str],
    partitions: i32,
    limit: Duration,
) -> Result<(), Failure> {
    let all: BTreeSet<Place> =
        topics.iter().flat_map(|topic| (0..partitions).map(|p| ((*topic).to_owned(), p))).collect();
    until(&format!("{} members that share {} partitions evenly", members.len(), all.len()), limit, || {
        let shares: Vec<BTreeSet<Place>> = members.iter().map(|member| member.owned()).collect();
        if let Some(error) = members.iter().find_map(|member| member.trouble()) {
            return Err(Failure::new(format!("a member of the group: {error}")));
        }
        let even = shares.iter().all(|share| share.len() >= all.len() / members.len());
        let union: BTreeSet<Place> = shares.iter().flatten().cloned().collect();
        let sum: usize = shares.iter().map(BTreeSet::len).sum();
        Ok((even && union == all && sum == all.len()).then_some(()))
    })
}

/// What a member did.
#[derive(Default)]
pub(crate) struct Work {
    processed: Vec<(Place, i64)>,
    failed_commits: usize,
}

/// Every record was processed, by each member in order, and twice only where a commit had failed in between.
pub(crate) fn ensure_all_processed(work: &[Work], wanted: &BTreeMap<Place, i64>) -> Result<String, Failure> {
    let mut times: BTreeMap<&Place, BTreeMap<i64, usize>> = BTreeMap::new();
    for done in work {
        let mut last: BTreeMap<&Place, i64> = BTreeMap::new();
        for (place, offset) in &done.processed {
            *times.entry(place).or_default().entry(*offset).or_default() += 1;
            let before = last.insert(place, *offset).unwrap_or(-1);
            ensure!(before < *offset || done.failed_commits > 0, "{place:?}: offset {offset} came after {before}");
        }
    }
    let mut repeats = 0;
    for (place, end) in wanted {
        let seen = times.get(place).map_or(0, BTreeMap::len);
        ensure_eq!(seen as i64, *end, "{place:?}: offsets processed");
        repeats += times.get(place).map_or(0, |seen| seen.values().map(|n| n - 1).sum::<usize>());
    }
    let failed: usize = work.iter().map(|done| done.failed_commits).sum();
    ensure!(repeats <= failed, "{repeats} records were processed twice although only {failed} commits failed");
    Ok(format!("{} records, {repeats} twice", wanted.values().sum::<i64>()))
}

//! The simulated cluster: logs, the transaction coordinator, groups, and requests that have not arrived yet.
//!
//! It follows the rules of Kafka on which our guarantees rest. A producer's epoch fences the previous producer. The records of a
//! transaction are visible only behind its marker, and markers are written one by one. The offsets of a transaction are pending
//! until it ends, and are accepted only from a member of the present generation. An abandoned transaction is aborted after its
//! timeout. It leaves out replication (the log never loses an acknowledged record) and restarts of a broker.

mod group;
mod log;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

pub use log::{Fetched, Headers, Log, StoredRecord, TopicPartition};

pub(crate) use self::{
    group::{CommittedOffset, Group, Heartbeat, MemberId, Membership, Offsets},
    log::TransactionNumber,
};
use crate::{mutant::Mutant, random::SeededRandom, trace::Trace};

/// The transaction timeout.
pub(crate) const TRANSACTION_MS: i64 = 4_000;

/// One incarnation of a transactional producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerSession {
    pub(crate) id: Rc<str>,
    pub(crate) epoch: u32,
}

/// A request that changes the log.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// Records of a transaction, for one partition.
    Produce { session: ProducerSession, topic_partition: TopicPartition, records: Vec<Rc<StoredRecord>> },
    /// Input positions of a transaction.
    TxnOffsetCommit { session: ProducerSession, group: usize, membership: Option<Membership>, offsets: Offsets },
    /// The end of a transaction.
    EndTxn { session: ProducerSession, commits: bool },
    /// A record outside a transaction.
    Append { topic_partition: TopicPartition, record: Rc<StoredRecord> },
    /// Input positions outside a transaction.
    OffsetCommit { group: usize, offsets: Offsets },
}

/// The reply to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Done. For records it has the end offset after the last one.
    Done { end: i64 },
    /// Not now: markers of the previous transaction are missing.
    Busy,
    /// Another producer has the same transactional id.
    Fenced,
    /// The member does not belong to the present generation.
    NotAMember,
    /// There is no transaction to end.
    NoTransaction,
    /// A record is larger than the limit of its topic.
    TooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransactionState {
    Open,
    Ending { commits: bool },
    Ended,
}

#[derive(Debug)]
struct Transaction {
    producer: Rc<str>,
    state: TransactionState,
    begun_ms: i64,
    unmarked: BTreeSet<TopicPartition>,
    groups: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: u32,
    current: Option<TransactionNumber>,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The topics.
    pub log: Log,
    partitions: i32,
    groups: Vec<Group>,
    producers: BTreeMap<Rc<str>, Producer>,
    transactions: Vec<Transaction>,
    /// The transactions that have not ended, or whose markers are not all written.
    unended: BTreeSet<usize>,
    late: Vec<(i64, Request)>,
    /// The record size limit of each topic that has one.
    limits: BTreeMap<usize, usize>,
    mutant: Option<Mutant>,
}

impl Cluster {
    pub(crate) fn new(partitions: i32, mutant: Option<Mutant>) -> Self {
        Self {
            log: Log::default(),
            partitions,
            groups: Vec::new(),
            producers: BTreeMap::new(),
            transactions: Vec::new(),
            unended: BTreeSet::new(),
            late: Vec::new(),
            limits: BTreeMap::new(),
            mutant,
        }
    }

    /// The number of a topic, which is created if it does not exist.
    pub fn topic(&mut self, name: &Arc<str>) -> usize {
        self.log.topic(name, self.partitions)
    }

    /// Limits the size of the records of a topic.
    pub(crate) fn limit(&mut self, topic: usize, max_bytes: usize) {
        self.limits.insert(topic, max_bytes);
    }

    fn takes(&self, topic_partition: TopicPartition, record: &StoredRecord) -> bool {
        self.limits.get(&topic_partition.topic).is_none_or(|max_bytes| record.size() <= *max_bytes)
    }

    pub(crate) fn add_group(&mut self) -> usize {
        self.groups.push(Group::new(self.partitions));
        self.groups.len() - 1
    }

    pub(crate) fn group(&mut self, group: usize) -> &mut Group {
        &mut self.groups[group]
    }

    /// True if the member belongs to the present generation.
    pub(crate) fn admits(&self, group: usize, membership: Membership) -> bool {
        self.groups[group].admit(membership).is_ok()
    }

    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Begins an incarnation of a producer: the previous one is fenced, and its open transaction aborted. `None` while a
    /// transaction of the previous one is still ending.
    pub(crate) fn begin_session(&mut self, id: &Rc<str>, trace: &mut Trace) -> Option<ProducerSession> {
        let producer = self.producers.entry(Rc::clone(id)).or_default();
        if let Some(tx) = producer.current {
            match self.transactions[tx.0].state {
                TransactionState::Open => {
                    if self.mutant != Some(Mutant::NoEpoch) {
                        producer.epoch += 1;
                    }
                    self.decide(tx, false, trace);
                    return None;
                }
                TransactionState::Ending { .. } => return None,
                TransactionState::Ended => {}
            }
        }
        let producer = self.producers.entry(Rc::clone(id)).or_default();
        if self.mutant != Some(Mutant::NoEpoch) {
            producer.epoch += 1;
        }
        producer.current = None;
        Some(ProducerSession { id: Rc::clone(id), epoch: producer.epoch })
    }

    /// Carries out a request.
    pub(crate) fn handle(&mut self, request: &Request, now_ms: i64, trace: &mut Trace) -> Reply {
        match request {
            Request::Produce { session, topic_partition, records } => {
                self.produce(session, *topic_partition, records, now_ms, trace)
            }
            Request::TxnOffsetCommit { session, group, membership, offsets } => {
                self.take_offsets(session, *group, *membership, offsets, now_ms, trace)
            }
            Request::EndTxn { session, commits } => self.end(session, *commits, trace),
            Request::Append { topic_partition, record } => {
                let end = self.append(*topic_partition, record, None, now_ms, trace) + 1;
                Reply::Done { end }
            }
            Request::OffsetCommit { group, offsets } => {
                self.groups[*group].commit(offsets, now_ms);
                Reply::Done { end: 0 }
            }
        }
    }

    /// Delays a request.
    pub(crate) fn handle_later(&mut self, at_ms: i64, request: Request) {
        self.late.push((at_ms, request));
    }

    fn append(
        &mut self,
        topic_partition: TopicPartition,
        record: &Rc<StoredRecord>,
        tx: Option<TransactionNumber>,
        now_ms: i64,
        trace: &mut Trace,
    ) -> i64 {
        let offset = self.log.append(topic_partition, Rc::clone(record), tx, now_ms);
        trace.appended(self.log.name(topic_partition.topic), topic_partition.partition, offset, record, tx.is_some());
        offset
    }

    /// The open transaction of a producer, which begins if there is none.
    fn transaction(&mut self, session: &ProducerSession, now_ms: i64) -> Result<TransactionNumber, Reply> {
        let producer = self.producers.entry(Rc::clone(&session.id)).or_default();
        if producer.epoch != session.epoch {
            return Err(Reply::Fenced);
        }
        if let Some(tx) = producer.current {
            match self.transactions[tx.0].state {
                TransactionState::Open => return Ok(tx),
                TransactionState::Ending { .. } => return Err(Reply::Busy),
                TransactionState::Ended => {}
            }
        }
        let tx = TransactionNumber(self.transactions.len());
        self.transactions.push(Transaction {
            producer: Rc::clone(&session.id),
            state: TransactionState::Open,
            begun_ms: now_ms,
            unmarked: BTreeSet::new(),
            groups: BTreeSet::new(),
        });
        self.unended.insert(tx.0);
        producer.current = Some(tx);
        Ok(tx)
    }

    fn produce(
        &mut self,
        session: &ProducerSession,
        topic_partition: TopicPartition,
        records: &[Rc<StoredRecord>],
        now_ms: i64,
        trace: &mut Trace,
    ) -> Reply {
        let tx = match self.transaction(session, now_ms) {
            Ok(tx) => tx,
            Err(reply) => return reply,
        };
        if !records.iter().all(|record| self.takes(topic_partition, record)) {
            return Reply::TooLarge;
        }
        self.transactions[tx.0].unmarked.insert(topic_partition);
        let mut end = 0;
        for record in records {
            end = self.append(topic_partition, record, Some(tx), now_ms, trace) + 1;
        }
        Reply::Done { end }
    }

    fn take_offsets(
        &mut self,
        session: &ProducerSession,
        group: usize,
        membership: Option<Membership>,
        offsets: &Offsets,
        now_ms: i64,
        trace: &mut Trace,
    ) -> Reply {
        let tx = match self.transaction(session, now_ms) {
            Ok(tx) => tx,
            Err(reply) => return reply,
        };
        if let Some(membership) = membership
            && let Err(refused) = self.groups[group].admit(membership)
        {
            trace.sometimes(match refused {
                group::CommitRefusal::UnknownMember => "offsets of a removed member are refused",
                group::CommitRefusal::OldGeneration => "offsets of an old generation are refused",
            });
            return Reply::NotAMember;
        }
        self.groups[group].add_pending(tx, offsets);
        self.transactions[tx.0].groups.insert(group);
        Reply::Done { end: 0 }
    }

    fn end(&mut self, session: &ProducerSession, commits: bool, trace: &mut Trace) -> Reply {
        let Some(producer) = self.producers.get(&session.id) else { return Reply::NoTransaction };
        if producer.epoch != session.epoch {
            return Reply::Fenced;
        }
        let Some(tx) = producer.current else { return Reply::NoTransaction };
        match self.transactions[tx.0].state {
            TransactionState::Open => {
                self.decide(tx, commits, trace);
                Reply::Done { end: 0 }
            }
            TransactionState::Ending { commits: decided } if decided == commits => Reply::Done { end: 0 },
            TransactionState::Ending { .. } | TransactionState::Ended => Reply::NoTransaction,
        }
    }

    /// Decides whether a transaction is committed or aborted. Its markers follow.
    fn decide(&mut self, tx: TransactionNumber, commits: bool, trace: &mut Trace) {
        trace.ended(tx.0, commits);
        self.transactions[tx.0].state = TransactionState::Ending { commits };
        for topic_partition in &self.transactions[tx.0].unmarked {
            self.log.decide(*topic_partition, tx, commits);
        }
    }

    /// What the brokers do without a request: they abort an abandoned transaction, write one marker, handle one late request, and
    /// expire sessions.
    pub(crate) fn step(&mut self, now_ms: i64, random: &mut SeededRandom, trace: &mut Trace) {
        self.abort_abandoned(now_ms, trace);
        self.write_one_marker(now_ms, random);
        if let Some(due) = self.late.iter().position(|(at_ms, _)| *at_ms <= now_ms) {
            let (_, request) = self.late.swap_remove(due);
            let reply = self.handle(&request, now_ms, trace);
            trace.arrived_late(&reply);
        }
        for group in &mut self.groups {
            group.tick(now_ms, random);
        }
    }

    fn abort_abandoned(&mut self, now_ms: i64, trace: &mut Trace) {
        let is_abandoned = |tx: &&usize| {
            let tx = &self.transactions[**tx];
            tx.state == TransactionState::Open && now_ms - tx.begun_ms > TRANSACTION_MS
        };
        if let Some(tx) = self.unended.iter().find(is_abandoned).copied() {
            trace.sometimes("an abandoned transaction is aborted");
            if let Some(producer) = self.producers.get_mut(&self.transactions[tx].producer) {
                producer.epoch += 1;
            }
            self.decide(TransactionNumber(tx), false, trace);
        }
    }

    /// Writes one of the missing markers, of a random transaction and partition.
    fn write_one_marker(&mut self, now_ms: i64, random: &mut SeededRandom) {
        let ending: Vec<(usize, bool)> = self
            .unended
            .iter()
            .filter_map(|tx| match self.transactions[*tx].state {
                TransactionState::Ending { commits } => Some((*tx, commits)),
                TransactionState::Open | TransactionState::Ended => None,
            })
            .collect();
        if ending.is_empty() {
            return;
        }
        let (tx, commits) = *random.pick(&ending);
        let transaction = &mut self.transactions[tx];
        let marks = transaction.unmarked.len() + transaction.groups.len();
        let at = random.index(marks);
        if let Some(topic_partition) = transaction.unmarked.iter().nth(at).copied() {
            transaction.unmarked.remove(&topic_partition);
            self.log.write_marker(topic_partition, TransactionNumber(tx), now_ms);
        } else if let Some(group) = transaction.groups.pop_first() {
            self.groups[group].apply_marker(TransactionNumber(tx), commits, now_ms);
        }
        let transaction = &mut self.transactions[tx];
        if transaction.unmarked.is_empty() && transaction.groups.is_empty() {
            transaction.state = TransactionState::Ended;
            self.unended.remove(&tx);
        }
    }

    /// Why the cluster has not settled, if it has not: an unfinished transaction, a late request, or a group that has not
    /// settled.
    pub(crate) fn unsettled_reason(&self) -> Option<String> {
        if let Some(tx) = self.unended.first() {
            return Some(format!("transaction {tx} of {} is not ended", self.transactions[*tx].producer));
        }
        if !self.late.is_empty() {
            return Some(format!("{} requests are late", self.late.len()));
        }
        self.groups.iter().position(|group| !group.is_settled()).map(|at| format!("group {at}: {}", self.groups[at]))
    }

    /// When the next late request is due, or a transaction times out.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let open = self.unended.iter().map(|tx| self.transactions[*tx].begun_ms + TRANSACTION_MS + 1);
        self.late.iter().map(|(at_ms, _)| *at_ms).chain(open).min()
    }

    /// True if a marker must be written or a late request handled.
    pub(crate) fn has_work(&self, now_ms: i64) -> bool {
        let ending = |tx: &usize| matches!(self.transactions[*tx].state, TransactionState::Ending { .. });
        self.unended.iter().any(ending) || self.late.iter().any(|(at_ms, _)| *at_ms <= now_ms)
    }
}

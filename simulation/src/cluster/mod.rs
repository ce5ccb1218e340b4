//! The simulated cluster: logs, the transaction coordinator, groups, and requests that are still on their way.
//!
//! It follows the rules of Kafka that our guarantees rest on: a producer's epoch fences the one before it, a transaction's records
//! are seen only behind its marker and markers come one by one, offsets of a transaction pend until it ends and are taken from a
//! member of the present generation only, and a transaction that nobody ends is aborted after its timeout. What it leaves out:
//! replication (the log never loses an acknowledged record) and a broker's own restarts.

mod group;
mod log;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

pub use log::{Fetched, Headers, Log, Place, Stored};

pub(crate) use self::{
    group::{Group, Heartbeat, MemberId, Membership, Offset, Offsets},
    log::TxNo,
};
use crate::{chance::Chance, mutant::Mutant, trace::Trace};

/// How long a transaction may stay open.
pub(crate) const TRANSACTION_MS: i64 = 4_000;

/// Which life of a transactional producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: Rc<str>,
    pub(crate) epoch: u32,
}

/// A request that changes the log.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// Records of a transaction, for one partition.
    Produce { session: Session, place: Place, records: Vec<Rc<Stored>> },
    /// Input positions of a transaction.
    Offsets { session: Session, group: usize, membership: Option<Membership>, offsets: Offsets },
    /// The end of a transaction.
    End { session: Session, commits: bool },
    /// A record in no transaction.
    Append { place: Place, record: Rc<Stored> },
    /// Input positions in no transaction.
    CommitOffsets { group: usize, offsets: Offsets },
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Done; for records the end of what was appended.
    Done { end: i64 },
    /// Not now: the transaction before is not marked everywhere yet.
    Busy,
    /// Another producer has this one's id.
    Fenced,
    /// The member is none of the present generation.
    NotAMember,
    /// There is no transaction to end.
    NoTransaction,
    /// A record is larger than its topic takes.
    TooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ending { commits: bool },
    Ended,
}

#[derive(Debug)]
struct Transaction {
    producer: Rc<str>,
    state: State,
    begun_ms: i64,
    unmarked: BTreeSet<Place>,
    groups: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: u32,
    current: Option<TxNo>,
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
    /// Transactions that are not ended, or whose markers are not all written.
    unended: BTreeSet<usize>,
    late: Vec<(i64, Request)>,
    /// The largest record that a topic takes, of topics that have a limit.
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

    /// The number of a topic, which is made if need be.
    pub fn topic(&mut self, name: &Arc<str>) -> usize {
        self.log.topic(name, self.partitions)
    }

    /// Lets a topic take no record larger than this.
    pub(crate) fn limit(&mut self, topic: usize, most: usize) {
        self.limits.insert(topic, most);
    }

    fn takes(&self, place: Place, record: &Stored) -> bool {
        self.limits.get(&place.topic).is_none_or(|most| record.size() <= *most)
    }

    pub(crate) fn add_group(&mut self) -> usize {
        self.groups.push(Group::new(self.partitions));
        self.groups.len() - 1
    }

    pub(crate) fn group(&mut self, group: usize) -> &mut Group {
        &mut self.groups[group]
    }

    /// True if a member is one of the present generation.
    pub(crate) fn admits(&self, group: usize, membership: Membership) -> bool {
        self.groups[group].admit(membership).is_ok()
    }

    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Begins a life of a producer: the one before it is fenced, and what it left open is aborted. `None` while a transaction of
    /// it is still being ended.
    pub(crate) fn begin_session(&mut self, id: &Rc<str>, trace: &mut Trace) -> Option<Session> {
        let producer = self.producers.entry(Rc::clone(id)).or_default();
        if let Some(tx) = producer.current {
            match self.transactions[tx.0].state {
                State::Open => {
                    if self.mutant != Some(Mutant::NoEpoch) {
                        producer.epoch += 1;
                    }
                    self.decide(tx, false, trace);
                    return None;
                }
                State::Ending { .. } => return None,
                State::Ended => {}
            }
        }
        let producer = self.producers.entry(Rc::clone(id)).or_default();
        if self.mutant != Some(Mutant::NoEpoch) {
            producer.epoch += 1;
        }
        producer.current = None;
        Some(Session { id: Rc::clone(id), epoch: producer.epoch })
    }

    /// Carries a request out.
    pub(crate) fn serve(&mut self, request: &Request, now_ms: i64, trace: &mut Trace) -> Reply {
        match request {
            Request::Produce { session, place, records } => self.produce(session, *place, records, now_ms, trace),
            Request::Offsets { session, group, membership, offsets } => {
                self.take_offsets(session, *group, *membership, offsets, now_ms, trace)
            }
            Request::End { session, commits } => self.end(session, *commits, trace),
            Request::Append { place, record } => {
                let end = self.append(*place, record, None, now_ms, trace) + 1;
                Reply::Done { end }
            }
            Request::CommitOffsets { group, offsets } => {
                self.groups[*group].commit(offsets, now_ms);
                Reply::Done { end: 0 }
            }
        }
    }

    /// Lets a request arrive later, whoever sent it.
    pub(crate) fn serve_later(&mut self, at_ms: i64, request: Request) {
        self.late.push((at_ms, request));
    }

    fn append(&mut self, place: Place, record: &Rc<Stored>, tx: Option<TxNo>, now_ms: i64, trace: &mut Trace) -> i64 {
        let offset = self.log.append(place, Rc::clone(record), tx, now_ms);
        trace.appended(self.log.name(place.topic), place.partition, offset, record, tx.is_some());
        offset
    }

    /// The transaction that a producer is in, begun if need be.
    fn transaction(&mut self, session: &Session, now_ms: i64) -> Result<TxNo, Reply> {
        let producer = self.producers.entry(Rc::clone(&session.id)).or_default();
        if producer.epoch != session.epoch {
            return Err(Reply::Fenced);
        }
        if let Some(tx) = producer.current {
            match self.transactions[tx.0].state {
                State::Open => return Ok(tx),
                State::Ending { .. } => return Err(Reply::Busy),
                State::Ended => {}
            }
        }
        let tx = TxNo(self.transactions.len());
        self.transactions.push(Transaction {
            producer: Rc::clone(&session.id),
            state: State::Open,
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
        session: &Session,
        place: Place,
        records: &[Rc<Stored>],
        now_ms: i64,
        trace: &mut Trace,
    ) -> Reply {
        let tx = match self.transaction(session, now_ms) {
            Ok(tx) => tx,
            Err(reply) => return reply,
        };
        if !records.iter().all(|record| self.takes(place, record)) {
            return Reply::TooLarge;
        }
        self.transactions[tx.0].unmarked.insert(place);
        let mut end = 0;
        for record in records {
            end = self.append(place, record, Some(tx), now_ms, trace) + 1;
        }
        Reply::Done { end }
    }

    fn take_offsets(
        &mut self,
        session: &Session,
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
                group::Refused::UnknownMember => "offsets of a member that was put out are refused",
                group::Refused::OldGeneration => "offsets of an old generation are refused",
            });
            return Reply::NotAMember;
        }
        self.groups[group].pend(tx, offsets);
        self.transactions[tx.0].groups.insert(group);
        Reply::Done { end: 0 }
    }

    fn end(&mut self, session: &Session, commits: bool, trace: &mut Trace) -> Reply {
        let Some(producer) = self.producers.get(&session.id) else { return Reply::NoTransaction };
        if producer.epoch != session.epoch {
            return Reply::Fenced;
        }
        let Some(tx) = producer.current else { return Reply::NoTransaction };
        match self.transactions[tx.0].state {
            State::Open => {
                self.decide(tx, commits, trace);
                Reply::Done { end: 0 }
            }
            State::Ending { commits: decided } if decided == commits => Reply::Done { end: 0 },
            State::Ending { .. } | State::Ended => Reply::NoTransaction,
        }
    }

    /// From here on a transaction is committed or aborted; its markers follow.
    fn decide(&mut self, tx: TxNo, commits: bool, trace: &mut Trace) {
        trace.ended(tx.0, commits);
        self.transactions[tx.0].state = State::Ending { commits };
        for place in &self.transactions[tx.0].unmarked {
            self.log.decide(*place, tx, commits);
        }
    }

    /// What the brokers do by themselves: one marker, what was late, timeouts, sessions.
    pub(crate) fn step(&mut self, now_ms: i64, chance: &mut Chance, trace: &mut Trace) {
        self.abort_abandoned(now_ms, trace);
        self.mark_one(now_ms, chance);
        if let Some(due) = self.late.iter().position(|(at_ms, _)| *at_ms <= now_ms) {
            let (_, request) = self.late.swap_remove(due);
            let reply = self.serve(&request, now_ms, trace);
            trace.arrived_late(&reply);
        }
        for group in &mut self.groups {
            group.tick(now_ms, chance);
        }
    }

    fn abort_abandoned(&mut self, now_ms: i64, trace: &mut Trace) {
        let is_abandoned = |tx: &&usize| {
            let tx = &self.transactions[**tx];
            tx.state == State::Open && now_ms - tx.begun_ms > TRANSACTION_MS
        };
        if let Some(tx) = self.unended.iter().find(is_abandoned).copied() {
            trace.sometimes("a transaction that nobody ends is aborted");
            if let Some(producer) = self.producers.get_mut(&self.transactions[tx].producer) {
                producer.epoch += 1;
            }
            self.decide(TxNo(tx), false, trace);
        }
    }

    /// Writes one of the markers that are due: of which transaction, and where, is anybody's guess.
    fn mark_one(&mut self, now_ms: i64, chance: &mut Chance) {
        let ending: Vec<(usize, bool)> = self
            .unended
            .iter()
            .filter_map(|tx| match self.transactions[*tx].state {
                State::Ending { commits } => Some((*tx, commits)),
                State::Open | State::Ended => None,
            })
            .collect();
        if ending.is_empty() {
            return;
        }
        let (tx, commits) = *chance.pick(&ending);
        let transaction = &mut self.transactions[tx];
        let marks = transaction.unmarked.len() + transaction.groups.len();
        let at = chance.index(marks);
        if let Some(place) = transaction.unmarked.iter().nth(at).copied() {
            transaction.unmarked.remove(&place);
            self.log.mark(place, TxNo(tx), now_ms);
        } else if let Some(group) = transaction.groups.pop_first() {
            self.groups[group].mark(TxNo(tx), commits, now_ms);
        }
        let transaction = &mut self.transactions[tx];
        if transaction.unmarked.is_empty() && transaction.groups.is_empty() {
            transaction.state = State::Ended;
            self.unended.remove(&tx);
        }
    }

    /// What is on its way, if anything: an unfinished transaction, a late request, a group that is not settled.
    pub(crate) fn unrest(&self) -> Option<String> {
        if let Some(tx) = self.unended.first() {
            return Some(format!("transaction {tx} of {} is not ended", self.transactions[*tx].producer));
        }
        if !self.late.is_empty() {
            return Some(format!("{} requests are late", self.late.len()));
        }
        self.groups.iter().position(|group| !group.is_settled()).map(|at| format!("group {at}: {}", self.groups[at]))
    }

    /// When the next late request is due, or a transaction or a member runs out of time.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let open = self.unended.iter().map(|tx| self.transactions[*tx].begun_ms + TRANSACTION_MS + 1);
        self.late.iter().map(|(at_ms, _)| *at_ms).chain(open).min()
    }

    /// True if some marker is to be written: the brokers have work.
    pub(crate) fn has_work(&self, now_ms: i64) -> bool {
        let ending = |tx: &usize| matches!(self.transactions[*tx].state, State::Ending { .. });
        self.unended.iter().any(ending) || self.late.iter().any(|(at_ms, _)| *at_ms <= now_ms)
    }
}

//! A consumer group, as its coordinator keeps it: members, generations, committed offsets, and the check of who may commit.
//!
//! The rules are Kafka's. A member without a heartbeat within its session timeout is removed. When a member joins or leaves,
//! every member gives up all partitions and joins again, and then every partition is assigned. The offsets of a transaction are
//! accepted only from a member of the present generation, and stay pending until the transaction ends.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{TopicPartition, TransactionNumber};
use crate::random::SeededRandom;

/// The session timeout.
const SESSION_MS: i64 = 3_000;
/// The rebalance timeout: how long the group waits for a member that does not join again.
const REBALANCE_MS: i64 = 2_500;

/// How long brokers keep an offset that is not committed again: shorter than the default, as some brokers are configured.
const OFFSETS_KEPT_MS: i64 = 24 * 3_600_000;

/// The id of a member. No id is used twice.
pub(crate) type MemberId = u64;

/// The membership that a commit states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) member: MemberId,
    pub(crate) generation: u32,
}

/// A committed offset. Its metadata is the known end of the own log of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) next: i64,
    pub(crate) own_end: i64,
}

/// Offsets to commit.
pub(crate) type Offsets = BTreeMap<TopicPartition, CommittedOffset>;

#[derive(Debug)]
struct Member {
    instance: Option<String>,
    last_heartbeat_ms: i64,
    joined: bool,
    assigned: BTreeSet<i32>,
}

#[derive(Debug, PartialEq, Eq)]
enum RebalancePhase {
    Stable,
    Joining { since_ms: i64 },
}

/// The reply to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// The member is unknown: it was removed, or another one has its name.
    Unknown,
    /// It must join again.
    JoinAgain,
    /// It has joined, and waits for the other members.
    Wait,
    /// It belongs to a generation and has these partitions.
    Member { generation: u32, assigned: BTreeSet<i32> },
}

/// Why an offset commit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitRefusal {
    UnknownMember,
    OldGeneration,
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} generation {}, {} offsets pend", self.phase, self.generation, self.pending.len())?;
        for (id, member) in &self.members {
            let name = member.instance.as_deref().unwrap_or("unnamed");
            write!(f, "; {id} {name} joined {} assigned {:?}", member.joined, member.assigned)?;
        }
        Ok(())
    }
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group {
    partitions: i32,
    generation: u32,
    phase: RebalancePhase,
    members: BTreeMap<MemberId, Member>,
    last_id: MemberId,
    shuffles: bool,
    /// Each committed offset, with the time of its commit.
    committed: BTreeMap<TopicPartition, (CommittedOffset, i64)>,
    pending: BTreeMap<TransactionNumber, Offsets>,
    /// The topic that members subscribe to: its offsets do not expire while the group lives.
    subscribed: Option<usize>,
    expired: usize,
}

impl Group {
    pub(crate) fn new(partitions: i32) -> Self {
        Self {
            partitions,
            generation: 0,
            phase: RebalancePhase::Stable,
            members: BTreeMap::new(),
            last_id: 0,
            shuffles: false,
            committed: BTreeMap::new(),
            pending: BTreeMap::new(),
            subscribed: None,
            expired: 0,
        }
    }

    /// Adds a member. One with the name of a known member replaces it, and the replaced member is fenced; without a rebalance if
    /// none is in progress.
    pub(crate) fn join(&mut self, instance: Option<&str>, now_ms: i64) -> MemberId {
        self.last_id += 1;
        let known = instance.and_then(|instance| {
            let named = |(_, member): &(&MemberId, &Member)| member.instance.as_deref() == Some(instance);
            self.members.iter().find(named).map(|(id, _)| *id)
        });
        let mut member = known.and_then(|id| self.members.remove(&id)).unwrap_or_else(|| Member {
            instance: instance.map(str::to_owned),
            last_heartbeat_ms: now_ms,
            joined: false,
            assigned: BTreeSet::new(),
        });
        member.last_heartbeat_ms = now_ms;
        let is_replacement = known.is_some() && self.phase == RebalancePhase::Stable;
        member.joined = !is_replacement;
        self.members.insert(self.last_id, member);
        if !is_replacement {
            self.prepare_rebalance(now_ms, Some(self.last_id));
        }
        self.last_id
    }

    /// A member that has given everything back joins again.
    pub(crate) fn join_again(&mut self, id: MemberId, now_ms: i64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.joined = true;
            member.last_heartbeat_ms = now_ms;
        }
        self.prepare_rebalance(now_ms, Some(id));
    }

    fn prepare_rebalance(&mut self, now_ms: i64, by: Option<MemberId>) {
        if self.phase == RebalancePhase::Stable {
            self.phase = RebalancePhase::Joining { since_ms: now_ms };
            for (id, member) in &mut self.members {
                member.joined = by == Some(*id);
            }
        }
    }

    /// Removes a member.
    pub(crate) fn leave(&mut self, id: MemberId, now_ms: i64) {
        if self.members.remove(&id).is_some() {
            self.prepare_rebalance(now_ms, None);
        }
    }

    /// Starts a rebalance that assigns each partition to a random member.
    pub(crate) fn shuffle(&mut self, now_ms: i64) {
        self.shuffles = true;
        self.prepare_rebalance(now_ms, None);
    }

    pub(crate) fn heartbeat(&mut self, id: MemberId, now_ms: i64) -> Heartbeat {
        let Some(member) = self.members.get_mut(&id) else { return Heartbeat::Unknown };
        member.last_heartbeat_ms = now_ms;
        match self.phase {
            RebalancePhase::Stable => {
                Heartbeat::Member { generation: self.generation, assigned: member.assigned.clone() }
            }
            RebalancePhase::Joining { .. } if member.joined => Heartbeat::Wait,
            RebalancePhase::Joining { .. } => Heartbeat::JoinAgain,
        }
    }

    /// Removes members without a heartbeat, and begins a generation when every member has joined.
    pub(crate) fn tick(&mut self, now_ms: i64, random: &mut SeededRandom) {
        let expired: Vec<MemberId> =
            self.members.iter().filter(|(_, m)| now_ms - m.last_heartbeat_ms > SESSION_MS).map(|(id, _)| *id).collect();
        for id in expired {
            self.leave(id, now_ms);
        }
        let RebalancePhase::Joining { since_ms } = self.phase else { return };
        if now_ms - since_ms > REBALANCE_MS {
            self.members.retain(|_, member| member.joined);
        }
        if self.members.values().all(|member| member.joined) {
            self.begin_generation(random);
        }
    }

    fn begin_generation(&mut self, random: &mut SeededRandom) {
        self.generation += 1;
        self.phase = RebalancePhase::Stable;
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        for member in self.members.values_mut() {
            member.assigned.clear();
        }
        if ids.is_empty() {
            return;
        }
        let shuffles = std::mem::take(&mut self.shuffles);
        for (partition, next) in (0..self.partitions).zip(ids.iter().cycle()) {
            let owner = if shuffles { random.pick(&ids) } else { next };
            if let Some(member) = self.members.get_mut(owner) {
                member.assigned.insert(partition);
            }
        }
    }

    /// True if no rebalance is in progress, every partition has an owner, and no offset is pending.
    pub(crate) fn is_settled(&self) -> bool {
        let assigned: usize = self.members.values().map(|member| member.assigned.len()).sum();
        self.phase == RebalancePhase::Stable
            && i32::try_from(assigned).unwrap_or(-1) == self.partitions
            && self.pending.is_empty()
    }

    /// Checks that a member may commit.
    ///
    /// # Errors
    /// The member does not belong to the present generation.
    pub(crate) fn admit(&self, membership: Membership) -> Result<(), CommitRefusal> {
        if !self.members.contains_key(&membership.member) {
            Err(CommitRefusal::UnknownMember)
        } else if membership.generation != self.generation {
            Err(CommitRefusal::OldGeneration)
        } else {
            Ok(())
        }
    }

    /// Adds offsets that count after the transaction is committed.
    pub(crate) fn add_pending(&mut self, tx: TransactionNumber, offsets: &Offsets) {
        self.pending
            .entry(tx)
            .or_default()
            .extend(offsets.iter().map(|(topic_partition, next)| (*topic_partition, *next)));
    }

    /// Applies the marker of a transaction.
    pub(crate) fn apply_marker(&mut self, tx: TransactionNumber, commits: bool, now_ms: i64) {
        if let Some(offsets) = self.pending.remove(&tx)
            && commits
        {
            self.commit(&offsets, now_ms);
        }
    }

    /// Commits offsets outside a transaction, without a check of the membership.
    pub(crate) fn commit(&mut self, offsets: &Offsets, now_ms: i64) {
        self.committed.extend(offsets.iter().map(|(topic_partition, offset)| (*topic_partition, (*offset, now_ms))));
    }

    /// The committed offset of a partition; `Err` if a transaction that is not ended may change it.
    pub(crate) fn stable_offset(&self, topic_partition: TopicPartition) -> Result<Option<CommittedOffset>, ()> {
        if self.pending.values().any(|offsets| offsets.contains_key(&topic_partition)) {
            return Err(());
        }
        Ok(self.offset(topic_partition))
    }

    /// The committed offset, even if a pending transaction may change it.
    pub(crate) fn offset(&self, topic_partition: TopicPartition) -> Option<CommittedOffset> {
        self.committed.get(&topic_partition).map(|(offset, _)| *offset)
    }

    /// Sets the topic that members subscribe to.
    pub(crate) fn subscribe(&mut self, topic: usize) {
        self.subscribed = Some(topic);
    }

    /// Expires the offsets that were committed too long ago, of topics that are assigned but not subscribed: KAFKA-8338.
    pub(crate) fn expire_offsets(&mut self, now_ms: i64) {
        let (before, subscribed) = (self.committed.len(), self.subscribed);
        self.committed.retain(|topic_partition, (_, at_ms)| {
            Some(topic_partition.topic) == subscribed || now_ms - *at_ms <= OFFSETS_KEPT_MS
        });
        self.expired += before - self.committed.len();
    }

    /// How many offsets have expired.
    pub(crate) fn expired(&self) -> usize {
        self.expired
    }

    /// Hours pass, in which every member sends its heartbeats.
    pub(crate) fn keep_alive(&mut self, now_ms: i64) {
        self.members.values_mut().for_each(|member| member.last_heartbeat_ms = now_ms);
    }

    /// Loses every committed offset, as after a long time without a commit.
    pub(crate) fn forget_offsets(&mut self) {
        self.committed.clear();
    }
}

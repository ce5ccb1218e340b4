//! A consumer group as its coordinator keeps it: members, generations, committed offsets, and who may commit.
//!
//! The rules are Kafka's: a member that is not heard of within its session is put out; whoever joins or leaves makes everybody
//! give everything back and join again, and then all is given out; a transaction's offsets are taken from a member of the present
//! generation only, and stay pending until the transaction ends.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{Place, TxNo};
use crate::chance::Chance;

/// How long a member may be silent.
const SESSION_MS: i64 = 3_000;
/// How long the others wait for a member that does not join again.
const REBALANCE_MS: i64 = 2_500;

/// How long an offset is kept that is not committed again: what some brokers are set to.
const OFFSETS_KEPT_MS: i64 = 24 * 3_600_000;

/// A member's id: never given twice.
pub(crate) type MemberId = u64;

/// What a member says it is when it commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) member: MemberId,
    pub(crate) generation: u32,
}

/// A committed offset, with what its metadata says: how far the own log of its owner was known to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offset {
    pub(crate) next: i64,
    pub(crate) own_end: i64,
}

/// Offsets to commit.
pub(crate) type Offsets = BTreeMap<Place, Offset>;

#[derive(Debug)]
struct Member {
    instance: Option<String>,
    heard_at_ms: i64,
    joined: bool,
    assigned: BTreeSet<i32>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Stable,
    Joining { since_ms: i64 },
}

/// What a member hears when it reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// Nobody knows it: it was put out, or another one has its name.
    Unknown,
    /// It must join again.
    JoinAgain,
    /// It has joined, and waits for the others.
    Wait,
    /// It belongs to a generation and has these partitions.
    Member { generation: u32, assigned: BTreeSet<i32> },
}

/// Why an offset commit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
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
    phase: Phase,
    members: BTreeMap<MemberId, Member>,
    last_id: MemberId,
    shuffles: bool,
    /// With the time of each commit.
    committed: BTreeMap<Place, (Offset, i64)>,
    pending: BTreeMap<TxNo, Offsets>,
    /// The topic that members subscribe to: its offsets do not expire while the group lives.
    subscribed: Option<usize>,
    expired: usize,
}

impl Group {
    pub(crate) fn new(partitions: i32) -> Self {
        Self {
            partitions,
            generation: 0,
            phase: Phase::Stable,
            members: BTreeMap::new(),
            last_id: 0,
            shuffles: false,
            committed: BTreeMap::new(),
            pending: BTreeMap::new(),
            subscribed: None,
            expired: 0,
        }
    }

    /// Lets somebody in. Who comes under the name of a member takes its place, and that one is fenced; without a rebalance if none
    /// is under way.
    pub(crate) fn join(&mut self, instance: Option<&str>, now_ms: i64) -> MemberId {
        self.last_id += 1;
        let known = instance.and_then(|instance| {
            let named = |(_, member): &(&MemberId, &Member)| member.instance.as_deref() == Some(instance);
            self.members.iter().find(named).map(|(id, _)| *id)
        });
        let mut member = known.and_then(|id| self.members.remove(&id)).unwrap_or_else(|| Member {
            instance: instance.map(str::to_owned),
            heard_at_ms: now_ms,
            joined: false,
            assigned: BTreeSet::new(),
        });
        member.heard_at_ms = now_ms;
        let goes_on = known.is_some() && self.phase == Phase::Stable;
        member.joined = !goes_on;
        self.members.insert(self.last_id, member);
        if !goes_on {
            self.prepare(now_ms, Some(self.last_id));
        }
        self.last_id
    }

    /// A member that has given everything back joins again.
    pub(crate) fn join_again(&mut self, id: MemberId, now_ms: i64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.joined = true;
            member.heard_at_ms = now_ms;
        }
        self.prepare(now_ms, Some(id));
    }

    fn prepare(&mut self, now_ms: i64, by: Option<MemberId>) {
        if self.phase == Phase::Stable {
            self.phase = Phase::Joining { since_ms: now_ms };
            for (id, member) in &mut self.members {
                member.joined = by == Some(*id);
            }
        }
    }

    /// Puts a member out.
    pub(crate) fn leave(&mut self, id: MemberId, now_ms: i64) {
        if self.members.remove(&id).is_some() {
            self.prepare(now_ms, None);
        }
    }

    /// Gives everything out anew, this time to whomever.
    pub(crate) fn shuffle(&mut self, now_ms: i64) {
        self.shuffles = true;
        self.prepare(now_ms, None);
    }

    pub(crate) fn heartbeat(&mut self, id: MemberId, now_ms: i64) -> Heartbeat {
        let Some(member) = self.members.get_mut(&id) else { return Heartbeat::Unknown };
        member.heard_at_ms = now_ms;
        match self.phase {
            Phase::Stable => Heartbeat::Member { generation: self.generation, assigned: member.assigned.clone() },
            Phase::Joining { .. } if member.joined => Heartbeat::Wait,
            Phase::Joining { .. } => Heartbeat::JoinAgain,
        }
    }

    /// Puts out who is silent, and begins a generation once everybody has joined.
    pub(crate) fn tick(&mut self, now_ms: i64, chance: &mut Chance) {
        let silent: Vec<MemberId> =
            self.members.iter().filter(|(_, m)| now_ms - m.heard_at_ms > SESSION_MS).map(|(id, _)| *id).collect();
        for id in silent {
            self.leave(id, now_ms);
        }
        let Phase::Joining { since_ms } = self.phase else { return };
        if now_ms - since_ms > REBALANCE_MS {
            self.members.retain(|_, member| member.joined);
        }
        if self.members.values().all(|member| member.joined) {
            self.begin(chance);
        }
    }

    fn begin(&mut self, chance: &mut Chance) {
        self.generation += 1;
        self.phase = Phase::Stable;
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        for member in self.members.values_mut() {
            member.assigned.clear();
        }
        if ids.is_empty() {
            return;
        }
        let shuffles = std::mem::take(&mut self.shuffles);
        for (partition, turn) in (0..self.partitions).zip(ids.iter().cycle()) {
            let owner = if shuffles { chance.pick(&ids) } else { turn };
            if let Some(member) = self.members.get_mut(owner) {
                member.assigned.insert(partition);
            }
        }
    }

    /// True if nobody waits for anybody and every partition has an owner.
    pub(crate) fn is_settled(&self) -> bool {
        let assigned: usize = self.members.values().map(|member| member.assigned.len()).sum();
        self.phase == Phase::Stable
            && i32::try_from(assigned).unwrap_or(-1) == self.partitions
            && self.pending.is_empty()
    }

    /// Who may commit.
    ///
    /// # Errors
    /// The member is none of the present generation.
    pub(crate) fn admit(&self, membership: Membership) -> Result<(), Refused> {
        if !self.members.contains_key(&membership.member) {
            Err(Refused::UnknownMember)
        } else if membership.generation != self.generation {
            Err(Refused::OldGeneration)
        } else {
            Ok(())
        }
    }

    /// Takes offsets that count once the transaction is committed.
    pub(crate) fn pend(&mut self, tx: TxNo, offsets: &Offsets) {
        self.pending.entry(tx).or_default().extend(offsets.iter().map(|(place, next)| (*place, *next)));
    }

    /// The transaction's marker has come.
    pub(crate) fn mark(&mut self, tx: TxNo, commits: bool, now_ms: i64) {
        if let Some(offsets) = self.pending.remove(&tx)
            && commits
        {
            self.commit(&offsets, now_ms);
        }
    }

    /// Takes offsets at once, in no transaction and from whomever: what a careless consumer does.
    pub(crate) fn commit(&mut self, offsets: &Offsets, now_ms: i64) {
        self.committed.extend(offsets.iter().map(|(place, offset)| (*place, (*offset, now_ms))));
    }

    /// The committed offset of a place; `Err` if a transaction that is not ended may change it.
    pub(crate) fn stable_offset(&self, place: Place) -> Result<Option<Offset>, ()> {
        if self.pending.values().any(|offsets| offsets.contains_key(&place)) {
            return Err(());
        }
        Ok(self.offset(place))
    }

    /// The committed offset, whatever is pending.
    pub(crate) fn offset(&self, place: Place) -> Option<Offset> {
        self.committed.get(&place).map(|(offset, _)| *offset)
    }

    /// Names the topic that members subscribe to.
    pub(crate) fn subscribe(&mut self, topic: usize) {
        self.subscribed = Some(topic);
    }

    /// Expires the offsets that were committed too long ago, of topics that are assigned and not subscribed: KAFKA-8338.
    pub(crate) fn expire_offsets(&mut self, now_ms: i64) {
        let (before, subscribed) = (self.committed.len(), self.subscribed);
        self.committed
            .retain(|place, (_, at_ms)| Some(place.topic) == subscribed || now_ms - *at_ms <= OFFSETS_KEPT_MS);
        self.expired += before - self.committed.len();
    }

    /// How many offsets have expired.
    pub(crate) fn expired(&self) -> usize {
        self.expired
    }

    /// Hours pass, and every member reports all the time.
    pub(crate) fn keep_alive(&mut self, now_ms: i64) {
        self.members.values_mut().for_each(|member| member.heard_at_ms = now_ms);
    }

    /// Forgets what was committed, as after a long time without a commit.
    pub(crate) fn forget_offsets(&mut self) {
        self.committed.clear();
    }
}

//! The client library of a member: it joins, reports, learns what it is assigned, and tells the loop, which looks when it has time.
//!
//! It runs beside the loop, as librdkafka's threads do: its generation may move on while the loop is in the middle of a batch.

use std::collections::{BTreeSet, VecDeque};

use crate::cluster::{Group, Heartbeat, MemberId, Membership, Protocol};

/// What the group tells a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Assigned(BTreeSet<i32>),
    Revoked(BTreeSet<i32>),
}

/// The client of one life.
#[derive(Debug, Default)]
pub(crate) struct Client {
    member: Option<MemberId>,
    generation: u32,
    owned: BTreeSet<i32>,
    changes: VecDeque<Change>,
    revoking: usize,
    joins_again: bool,
    awaits_generation: bool,
}

impl Client {
    /// As whom the loop commits now; `None` before it has joined.
    pub(crate) fn membership(&self) -> Option<Membership> {
        self.member.map(|member| Membership { member, generation: self.generation })
    }

    pub(crate) fn member(&self) -> Option<MemberId> {
        self.member
    }

    pub(crate) fn has_change(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The next change. One that takes partitions away must be acknowledged.
    pub(crate) fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// The loop has let go of what was revoked.
    pub(crate) fn acknowledge_revocation(&mut self) {
        self.revoking = self.revoking.saturating_sub(1);
    }

    /// True if it has joined, has heard what it is assigned, and owes the group nothing.
    pub(crate) fn is_settled(&self) -> bool {
        self.member.is_some()
            && self.changes.is_empty()
            && self.revoking == 0
            && !self.awaits_generation
            && !self.joins_again
    }

    /// What it is assigned.
    pub(crate) fn owned(&self) -> &BTreeSet<i32> {
        &self.owned
    }

    fn revoke(&mut self, partitions: BTreeSet<i32>) {
        if !partitions.is_empty() {
            self.owned.retain(|partition| !partitions.contains(partition));
            self.changes.push_back(Change::Revoked(partitions));
            self.revoking += 1;
        }
    }

    /// One report to the group. Answers whether anything changed.
    pub(crate) fn step(&mut self, group: &mut Group, instance: Option<&str>, now_ms: i64) -> bool {
        let Some(member) = self.member else {
            if self.revoking > 0 {
                return false;
            }
            self.member = Some(group.join(instance, now_ms));
            self.generation = 0;
            self.awaits_generation = true;
            return true;
        };
        match group.heartbeat(member, now_ms) {
            Heartbeat::Unknown => {
                self.member = None;
                self.revoke(self.owned.clone());
                true
            }
            Heartbeat::Wait => false,
            Heartbeat::JoinAgain => {
                if group.protocol == Protocol::Eager {
                    self.revoke(self.owned.clone());
                }
                if self.revoking > 0 {
                    return false;
                }
                self.join_again(group, member, now_ms);
                true
            }
            Heartbeat::Member { generation, assigned } => self.heed(group, member, generation, &assigned, now_ms),
        }
    }

    fn join_again(&mut self, group: &mut Group, member: MemberId, now_ms: i64) {
        self.joins_again = false;
        self.awaits_generation = true;
        group.join_again(member, self.owned.clone(), now_ms);
    }

    fn heed(
        &mut self,
        group: &mut Group,
        member: MemberId,
        generation: u32,
        assigned: &BTreeSet<i32>,
        now_ms: i64,
    ) -> bool {
        if self.awaits_generation {
            self.awaits_generation = false;
            self.generation = generation;
            let revoked: BTreeSet<i32> = self.owned.difference(assigned).copied().collect();
            self.joins_again = !revoked.is_empty();
            self.revoke(revoked);
            let added: BTreeSet<i32> = assigned.difference(&self.owned).copied().collect();
            self.owned.extend(added.iter().copied());
            self.changes.push_back(Change::Assigned(added));
            return true;
        }
        if self.joins_again && self.revoking == 0 {
            self.join_again(group, member, now_ms);
            return true;
        }
        false
    }
}

//! The client library of a group member: it joins, sends heartbeats, receives assignments, and queues them for the loop.
//!
//! It runs beside the loop, as the threads of librdkafka do: its generation may change while the loop is in the middle of a
//! batch.

use std::collections::{BTreeSet, VecDeque};

use crate::cluster::{Group, Heartbeat, MemberId, Membership};

/// A change of what a member is assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AssignmentChange {
    /// These are its partitions in a new generation.
    Assigned(BTreeSet<i32>),
    /// Every partition must be given back.
    Revoked,
}

/// The client of one incarnation.
#[derive(Debug, Default)]
pub(crate) struct GroupClient {
    member: Option<MemberId>,
    generation: u32,
    owned: BTreeSet<i32>,
    changes: VecDeque<AssignmentChange>,
    revoking: usize,
    awaits_generation: bool,
}

impl GroupClient {
    /// The membership under which the loop commits now; `None` before it has joined.
    pub(crate) fn membership(&self) -> Option<Membership> {
        self.member.map(|member| Membership { member, generation: self.generation })
    }

    pub(crate) fn member(&self) -> Option<MemberId> {
        self.member
    }

    pub(crate) fn has_change(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The next change. A revocation must be acknowledged.
    pub(crate) fn next_change(&mut self) -> Option<AssignmentChange> {
        self.changes.pop_front()
    }

    /// The loop has released the revoked partitions.
    pub(crate) fn acknowledge_revocation(&mut self) {
        self.revoking = self.revoking.saturating_sub(1);
    }

    /// True if it has joined, the loop has taken every change, and no revocation waits to be acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.member.is_some() && self.changes.is_empty() && self.revoking == 0 && !self.awaits_generation
    }

    /// The partitions that it is assigned.
    pub(crate) fn owned(&self) -> &BTreeSet<i32> {
        &self.owned
    }

    fn revoke_all(&mut self) {
        if !std::mem::take(&mut self.owned).is_empty() {
            self.changes.push_back(AssignmentChange::Revoked);
            self.revoking += 1;
        }
    }

    /// Joins, or sends a heartbeat. Returns whether anything changed.
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
                self.revoke_all();
                true
            }
            Heartbeat::Wait => false,
            Heartbeat::JoinAgain => {
                self.revoke_all();
                if self.revoking > 0 {
                    return false;
                }
                self.awaits_generation = true;
                group.join_again(member, now_ms);
                true
            }
            Heartbeat::Member { generation, assigned } => self.accept_generation(generation, assigned),
        }
    }

    fn accept_generation(&mut self, generation: u32, assigned: BTreeSet<i32>) -> bool {
        if !std::mem::take(&mut self.awaits_generation) {
            return false;
        }
        self.generation = generation;
        self.owned.clone_from(&assigned);
        self.changes.push_back(AssignmentChange::Assigned(assigned));
        true
    }
}

//! Rebalances: a rebalance waits for the members to join, then chooses a leader and an assignor.

use super::{Group, GroupResponse, GroupState};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use std::collections::BTreeMap;

impl Group {
    /// Starts a rebalance unless one is in progress, and completes it if every member has joined.
    pub(super) fn prepare(&mut self, now_ms: i64) {
        match self.state {
            GroupState::Preparing { .. } => {}
            GroupState::Empty => {
                let until = now_ms + self.rebalance_timeout_ms();
                self.first_wait_until_ms = Some(until);
                self.state = GroupState::Preparing { deadline_ms: until.min(now_ms + self.initial_delay_ms) };
            }
            GroupState::Completing { .. } | GroupState::Stable => {
                self.respond_to_syncs(&Err(ResponseError::RebalanceInProgress));
                for member in self.members.values_mut() {
                    member.assignment = Bytes::new();
                    member.synced = false;
                }
                self.state = GroupState::Preparing { deadline_ms: now_ms + self.rebalance_timeout_ms() };
            }
        }
        self.complete_if_ready(now_ms);
    }

    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    pub(super) fn complete_if_ready(&mut self, now_ms: i64) {
        let GroupState::Preparing { deadline_ms } = self.state else { return };
        let all_joined = self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        let waits_for_first_members = self.first_wait_until_ms.is_some() && self.initial_delay_ms > 0;
        if self.members.is_empty() || (all_joined && !waits_for_first_members) || now_ms >= deadline_ms {
            self.complete(now_ms);
        }
    }

    fn complete(&mut self, now_ms: i64) {
        // A dynamic member that did not join is removed; a static member stays until its session ends.
        let absent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.joining.is_none() && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in absent {
            self.drop_member(&id);
        }
        self.first_wait_until_ms = None;
        if self.members.is_empty() {
            self.generation = next_generation(self.generation);
            self.become_empty();
            return;
        }
        if !self.elect_leader() {
            // The group has only static members and none of them has joined: wait another round.
            self.state = GroupState::Preparing { deadline_ms: now_ms + self.rebalance_timeout_ms() };
            return;
        }
        self.generation = next_generation(self.generation);
        self.protocol = self.choose_protocol();
        self.state = GroupState::Completing { deadline_ms: now_ms + self.rebalance_timeout_ms() };
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.synced = false;
            if let Some(token) = member.joining.take() {
                member.deadline_ms = now_ms + member.session_timeout_ms;
                let joined = self.joined(&id);
                self.responses.push(GroupResponse::Join(token, Ok(joined)));
            }
        }
    }

    fn become_empty(&mut self) {
        self.state = GroupState::Empty;
        self.leader = None;
        self.protocol.clear();
    }

    /// Keeps the leader if it has joined, else chooses the first member that has. Returns whether there is one.
    fn elect_leader(&mut self) -> bool {
        let joined_now = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if self.leader.as_ref().is_some_and(joined_now) {
            return true;
        }
        let first = self.members.iter().find(|(_, member)| member.joining.is_some()).map(|(id, _)| id.clone());
        let found = first.is_some();
        if found {
            self.leader = first;
        }
        found
    }

    /// The assignor that every member supports and most members prefer.
    pub(super) fn choose_protocol(&self) -> String {
        let supported_by_all =
            |name: &str| self.members.values().all(|member| member.protocols.iter().any(|(own, _)| own == name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.protocols.iter().map(|(name, _)| name.as_str()).find(|name| supported_by_all(name));
            if let Some(name) = choice {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned()).unwrap_or_default()
    }
}

/// Generations only grow. After the largest value they restart at one, as in Kafka.
fn next_generation(generation: i32) -> i32 {
    generation.checked_add(1).unwrap_or(1)
}

//! Sessions: heartbeats, leaves, deadlines, and the right to commit offsets.

use super::{Group, GroupResponse, GroupState, JoinRefused, OffsetCommitter};
use kafka_protocol::ResponseError;

impl Group {
    pub(crate) fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        self.check_member(member_id, instance_id)?;
        self.check_generation(generation)?;
        if let Some(member) = self.members.get_mut(member_id) {
            member.deadline_ms = now_ms + member.session_timeout_ms;
        }
        match self.state {
            GroupState::Empty => Err(ResponseError::UnknownMemberId),
            GroupState::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            GroupState::Completing { .. } | GroupState::Stable => Ok(()),
        }
    }

    pub(crate) fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        if self.pending.remove(member_id).is_some() {
            self.complete_if_ready(now_ms);
            return Ok(());
        }
        let id = match instance_id {
            // An operator may remove a static member by its instance alone.
            Some(instance) if member_id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(ResponseError::UnknownMemberId)?
            }
            _ => {
                self.check_member(member_id, instance_id)?;
                member_id.to_owned()
            }
        };
        self.remove(&id, now_ms);
        Ok(())
    }

    /// Whether this member may commit offsets.
    pub(crate) fn allows(&self, committer: &OffsetCommitter<'_>) -> Result<(), ResponseError> {
        let anonymous = committer.generation < 0 && committer.member_id.is_empty() && committer.instance_id.is_none();
        if anonymous {
            let allowed = committer.in_txn || self.state == GroupState::Empty;
            return if allowed { Ok(()) } else { Err(ResponseError::UnknownMemberId) };
        }
        if committer.generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        self.check_member(committer.member_id, committer.instance_id)?;
        self.check_generation(committer.generation)?;
        match self.state {
            GroupState::Completing { .. } if !committer.in_txn => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Renews the member's session.
    pub(crate) fn touch(&mut self, member_id: &str, now_ms: i64) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.deadline_ms = now_ms + member.session_timeout_ms;
        }
    }

    /// Applies the deadlines that have passed.
    pub(crate) fn tick(&mut self, now_ms: i64) {
        let pending = self.pending.len();
        self.pending.retain(|_, until| *until > now_ms);
        let expired: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.deadline_ms <= now_ms && member.joining.is_none() && member.syncing.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            self.remove(&id, now_ms);
        }
        if let GroupState::Completing { deadline_ms } = self.state
            && now_ms >= deadline_ms
        {
            self.drop_unsynced(now_ms);
        }
        if self.pending.len() != pending || matches!(self.state, GroupState::Preparing { .. }) {
            self.complete_if_ready(now_ms);
        }
    }

    /// Removes members that joined and never requested their assignment: they would block the others.
    fn drop_unsynced(&mut self, now_ms: i64) {
        let unsynced: Vec<String> =
            self.members.iter().filter(|(_, member)| !member.synced).map(|(id, _)| id.clone()).collect();
        for id in &unsynced {
            self.drop_member(id);
        }
        if !unsynced.is_empty() {
            self.prepare(now_ms);
        }
    }

    fn remove(&mut self, id: &str, now_ms: i64) {
        self.drop_member(id);
        match self.state {
            GroupState::Stable | GroupState::Completing { .. } => self.prepare(now_ms),
            GroupState::Preparing { .. } => self.complete_if_ready(now_ms),
            GroupState::Empty => {}
        }
    }

    pub(super) fn drop_member(&mut self, id: &str) {
        let Some(mut member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = None;
        }
        if let Some(token) = member.joining.take() {
            let refused = JoinRefused { error: ResponseError::UnknownMemberId, member_id: id.to_owned() };
            self.responses.push(GroupResponse::Join(token, Err(refused)));
        }
        if let Some(token) = member.syncing.take() {
            self.responses.push(GroupResponse::Sync(token, Err(ResponseError::UnknownMemberId)));
        }
    }
}

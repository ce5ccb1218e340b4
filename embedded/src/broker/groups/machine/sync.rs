//! Syncs: the leader's assignment reaches every member.

use super::{Group, GroupResponse, GroupState, RequestToken, SyncAccepted, SyncRequest};
use kafka_protocol::ResponseError;

impl Group {
    pub(crate) fn sync(&mut self, sync: SyncRequest<'_>, now_ms: i64) {
        let token = sync.token;
        if let Err(error) = self.try_sync(sync, now_ms) {
            self.responses.push(GroupResponse::Sync(token, Err(error)));
        }
    }

    fn try_sync(&mut self, sync: SyncRequest<'_>, now_ms: i64) -> Result<(), ResponseError> {
        self.check_member(sync.member_id, sync.instance_id)?;
        self.check_generation(sync.generation)?;
        let fits = |requested: Option<&str>, own: &str| requested.is_none_or(|requested| requested == own);
        if !fits(sync.protocol_type, &self.protocol_type) || !fits(sync.protocol_name, &self.protocol) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.state {
            GroupState::Empty => return Err(ResponseError::UnknownMemberId),
            GroupState::Preparing { .. } => return Err(ResponseError::RebalanceInProgress),
            GroupState::Completing { .. } | GroupState::Stable => {}
        }
        let leads = self.leader.as_deref() == Some(sync.member_id);
        let Some(member) = self.members.get_mut(sync.member_id) else { return Err(ResponseError::UnknownMemberId) };
        member.deadline_ms = now_ms + member.session_timeout_ms;
        member.synced = true;
        if self.state == GroupState::Stable {
            let response = self.synced(sync.member_id);
            self.responses.push(GroupResponse::Sync(sync.token, Ok(response)));
            return Ok(());
        }
        if let Some(superseded) = member.syncing.replace(sync.token) {
            self.responses.push(GroupResponse::Sync(superseded, Err(ResponseError::RebalanceInProgress)));
        }
        if leads {
            for (id, assignment) in sync.assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = assignment;
                }
            }
            self.state = GroupState::Stable;
            self.respond_to_syncs(&Ok(()));
        }
        Ok(())
    }

    fn synced(&self, member_id: &str) -> SyncAccepted {
        let assignment = self.members.get(member_id).map(|member| member.assignment.clone()).unwrap_or_default();
        SyncAccepted { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    /// Responds to every member that waits for its assignment.
    pub(super) fn respond_to_syncs(&mut self, outcome: &Result<(), ResponseError>) {
        let waiting: Vec<(String, RequestToken)> = self
            .members
            .iter_mut()
            .filter_map(|(id, member)| member.syncing.take().map(|token| (id.clone(), token)))
            .collect();
        for (id, token) in waiting {
            let response = outcome.map(|()| self.synced(&id));
            self.responses.push(GroupResponse::Sync(token, response));
        }
    }
}

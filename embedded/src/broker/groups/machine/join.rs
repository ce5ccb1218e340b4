//! Joining: new members, returning members, and static members under a new id.

use super::{Group, GroupMember, GroupResponse, GroupState, JoinAccepted, JoinRefused, JoinRequest};
use bytes::Bytes;
use kafka_protocol::ResponseError;

impl Group {
    pub(crate) fn join(&mut self, join: JoinRequest, now_ms: i64) {
        let (token, member_id) = (join.token, join.member_id.clone());
        if let Err(error) = self.try_join(join, now_ms) {
            self.responses.push(GroupResponse::Join(token, Err(JoinRefused { error, member_id })));
        }
    }

    fn try_join(&mut self, join: JoinRequest, now_ms: i64) -> Result<(), ResponseError> {
        if !self.supports(&join) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if join.member_id.is_empty() {
            return self.join_unknown(join, now_ms);
        }
        self.check_instance(&join.member_id, join.instance_id.as_deref())?;
        if self.pending.remove(&join.member_id).is_some() {
            let member_id = join.member_id.clone();
            return self.add_member(member_id, join, now_ms);
        }
        if !self.members.contains_key(&join.member_id) {
            return Err(ResponseError::UnknownMemberId);
        }
        self.rejoin(join, now_ms);
        Ok(())
    }

    fn supports(&self, join: &JoinRequest) -> bool {
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            return false;
        }
        let others = || self.members.iter().filter(|(id, _)| **id != join.member_id).map(|(_, member)| member);
        let same_instance = |member: &GroupMember| join.instance_id.is_some() && member.instance_id == join.instance_id;
        if others().all(same_instance) {
            return true;
        }
        self.protocol_type == join.protocol_type
            && join.protocols.iter().any(|(name, _)| {
                others()
                    .filter(|member| !same_instance(member))
                    .all(|member| member.protocols.iter().any(|(own, _)| own == name))
            })
    }

    fn join_unknown(&mut self, join: JoinRequest, now_ms: i64) -> Result<(), ResponseError> {
        let new_id = join.new_member_id.clone();
        if let Some(instance) = &join.instance_id {
            return match self.instances.get(instance).cloned() {
                Some(old_id) => {
                    self.replace_static(&old_id, &new_id, &join, now_ms);
                    Ok(())
                }
                None => self.add_member(new_id, join, now_ms),
            };
        }
        if join.supports_member_id_required {
            if self.pending.len() >= self.members_max {
                return Err(ResponseError::GroupMaxSizeReached);
            }
            self.pending.insert(new_id.clone(), now_ms + join.session_timeout_ms);
            let refused = JoinRefused { error: ResponseError::MemberIdRequired, member_id: new_id };
            self.responses.push(GroupResponse::Join(join.token, Err(refused)));
            return Ok(());
        }
        self.add_member(new_id, join, now_ms)
    }

    fn add_member(&mut self, member_id: String, join: JoinRequest, now_ms: i64) -> Result<(), ResponseError> {
        if self.members.len() >= self.members_max {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), member_id.clone());
        }
        let member = GroupMember {
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            deadline_ms: now_ms + join.session_timeout_ms,
            joining: Some(join.token),
            syncing: None,
            synced: false,
        };
        self.members.insert(member_id, member);
        if let (GroupState::Preparing { .. }, Some(until)) = (self.state, self.first_wait_until_ms) {
            self.state = GroupState::Preparing { deadline_ms: until.min(now_ms + self.initial_delay_ms) };
        }
        self.prepare(now_ms);
        Ok(())
    }

    /// A static member returned under a new id and replaces its former incarnation. If nothing else changed, the group needs no
    /// rebalance.
    fn replace_static(&mut self, old_id: &str, new_id: &str, join: &JoinRequest, now_ms: i64) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        for response in self.fence(&mut member, old_id) {
            self.responses.push(response);
        }
        let was_leader = self.leader.as_deref() == Some(old_id);
        let previous_leader = self.leader.clone().unwrap_or_default();
        if was_leader {
            self.leader = Some(new_id.to_owned());
        }
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), new_id.to_owned());
        }
        let unchanged = member.protocols == join.protocols;
        member.update(join, now_ms);
        self.members.insert(new_id.to_owned(), member);
        let same_choice = self.choose_protocol() == self.protocol;
        match self.state {
            GroupState::Stable if unchanged && same_choice => {
                // An older client must not conclude that it leads again: it would send an assignment that the group ignores.
                let leader = if join.supports_skip_assignment {
                    self.leader.clone().unwrap_or_default()
                } else {
                    previous_leader
                };
                let mut joined = self.joined(new_id);
                joined.leader = leader;
                joined.skip_assignment = was_leader && join.supports_skip_assignment;
                if !joined.skip_assignment {
                    joined.members.clear();
                }
                self.responses.push(GroupResponse::Join(join.token, Ok(joined)));
            }
            _ => {
                if let Some(member) = self.members.get_mut(new_id) {
                    member.joining = Some(join.token);
                }
                self.prepare(now_ms);
            }
        }
    }

    /// The error responses to the pending requests of the former incarnation.
    fn fence(&self, member: &mut GroupMember, old_id: &str) -> Vec<GroupResponse> {
        let refused = JoinRefused { error: ResponseError::FencedInstanceId, member_id: old_id.to_owned() };
        let join = member.joining.take().map(|token| GroupResponse::Join(token, Err(refused)));
        let sync = member.syncing.take().map(|token| GroupResponse::Sync(token, Err(ResponseError::FencedInstanceId)));
        join.into_iter().chain(sync).collect()
    }

    fn rejoin(&mut self, join: JoinRequest, now_ms: i64) {
        let leads = self.leader.as_deref() == Some(join.member_id.as_str());
        let Some(member) = self.members.get_mut(&join.member_id) else { return };
        let unchanged = member.protocols == join.protocols;
        let keeps_generation = match self.state {
            GroupState::Stable => unchanged && !leads,
            GroupState::Completing { .. } => unchanged, // its join response was lost
            GroupState::Empty | GroupState::Preparing { .. } => false,
        };
        member.update(&join, now_ms);
        if keeps_generation {
            let joined = self.joined(&join.member_id);
            self.responses.push(GroupResponse::Join(join.token, Ok(joined)));
            return;
        }
        // The member has joined a second time: no client reads the response to its first join any more.
        let superseded = member.joining.replace(join.token);
        if let Some(token) = superseded.filter(|token| *token != join.token) {
            let refused = JoinRefused { error: ResponseError::RebalanceInProgress, member_id: join.member_id };
            self.responses.push(GroupResponse::Join(token, Err(refused)));
        }
        self.prepare(now_ms);
    }

    pub(super) fn joined(&self, member_id: &str) -> JoinAccepted {
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == member_id {
            self.members
                .iter()
                .map(|(id, member)| (id.clone(), member.instance_id.clone(), member.metadata(&self.protocol)))
                .collect()
        } else {
            Vec::new()
        };
        JoinAccepted {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members,
        }
    }
}

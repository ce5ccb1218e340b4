//! The requests of group members and of those who look at groups.

use super::machine::{Join, Joined, Refused, Sync, Synced};
use crate::broker::coordinator::Entry;
use crate::broker::dispatch::Call;
use crate::broker::sync::now_ms;
use crate::broker::text;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// An answer comes at a group deadline at the latest; this is for what should not happen.
const GRACE: Duration = Duration::from_secs(5);
/// "Not asked for", in place of a set of allowed operations.
const NO_OPERATIONS: i32 = i32::MIN;

pub(crate) async fn join(call: &Call<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let limits = &call.shared().config.limits;
    let session = Duration::from_millis(u64::try_from(request.session_timeout_ms).unwrap_or(0));
    // Version 0 had one timeout for both.
    let rebalance_ms = if call.version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    let rebalance = Duration::from_millis(u64::try_from(rebalance_ms).unwrap_or(0));
    let member_id = request.member_id.to_string();
    if request.group_id.is_empty() {
        return refused_join(call, ResponseError::InvalidGroupId, &member_id);
    }
    if session < limits.session_timeout_min || session > limits.session_timeout_max {
        return refused_join(call, ResponseError::InvalidSessionTimeout, &member_id);
    }
    let groups = &call.shared().groups;
    let answer = groups.with(&request.group_id, |cell| {
        let (token, answer) = cell.wait_for_join();
        cell.group.join(join_of(call, &request, token, i64::from(rebalance_ms)), now_ms());
        answer
    });
    let patience = rebalance.max(session) + Duration::from_millis(u64::try_from(groups.initial_delay_ms).unwrap_or(0));
    match timeout(patience + GRACE, answer).await {
        Ok(Ok(Ok(joined))) => {
            remember_generation(call, &request.group_id, &joined);
            join_response(call, joined)
        }
        Ok(Ok(Err(Refused { error, member_id }))) => refused_join(call, error, &member_id),
        Ok(Err(_)) | Err(_) => refused_join(call, ResponseError::RebalanceInProgress, &member_id),
    }
}

fn join_of(call: &Call<'_>, request: &JoinGroupRequest, token: u64, rebalance_timeout_ms: i64) -> Join {
    let instance_id = request.group_instance_id.as_ref().map(StrBytes::to_string);
    let stem = instance_id.as_deref().unwrap_or(call.client_id);
    Join {
        token,
        member_id: request.member_id.to_string(),
        new_member_id: format!("{stem}-{}", Uuid::now_v7()),
        instance_id,
        client_id: call.client_id.to_owned(),
        client_host: format!("/{}", call.session.peer.ip()),
        session_timeout_ms: i64::from(request.session_timeout_ms),
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| (protocol.name.to_string(), Bytes::copy_from_slice(&protocol.metadata)))
            .collect(),
        knows_member_id_required: call.version >= 4,
        knows_skip_assignment: call.version >= 9,
    }
}

/// Written with the next commit: after a restart a group must not give a generation again.
fn remember_generation(call: &Call<'_>, group: &str, joined: &Joined) {
    let mut inner = call.shared().coordinator.lock();
    let known = inner.state().groups.get(group).is_some_and(|record| record.generation >= joined.generation);
    if !known {
        inner.journal.append_lazily(Entry::Generation {
            group: group.to_owned(),
            generation: joined.generation,
            protocol_type: joined.protocol_type.clone(),
        });
    }
}

fn join_response(call: &Call<'_>, joined: Joined) -> JoinGroupResponse {
    let members = joined
        .members
        .into_iter()
        .map(|(id, instance, metadata)| {
            JoinGroupResponseMember::default()
                .with_member_id(text(&id))
                .with_group_instance_id(instance.as_deref().filter(|_| call.version >= 5).map(text))
                .with_metadata(metadata)
        })
        .collect();
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(text(&joined.protocol_type)).filter(|_| call.version >= 7))
        .with_protocol_name(Some(text(&joined.protocol)))
        .with_leader(text(&joined.leader))
        .with_skip_assignment(joined.skip_assignment && call.version >= 9)
        .with_member_id(text(&joined.member_id))
        .with_members(members)
}

fn refused_join(call: &Call<'_>, error: ResponseError, member_id: &str) -> JoinGroupResponse {
    // Null is not a protocol name before version 7.
    let protocol = if call.version >= 7 { None } else { Some(StrBytes::new()) };
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_name(protocol)
        .with_member_id(text(member_id))
}

pub(crate) async fn sync(call: &Call<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let answer = call.shared().groups.with_known(&request.group_id, |cell| {
        let (token, answer) = cell.wait_for_sync();
        let sync = Sync {
            token,
            member_id: &request.member_id,
            instance_id: request.group_instance_id.as_deref(),
            generation: request.generation_id,
            protocol_type: request.protocol_type.as_deref(),
            protocol_name: request.protocol_name.as_deref(),
            assignments: request
                .assignments
                .iter()
                .map(|given| (given.member_id.to_string(), Bytes::copy_from_slice(&given.assignment)))
                .collect(),
        };
        cell.group.sync(sync, now_ms());
        answer
    });
    let Some(answer) = answer else {
        return SyncGroupResponse::default().with_error_code(ResponseError::UnknownMemberId.code());
    };
    let patience = call.shared().config.limits.session_timeout_max + GRACE;
    match timeout(patience, answer).await {
        Ok(Ok(Ok(Synced { protocol_type, protocol, assignment }))) => SyncGroupResponse::default()
            .with_protocol_type(Some(text(&protocol_type)).filter(|_| call.version >= 5))
            .with_protocol_name(Some(text(&protocol)).filter(|_| call.version >= 5))
            .with_assignment(assignment),
        Ok(Ok(Err(error))) => SyncGroupResponse::default().with_error_code(error.code()),
        Ok(Err(_)) | Err(_) => SyncGroupResponse::default().with_error_code(ResponseError::RebalanceInProgress.code()),
    }
}

pub(crate) fn heartbeat(call: &Call<'_>, request: &HeartbeatRequest) -> HeartbeatResponse {
    let beat = call.shared().groups.with_known(&request.group_id, |cell| {
        let instance = request.group_instance_id.as_deref();
        cell.group.heartbeat(&request.member_id, instance, request.generation_id, now_ms())
    });
    let code = beat.unwrap_or(Err(ResponseError::UnknownMemberId)).err().map_or(0, |error| error.code());
    HeartbeatResponse::default().with_error_code(code)
}

pub(crate) fn leave(call: &Call<'_>, request: &LeaveGroupRequest) -> LeaveGroupResponse {
    let leave_one = |member_id: &str, instance_id: Option<&str>| -> i16 {
        let left = call
            .shared()
            .groups
            .with_known(&request.group_id, |cell| cell.group.leave(member_id, instance_id, now_ms()));
        left.unwrap_or(Err(ResponseError::UnknownMemberId)).err().map_or(0, |error| error.code())
    };
    if call.version < 3 {
        return LeaveGroupResponse::default().with_error_code(leave_one(&request.member_id, None));
    }
    let members = request
        .members
        .iter()
        .map(|MemberIdentity { member_id, group_instance_id, .. }| {
            MemberResponse::default()
                .with_member_id(member_id.clone())
                .with_group_instance_id(group_instance_id.clone())
                .with_error_code(leave_one(member_id, group_instance_id.as_deref()))
        })
        .collect();
    LeaveGroupResponse::default().with_members(members)
}

pub(crate) fn describe(call: &Call<'_>, request: &DescribeGroupsRequest) -> DescribeGroupsResponse {
    let groups = request.groups.iter().map(|id| describe_one(call, id)).collect();
    DescribeGroupsResponse::default().with_groups(groups)
}

fn describe_one(call: &Call<'_>, id: &GroupId) -> DescribedGroup {
    let described = DescribedGroup::default().with_group_id(id.clone()).with_authorized_operations(NO_OPERATIONS);
    let live = call.shared().groups.with_known(id, |cell| {
        let group = &cell.group;
        let members = group
            .members
            .iter()
            .map(|(member_id, member)| {
                let metadata = member
                    .protocols
                    .iter()
                    .find(|(name, _)| *name == group.protocol)
                    .map(|(_, metadata)| metadata.clone());
                DescribedGroupMember::default()
                    .with_member_id(text(member_id))
                    .with_group_instance_id(member.instance_id.as_deref().map(text))
                    .with_client_id(text(&member.client_id))
                    .with_client_host(text(&member.client_host))
                    .with_member_metadata(metadata.unwrap_or_default())
                    .with_member_assignment(member.assignment.clone())
            })
            .collect();
        described
            .clone()
            .with_group_state(group.state.name().into())
            .with_protocol_type(text(&group.protocol_type))
            .with_protocol_data(text(&group.protocol))
            .with_members(members)
    });
    if let Some(described) = live {
        return described;
    }
    match call.shared().coordinator.lock().state().groups.get(id.as_str()) {
        Some(record) => described.with_group_state("Empty".into()).with_protocol_type(text(&record.protocol_type)),
        None => described.with_group_state("Dead".into()),
    }
}

pub(crate) fn list(call: &Call<'_>, request: &ListGroupsRequest) -> ListGroupsResponse {
    let mut states: BTreeMap<String, (&'static str, String)> = {
        let inner = call.shared().coordinator.lock();
        let groups = inner.state().groups.iter();
        groups.map(|(id, record)| (id.clone(), ("Empty", record.protocol_type.clone()))).collect()
    };
    for (id, state, protocol_type) in call.shared().groups.states() {
        states.insert(id, (state, protocol_type));
    }
    let wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let groups = states
        .into_iter()
        .filter(|(_, (state, _))| wanted(&request.states_filter, state))
        .filter(|_| wanted(&request.types_filter, "classic"))
        .map(|(id, (state, protocol_type))| {
            ListedGroup::default()
                .with_group_id(text(&id).into())
                .with_protocol_type(text(&protocol_type))
                .with_group_state(state.into())
                .with_group_type("classic".into())
        })
        .collect();
    ListGroupsResponse::default().with_groups(groups)
}

pub(crate) fn delete(call: &Call<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let results = request
        .groups_names
        .into_iter()
        .map(|id| {
            let code = delete_one(call, &id).err().map_or(0, |error| error.code());
            DeletableGroupResult::default().with_group_id(id).with_error_code(code)
        })
        .collect();
    DeleteGroupsResponse::default().with_results(results)
}

fn delete_one(call: &Call<'_>, id: &str) -> Result<(), ResponseError> {
    let used = call.shared().groups.with_known(id, |cell| !cell.group.is_unused());
    if used == Some(true) {
        return Err(ResponseError::NonEmptyGroup);
    }
    let mut inner = call.shared().coordinator.lock();
    if inner.state().has_pending(id) {
        return Err(ResponseError::NonEmptyGroup);
    }
    if !inner.state().groups.contains_key(id) && used.is_none() {
        return Err(ResponseError::GroupIdNotFound);
    }
    inner.append(Entry::GroupDeleted { group: id.to_owned() })?;
    drop(inner);
    call.shared().groups.forget(id);
    Ok(())
}

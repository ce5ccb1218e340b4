//! The requests of group members and of tools that inspect groups.

use super::machine::{JoinAccepted, JoinRefused, JoinRequest, SyncAccepted, SyncRequest};
use crate::broker::context::RequestContext;
use crate::broker::coordinator::CoordinatorEntry;
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

/// The group responds at its deadline at the latest; this margin covers the unexpected.
const GRACE: Duration = Duration::from_secs(5);
/// The client did not request the set of allowed operations.
const NO_OPERATIONS: i32 = i32::MIN;

pub(crate) async fn join(context: &RequestContext<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let limits = &context.shared().config.limits;
    let session = Duration::from_millis(u64::try_from(request.session_timeout_ms).unwrap_or(0));
    // Version 0 had one timeout for both.
    let rebalance_ms = if context.version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    let rebalance = Duration::from_millis(u64::try_from(rebalance_ms).unwrap_or(0));
    let member_id = request.member_id.to_string();
    if request.group_id.is_empty() {
        return refused_join(context, ResponseError::InvalidGroupId, &member_id);
    }
    if session < limits.session_timeout_min || session > limits.session_timeout_max {
        return refused_join(context, ResponseError::InvalidSessionTimeout, &member_id);
    }
    let groups = &context.shared().groups;
    let response = groups.with(&request.group_id, |cell| {
        let (token, response) = cell.register_join();
        cell.group.join(join_request(context, &request, token, i64::from(rebalance_ms)), now_ms());
        response
    });
    let wait_limit =
        rebalance.max(session) + Duration::from_millis(u64::try_from(groups.initial_delay_ms).unwrap_or(0));
    match timeout(wait_limit + GRACE, response).await {
        Ok(Ok(Ok(joined))) => {
            persist_generation(context, &request.group_id, &joined);
            join_response(context, joined)
        }
        Ok(Ok(Err(JoinRefused { error, member_id }))) => refused_join(context, error, &member_id),
        Ok(Err(_)) | Err(_) => refused_join(context, ResponseError::RebalanceInProgress, &member_id),
    }
}

fn join_request(
    context: &RequestContext<'_>,
    request: &JoinGroupRequest,
    token: u64,
    rebalance_timeout_ms: i64,
) -> JoinRequest {
    let instance_id = request.group_instance_id.as_ref().map(StrBytes::to_string);
    let stem = instance_id.as_deref().unwrap_or(context.client_id);
    JoinRequest {
        token,
        member_id: request.member_id.to_string(),
        new_member_id: format!("{stem}-{}", Uuid::now_v7()),
        instance_id,
        client_id: context.client_id.to_owned(),
        client_host: format!("/{}", context.connection.peer.ip()),
        session_timeout_ms: i64::from(request.session_timeout_ms),
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| (protocol.name.to_string(), Bytes::copy_from_slice(&protocol.metadata)))
            .collect(),
        supports_member_id_required: context.version >= 4,
        supports_skip_assignment: context.version >= 9,
    }
}

/// Persists the generation with the next commit: a group must not reuse a generation after a restart.
fn persist_generation(context: &RequestContext<'_>, group: &str, joined: &JoinAccepted) {
    let mut state = context.shared().coordinator.lock();
    let known = state.ledger().groups.get(group).is_some_and(|record| record.generation >= joined.generation);
    if !known {
        state.journal.append_lazily(CoordinatorEntry::Generation {
            group: group.to_owned(),
            generation: joined.generation,
            protocol_type: joined.protocol_type.clone(),
        });
    }
}

fn join_response(context: &RequestContext<'_>, joined: JoinAccepted) -> JoinGroupResponse {
    let members = joined
        .members
        .into_iter()
        .map(|(id, instance, metadata)| {
            JoinGroupResponseMember::default()
                .with_member_id(text(&id))
                .with_group_instance_id(instance.as_deref().filter(|_| context.version >= 5).map(text))
                .with_metadata(metadata)
        })
        .collect();
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(text(&joined.protocol_type)).filter(|_| context.version >= 7))
        .with_protocol_name(Some(text(&joined.protocol)))
        .with_leader(text(&joined.leader))
        .with_skip_assignment(joined.skip_assignment && context.version >= 9)
        .with_member_id(text(&joined.member_id))
        .with_members(members)
}

fn refused_join(context: &RequestContext<'_>, error: ResponseError, member_id: &str) -> JoinGroupResponse {
    // Null is not a protocol name before version 7.
    let protocol = if context.version >= 7 { None } else { Some(StrBytes::new()) };
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_name(protocol)
        .with_member_id(text(member_id))
}

pub(crate) async fn sync(context: &RequestContext<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let response = context.shared().groups.with_existing(&request.group_id, |cell| {
        let (token, response) = cell.register_sync();
        let sync = SyncRequest {
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
        response
    });
    let Some(response) = response else {
        return SyncGroupResponse::default().with_error_code(ResponseError::UnknownMemberId.code());
    };
    let wait_limit = context.shared().config.limits.session_timeout_max + GRACE;
    match timeout(wait_limit, response).await {
        Ok(Ok(Ok(SyncAccepted { protocol_type, protocol, assignment }))) => SyncGroupResponse::default()
            .with_protocol_type(Some(text(&protocol_type)).filter(|_| context.version >= 5))
            .with_protocol_name(Some(text(&protocol)).filter(|_| context.version >= 5))
            .with_assignment(assignment),
        Ok(Ok(Err(error))) => SyncGroupResponse::default().with_error_code(error.code()),
        Ok(Err(_)) | Err(_) => SyncGroupResponse::default().with_error_code(ResponseError::RebalanceInProgress.code()),
    }
}

pub(crate) fn heartbeat(context: &RequestContext<'_>, request: &HeartbeatRequest) -> HeartbeatResponse {
    let beat = context.shared().groups.with_existing(&request.group_id, |cell| {
        let instance = request.group_instance_id.as_deref();
        cell.group.heartbeat(&request.member_id, instance, request.generation_id, now_ms())
    });
    let code = beat.unwrap_or(Err(ResponseError::UnknownMemberId)).err().map_or(0, |error| error.code());
    HeartbeatResponse::default().with_error_code(code)
}

pub(crate) fn leave(context: &RequestContext<'_>, request: &LeaveGroupRequest) -> LeaveGroupResponse {
    let leave_one = |member_id: &str, instance_id: Option<&str>| -> i16 {
        let left = context
            .shared()
            .groups
            .with_existing(&request.group_id, |cell| cell.group.leave(member_id, instance_id, now_ms()));
        left.unwrap_or(Err(ResponseError::UnknownMemberId)).err().map_or(0, |error| error.code())
    };
    if context.version < 3 {
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

pub(crate) fn describe(context: &RequestContext<'_>, request: &DescribeGroupsRequest) -> DescribeGroupsResponse {
    let groups = request.groups.iter().map(|id| describe_one(context, id)).collect();
    DescribeGroupsResponse::default().with_groups(groups)
}

fn describe_one(context: &RequestContext<'_>, id: &GroupId) -> DescribedGroup {
    let described = DescribedGroup::default().with_group_id(id.clone()).with_authorized_operations(NO_OPERATIONS);
    let live = context.shared().groups.with_existing(id, |cell| {
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
    match context.shared().coordinator.lock().ledger().groups.get(id.as_str()) {
        Some(record) => described.with_group_state("Empty".into()).with_protocol_type(text(&record.protocol_type)),
        None => described.with_group_state("Dead".into()),
    }
}

pub(crate) fn list(context: &RequestContext<'_>, request: &ListGroupsRequest) -> ListGroupsResponse {
    let mut states: BTreeMap<String, (&'static str, String)> = {
        let state = context.shared().coordinator.lock();
        let groups = state.ledger().groups.iter();
        groups.map(|(id, record)| (id.clone(), ("Empty", record.protocol_type.clone()))).collect()
    };
    for (id, state, protocol_type) in context.shared().groups.states() {
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

pub(crate) fn delete(context: &RequestContext<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let results = request
        .groups_names
        .into_iter()
        .map(|id| {
            let code = delete_one(context, &id).err().map_or(0, |error| error.code());
            DeletableGroupResult::default().with_group_id(id).with_error_code(code)
        })
        .collect();
    DeleteGroupsResponse::default().with_results(results)
}

fn delete_one(context: &RequestContext<'_>, id: &str) -> Result<(), ResponseError> {
    let used = context.shared().groups.with_existing(id, |cell| !cell.group.is_unused());
    if used == Some(true) {
        return Err(ResponseError::NonEmptyGroup);
    }
    let mut state = context.shared().coordinator.lock();
    if state.ledger().has_pending(id) {
        return Err(ResponseError::NonEmptyGroup);
    }
    if !state.ledger().groups.contains_key(id) && used.is_none() {
        return Err(ResponseError::GroupIdNotFound);
    }
    state.append(CoordinatorEntry::GroupDeleted { group: id.to_owned() })?;
    drop(state);
    context.shared().groups.forget(id);
    Ok(())
}

//! The rules of groups, tested on the state machine alone.

use super::machine::{Group, GroupResponse, GroupState, JoinAccepted, JoinRequest, OffsetCommitter, SyncRequest};
use bytes::Bytes;
use kafka_protocol::ResponseError;

const SESSION: i64 = 10_000;
const REBALANCE: i64 = 30_000;

fn group() -> Group {
    Group::new(0, 0, 10)
}

fn join(token: u64, member_id: &str, instance: Option<&str>) -> JoinRequest {
    JoinRequest {
        token,
        member_id: member_id.to_owned(),
        instance_id: instance.map(str::to_owned),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: SESSION,
        rebalance_timeout_ms: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"r")), ("sticky".to_owned(), Bytes::new())],
        new_member_id: format!("m{token}"),
        supports_member_id_required: false,
        supports_skip_assignment: false,
    }
}

fn sync<'a>(token: u64, member_id: &'a str, generation: i32, assignments: &[(&str, &'static [u8])]) -> SyncRequest<'a> {
    SyncRequest {
        token,
        member_id,
        instance_id: None,
        generation,
        protocol_type: None,
        protocol_name: None,
        assignments: assignments.iter().map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes))).collect(),
    }
}

fn joined(group: &mut Group) -> Vec<(u64, Result<JoinAccepted, ResponseError>)> {
    group
        .take_responses()
        .into_iter()
        .filter_map(|response| match response {
            GroupResponse::Join(token, joined) => Some((token, joined.map_err(|refused| refused.error))),
            GroupResponse::Sync(..) => None,
        })
        .collect()
}

fn synced(group: &mut Group) -> Vec<(u64, Result<Bytes, ResponseError>)> {
    group
        .take_responses()
        .into_iter()
        .filter_map(|response| match response {
            GroupResponse::Sync(token, synced) => Some((token, synced.map(|synced| synced.assignment))),
            GroupResponse::Join(..) => None,
        })
        .collect()
}

/// One member, stable in generation 1.
fn stable(instance: Option<&str>) -> Group {
    let mut group = group();
    group.join(join(1, "", instance), 0);
    let responses = joined(&mut group);
    assert_eq!(responses[0].1.as_ref().unwrap().generation, 1);
    group.sync(sync(2, "m1", 1, &[("m1", b"all")]), 0);
    assert_eq!(synced(&mut group), [(2, Ok(Bytes::from_static(b"all")))]);
    group
}

/// Two members, stable in generation 2; m1 leads.
fn stable_pair() -> Group {
    let mut group = stable(None);
    group.join(join(3, "", None), 0);
    assert_eq!(group.heartbeat("m1", None, 1, 0), Err(ResponseError::RebalanceInProgress));
    group.join(join(4, "m1", None), 0);
    assert_eq!(joined(&mut group).len(), 2);
    group.sync(sync(5, "m3", 2, &[]), 0);
    group.sync(sync(6, "m1", 2, &[("m1", b"a"), ("m3", b"b")]), 0);
    assert_eq!(synced(&mut group).len(), 2);
    assert_eq!(group.state, GroupState::Stable);
    group
}

#[test]
fn a_dynamic_member_receives_its_id_before_it_joins() {
    let mut group = group();
    group.join(JoinRequest { supports_member_id_required: true, ..join(1, "", None) }, 0);
    assert_eq!(joined(&mut group), [(1, Err(ResponseError::MemberIdRequired))]);
    group.join(JoinRequest { supports_member_id_required: true, ..join(2, "m1", None) }, 0);
    let responses = joined(&mut group);
    let joined = responses[0].1.as_ref().unwrap();
    assert_eq!((joined.member_id.as_str(), joined.leader.as_str(), joined.generation), ("m1", "m1", 1));
}

#[test]
fn only_the_leader_receives_the_list_of_members() {
    let mut group = stable(None);
    group.join(join(3, "", None), 0);
    group.join(join(4, "m1", None), 0);
    let responses = joined(&mut group);
    let of = |token| responses.iter().find(|(t, _)| *t == token).unwrap().1.as_ref().unwrap();
    assert_eq!(of(4).members.len(), 2);
    assert_eq!(of(3).members.len(), 0);
    assert_eq!(of(3).leader, "m1");
}

#[test]
fn the_first_rebalance_waits_for_more_members() {
    let mut group = Group::new(0, 100, 10);
    group.join(join(1, "", None), 0);
    group.join(join(2, "", None), 90);
    group.tick(150);
    assert!(joined(&mut group).is_empty());
    group.tick(190);
    assert_eq!(joined(&mut group).len(), 2);
    assert_eq!(group.generation, 1);
}

#[test]
fn generations_continue_after_a_restart() {
    let mut group = Group::new(41, 0, 10);
    group.join(join(1, "", None), 0);
    assert_eq!(joined(&mut group)[0].1.as_ref().unwrap().generation, 42);
}

#[test]
fn old_generations_and_unknown_members_are_refused() {
    let mut group = stable_pair();
    assert_eq!(group.heartbeat("m1", None, 1, 0), Err(ResponseError::IllegalGeneration));
    assert_eq!(group.heartbeat("mx", None, 2, 0), Err(ResponseError::UnknownMemberId));
    let committer = |generation, member_id| OffsetCommitter { member_id, instance_id: None, generation, in_txn: true };
    assert_eq!(group.allows(&committer(2, "m1")), Ok(()));
    assert_eq!(group.allows(&committer(1, "m1")), Err(ResponseError::IllegalGeneration));
    assert_eq!(group.allows(&committer(2, "mx")), Err(ResponseError::UnknownMemberId));
    let outside = OffsetCommitter { member_id: "", instance_id: None, generation: -1, in_txn: false };
    assert_eq!(group.allows(&outside), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_member_without_heartbeats_is_removed_and_the_others_rebalance() {
    let mut group = stable_pair();
    assert_eq!(group.heartbeat("m1", None, 2, 9_000), Ok(()));
    group.tick(SESSION);
    assert_eq!(group.members.len(), 1);
    assert_eq!(group.heartbeat("m1", None, 2, SESSION), Err(ResponseError::RebalanceInProgress));
    assert_eq!(group.heartbeat("m3", None, 2, SESSION), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_member_that_does_not_rejoin_is_removed_at_the_deadline() {
    let mut group = stable_pair();
    group.join(join(7, "m1", None), 0); // the leader joins again: a rebalance
    group.tick(SESSION - 1);
    assert!(joined(&mut group).is_empty());
    assert_eq!(group.heartbeat("m3", None, 2, SESSION - 1), Err(ResponseError::RebalanceInProgress));
    for now in (SESSION..REBALANCE).step_by(1_000) {
        assert_eq!(group.heartbeat("m3", None, 2, now), Err(ResponseError::RebalanceInProgress));
    }
    group.tick(REBALANCE);
    assert_eq!(joined(&mut group).len(), 1);
    assert_eq!(group.members.len(), 1);
    assert_eq!(group.generation, 3);
}

#[test]
fn a_leader_that_never_assigns_is_replaced() {
    let mut group = stable_pair();
    group.join(join(7, "m1", None), 0);
    group.join(join(8, "m3", None), 0);
    assert_eq!(joined(&mut group).len(), 2);
    group.sync(sync(9, "m3", 3, &[]), 0);
    group.tick(REBALANCE);
    assert_eq!(synced(&mut group), [(9, Err(ResponseError::RebalanceInProgress))]);
    group.join(join(10, "m3", None), REBALANCE);
    let responses = joined(&mut group);
    assert_eq!(responses[0].1.as_ref().unwrap().leader, "m3");
}

#[test]
fn a_static_member_returns_without_a_rebalance_and_its_former_incarnation_is_fenced() {
    let mut group = stable(Some("i"));
    group.join(join(7, "", Some("i")), 100);
    let responses = joined(&mut group);
    let back = responses[0].1.as_ref().unwrap();
    assert_eq!((back.generation, back.member_id.as_str()), (1, "m7"));
    assert!(back.members.is_empty(), "the returned member must not assign");
    assert_ne!(back.leader, "m7");
    group.sync(SyncRequest { instance_id: Some("i"), ..sync(8, "m7", 1, &[]) }, 100);
    assert_eq!(synced(&mut group), [(8, Ok(Bytes::from_static(b"all")))]);
    assert_eq!(group.heartbeat("m1", Some("i"), 1, 100), Err(ResponseError::FencedInstanceId));
    let zombie = OffsetCommitter { member_id: "m1", instance_id: Some("i"), generation: 1, in_txn: true };
    assert_eq!(group.allows(&zombie), Err(ResponseError::FencedInstanceId));
}

#[test]
fn a_static_leader_that_supports_it_may_skip_the_assignment() {
    let mut group = stable(Some("i"));
    group.join(JoinRequest { supports_skip_assignment: true, ..join(7, "", Some("i")) }, 0);
    let responses = joined(&mut group);
    let back = responses[0].1.as_ref().unwrap();
    assert!(back.skip_assignment);
    assert_eq!((back.leader.as_str(), back.members.len()), ("m7", 1));
}

#[test]
fn a_static_member_that_changes_its_subscription_causes_a_rebalance() {
    let mut group = stable(Some("i"));
    let changed = vec![("range".to_owned(), Bytes::from_static(b"other"))];
    group.join(JoinRequest { protocols: changed, ..join(7, "", Some("i")) }, 0);
    let responses = joined(&mut group);
    assert_eq!(responses[0].1.as_ref().unwrap().generation, 2);
    assert_eq!(responses[0].1.as_ref().unwrap().members.len(), 1);
}

#[test]
fn the_group_is_empty_after_the_last_member_leaves() {
    let mut group = stable(None);
    assert_eq!(group.leave("m1", None, 0), Ok(()));
    assert_eq!(group.state, GroupState::Empty);
    assert!(group.is_unused());
    assert_eq!(group.leave("m1", None, 0), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_static_member_can_be_removed_by_its_instance() {
    let mut group = stable(Some("i"));
    assert_eq!(group.leave("", Some("x"), 0), Err(ResponseError::UnknownMemberId));
    assert_eq!(group.leave("", Some("i"), 0), Ok(()));
    assert_eq!(group.state, GroupState::Empty);
}

#[test]
fn a_member_that_shares_no_assignor_is_refused() {
    let mut group = stable(None);
    let foreign = vec![("own".to_owned(), Bytes::new())];
    group.join(JoinRequest { protocols: foreign, ..join(3, "", None) }, 0);
    assert_eq!(joined(&mut group), [(3, Err(ResponseError::InconsistentGroupProtocol))]);
}

#[test]
fn a_full_group_refuses_new_members() {
    let mut group = Group::new(0, 0, 1);
    group.join(join(1, "", None), 0);
    group.join(join(2, "", None), 0);
    assert_eq!(joined(&mut group)[1], (2, Err(ResponseError::GroupMaxSizeReached)));
}

//! Every version a broker advertises, asked for once: client libraries choose one each, and another one each year.
//!
//! A field that a version does not have, written or read, breaks exactly the clients that nobody here runs.

use std::ops::Range;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, CreateTopicsRequest, DescribeClusterRequest, DescribeGroupsRequest,
    FetchRequest, FindCoordinatorRequest, GroupId, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
    ProducerId, TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use crate::check::{Area, Check, Doing, Failure, Verdict, ensure, ensure_eq};
use crate::clients::{producer, write};
use crate::context::Context;
use crate::wire::{NOBODY, Wire, batch};

const fn check(name: &'static str, run: fn(&Context) -> Verdict) -> Check {
    Check { area: Area::Wire, name, run }
}

pub(super) const CHECKS: &[Check] = &[
    check("every advertised version of what any client asks first is served", first_requests),
    check("every advertised version of what reads and writes records is served", records),
    check("every advertised version of what commits and reads offsets is served", committed_offsets),
    check("every advertised version of what joins and leaves a group is served", membership),
    check("every advertised version of what makes topics and producers is served", topics_and_producers),
];

/// One connection, and what may be asked on it.
struct Asker {
    wire: Wire,
    listed: Vec<(i16, i16, i16)>,
    served: usize,
}

impl Asker {
    fn new(mut wire: Wire) -> Result<Self, Failure> {
        let answer = wire.call(0, &ApiVersionsRequest::default())?;
        let listed = answer.api_keys.iter().map(|e| (e.api_key, e.min_version, e.max_version)).collect();
        Ok(Self { wire, listed, served: 0 })
    }

    /// The versions both sides know; those that transactions of a newer kind would need are not asked for here.
    fn versions(&self, key: ApiKey) -> Range<i16> {
        let seen = self.listed.iter().find(|(listed, ..)| *listed == key as i16);
        seen.map_or(0..0, |(_, min, max)| {
            (*min).max(key.valid_versions().min)..(*max).min(key.valid_versions().max) + 1
        })
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, Failure> {
        self.served += 1;
        self.wire.call(version, request).doing(format_args!("{:?} {version}", ApiKey::try_from(R::KEY)))
    }

    fn seen(&self) -> String {
        format!("{} requests", self.served)
    }
}

fn name(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(text: &str) -> TopicName {
    TopicName(name(text))
}

fn first_requests(cx: &Context) -> Verdict {
    let topic = cx.topic("first", 2)?;
    let mut asker = Asker::new(Wire::open(cx)?)?;
    for version in asker.versions(ApiKey::Metadata) {
        metadata(&mut asker, version, &topic)?;
    }
    for version in asker.versions(ApiKey::FindCoordinator) {
        for kind in 0..=i8::from(version > 0) {
            let key = StrBytes::from_static_str("conformance-nobody");
            let request = if version < 4 {
                FindCoordinatorRequest::default().with_key(key).with_key_type(kind)
            } else {
                FindCoordinatorRequest::default().with_coordinator_keys(vec![key]).with_key_type(kind)
            };
            let answer = asker.call(version, &request)?;
            let code = answer.coordinators.first().map_or(answer.error_code, |found| found.error_code);
            ensure_eq!(code, 0, "FindCoordinator {version} of kind {kind}");
        }
    }
    for version in asker.versions(ApiKey::DescribeCluster) {
        let answer = asker.call(version, &DescribeClusterRequest::default().with_endpoint_type(1))?;
        ensure_eq!(answer.error_code, 0, "DescribeCluster {version}");
        ensure!(!answer.brokers.is_empty(), "DescribeCluster {version} names no broker");
        ensure!(!answer.cluster_id.is_empty(), "DescribeCluster {version} names no cluster");
    }
    for version in asker.versions(ApiKey::ListGroups) {
        let answer = asker.call(version, &ListGroupsRequest::default())?;
        ensure_eq!(answer.error_code, 0, "ListGroups {version}");
    }
    Ok(asker.seen())
}

fn metadata(asker: &mut Asker, version: i16, topic: &str) -> Result<(), Failure> {
    let wanted = topic_name(topic);
    let one = MetadataRequestTopic::default().with_name(Some(wanted.clone()));
    let request = MetadataRequest::default().with_topics(Some(vec![one])).with_allow_auto_topic_creation(true);
    let answer = asker.call(version, &request)?;
    let seen = answer.topics.first().doing(format_args!("the topic in Metadata {version}"))?;
    ensure_eq!((seen.error_code, seen.partitions.len()), (0, 2), "Metadata {version}");
    ensure_eq!(seen.name.as_ref(), Some(&wanted), "the name in Metadata {version}");
    // All topics: no list from version 1 on, an empty one before.
    let answer = asker.call(version, &MetadataRequest::default().with_topics((version == 0).then(Vec::new)))?;
    ensure!(answer.topics.iter().any(|t| t.name.as_ref() == Some(&wanted)), "Metadata {version} lists too little");
    Ok(())
}

fn topic_id(asker: &mut Asker, topic: &str) -> Result<Uuid, Failure> {
    let Some(version) = asker.versions(ApiKey::Metadata).find(|version| *version >= 10) else {
        return Ok(Uuid::nil());
    };
    let one = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let answer = asker.call(version, &MetadataRequest::default().with_topics(Some(vec![one])))?;
    Ok(answer.topics.first().doing("the topic in the metadata")?.topic_id)
}

/// Versions from 13 on name a topic by its id.
const BY_ID: i16 = 13;

fn records(cx: &Context) -> Verdict {
    let topic = cx.topic("records", 1)?;
    // Written once by a library first: the leader then knows that it is one.
    write(&producer(cx, &[])?, &topic, 0, ["first"])?;
    let mut asker = Asker::new(Wire::to_leader(cx, &topic, 0)?)?;
    let id = topic_id(&mut asker, &topic)?;
    let mut end = 1;
    for version in asker.versions(ApiKey::Produce) {
        let data = PartitionProduceData::default().with_records(Some(batch(NOBODY, &[b"v"])?.freeze()));
        let mut one = TopicProduceData::default().with_partition_data(vec![data]);
        one = if version < BY_ID { one.with_name(topic_name(&topic)) } else { one.with_topic_id(id) };
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![one]);
        let answer = asker.call(version, &request)?;
        let seen = answer.responses.first().and_then(|t| t.partition_responses.first()).doing("the partition")?;
        ensure_eq!((seen.error_code, seen.base_offset), (0, end), "Produce {version}");
        end += 1;
    }
    for version in asker.versions(ApiKey::ListOffsets) {
        list_offsets(&mut asker, version, &topic, end)?;
    }
    for version in asker.versions(ApiKey::Fetch) {
        fetch(&mut asker, version, (&topic, id), end)?;
    }
    Ok(asker.seen())
}

fn list_offsets(asker: &mut Asker, version: i16, topic: &str, end: i64) -> Result<(), Failure> {
    for (timestamp, wanted) in [(-2, 0), (-1, end), (0, 0)] {
        let partition = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
        let one = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![one]);
        let answer = asker.call(version, &request)?;
        let seen = answer.topics.first().and_then(|t| t.partitions.first()).doing("the partition")?;
        ensure_eq!((seen.error_code, seen.offset), (0, wanted), "ListOffsets {version} at {timestamp}");
    }
    Ok(())
}

fn fetch(asker: &mut Asker, version: i16, (topic, id): (&str, Uuid), end: i64) -> Result<(), Failure> {
    for isolation in [0, 1] {
        let partition = FetchPartition::default().with_current_leader_epoch(-1).with_partition_max_bytes(1_000_000);
        let mut one = FetchTopic::default().with_partitions(vec![partition]);
        one = if version < BY_ID { one.with_topic(topic_name(topic)) } else { one.with_topic_id(id) };
        let mut request = FetchRequest::default()
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(1_000_000)
            .with_isolation_level(isolation)
            .with_session_epoch(-1)
            .with_topics(vec![one]);
        if version < 15 {
            request = request.with_replica_id(BrokerId(-1));
        }
        let answer = asker.call(version, &request)?;
        let seen = answer.responses.first().and_then(|t| t.partitions.first()).doing("the partition")?;
        ensure_eq!((answer.error_code, seen.error_code, seen.high_watermark), (0, 0, end), "Fetch {version}");
        ensure!(seen.records.as_ref().is_some_and(|records| !records.is_empty()), "Fetch {version} gave no records");
    }
    Ok(())
}

fn committed_offsets(cx: &Context) -> Verdict {
    let topic = cx.topic("offsets", 1)?;
    let group = cx.group("offsets");
    // A library's commit first: the coordinator is then loaded.
    let consumer = crate::clients::consumer(cx, &group, &[])?;
    let first = crate::clients::offsets(&[(&topic, 0, rdkafka::Offset::Offset(1))])?;
    rdkafka::consumer::Consumer::commit(&consumer, &first, rdkafka::consumer::CommitMode::Sync)
        .doing("a first commit")?;
    let mut asker = Asker::new(Wire::to_coordinator(cx, &group)?)?;
    for version in asker.versions(ApiKey::OffsetCommit).filter(|version| *version < 10) {
        let offset = 100 + i64::from(version);
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let one = OffsetCommitRequestTopic::default().with_name(topic_name(&topic)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(name(&group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![one]);
        let answer = asker.call(version, &request)?;
        let seen = answer.topics.first().and_then(|t| t.partitions.first()).doing("the partition")?;
        ensure_eq!(seen.error_code, 0, "OffsetCommit {version}");
        for version in asker.versions(ApiKey::OffsetFetch).filter(|version| *version < 10) {
            ensure_eq!(fetch_offset(&mut asker, version, &group, &topic)?, offset, "OffsetFetch {version}");
        }
    }
    Ok(asker.seen())
}

/// From version 8 on many groups at once, before that one.
fn fetch_offset(asker: &mut Asker, version: i16, group: &str, topic: &str) -> Result<i64, Failure> {
    let group = GroupId(name(group));
    if version < 8 {
        let one = OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default().with_group_id(group).with_topics(Some(vec![one]));
        let answer = asker.call(version, &request)?;
        let seen = answer.topics.first().and_then(|t| t.partitions.first()).doing("the partition")?;
        ensure_eq!((answer.error_code, seen.error_code), (0, 0), "OffsetFetch {version}");
        return Ok(seen.committed_offset);
    }
    let one = OffsetFetchRequestTopics::default().with_name(topic_name(topic)).with_partition_indexes(vec![0]);
    let wanted = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(Some(vec![one]));
    let answer = asker.call(version, &OffsetFetchRequest::default().with_groups(vec![wanted]))?;
    let seen_group = answer.groups.first().doing("the group")?;
    let seen = seen_group.topics.first().and_then(|t| t.partitions.first()).doing("the partition")?;
    ensure_eq!((seen_group.error_code, seen.error_code), (0, 0), "OffsetFetch {version}");
    Ok(seen.committed_offset)
}

fn membership(cx: &Context) -> Verdict {
    let mut asker = Asker::new(Wire::open(cx)?)?;
    for version in asker.versions(ApiKey::JoinGroup) {
        let group = cx.group(&format!("join-{version}"));
        asker.wire = Wire::to_coordinator(cx, &group)?;
        let group = GroupId(name(&group));
        let member = join(&mut asker, version, &group)?;
        for version in asker.versions(ApiKey::DescribeGroups) {
            let answer = asker.call(version, &DescribeGroupsRequest::default().with_groups(vec![group.clone()]))?;
            let seen = answer.groups.first().doing("the group")?;
            ensure_eq!((seen.error_code, seen.members.len()), (0, 1), "DescribeGroups {version}");
        }
        leave(&mut asker, &group, &member)?;
    }
    Ok(asker.seen())
}

/// From version 4 on a new member is first told its id, and joins with it.
fn join(asker: &mut Asker, version: i16, group: &GroupId) -> Result<StrBytes, Failure> {
    let protocol = JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
    let mut request = JoinGroupRequest::default()
        .with_group_id(group.clone())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let mut answer = asker.call(version, &request)?;
    // The coordinator of a group it has never heard of may still be loading.
    let mut tries = 0;
    while matches!(answer.error_code, 14..=16) && tries < 100 {
        tries += 1;
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        answer = asker.call(version, &request)?;
    }
    if answer.error_code == 79 {
        ensure!(version >= 4, "JoinGroup {version} asks to join again, as only later versions may");
        request = request.with_member_id(answer.member_id.clone());
        answer = asker.call(version, &request)?;
    }
    ensure_eq!((answer.error_code, &answer.leader), (0, &answer.member_id), "JoinGroup {version}");
    Ok(answer.member_id)
}

/// One version takes the member out, the others are told that it is not there.
fn leave(asker: &mut Asker, group: &GroupId, member: &StrBytes) -> Result<(), Failure> {
    let mut left = false;
    for version in asker.versions(ApiKey::LeaveGroup) {
        let request = LeaveGroupRequest::default().with_group_id(group.clone());
        let request = if version < 3 {
            request.with_member_id(member.clone())
        } else {
            request.with_members(vec![MemberIdentity::default().with_member_id(member.clone())])
        };
        let answer = asker.call(version, &request)?;
        let code = answer.members.first().map_or(answer.error_code, |member| member.error_code);
        ensure_eq!(code, if left { 25 } else { 0 }, "LeaveGroup {version}");
        left = true;
    }
    Ok(())
}

fn topics_and_producers(cx: &Context) -> Verdict {
    let mut asker = Asker::new(Wire::open(cx)?)?;
    for version in asker.versions(ApiKey::CreateTopics) {
        let topic = cx.topic_name(&format!("made-{version}"));
        // "As the broker likes it" is there from version 4 on.
        let (partitions, replicas) = if version < 4 { (1, 1) } else { (-1, -1) };
        let new = CreatableTopic::default()
            .with_name(topic_name(&topic))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas);
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(10_000);
        let answer = asker.call(version, &request)?;
        let seen = answer.topics.first().doing("the topic")?;
        ensure_eq!(seen.error_code, 0, "CreateTopics {version}");
        let answer = asker.call(version, &request)?;
        ensure_eq!(answer.topics.first().doing("the topic")?.error_code, 36, "CreateTopics {version} again");
    }
    for version in asker.versions(ApiKey::InitProducerId).filter(|version| *version < 6) {
        let mut request =
            InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        if version >= 3 {
            request = request.with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
        }
        let answer = asker.call(version, &request)?;
        ensure_eq!((answer.error_code, answer.producer_epoch), (0, 0), "InitProducerId {version}");
    }
    Ok(asker.seen())
}

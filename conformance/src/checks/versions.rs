//! Uses every version that a broker advertises once. Each client library uses one of them, and newer releases use others.
//!
//! A response with a field that the version lacks breaks only clients that this project does not run.

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

use crate::check::{Area, CheckFailure, CheckResult, ConformanceCheck, FailureContext, ensure, ensure_eq};
use crate::clients::{producer, write};
use crate::context::CheckContext;
use crate::wire::{NO_PRODUCER, RawConnection, batch};

const fn check(name: &'static str, run: fn(&CheckContext) -> CheckResult) -> ConformanceCheck {
    ConformanceCheck { area: Area::Wire, name, run }
}

pub(super) const CHECKS: &[ConformanceCheck] = &[
    check("every advertised version of a client's first requests is supported", first_requests),
    check("every advertised version of the requests that read and write records is supported", records),
    check("every advertised version of the requests that commit and read offsets is supported", committed_offsets),
    check("every advertised version of the requests that join and leave a group is supported", membership),
    check(
        "every advertised version of the requests that create topics and producers is supported",
        topics_and_producers,
    ),
];

/// One connection and the versions that the broker advertises on it.
struct VersionProbe {
    wire: RawConnection,
    advertised: Vec<(i16, i16, i16)>,
    count: usize,
}

impl VersionProbe {
    fn new(mut wire: RawConnection) -> Result<Self, CheckFailure> {
        let response = wire.call(0, &ApiVersionsRequest::default())?;
        let advertised = response.api_keys.iter().map(|e| (e.api_key, e.min_version, e.max_version)).collect();
        Ok(Self { wire, advertised, count: 0 })
    }

    /// The versions that both sides support. Callers skip versions of the newer transaction protocol.
    fn versions(&self, key: ApiKey) -> Range<i16> {
        let observed = self.advertised.iter().find(|(advertised, ..)| *advertised == key as i16);
        observed.map_or(0..0, |(_, min, max)| {
            (*min).max(key.valid_versions().min)..(*max).min(key.valid_versions().max) + 1
        })
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, CheckFailure> {
        self.count += 1;
        self.wire.call(version, request).context(format_args!("{:?} {version}", ApiKey::try_from(R::KEY)))
    }

    fn summary(&self) -> String {
        format!("{} requests", self.count)
    }
}

fn name(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(text: &str) -> TopicName {
    TopicName(name(text))
}

fn first_requests(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("first", 2)?;
    let mut client = VersionProbe::new(RawConnection::open(cx)?)?;
    for version in client.versions(ApiKey::Metadata) {
        metadata(&mut client, version, &topic)?;
    }
    for version in client.versions(ApiKey::FindCoordinator) {
        for kind in 0..=i8::from(version > 0) {
            let key = StrBytes::from_static_str("conformance-unknown");
            let request = if version < 4 {
                FindCoordinatorRequest::default().with_key(key).with_key_type(kind)
            } else {
                FindCoordinatorRequest::default().with_coordinator_keys(vec![key]).with_key_type(kind)
            };
            let response = client.call(version, &request)?;
            let code = response.coordinators.first().map_or(response.error_code, |found| found.error_code);
            ensure_eq!(code, 0, "FindCoordinator {version} of kind {kind}");
        }
    }
    for version in client.versions(ApiKey::DescribeCluster) {
        let response = client.call(version, &DescribeClusterRequest::default().with_endpoint_type(1))?;
        ensure_eq!(response.error_code, 0, "DescribeCluster {version}");
        ensure!(!response.brokers.is_empty(), "DescribeCluster {version} names no broker");
        ensure!(!response.cluster_id.is_empty(), "DescribeCluster {version} names no cluster");
    }
    for version in client.versions(ApiKey::ListGroups) {
        let response = client.call(version, &ListGroupsRequest::default())?;
        ensure_eq!(response.error_code, 0, "ListGroups {version}");
    }
    Ok(client.summary())
}

fn metadata(client: &mut VersionProbe, version: i16, topic: &str) -> Result<(), CheckFailure> {
    let expected = topic_name(topic);
    let one = MetadataRequestTopic::default().with_name(Some(expected.clone()));
    let request = MetadataRequest::default().with_topics(Some(vec![one])).with_allow_auto_topic_creation(true);
    let response = client.call(version, &request)?;
    let observed = response.topics.first().context(format_args!("the topic in Metadata {version}"))?;
    ensure_eq!((observed.error_code, observed.partitions.len()), (0, 2), "Metadata {version}");
    ensure_eq!(observed.name.as_ref(), Some(&expected), "the name in Metadata {version}");
    // A request for all topics has no list from version 1 on, an empty list before.
    let response = client.call(version, &MetadataRequest::default().with_topics((version == 0).then(Vec::new)))?;
    ensure!(
        response.topics.iter().any(|t| t.name.as_ref() == Some(&expected)),
        "Metadata {version} does not list the topic"
    );
    Ok(())
}

fn topic_id(client: &mut VersionProbe, topic: &str) -> Result<Uuid, CheckFailure> {
    let Some(version) = client.versions(ApiKey::Metadata).find(|version| *version >= 10) else {
        return Ok(Uuid::nil());
    };
    let one = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let response = client.call(version, &MetadataRequest::default().with_topics(Some(vec![one])))?;
    Ok(response.topics.first().context("the topic in the metadata")?.topic_id)
}

/// Versions from 13 on name a topic by its id.
const BY_ID: i16 = 13;

fn records(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("records", 1)?;
    // A library writes first: after that the leader accepts requests.
    write(&producer(cx, &[])?, &topic, 0, ["first"])?;
    let mut client = VersionProbe::new(RawConnection::to_leader(cx, &topic, 0)?)?;
    let id = topic_id(&mut client, &topic)?;
    let mut end = 1;
    for version in client.versions(ApiKey::Produce) {
        let data = PartitionProduceData::default().with_records(Some(batch(NO_PRODUCER, &[b"v"])?.freeze()));
        let mut one = TopicProduceData::default().with_partition_data(vec![data]);
        one = if version < BY_ID { one.with_name(topic_name(&topic)) } else { one.with_topic_id(id) };
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![one]);
        let response = client.call(version, &request)?;
        let observed =
            response.responses.first().and_then(|t| t.partition_responses.first()).context("the partition")?;
        ensure_eq!((observed.error_code, observed.base_offset), (0, end), "Produce {version}");
        end += 1;
    }
    for version in client.versions(ApiKey::ListOffsets) {
        list_offsets(&mut client, version, &topic, end)?;
    }
    for version in client.versions(ApiKey::Fetch) {
        fetch(&mut client, version, (&topic, id), end)?;
    }
    Ok(client.summary())
}

fn list_offsets(client: &mut VersionProbe, version: i16, topic: &str, end: i64) -> Result<(), CheckFailure> {
    for (timestamp, expected) in [(-2, 0), (-1, end), (0, 0)] {
        let partition = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
        let one = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![one]);
        let response = client.call(version, &request)?;
        let observed = response.topics.first().and_then(|t| t.partitions.first()).context("the partition")?;
        ensure_eq!((observed.error_code, observed.offset), (0, expected), "ListOffsets {version} at {timestamp}");
    }
    Ok(())
}

fn fetch(client: &mut VersionProbe, version: i16, (topic, id): (&str, Uuid), end: i64) -> Result<(), CheckFailure> {
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
        let response = client.call(version, &request)?;
        let observed = response.responses.first().and_then(|t| t.partitions.first()).context("the partition")?;
        ensure_eq!((response.error_code, observed.error_code, observed.high_watermark), (0, 0, end), "Fetch {version}");
        ensure!(
            observed.records.as_ref().is_some_and(|records| !records.is_empty()),
            "Fetch {version} gave no records"
        );
    }
    Ok(())
}

fn committed_offsets(cx: &CheckContext) -> CheckResult {
    let topic = cx.topic("offsets", 1)?;
    let group = cx.group("offsets");
    // A library commits first: after that the coordinator is loaded.
    let consumer = crate::clients::consumer(cx, &group, &[])?;
    let first = crate::clients::offsets(&[(&topic, 0, rdkafka::Offset::Offset(1))])?;
    rdkafka::consumer::Consumer::commit(&consumer, &first, rdkafka::consumer::CommitMode::Sync)
        .context("a first commit")?;
    let mut client = VersionProbe::new(RawConnection::to_coordinator(cx, &group)?)?;
    for version in client.versions(ApiKey::OffsetCommit).filter(|version| *version < 10) {
        let offset = 100 + i64::from(version);
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let one = OffsetCommitRequestTopic::default().with_name(topic_name(&topic)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(name(&group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![one]);
        let response = client.call(version, &request)?;
        let observed = response.topics.first().and_then(|t| t.partitions.first()).context("the partition")?;
        ensure_eq!(observed.error_code, 0, "OffsetCommit {version}");
        for version in client.versions(ApiKey::OffsetFetch).filter(|version| *version < 10) {
            ensure_eq!(fetch_offset(&mut client, version, &group, &topic)?, offset, "OffsetFetch {version}");
        }
    }
    Ok(client.summary())
}

/// From version 8 on a request names many groups, before that one.
fn fetch_offset(client: &mut VersionProbe, version: i16, group: &str, topic: &str) -> Result<i64, CheckFailure> {
    let group = GroupId(name(group));
    if version < 8 {
        let one = OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default().with_group_id(group).with_topics(Some(vec![one]));
        let response = client.call(version, &request)?;
        let observed = response.topics.first().and_then(|t| t.partitions.first()).context("the partition")?;
        ensure_eq!((response.error_code, observed.error_code), (0, 0), "OffsetFetch {version}");
        return Ok(observed.committed_offset);
    }
    let one = OffsetFetchRequestTopics::default().with_name(topic_name(topic)).with_partition_indexes(vec![0]);
    let expected = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(Some(vec![one]));
    let response = client.call(version, &OffsetFetchRequest::default().with_groups(vec![expected]))?;
    let observed_group = response.groups.first().context("the group")?;
    let observed = observed_group.topics.first().and_then(|t| t.partitions.first()).context("the partition")?;
    ensure_eq!((observed_group.error_code, observed.error_code), (0, 0), "OffsetFetch {version}");
    Ok(observed.committed_offset)
}

fn membership(cx: &CheckContext) -> CheckResult {
    let mut client = VersionProbe::new(RawConnection::open(cx)?)?;
    for version in client.versions(ApiKey::JoinGroup) {
        let group = cx.group(&format!("join-{version}"));
        client.wire = RawConnection::to_coordinator(cx, &group)?;
        let group = GroupId(name(&group));
        let member = join(&mut client, version, &group)?;
        for version in client.versions(ApiKey::DescribeGroups) {
            let response = client.call(version, &DescribeGroupsRequest::default().with_groups(vec![group.clone()]))?;
            let observed = response.groups.first().context("the group")?;
            ensure_eq!((observed.error_code, observed.members.len()), (0, 1), "DescribeGroups {version}");
        }
        leave(&mut client, &group, &member)?;
    }
    Ok(client.summary())
}

/// From version 4 on a new member first receives its id, then joins with it.
fn join(client: &mut VersionProbe, version: i16, group: &GroupId) -> Result<StrBytes, CheckFailure> {
    let protocol = JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
    let mut request = JoinGroupRequest::default()
        .with_group_id(group.clone())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let mut response = client.call(version, &request)?;
    // The coordinator of a new group may still be loading.
    let mut tries = 0;
    while matches!(response.error_code, 14..=16) && tries < 100 {
        tries += 1;
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        response = client.call(version, &request)?;
    }
    if response.error_code == 79 {
        ensure!(version >= 4, "JoinGroup {version} requests a second join, which exists only from version 4 on");
        request = request.with_member_id(response.member_id.clone());
        response = client.call(version, &request)?;
    }
    ensure_eq!((response.error_code, &response.leader), (0, &response.member_id), "JoinGroup {version}");
    Ok(response.member_id)
}

/// The first version removes the member; the others return that it is unknown.
fn leave(client: &mut VersionProbe, group: &GroupId, member: &StrBytes) -> Result<(), CheckFailure> {
    let mut left = false;
    for version in client.versions(ApiKey::LeaveGroup) {
        let request = LeaveGroupRequest::default().with_group_id(group.clone());
        let request = if version < 3 {
            request.with_member_id(member.clone())
        } else {
            request.with_members(vec![MemberIdentity::default().with_member_id(member.clone())])
        };
        let response = client.call(version, &request)?;
        let code = response.members.first().map_or(response.error_code, |member| member.error_code);
        ensure_eq!(code, if left { 25 } else { 0 }, "LeaveGroup {version}");
        left = true;
    }
    Ok(())
}

fn topics_and_producers(cx: &CheckContext) -> CheckResult {
    let mut client = VersionProbe::new(RawConnection::open(cx)?)?;
    for version in client.versions(ApiKey::CreateTopics) {
        let topic = cx.topic_name(&format!("created-{version}"));
        // -1 for the broker's default exists from version 4 on.
        let (partitions, replicas) = if version < 4 { (1, 1) } else { (-1, -1) };
        let new = CreatableTopic::default()
            .with_name(topic_name(&topic))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas);
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(10_000);
        let response = client.call(version, &request)?;
        let observed = response.topics.first().context("the topic")?;
        ensure_eq!(observed.error_code, 0, "CreateTopics {version}");
        let response = client.call(version, &request)?;
        ensure_eq!(response.topics.first().context("the topic")?.error_code, 36, "CreateTopics {version} again");
    }
    for version in client.versions(ApiKey::InitProducerId).filter(|version| *version < 6) {
        let mut request =
            InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        if version >= 3 {
            request = request.with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
        }
        let response = client.call(version, &request)?;
        ensure_eq!((response.error_code, response.producer_epoch), (0, 0), "InitProducerId {version}");
    }
    Ok(client.summary())
}

//! Topics, publishing, projections and edges on a broker and a registry.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
#[path = "cluster/operator.rs"]
mod operator;
#[path = "../../runtime-core/tests/probe/mod.rs"]
mod probe;
#[path = "cluster/raw.rs"]
mod raw;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{Cluster, PATIENCE};
use probe::{Count, Counted};
use rdkafka::producer::{BaseProducer, BaseRecord, NoCustomPartitioner, Producer};
use runtime::{
    Message,
    codec::{Readers, WriterError},
    core::partition_of,
    edge::{Edge, Submission, Submitted},
    health::CheckResult,
    kafka::{
        ClientLog, TopicKind, TopicPlan, TopicSpec,
        client::{WorkerNames, transactional_producer},
    },
    projection::{LiveView, LogRecord, Projection, Topics, fold_to},
    publisher::{Authority, Outgoing, PublishError, Publisher},
    registry::RegistryClient,
    unreadable::{BatchSkipped, OperatorEvent},
};
use uuid::Uuid;

/// Sums the counted amounts per key, and counts the records.
#[derive(Debug, Default, Clone, PartialEq)]
struct Sums {
    by_key: BTreeMap<String, i64>,
    records: usize,
}

impl Projection for Sums {
    fn apply(&mut self, record: &LogRecord<'_>) {
        self.records += 1;
        let (Some(key), Some("Counted")) = (record.key_text(), record.schema().map(|s| s.name())) else { return };
        if let Ok(counted) = record.read::<Counted>() {
            *self.by_key.entry(key.to_owned()).or_default() += counted.amount;
        }
    }

    fn reset(&mut self) -> bool {
        *self = Self::default();
        true
    }
}

fn counted(key: &str, amount: i64) -> Outgoing<probe::Event> {
    Outgoing::new(key, Counted { amount, occurred_at: 5 })
}

fn publisher(cluster: &Cluster) -> Publisher {
    cluster.register(probe::Event::RECORDS);
    let writers = cluster.registry.writers(&cluster.config.system, probe::Event::RECORDS).unwrap();
    Publisher::new(&cluster.config, Authority::Service, writers).unwrap()
}

fn events(cluster: &Cluster) -> String {
    format!("{}.probe.events", cluster.config.system)
}

fn readers(cluster: &Cluster) -> Readers {
    Readers::new(Arc::new(cluster.registry.clone()))
}

fn view(cluster: &Cluster, topics: Topics) -> LiveView<Sums> {
    LiveView::start(&cluster.config, "sums", readers(cluster), topics, Sums::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_planned_created_and_verified() {
    let cluster = Cluster::start("probe").await;
    let specs = TopicSpec::of_service(&cluster.config.system, "probe", 2);
    let plan = TopicPlan::compute(&cluster.admin, &specs).await.unwrap();
    assert_eq!(plan.to_string().lines().filter(|line| line.starts_with("create")).count(), 4);
    assert_eq!(plan.apply(&cluster.admin).await.unwrap(), 4);
    assert_eq!(plan.apply(&cluster.admin).await.unwrap(), 4, "creating existing topics is no error");
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let plan = TopicPlan::compute(&cluster.admin, &specs).await.unwrap();
        if plan.is_done() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{plan}");
    }
    let other = TopicSpec::of_service(&cluster.config.system, "probe", 3);
    let error = TopicPlan::compute(&cluster.admin, &other).await.unwrap().verify().unwrap_err();
    assert!(error.to_string().contains("partitions is 2, expected 3"), "{error}");
    let compacted = [TopicSpec::new(events(&cluster), 2, TopicKind::Compacted)];
    let error = TopicPlan::compute(&cluster.admin, &compacted).await.unwrap().apply(&cluster.admin).await.unwrap_err();
    assert!(error.to_string().contains("cleanup.policy is delete, expected compact"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unregistered_schema_keeps_a_producer_from_starting() {
    let cluster = Cluster::start("probe").await;
    let error = cluster.registry.writers(&cluster.config.system, probe::Event::RECORDS).unwrap_err();
    assert!(matches!(error, WriterError::NotRegistered { .. }), "{error:?}");
    assert!(!error.is_transient());
    publisher(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_published_records_equals_the_live_fold() {
    let cluster = Cluster::start("probe").await;
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    let publisher = publisher(&cluster);
    let batch = (0..500).map(|n| counted(&format!("k{}", n % 7), n));
    let places = publisher.publish(batch, PATIENCE).await.unwrap();
    assert_eq!(places.len(), 500);

    let topics = || Topics::decoded([events(&cluster)]);
    let live = view(&cluster, topics());
    live.wait_until_caught_up(PATIENCE).await.unwrap();
    assert_eq!(live.read(|sums| sums.by_key.values().sum::<i64>()), (0..500).sum::<i64>());

    let more = publisher.publish([counted("k1", 1_000), counted("k2", 1_000)], PATIENCE).await.unwrap();
    for place in &more {
        live.wait_for(place, PATIENCE).await.unwrap();
    }
    let (state, positions) = live.read_at(|sums, positions| (sums.clone(), positions.clone()));
    assert_eq!((state.records, live.health().undecodable), (502, 0));
    let (config, readers) = (cluster.config.clone(), readers(&cluster));
    let again = tokio::task::spawn_blocking(move || {
        fold_to(&config, ("again", None), readers, topics_of(&config), Sums::default(), &positions, PATIENCE)
    });
    assert_eq!(again.await.unwrap().unwrap(), state);

    // Up to offsets in the middle the fold has exactly the records before them.
    let mut half = runtime::projection::Positions::default();
    let first = places.iter().filter(|place| place.partition == 0).count() as i64 / 2;
    half.set(&Arc::from(events(&cluster)), 0, first);
    let (config, readers) = (cluster.config.clone(), self::readers(&cluster));
    let part = tokio::task::spawn_blocking(move || {
        fold_to(&config, ("half", None), readers, topics_of(&config), Sums::default(), &half, PATIENCE)
    });
    assert_eq!(part.await.unwrap().unwrap().records as i64, first);
}

/// Why a view has failed.
async fn refusal(view: &LiveView<Sums>) -> String {
    let mut changes = view.changes();
    let failed = changes.wait_for(|_| view.health().failed.is_some());
    tokio::time::timeout(PATIENCE, failed).await.expect("a view that fails").unwrap();
    let said = view.health().failed.unwrap();
    assert!(said.contains("docs/operations.md"), "it names the document: {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_a_truncated_topic_is_refused_unless_allowed() {
    let mut cluster = Cluster::start("probe").await;
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    let batch = (0..9).map(|n| counted("k", n));
    let places = publisher(&cluster).publish(batch, PATIENCE).await.unwrap();
    let partition = places[0].partition;
    let before = view(&cluster, topics_of(&cluster.config));
    before.wait_until_caught_up(PATIENCE).await.unwrap();
    cluster.truncate(&events(&cluster), partition, 4).await;
    let place = format!("{}/{partition} begins at offset 4", events(&cluster));
    let said = refusal(&view(&cluster, topics_of(&cluster.config))).await;
    assert!(said.contains(&place), "{said}");
    // A replay of the remaining records is refused as well.
    let (config, readers, positions) = (cluster.config.clone(), readers(&cluster), before.positions());
    let again = tokio::task::spawn_blocking(move || {
        fold_to(&config, ("again", None), readers, topics_of(&config), Sums::default(), &positions, PATIENCE)
    });
    let said = again.await.unwrap().unwrap_err().to_string();
    assert!(said.contains(&place), "{said}");

    let raw = view(&cluster, Topics::default().and_raw([events(&cluster)]));
    raw.wait_until_caught_up(PATIENCE).await.unwrap();
    cluster.config.allow_truncated.insert(events(&cluster));
    let accepted = view(&cluster, topics_of(&cluster.config));
    accepted.wait_until_caught_up(PATIENCE).await.unwrap();
    for view in [raw, accepted] {
        assert_eq!(view.read(|sums| (sums.records, sums.by_key["k"])), (5, (4..9).sum::<i64>()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_under_a_view_stops_it_with_the_partition() {
    let cluster = Cluster::start("probe").await;
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    let places = publisher(&cluster).publish((0..9).map(|n| counted("k", n)), PATIENCE).await.unwrap();
    let live = view(&cluster, topics_of(&cluster.config));
    live.wait_until_caught_up(PATIENCE).await.unwrap();
    cluster.recreate(&events(&cluster)).await;
    publisher(&cluster).publish([counted("k", 1)], PATIENCE).await.unwrap();
    let said = refusal(&live).await;
    let topic = format!("{}/{} holds ", events(&cluster), places[0].partition);
    assert!(said.contains(&topic) && said.contains("continues from offset 9"), "{said}");
    assert_eq!(live.read(|sums| sums.records), 9, "no record of the new topic is folded");
}

fn topics_of(config: &runtime::Config) -> Topics {
    Topics::decoded([format!("{}.probe.events", config.system)])
}

fn transactional(cluster: &Cluster) -> BaseProducer<ClientLog, NoCustomPartitioner> {
    let names = WorkerNames::of(&cluster.config, "probe", 0, Uuid::now_v7());
    let producer: BaseProducer<ClientLog, NoCustomPartitioner> =
        transactional_producer(&cluster.config, &names).create_with_context(ClientLog::new("test")).unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_passes_markers_and_skips_aborted_records() {
    let cluster = Cluster::start("probe").await;
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    let publisher = publisher(&cluster);
    let ready = publisher.encode([counted("a", 1), counted("b", 10), counted("c", 100)]).unwrap();
    let producer = transactional(&cluster);
    let send = |at: usize| {
        let record = &ready[at];
        let message = BaseRecord::to(&record.topic).key(&record.key).payload(&record.value);
        producer
            .send(message.headers(runtime::kafka::headers::to_headers(&record.envelope)))
            .map_err(|(e, _)| e)
            .unwrap();
    };
    producer.begin_transaction().unwrap();
    send(0);
    producer.commit_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(1);
    producer.flush(PATIENCE).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();

    let live = view(&cluster, Topics::decoded([events(&cluster)]));
    live.wait_until_caught_up(PATIENCE).await.unwrap();
    assert_eq!(live.read(|sums| sums.by_key.clone()), BTreeMap::from([("a".to_owned(), 1)]));
    assert_eq!(live.health().behind, 0, "the position passes markers at the end");

    producer.begin_transaction().unwrap();
    send(2);
    producer.flush(PATIENCE).unwrap();
    let mut changes = live.changes();
    producer.commit_transaction(PATIENCE).unwrap();
    tokio::time::timeout(PATIENCE, changes.wait_for(|_| live.read(|sums| sums.by_key.contains_key("c"))))
        .await
        .expect("the committed record is folded")
        .unwrap();
    assert_eq!(live.read(|sums| sums.records), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_counts_undecodable_records_and_continues() {
    let cluster = Cluster::start("probe").await;
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    let publisher = publisher(&cluster);
    let mut batch = publisher.encode([counted("a", 1), counted("a", 2), counted("a", 3), counted("a", 4)]).unwrap();
    batch[0].value = b"not framed".to_vec();
    batch[1].value.truncate(6);
    batch[2].value[1..5].copy_from_slice(&i32::MAX.to_be_bytes());
    publisher.send(batch, PATIENCE).await.unwrap();
    let live =
        view(&cluster, Topics::decoded([events(&cluster)]).and_raw([format!("{}.later", cluster.config.system)]));
    live.wait_until_caught_up(PATIENCE).await.unwrap();
    let health = live.health();
    assert_eq!((live.read(|sums| sums.by_key.clone()), health.undecodable), (BTreeMap::from([("a".to_owned(), 4)]), 3));
    let reasons: Vec<&str> = health.undecodable_records.iter().map(|record| record.reason.as_str()).collect();
    assert!(reasons[0].contains("expected byte 0"), "{reasons:?}");
    assert!(reasons[1].contains("a body of com."), "{reasons:?}");
    assert!(reasons[2].contains("schema 2147483647 is not in the registry"), "{reasons:?}");
    assert_eq!(health.missing_topics.len(), 1);

    // A topic that is created later is read from its beginning; a raw topic may hold anything.
    let later = format!("{}.later", cluster.config.system);
    cluster.create(&[TopicSpec::new(&later, 1, TopicKind::DeadLetters)]).await;
    let mut odd = publisher.encode([counted("z", 9).on(&later)]).unwrap();
    odd[0].value = b"anything".to_vec();
    let place = publisher.send(odd, PATIENCE).await.unwrap().remove(0);
    live.wait_for(&place, PATIENCE).await.unwrap();
    assert_eq!((live.health().undecodable, live.read(|sums| sums.records)), (3, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_waits_with_a_partition_that_cannot_be_read_until_an_operator_skips_the_batch() {
    let cluster = Cluster::start("probe").await;
    let system = cluster.config.system.clone();
    let mut specs = TopicSpec::of_service(&system, "probe", 2);
    specs.push(TopicSpec::of_operators(&system, 2));
    cluster.create(&specs).await;
    let publisher = publisher(&cluster);
    let places = publisher.publish([counted("a", 1)], PATIENCE).await.unwrap();
    let partition = places[0].partition;
    let first = raw::append_raw(
        &cluster.config.bootstrap,
        &events(&cluster),
        partition,
        &raw::zstd_batch(&[("a", b"one"), ("a", b"two")]),
    );
    let other = (0..).map(|n| format!("k{n}")).find(|key| partition_of(key.as_bytes(), 2) != partition).unwrap();
    let live = view(&cluster, topics_of(&cluster.config));
    let more = publisher.publish([counted("a", 10), counted(&other, 100)], PATIENCE).await.unwrap();
    live.wait_for(&more[1], PATIENCE).await.unwrap();
    live.wait_until_caught_up(PATIENCE).await.unwrap();
    let sum = |sums: &Sums| sums.by_key.values().sum::<i64>();
    let place = format!("{}/{partition}/{first}", events(&cluster));
    let name = format!("{system}.probe.sums");
    until("a held partition", || live.health().held.iter().any(|piece| piece.place == place)).await;
    let health = live.health();
    assert!(health.held[0].reason.contains(&format!("`dacapo parked skip {place} --view {name} --reason ...`")));
    assert!(matches!(health.check("sums"), CheckResult::Degraded(_)));
    assert_eq!(live.read(sum), 101);
    until("the records behind the batch count as unread", || live.health().behind >= 3).await;

    cluster.register(OperatorEvent::RECORDS);
    let writers = cluster.registry.writers(&system, OperatorEvent::RECORDS).unwrap();
    let operator = Publisher::new(&cluster.config, Authority::Operator, writers).unwrap();
    let decision = BatchSkipped {
        position: place.clone(),
        next_offset: first + 2,
        reader: name.clone(),
        defect: "zstd".to_owned(),
        by: "ada".to_owned(),
        reason: "a test".to_owned(),
        occurred_at: 0,
    };
    let outgoing = Outgoing::<OperatorEvent>::new(place, OperatorEvent::BatchSkipped(decision));
    operator.publish([outgoing], PATIENCE).await.unwrap();
    live.wait_for(&more[0], PATIENCE).await.unwrap();
    until("a healthy view", || live.health().held.is_empty()).await;
    assert_eq!((live.read(sum), live.health().check("sums")), (111, CheckResult::Fine));

    let again = view(&cluster, topics_of(&cluster.config));
    again.wait_for(&more[0], PATIENCE).await.unwrap();
    let (config, readers, positions) = (cluster.config.clone(), readers(&cluster), live.positions());
    let rebuilt = tokio::task::spawn_blocking(move || {
        let purpose = ("again", Some(name.as_str()));
        fold_to(&config, purpose, readers, topics_of(&config), Sums::default(), &positions, PATIENCE)
    });
    assert_eq!(sum(&rebuilt.await.unwrap().unwrap()), 111, "a rebuild skips it as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_whose_schema_is_missing_waits_with_its_partition_only() {
    // A registry of its own, whose next id is known.
    let mut cluster = Cluster::start_embedded("probe").await;
    cluster.config.timeouts.schema = Duration::from_secs(600);
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    let publisher = publisher(&cluster);
    let other =
        (0..).map(|n| format!("k{n}")).find(|key| partition_of(key.as_bytes(), 2) != partition_of(b"a", 2)).unwrap();
    let mut batch = publisher.encode([counted("a", 1), counted("a", 2), counted(&other, 100)]).unwrap();
    let missing = 1 + cluster.registry.register("before", r#"{"type":"record","name":"Before","fields":[]}"#).unwrap();
    batch[0].value[1..5].copy_from_slice(&missing.to_be_bytes());
    let places = publisher.send(batch, PATIENCE).await.unwrap();
    let live = view(&cluster, topics_of(&cluster.config));
    live.wait_for(&places[2], PATIENCE).await.unwrap();
    until("a held partition", || !live.health().held.is_empty()).await;
    assert_eq!((live.health().held[0].place.clone(), live.read(|sums| sums.records)), (places[0].to_string(), 1));
    let registered = cluster.registry.register("later", r#"{"type":"record","name":"Later","fields":[]}"#).unwrap();
    assert_eq!(registered, missing);
    live.wait_for(&places[1], PATIENCE).await.unwrap();
    until("a healthy view", || live.health().held.is_empty()).await;
    assert_eq!(live.read(|sums| (sums.records, sums.by_key["a"])), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_finds_a_record_again_whose_schema_was_registered_too_late() {
    // A registry of its own, whose next id is known.
    let mut cluster = Cluster::start_embedded("probe").await;
    cluster.config.timeouts.schema = Duration::from_millis(100);
    cluster.registry = RegistryClient::new(&cluster.config).unwrap();
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    let publisher = publisher(&cluster);
    let mut batch = publisher.encode([counted("a", 1), counted("a", 2)]).unwrap();
    let missing = 1 + cluster.registry.register("before", r#"{"type":"record","name":"Before","fields":[]}"#).unwrap();
    batch[0].value[1..5].copy_from_slice(&missing.to_be_bytes());
    let places = publisher.send(batch, PATIENCE).await.unwrap();
    let live = view(&cluster, topics_of(&cluster.config));
    live.wait_for(&places[1], PATIENCE).await.unwrap();
    until("no held partition", || live.health().held.is_empty()).await;
    let CheckResult::Degraded(pieces) = live.health().check("sums") else { panic!("{:?}", live.health()) };
    assert_eq!((pieces.len(), pieces[0].place.clone()), (1, places[0].to_string()));
    assert!(pieces[0].reason.starts_with("missing from sums: "), "{}", pieces[0]);
    let text = r#"{"type":"record","name":"Counted","namespace":"com.SYSTEM.probe","fields":[{"name":"amount","type":"long"},
        {"name":"occurred_at","type":"long"}]}"#;
    let text = text.replace("SYSTEM", &cluster.config.system);
    assert_eq!(cluster.registry.register("later", &text).unwrap(), missing);
    until("the whole sum", || live.read(|sums| sums.by_key.get("a") == Some(&3))).await;
    until("a healthy view", || live.health().check("sums") == CheckResult::Fine).await;
    assert_eq!(live.read(|sums| sums.records), 2);
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_whose_producer_has_died_publishes_again() {
    let cluster = Cluster::start("probe").await;
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    let publisher = publisher(&cluster);
    let place = publisher.publish([counted("a", 1)], PATIENCE).await.unwrap().remove(0);
    raw::steal_sequence(&cluster.config.bootstrap, &place.topic, place.partition, place.offset);
    // The outcome of the record on which the producer dies is unknown or refused; the next one finds another producer.
    let dies = publisher.publish([counted("a", 2)], PATIENCE).await;
    assert!(dies.is_err(), "the broker refuses its sequence number: {dies:?}");
    publisher.publish([counted("a", 3)], PATIENCE).await.expect("another producer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_refuses_its_records() {
    let cluster = Cluster::start("probe").await;
    let publisher = publisher(&cluster);
    let error = publisher.publish([counted("a", 1)], Duration::from_secs(20)).await.unwrap_err();
    assert!(matches!(error, PublishError::Incomplete { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_to_the_inbox_of_their_service() {
    let cluster = Cluster::start("probe").await;
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    cluster.register(probe::Command::RECORDS);
    let writers = cluster.registry.writers(&cluster.config.system, probe::Command::RECORDS).unwrap();
    let publisher = Publisher::new(&cluster.config, Authority::Service, writers).unwrap();
    let place = publisher.publish([Outgoing::<probe::Command>::new("k", Count { amount: 1 })], PATIENCE).await.unwrap();
    assert_eq!(&*place[0].topic, format!("{}.probe.inbox", cluster.config.system));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_waits_for_the_answer_and_keeps_it() {
    let mut cluster = Cluster::start("probe").await;
    cluster.config.timeouts.answer = PATIENCE;
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    let events = publisher(&cluster);
    cluster.register(probe::Command::RECORDS);
    let writers = cluster.registry.writers(&cluster.config.system, probe::Command::RECORDS).unwrap();
    let commands = Publisher::new(&cluster.config, Authority::Service, writers).unwrap();
    let summarise: fn(&probe::Event) -> Option<i64> = |event| match event {
        probe::Event::Counted(counted) => Some(counted.amount),
        _ => None,
    };
    let start = || Edge::<probe::Probe, i64>::start(&cluster.config, commands.clone(), readers(&cluster), summarise);
    let edge = start().unwrap();
    let command = || Submission::new("k", Count { amount: 7 });
    edge.wait_until_ready(PATIENCE).await.unwrap();

    let inbox = Topics::decoded([format!("{}.probe.inbox", cluster.config.system)]);
    let inbox = view(&cluster, inbox);
    let submitting = tokio::spawn({
        let edge = edge.clone();
        async move { edge.submit(command()).await }
    });
    let mut changes = inbox.changes();
    let arrived = changes.wait_for(|_| inbox.read(|sums| sums.records == 1));
    tokio::time::timeout(PATIENCE, arrived).await.expect("the command is in the inbox").unwrap();
    let id = edge.id_of(&command()).unwrap();
    events.publish([counted("k", 7).caused_by(id)], PATIENCE).await.unwrap();
    let Submitted::Answered(answered) = submitting.await.unwrap().unwrap() else { panic!("not answered") };
    assert_eq!((answered.command_id, answered.summary), (id, 7));

    let elsewhere = start().unwrap();
    elsewhere.wait_until_ready(PATIENCE).await.unwrap();
    assert_eq!(elsewhere.submit(command()).await.unwrap(), Submitted::Answered(answered.clone()));
    assert_eq!(elsewhere.first_answer("k"), Some(answered));
    assert_eq!(inbox.read(|sums| sums.records), 1, "an answered command is not written again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_without_an_answer_in_time_returns_the_position_of_the_command() {
    let mut cluster = Cluster::start("probe").await;
    cluster.config.timeouts.answer = Duration::from_secs(2);
    cluster.create(&TopicSpec::of_service(&cluster.config.system, "probe", 2)).await;
    cluster.register(probe::Command::RECORDS);
    let writers = cluster.registry.writers(&cluster.config.system, probe::Command::RECORDS).unwrap();
    let commands = Publisher::new(&cluster.config, Authority::Service, writers).unwrap();
    let edge = Edge::<probe::Probe, ()>::start(&cluster.config, commands, readers(&cluster), |_| Some(())).unwrap();
    edge.wait_until_ready(PATIENCE).await.unwrap();
    let submitted = edge.submit(Submission::new("k", Count { amount: 7 })).await.unwrap();
    let Submitted::Pending { position: Some(position), .. } = submitted else { panic!("{submitted:?}") };
    assert_eq!(&*position.topic, format!("{}.probe.inbox", cluster.config.system));
}

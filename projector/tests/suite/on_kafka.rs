//! The projector on a broker and a registry: the embedded pair, or those that `DACAPO_TEST_KAFKA` and `DACAPO_TEST_REGISTRY` name.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use embedded::{
    broker::{Broker, BrokerConfig},
    registry::RegistryConfig,
};
use projector::{
    Declaration, RunningProjector,
    client::ProjectorClient,
    query::SagaFilter,
    status::{self, SagaState, SagaStatus},
};
use runtime::{
    Config, Message as _,
    codec::{Readers, Writers},
    envelope::Envelope,
    kafka::{Admin, TopicKind, TopicPlan, TopicSpec},
    projection::{self, LogRecord, Projection, Topics},
    publisher::{Authority, EncodedRecord, Publisher},
    registry::RegistryClient,
    schemas::{SchemaCatalog, plan},
};

use crate::support::{COMPLETED, DECLINED, LOST, Log, SHORT, TestRecord, header};

const PATIENCE: Duration = Duration::from_secs(60);
const SERVICES: [&str; 6] = ["customers", "order-processor", "warehouse", "payment", "loyalty", "notifications"];

/// A cluster with a system of its own.
struct Cluster {
    config: Config,
    admin: Admin,
    registry: RegistryClient,
    /// Keeps the embedded pair alive.
    _embedded: Option<(Broker, embedded::registry::Registry)>,
}

impl Cluster {
    async fn start() -> Self {
        let mut config = Config::for_tests().for_service("projector");
        let named = |name: &str| std::env::var(name).ok();
        let embedded = match (named("DACAPO_TEST_KAFKA"), named("DACAPO_TEST_REGISTRY")) {
            (Some(bootstrap), Some(registry)) => {
                (config.bootstrap, config.registry_url) = (bootstrap, registry);
                None
            }
            _ => {
                let broker = Broker::start(BrokerConfig::default()).expect("a broker");
                let registry = embedded::registry::Registry::start(RegistryConfig {
                    data_dir: None,
                    listen: ([127, 0, 0, 1], 0).into(),
                    default_level: embedded::registry::Level::FullTransitive,
                    fsync: false,
                });
                let registry = registry.await.expect("a registry");
                (config.bootstrap, config.registry_url) = (broker.bootstrap(), registry.url());
                Some((broker, registry))
            }
        };
        config.system = format!("t{}", &uuid::Uuid::now_v7().simple().to_string()[20..]);
        config.partitions = 2;
        let admin = Admin::new(&config).expect("an admin client");
        let registry = RegistryClient::new(&config).expect("a registry client");
        Self { config, admin, registry, _embedded: embedded }
    }

    async fn create_topics(&self) {
        let specs: Vec<TopicSpec> = SERVICES
            .iter()
            .map(|service| TopicSpec::new(format!("{}.{service}.events", self.config.system), 2, TopicKind::Events))
            .collect();
        self.create(&specs).await;
    }

    /// Creates the topic of statuses and registers their schema. Without them a projector writes no statuses.
    async fn create_statuses(&self) {
        self.create(&[status::topic(&self.config.system, 2)]).await;
        let contract = SchemaCatalog::from_records(status::StatusMessage::RECORDS).expect("a contract");
        let changes = plan::plan(&self.registry, &contract, &self.config.system).expect("a plan");
        plan::apply(&self.registry, &changes).expect("registered");
    }

    /// Every status in the topic, by key.
    async fn statuses(&self) -> WrittenStatuses {
        let topics = Topics::decoded([status::topic(&self.config.system, 2).name]);
        let readers = Readers::new(Arc::new(self.registry.clone()));
        let view = projection::LiveView::start(&self.config, "statuses", readers, topics, WrittenStatuses::default());
        let view = view.expect("a view");
        view.wait_until_caught_up(PATIENCE).await.expect("read to the end");
        view.read(Clone::clone)
    }

    async fn create(&self, specs: &[TopicSpec]) {
        let plan = TopicPlan::compute(&self.admin, specs).await.expect("a plan");
        plan.apply(&self.admin).await.expect("topics");
    }

    /// Publishes records, each in the name of the service that produced it.
    async fn publish(&self, records: &[TestRecord]) {
        let mut batches: BTreeMap<String, Vec<EncodedRecord>> = BTreeMap::new();
        for record in records {
            let service = record.topic.strip_prefix("musiccorp.").and_then(|rest| rest.strip_suffix(".events"));
            // Records of topics that no reader uses here are skipped.
            if let Some(service) = service.filter(|service| SERVICES.contains(service)) {
                batches.entry(service.to_owned()).or_default().push(self.ready(record, &record.topic));
            }
        }
        for (service, batch) in batches {
            self.publisher(&service, Authority::Service).send(batch, PATIENCE).await.expect("published");
        }
    }

    fn publisher(&self, service: &str, authority: Authority) -> Publisher {
        let none = Writers::with_ids(&self.config.system, &[], |_, _| Ok(0)).expect("no writers");
        Publisher::new(&self.config.for_service(service), authority, none).expect("a publisher")
    }

    /// The record as it goes over the wire, with its body in Avro.
    fn ready(&self, record: &TestRecord, topic: &str) -> EncodedRecord {
        let text = |name: &str| header(record, name);
        let uuid = |name: &str| text(name).map(|id| id.parse().expect("a UUID"));
        let renamed = |text: String| text.replace("musiccorp", &self.config.system);
        let full_name = renamed(text("ce_type").expect("a type"));
        let source = renamed(text("ce_source").expect("a source"));
        let mut envelope = Envelope::new(uuid("ce_id").expect("an id"), source, full_name.clone(), record.at_ms)
            .about(record.key.as_str())
            .correlated(record.key.as_str());
        envelope.causation_id = uuid("ce_causationid");
        envelope.sequence = text("ce_sequence").map(|number| number.parse().expect("a number"));
        envelope.build = Some("test".into());
        EncodedRecord {
            topic: renamed(topic.to_owned()),
            key: record.key.clone(),
            value: self.body(&full_name, record),
            envelope,
        }
    }

    /// A body with two fields, `order_id` and the enum that declarations select by, encoded by hand.
    fn body(&self, full_name: &str, record: &TestRecord) -> Vec<u8> {
        const SYMBOLS: [&str; 7] = [
            "UNKNOWN",
            "ORDER_PAID",
            "ORDER_SHIPPED",
            "ORDER_CANCELLED",
            "OUT_OF_STOCK",
            "PAYMENT_DECLINED",
            "LOST_AT_PACKAGING",
        ];
        let (namespace, name) = full_name.rsplit_once('.').expect("a full name");
        let field = if name == "OrderCancelled" { "reason" } else { "kind" };
        let schema = serde_json::json!({"type": "record", "namespace": namespace, "name": name, "fields": [
            {"name": "order_id", "type": "string"},
            {"name": field, "type": {"type": "enum", "name": "Symbol", "symbols": SYMBOLS, "default": "UNKNOWN"}},
        ]});
        let id = self.registry.register(full_name, &schema.to_string()).expect("a registered schema");
        let fields: serde_json::Value = serde_json::from_slice(&record.value[5..]).expect("JSON");
        let symbol = SYMBOLS.iter().position(|known| fields["kind"] == *known).unwrap_or_default();
        let zigzag = |number: usize| u8::try_from(number * 2).expect("a small number");
        let mut value = vec![0];
        value.extend(id.to_be_bytes());
        value.push(zigzag(record.key.len()));
        value.extend(record.key.bytes());
        value.push(zigzag(symbol));
        value
    }
}

/// The statuses of each key in the order of writing: the id, and the status.
#[derive(Debug, Clone, Default, PartialEq)]
struct WrittenStatuses(BTreeMap<String, Vec<(uuid::Uuid, SagaStatus)>>);

impl Projection for WrittenStatuses {
    fn apply(&mut self, record: &LogRecord<'_>) {
        let envelope = record.envelope().expect("an envelope");
        let status: SagaStatus = record.read().expect("a status");
        assert_eq!(record.key_text(), Some(envelope.subject.as_str()));
        assert_eq!(envelope.correlation_id, status.saga_id);
        self.0.entry(envelope.subject).or_default().push((envelope.id, status));
    }
}

impl WrittenStatuses {
    fn latest(&self) -> BTreeMap<&str, &SagaStatus> {
        self.0.iter().map(|(key, all)| (key.as_str(), &all.last().expect("one").1)).collect()
    }

    /// True if no key has the same status twice in a row, so no status was written again.
    fn has_no_repeats(&self) -> bool {
        self.0.values().all(|all| all.windows(2).all(|pair| pair[0].0 != pair[1].0))
    }
}

/// Waits until the reply satisfies the condition.
async fn wait_for<T: std::fmt::Debug, F: Future<Output = T>>(ask: impl Fn() -> F, satisfied: impl Fn(&T) -> bool) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    loop {
        let reply = ask().await;
        if satisfied(&reply) {
            return reply;
        }
        assert!(tokio::time::Instant::now() < deadline, "the condition was not met in time: {reply:?}");
        pause.tick().await;
    }
}

async fn verified(cluster: &Cluster, client: &ProjectorClient) -> projector::verification::ViewComparison {
    let declarations = Declaration::shipped().expect("the shipped declarations are valid");
    projector::verify(&cluster.config, client, &declarations, PATIENCE).await.expect("a comparison")
}

fn sagas() -> Log {
    let mut log = Log::default();
    for number in 0..40 {
        let events: &[&str] = match number % 5 {
            0 | 1 => &COMPLETED,
            2 => &LOST,
            3 => &SHORT,
            _ => &DECLINED,
        };
        log.append_all(&format!("o-{number}"), events);
    }
    log.append_all("o-open", &COMPLETED[..9]);
    log
}

async fn started(cluster: &Cluster) -> (RunningProjector, ProjectorClient) {
    let running =
        projector::start(&cluster.config, &Declaration::shipped().expect("the shipped declarations are valid"))
            .await
            .expect("started");
    let client = ProjectorClient::new(&running.url()).expect("an address");
    (running, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_on_a_broker_are_shown_and_the_view_verifies_against_the_topics() {
    let cluster = Cluster::start().await;
    let (running, client) = started(&cluster).await;
    // The projector starts before its topics exist, and reports that.
    let reading = || async { running.board().read_progress() };
    let missing = wait_for(reading, |reading| reading.degraded_reason.is_some()).await;
    assert!(
        missing.degraded_reason.is_some_and(|degraded_reason| degraded_reason.contains("topics to read are missing")),
        "they are"
    );
    cluster.create_topics().await;
    cluster.publish(&sagas().records).await;
    let settled = |counts: &projector::api::CountsReply| counts.sagas[0].total == 41 && counts.sagas[0].open == 1;
    let counts = wait_for(|| async { client.counts().await.expect("counts") }, settled).await.sagas.remove(0);
    assert_eq!((counts.outcomes["completed"], counts.outcomes["lost"], counts.outcomes["declined"]), (16, 8, 8));
    assert!(wait_for(reading, |reading| reading.caught_up).await.degraded_reason.is_none());

    let show = || async { client.show("o-2", None).await.expect("the saga").saga };
    let shown = wait_for(show, |shown| shown.timeline[0].schema_version.is_some()).await;
    assert_eq!((shown.saga.state.as_str(), shown.saga.outcome.as_deref()), ("compensated", Some("lost")));
    assert_eq!((shown.timeline[0].schema_version, shown.timeline[1].cause_event.is_some()), (Some(1), true));

    let comparison = verified(&cluster, &client).await;
    assert!(comparison.agrees() && comparison.sagas == 41, "{comparison}");

    // A record that is in the view but in no topic.
    let mut log = sagas();
    let record = log.append_all("o-open", &["warehouse/PickingStarted"]).records.last().expect("a record").clone();
    let topic = record.topic.replace("musiccorp", &cluster.config.system);
    running.board().write(|view| TestRecord { topic, offset: 0, ..record }.fold_into(view));
    let comparison = verified(&cluster, &client).await;
    let first = comparison.first.clone().expect("a difference");
    assert_eq!(
        (first.id.as_str(), first.field.as_str(), comparison.differing),
        ("o-open", "/timeline/9", 1),
        "{comparison}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_dead_letter_topics_are_read_and_a_restart_gives_the_same_view() {
    let cluster = Cluster::start().await;
    cluster.create_topics().await;
    let log = sagas();
    cluster.publish(&log.records).await;
    let (running, client) = started(&cluster).await;
    let topic = format!("dlq.{}.payment", cluster.config.system);
    cluster.create(&[TopicSpec::new(topic.clone(), 2, TopicKind::DeadLetters)]).await;
    let copy = log.records.iter().find(|record| record.key == "o-open").expect("a record");
    let copy = EncodedRecord { topic, ..cluster.ready(copy, "") };
    cluster.publisher("payment", Authority::Operator).send(vec![copy], PATIENCE).await.expect("published");
    let dead_letters = SagaFilter { flag: Some("dead-letter".to_owned()), ..SagaFilter::default() };
    let list = || async { client.list(&dead_letters, 10, None).await.expect("a list").items };
    let items = wait_for(list, |items| !items.is_empty()).await;
    assert_eq!(items.iter().map(|saga| saga.id.as_str()).collect::<Vec<_>>(), ["o-open"]);
    let comparison = verified(&cluster, &client).await;
    assert!(comparison.agrees(), "{comparison}");
    running.stop().await;

    let (again, client) = started(&cluster).await;
    let list = || async { client.list(&dead_letters, 10, None).await.expect("a list").items };
    wait_for(list, |items| !items.is_empty()).await;
    wait_for(|| async { again.board().read_progress() }, |reading| reading.caught_up).await;
    let second = verified(&cluster, &client).await;
    assert!(second.agrees(), "{second}");
    assert_eq!((second.digest, second.sagas), (comparison.digest, comparison.sagas), "both starts give the same view");
    again.stop().await;
}

fn int(count: u32) -> i32 {
    count.try_into().expect("small")
}

/// The number of sagas with a status, and the number of settled ones among them.
fn settled(written: &WrittenStatuses) -> (usize, usize) {
    let latest = written.latest();
    (latest.len(), latest.values().filter(|status| status.settled).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_written_once_and_a_restart_writes_only_changes() {
    let cluster = Cluster::start().await;
    cluster.create_topics().await;
    cluster.create_statuses().await;
    cluster.publish(&sagas().records).await;
    let (running, client) = started(&cluster).await;
    let written = wait_for(|| cluster.statuses(), |written| settled(written) == (41, 40)).await;
    assert_eq!(running.statuses().written(), 41, "what was read before the first status is written once");
    let latest = written.latest();
    let (lost, open) = (latest["order-fulfilment/o-2"], latest["order-fulfilment/o-open"]);
    assert_eq!(
        (lost.state, lost.outcome.as_deref(), lost.ended_at),
        (SagaState::Compensated, Some("lost"), Some(lost.updated_at))
    );
    assert_eq!((open.state, open.settled, open.ended_at), (SagaState::Running, false, None));
    let shown = client.show("o-open", None).await.expect("the saga").saga.saga;
    assert_eq!(
        (&open.sentence, open.steps_done, open.steps, open.records),
        (&shown.sentence, int(shown.steps_done), int(shown.steps), int(shown.records))
    );
    let owed = |step: &str, owner: &str| format!("{step} of {owner}");
    assert_eq!(
        open.waiting.iter().map(|waiting| owed(&waiting.step, &waiting.owner)).collect::<Vec<_>>(),
        shown.waiting.iter().map(|waiting| owed(&waiting.step, &waiting.owner)).collect::<Vec<_>>(),
    );
    let timeline = client.show("o-open", None).await.expect("the saga").saga.timeline;
    for position in &open.positions {
        let here = timeline.iter().filter(|row| (&row.topic, row.partition) == (&position.topic, position.partition));
        assert_eq!(here.map(|row| row.offset).max(), Some(position.offset), "{}", position.topic);
    }
    running.stop().await;

    // While no projector runs, one saga continues.
    let mut log = sagas();
    let record = log.append_all("o-open", &["warehouse/PickingStarted"]).records.pop().expect("a record");
    cluster.publish(&[record]).await;
    let (again, _) = started(&cluster).await;
    let more = wait_for(|| cluster.statuses(), |more| more.0["order-fulfilment/o-open"].len() == 2).await;
    assert_eq!(again.statuses().written(), 1);
    assert!(
        more.0.iter().all(|(key, all)| all.len() == if key.ends_with("o-open") { 2 } else { 1 }),
        "{:?}",
        more.0.keys()
    );
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projectors_share_the_partitions_and_one_takes_over_those_of_the_other() {
    let cluster = Cluster::start().await;
    cluster.create_topics().await;
    cluster.create_statuses().await;
    let (one, _) = started(&cluster).await;
    let (other, _) = started(&cluster).await;
    // Both own partitions before there is anything to write, so both write.
    wait_for(
        || async { (one.statuses().partitions(), other.statuses().partitions()) },
        |(one, other)| *one > 0 && *other > 0,
    )
    .await;
    let all = sagas().records;
    let (first, second) = all.split_at(all.len() / 2);
    cluster.publish(first).await;
    wait_for(
        || async { (one.statuses().written(), other.statuses().written()) },
        |(one, other)| *one > 0 && *other > 0,
    )
    .await;
    one.stop().await;
    cluster.publish(second).await;
    let written = wait_for(|| cluster.statuses(), |written| settled(written) == (41, 40)).await;
    assert!(written.has_no_repeats(), "{written:?}");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_status_topic_statuses_wait_and_everything_else_continues() {
    let cluster = Cluster::start().await;
    cluster.create_topics().await;
    cluster.publish(&sagas().records).await;
    let (running, client) = started(&cluster).await;
    let degraded_reason =
        wait_for(|| async { running.statuses().issue() }, Option::is_some).await.expect("a degraded reason");
    assert!(
        degraded_reason.contains("does not exist") && degraded_reason.contains("dacapo topics create"),
        "{degraded_reason}"
    );
    wait_for(|| async { client.counts().await.expect("counts") }, |counts| counts.sagas[0].total == 41).await;
    cluster.create_statuses().await;
    wait_for(|| cluster.statuses(), |written| settled(written) == (41, 40)).await;
    running.stop().await;
}

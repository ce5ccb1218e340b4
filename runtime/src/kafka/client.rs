//! The properties of each kind of Kafka client.
//!
//! Every property that a guarantee or the latency depends on is set here, with its reason; nothing relies on a default. Properties
//! that an operator decides (TLS files, SASL, buffer sizes) come from the configuration's `[kafka]` table. `config` has already
//! refused the ones that would break a guarantee.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::KafkaError,
    producer::{DeliveryResult, NoCustomPartitioner, ProducerContext},
    types::RDKafkaErrorCode,
};

use crate::config::Config;

/// The consumer group of a service in a system. The group's name is part of the dead-letter topic and of transactional ids. It
/// contains the system because several systems may share a cluster.
#[must_use]
pub fn group(system: &str, service: &str) -> String {
    format!("{system}.{service}")
}

/// The names of one worker, unique in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerNames {
    /// The consumer group.
    pub group: String,
    /// The id under which brokers show its clients.
    pub client_id: String,
    /// Fences earlier incarnations of the same worker.
    pub transactional_id: String,
    /// Lets a restart keep its partitions; only for an instance with a stable name.
    pub group_instance_id: Option<String>,
}

impl WorkerNames {
    /// The names of worker number `worker`. An instance without a stable name is named after `incarnation`, for this run only.
    #[must_use]
    pub fn of(config: &Config, service: &str, worker: usize, incarnation: uuid::Uuid) -> Self {
        let group = group(&config.system, service);
        let instance = config.instance.clone().unwrap_or_else(|| incarnation.simple().to_string());
        let member = format!("{instance}.{worker}");
        Self {
            client_id: format!("{group}.{member}"),
            transactional_id: format!("{group}.{member}"),
            group_instance_id: config.instance.as_ref().map(|_| member),
            group,
        }
    }
}

/// A worker's consumer: a member of the service's group, subscribed to its inbox.
#[must_use]
pub fn group_member(config: &Config, names: &WorkerNames) -> ClientConfig {
    let session_ms = config.timeouts.session.as_millis();
    let mut client = consumer(config, &names.client_id, &names.group);
    client
        // Classic: the newer protocol's poll-interval handling is not fixed in this librdkafka, and upstream will change the
        // default.
        .set("group.protocol", "classic")
        // Only the inbox is subscribed and the other inputs follow it, so any assignor works. An eager assignor assigns every
        // partition in each generation. A cooperative one revokes a partition in one generation and assigns it in the next; a static
        // member that restarts in between rejoins without a new generation, and Apache Kafka then leaves the partition unassigned.
        .set("partition.assignment.strategy", "range")
        // A dead member's partitions are reassigned after this long. Safety rests on fencing, not on this timeout.
        .set("session.timeout.ms", session_ms.to_string())
        .set("heartbeat.interval.ms", (session_ms / 5).max(1).to_string())
        // A worker polls continuously; a minute without a poll is a bug, and another worker should take over.
        .set("max.poll.interval.ms", session_ms.max(60_000).to_string())
        // Only committed input counts.
        .set("isolation.level", "read_committed")
        // A worker's consumer has no use for end-of-partition events.
        .set("enable.partition.eof", "false")
        // Small: a worker takes batches of hundreds, and several partitions share the memory.
        .set("queued.min.messages", "5000")
        .set("queued.max.messages.kbytes", "16384")
        // A fetch that was sent before a new partition was assigned delays that partition's first records by at most this long.
        .set("fetch.wait.max.ms", "100")
        .set("statistics.interval.ms", "5000");
    if let Some(id) = &names.group_instance_id {
        // A restart under the same name continues at once, without a rebalance.
        client.set("group.instance.id", id);
    }
    finish(client, config)
}

/// The largest record that a worker passes to its producer: half of the producer's queue.
const LARGEST_BYTES: &str = "33554432";

/// A worker's producer: events, commands and input offsets in one transaction.
#[must_use]
pub fn transactional_producer(config: &Config, names: &WorkerNames) -> ClientConfig {
    let transaction_ms = config.timeouts.transaction.as_millis().to_string();
    let mut client = producer(config, &names.client_id);
    client
        .set("transactional.id", &names.transactional_id)
        // An open transaction blocks readers of every partition it wrote to, so a dead one must not stay open for long.
        .set("transaction.timeout.ms", &transaction_ms)
        // librdkafka refuses more than the transaction's own timeout.
        .set("message.timeout.ms", &transaction_ms)
        // A forwarded or dead-lettered record may be as large as any producer made it. The worker respects the limits of the topics;
        // the client's own limit must not be the smaller one.
        .set("message.max.bytes", LARGEST_BYTES)
        // After each commit the coordinator is busy for a moment, and librdkafka sleeps this long before it retries: 2 ms allows
        // hundreds of transactions a second, the default of 100 ms allows twelve.
        .set("retry.backoff.ms", "2")
        .set("retry.backoff.max.ms", "250");
    finish(client, config)
}

/// The largest record that a producer with these properties accepts, in bytes.
#[must_use]
pub fn largest_record(producer: &ClientConfig) -> usize {
    producer.get("message.max.bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(usize::MAX)
}

/// Limits batches of several records to what a topic accepts. A single record may still be larger.
pub fn bound_batches(producer: &mut ClientConfig, most: usize) {
    let batch = producer.get("batch.size").and_then(|bytes| bytes.parse().ok()).unwrap_or(usize::MAX);
    if most < batch {
        producer.set("batch.size", most.max(1).to_string());
    }
}

/// A producer outside transactions: commands from an HTTP API, answers of effects, events of external services.
#[must_use]
pub fn idempotent_producer(config: &Config, purpose: &str) -> ClientConfig {
    let mut client = producer(config, &client_id(config, purpose));
    client
        // Single messages must not expire: that would leave gaps before later ones. The publisher has its own deadline, after which
        // it discards the whole producer.
        .set("message.timeout.ms", "0")
        .set("retry.backoff.ms", "20")
        .set("retry.backoff.max.ms", "1000");
    finish(client, config)
}

/// A reader of whole partitions outside any group: for a projection, or for a worker's recovery. It assigns explicit offsets.
#[must_use]
pub fn log_reader(config: &Config, purpose: &str) -> ClientConfig {
    let id = client_id(config, purpose);
    // The client requires a group id to consume; it never joins this group or commits to it.
    let mut client = consumer(config, &id, &format!("{}.reader", group(&config.system, &config.service)));
    client
        .set("isolation.level", "read_committed")
        // A fold knows by the end-of-partition event that it has caught up: its position has then passed markers and aborted records.
        .set("enable.partition.eof", "true")
        // A fold may wait long for a schema; outside a group it blocks no other member.
        .set("max.poll.interval.ms", "86400000")
        // A rebuild reads as fast as it can; a slow fold buffers no more than this. The client counts the bytes of keys and bodies
        // but not of headers, so the number of messages is a second bound.
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "32768")
        // Bit rot in an event store must be detected.
        .set("check.crcs", "true")
        .set("statistics.interval.ms", "0");
    finish(client, config)
}

/// A client that queries high watermarks. A read-committed client would get the last stable offset instead, and miss a transaction
/// that is prepared but not yet marked.
#[must_use]
pub fn watermark_client(config: &Config) -> ClientConfig {
    let id = client_id(config, "watermarks");
    let mut client = consumer(config, &id, &format!("{}.reader", group(&config.system, &config.service)));
    client
        .set("isolation.level", "read_uncommitted")
        .set("enable.partition.eof", "false")
        .set("statistics.interval.ms", "0");
    finish(client, config)
}

/// A client for topics and their settings.
#[must_use]
pub fn admin(config: &Config) -> ClientConfig {
    finish(common(config, &client_id(config, "admin")), config)
}

/// The name of a view, unique in its system: operators decide under this name what it skips.
#[must_use]
pub fn view_name(config: &Config, purpose: &str) -> String {
    client_id(config, purpose)
}

fn client_id(config: &Config, purpose: &str) -> String {
    format!("{}.{purpose}", group(&config.system, &config.service))
}

fn common(config: &Config, client_id: &str) -> ClientConfig {
    let request_ms = config.timeouts.request.as_millis();
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.bootstrap)
        .set("client.id", client_id)
        // A misspelt topic must fail, not be created with one partition and a week of retention.
        .set("allow.auto.create.topics", "false")
        // Notice new partitions and new topics within a minute.
        .set("topic.metadata.refresh.interval.ms", "60000")
        // Query missing topics often at first, then ever more rarely.
        .set("topic.metadata.refresh.fast.interval.ms", "100")
        // A topic may be created after this client: do not report it missing before the cluster has propagated its metadata.
        .set("topic.metadata.propagation.max.ms", "5000")
        // Firewalls and address translation drop idle connections silently.
        .set("socket.keepalive.enable", "true")
        .set("socket.timeout.ms", request_ms.max(1_000).to_string())
        .set("socket.connection.setup.timeout.ms", request_ms.max(1_000).to_string())
        // A broker that restarts should be found again within a second.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        // librdkafka's own lines go through our logging; connection losses are logged once, by us.
        .set("log.connection.close", "false");
    client.set_log_level(RDKafkaLogLevel::Info);
    client
}

fn consumer(config: &Config, client_id: &str, group: &str) -> ClientConfig {
    let mut client = common(config, client_id);
    client
        .set("group.id", group)
        // Offsets are committed with the decisions, never on a timer.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Start positions are always explicit; one that is out of range must show, not skip history.
        .set("auto.offset.reset", "error")
        // Long polls: a fetch is answered as soon as there is one byte, else after this long.
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "250")
        // How long a full queue keeps a partition from fetching: the default of a second shows as stalls.
        .set("fetch.queue.backoff.ms", "5")
        // After an error of a partition: back soon.
        .set("fetch.error.backoff.ms", "100")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.max.bytes", "8388608");
    client
}

fn producer(config: &Config, client_id: &str) -> ClientConfig {
    let mut client = common(config, client_id);
    client
        // Order and no duplicates within a session.
        .set("enable.idempotence", "true")
        // Stated, so that a contradiction fails at start.
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", "5")
        // As the Java client does, so that every client puts a key into the same partition.
        .set("partitioner", "murmur2_random")
        // A moment to fill a batch; a flush does not wait for it.
        .set("linger.ms", "1")
        .set("batch.num.messages", "10000")
        .set("batch.size", "1000000")
        .set("compression.type", "lz4")
        // Bounded memory and early back-pressure.
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("message.max.bytes", "1000000")
        .set("request.timeout.ms", config.timeouts.request.as_millis().to_string())
        .set("statistics.interval.ms", "0");
    client
}

/// Properties with two names: the one that is set here, and its alias.
const ALIASES: &[(&str, &str)] = &[
    ("compression.type", "compression.codec"),
    ("linger.ms", "queue.buffering.max.ms"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
];

fn finish(mut client: ClientConfig, config: &Config) -> ClientConfig {
    for (name, value) in &config.kafka {
        let ours = ALIASES.iter().find(|(_, alias)| alias == name).map_or(name.as_str(), |(ours, _)| ours);
        client.set(ours, value.expose());
    }
    client
}

/// Forwards librdkafka's log lines and global errors to `tracing`.
///
/// While a broker is down every client reports it many times a second, so each kind of line is a warning only once per interval.
#[derive(Debug, Clone)]
pub struct ClientLog {
    /// The client's name in the log.
    pub client: String,
    /// The group whose lag is recorded from its statistics, if it is a member of one.
    pub group: Option<String>,
    warned: Arc<Mutex<HashMap<String, Instant>>>,
}

impl ClientLog {
    /// The context of a client that the log calls `client`.
    pub fn new(client: impl Into<String>) -> Self {
        Self { client: client.into(), group: None, warned: Arc::default() }
    }

    /// The context of a member of `group`, whose lag is recorded as a metric.
    pub fn of_member(client: impl Into<String>, group: impl Into<String>) -> Self {
        Self { group: Some(group.into()), ..Self::new(client) }
    }

    /// True if no warning of this kind was logged during the last interval.
    fn is_due_again(&self, kind: &str, now: Instant) -> bool {
        const INTERVAL: Duration = Duration::from_secs(30);
        /// librdkafka has a few dozen kinds; this bounds the map all the same.
        const MAX_KINDS: usize = 1_000;
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.get(kind).is_some_and(|last| now.duration_since(*last) < INTERVAL) {
            return false;
        }
        if warned.len() < MAX_KINDS {
            warned.insert(kind.to_owned(), now);
        }
        true
    }
}

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let client = self.client.as_str();
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", client, facility, "{text}");
            }
            // librdkafka retries by itself, so this is a warning and no error.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if self.is_due_again(facility, Instant::now()) => {
                tracing::warn!(target: "librdkafka", client, facility, "{text}");
            }
            _ => {
                tracing::debug!(target: "librdkafka", client, facility, "{text}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let client = self.client.as_str();
        match error.rdkafka_error_code() {
            // The end of a partition is no error.
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            code if self.is_due_again(&format!("{code:?}"), Instant::now()) => {
                tracing::warn!(target: "librdkafka", client, "{error}: {reason}");
            }
            _ => tracing::debug!(target: "librdkafka", client, "{error}: {reason}"),
        }
    }

    // Raw, and so in every context: the default reads all of librdkafka's statistics, and the compiler repeats that code in each crate
    // that uses the context.
    fn stats_raw(&self, statistics: &[u8]) {
        if let Some(group) = &self.group {
            crate::telemetry::record_lag(group, statistics);
        }
    }
}

impl ConsumerContext for ClientLog {}

impl ProducerContext<NoCustomPartitioner> for ClientLog {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        admin::AdminClient,
        consumer::BaseConsumer,
        producer::{BaseProducer, NoCustomPartitioner},
    };

    use super::*;

    fn names(config: &Config) -> WorkerNames {
        WorkerNames::of(config, "payment", 0, uuid::Uuid::nil())
    }

    #[test]
    fn librdkafka_accepts_the_properties_of_every_client() {
        let mut config = Config::for_tests();
        config.instance = Some("a".to_owned());
        let log = || ClientLog::new("test");
        let names = names(&config);
        let consumers = [group_member(&config, &names), log_reader(&config, "x"), watermark_client(&config)];
        for client in consumers {
            let _: BaseConsumer<ClientLog> = client.create_with_context(log()).expect("a consumer");
        }
        for client in [transactional_producer(&config, &names), idempotent_producer(&config, "x")] {
            let _: BaseProducer<ClientLog, NoCustomPartitioner> =
                client.create_with_context(log()).expect("a producer");
        }
        let _: AdminClient<ClientLog> = admin(&config).create_with_context(log()).expect("an admin client");
    }

    #[test]
    fn a_configured_property_overrides_ours_under_either_name() {
        let mut config = Config::for_tests();
        config.kafka.insert("compression.codec".to_owned(), "none".into());
        config.kafka.insert("client.rack".to_owned(), "r1".into());
        let client = idempotent_producer(&config, "x");
        assert_eq!(client.get("compression.type"), Some("none"));
        assert_eq!(client.get("client.rack"), Some("r1"));
    }

    #[test]
    fn batches_are_limited_by_their_topic_and_never_enlarged() {
        let config = Config::for_tests();
        let mut client = transactional_producer(&config, &names(&config));
        assert_eq!(largest_record(&client), 32 << 20);
        bound_batches(&mut client, 8 << 20);
        assert_eq!(client.get("batch.size"), Some("1000000"));
        bound_batches(&mut client, 100_000);
        assert_eq!(client.get("batch.size"), Some("100000"));
    }

    #[test]
    fn a_missing_broker_is_a_warning_once_per_interval() {
        let (log, start) = (ClientLog::new("test"), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(log.is_due_again("down", start));
        assert!(!log.is_due_again("down", after(1)));
        assert!(log.is_due_again("other", after(1)));
        assert!(!log.clone().is_due_again("down", after(29)));
        assert!(log.is_due_again("down", after(31)));
    }

    #[test]
    fn only_an_instance_with_a_stable_name_is_a_static_member() {
        let mut config = Config::for_tests();
        assert_eq!(names(&config).group_instance_id, None);
        config.instance = Some("blue".to_owned());
        let stable = names(&config);
        assert_eq!(stable.group_instance_id.as_deref(), Some("blue.0"));
        assert_eq!(stable.transactional_id, "musiccorp.payment.blue.0");
    }
}

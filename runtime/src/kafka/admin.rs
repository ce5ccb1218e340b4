//! Topics: how each kind must be configured, which exist, and which are missing or differ.
//!
//! A plan is computed first and can be shown. Applying it only creates topics: an existing topic that differs is reported, never
//! altered.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use super::client::{self, ClientLog};
use crate::{
    config::Config,
    core::{Limits, ServiceContract, TOPIC_BYTES, unreadable::OPERATOR},
    message::{self, Channel},
};

/// The setting that limits the size of a batch of records.
const MAX_BYTES: &str = "max.message.bytes";

/// The purpose of a topic, which decides its retention and cleanup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicKind {
    /// A service's events: its event store, kept forever.
    Events,
    /// A service's inbox: its commands; may be truncated once they are decided.
    Inbox,
    /// Records that a group could not read or handle: kept until an operator has looked at them.
    DeadLetters,
    /// Records parked behind a failed record of the same entity: the latest per position.
    Parked,
    /// The latest value of each key.
    Compacted,
}

impl TopicKind {
    /// The settings a topic of this kind is created with.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        // The timestamp is part of the record: it is the only clock a decider has.
        const CREATE_TIME: (&str, &str) = ("message.timestamp.type", "CreateTime");
        const FOREVER: [(&str, &str); 2] = [("retention.ms", "-1"), ("retention.bytes", "-1")];
        match self {
            Self::Events => &[("cleanup.policy", "delete"), FOREVER[0], FOREVER[1], CREATE_TIME],
            // A dead letter is larger than the record in it, and must fit as well.
            Self::DeadLetters => {
                &[("cleanup.policy", "delete"), FOREVER[0], FOREVER[1], CREATE_TIME, (MAX_BYTES, "8388608")]
            }
            // An input is decided within seconds, but a service may be down over a long weekend or longer.
            Self::Inbox => &[("cleanup.policy", "delete"), ("retention.ms", "2592000000"), FOREVER[1], CREATE_TIME],
            // A parked record carries its failure in addition to its own headers.
            Self::Parked => &[("cleanup.policy", "compact"), CREATE_TIME, (MAX_BYTES, "8388608")],
            Self::Compacted => &[("cleanup.policy", "compact"), CREATE_TIME],
        }
    }

    /// Whether an existing topic must have this setting. The operator decides the retention of an inbox and the largest dead letter:
    /// a record that does not fit is dead-lettered without its body.
    fn is_required(self, setting: &str) -> bool {
        match self {
            Self::Inbox => !setting.starts_with("retention."),
            Self::DeadLetters | Self::Parked => setting != MAX_BYTES,
            Self::Events | Self::Compacted => true,
        }
    }
}

/// The required configuration of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it has: the same number for every topic of a system.
    pub partitions: i32,
    /// Its purpose.
    pub kind: TopicKind,
}

impl TopicSpec {
    /// A topic.
    pub fn new(name: impl Into<String>, partitions: i32, kind: TopicKind) -> Self {
        Self { name: name.into(), partitions, kind }
    }

    /// The topics of a service with a decider: events, inbox, dead letters, parked records.
    #[must_use]
    pub fn of_service(system: &str, service: &str, partitions: i32) -> Vec<Self> {
        vec![
            Self::new(message::topic(system, service, Channel::Events), partitions, TopicKind::Events),
            Self::new(message::topic(system, service, Channel::Inbox), partitions, TopicKind::Inbox),
            Self::new(dead_letters(&client::group(system, service)), partitions, TopicKind::DeadLetters),
            Self::new(message::parked_topic(system, service), partitions, TopicKind::Parked),
        ]
    }
}

impl TopicSpec {
    /// The topic of operators' decisions.
    #[must_use]
    pub fn of_operators(system: &str, partitions: i32) -> Self {
        Self::new(message::topic(system, OPERATOR, Channel::Events), partitions, TopicKind::Events)
    }
}

/// The dead-letter topic of a group.
#[must_use]
pub fn dead_letters(group: &str) -> String {
    format!("dlq.{group}")
}

/// A request to the cluster that failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The client cannot be created: a property is invalid.
    #[error("cannot set up a kafka client; hint: look at the [kafka] table")]
    Setup {
        /// The cause.
        source: Box<KafkaError>,
    },
    /// The cluster cannot be reached.
    #[error("cannot {operation} at {bootstrap}; hint: is the broker running, and is the address right?")]
    Unreachable {
        /// The failed operation.
        operation: String,
        /// The brokers' addresses.
        bootstrap: String,
        /// The cause.
        source: Box<KafkaError>,
    },
    /// The cluster refuses the request.
    #[error("kafka refuses to {operation}: {code}")]
    Refused {
        /// The failed operation.
        operation: String,
        /// The error code.
        code: RDKafkaErrorCode,
    },
    /// Existing topics differ from their required configuration.
    #[error("{0}")]
    Differs(String),
}

impl AdminError {
    /// True if a retry may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// A client for topics. Clones share it. After a request that could not reach the cluster the inner client is replaced: it may have
/// lost its brokers for good.
#[derive(Clone)]
pub struct Admin {
    setup: Arc<ClientConfig>,
    client: Arc<Mutex<Arc<Native>>>,
    bootstrap: String,
    timeout: Duration,
    replication: i32,
}

type Native = AdminClient<ClientLog>;

fn create_client(setup: &ClientConfig) -> KafkaResult<Arc<Native>> {
    setup.create_with_context(ClientLog::new("admin")).map(Arc::new)
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admin({})", self.bootstrap)
    }
}

impl Admin {
    /// A client of the configured cluster. It connects with the first request.
    ///
    /// # Errors
    /// A property is invalid.
    pub fn new(config: &Config) -> Result<Self, AdminError> {
        let setup = client::admin(config);
        let client = create_client(&setup).map_err(|source| AdminError::Setup { source: Box::new(source) })?;
        Ok(Self {
            setup: Arc::new(setup),
            client: Arc::new(Mutex::new(client)),
            bootstrap: config.bootstrap.clone(),
            timeout: config.timeouts.request,
            replication: config.replication.unwrap_or(-1),
        })
    }

    /// The cluster's id, which the header of a store must match. Blocks for at most the request timeout.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        let client = self.client();
        let id = client.inner().fetch_cluster_id(self.timeout);
        if id.is_none() {
            self.replace(&client);
        }
        id
    }

    /// The partition count of each topic that exists. Blocks for at most the request timeout.
    ///
    /// # Errors
    /// [`AdminError::Unreachable`].
    pub fn partition_counts(&self) -> Result<HashMap<String, i32>, AdminError> {
        let client = self.client();
        let metadata = client
            .inner()
            .fetch_metadata(None, self.timeout)
            .map_err(|source| self.unreachable(&client, "list topics", source))?;
        let counts = metadata.topics().iter().filter(|topic| topic.error().is_none());
        Ok(counts
            .map(|topic| (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)))
            .collect())
    }

    async fn settings_of(&self, topics: &[&str]) -> Result<HashMap<String, HashMap<String, String>>, AdminError> {
        let operation = "describe topics";
        let resources: Vec<ResourceSpecifier<'_>> = topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let client = self.client();
        let answers = client
            .describe_configs(&resources, &self.options())
            .await
            .map_err(|source| self.unreachable(&client, operation, source))?;
        let mut settings = HashMap::new();
        for answer in answers {
            let resource = answer.map_err(|code| AdminError::Refused { operation: operation.to_owned(), code })?;
            if let OwnedResourceSpecifier::Topic(name) = resource.specifier {
                let values = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
                settings.insert(name, values.collect());
            }
        }
        Ok(settings)
    }

    /// The size limits of the topics that a service writes, and the largest batch that its input topics may hold.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub(crate) async fn limits(&self, contract: &ServiceContract) -> Result<(Limits, usize), AdminError> {
        let written = [&contract.events_topic, &contract.dead_letter_topic, &contract.parked_topic];
        let topics: Vec<&str> = contract.inputs.iter().chain(written).map(|topic| &**topic).collect();
        let settings = self.settings_of(&topics).await?;
        let most = |topic: &str| {
            let value = settings.get(topic).and_then(|settings| settings.get(MAX_BYTES));
            value.and_then(|bytes| bytes.parse().ok()).unwrap_or(TOPIC_BYTES)
        };
        let limits = Limits {
            events: most(&contract.events_topic),
            inbox: most(&contract.inputs[0]),
            dead_letters: most(&contract.dead_letter_topic),
            parked: most(&contract.parked_topic),
        };
        Ok((limits, contract.inputs.iter().map(|input| most(input)).max().unwrap_or(0)))
    }

    async fn create(&self, specs: &[&TopicSpec]) -> Result<(), AdminError> {
        let topics: Vec<NewTopic<'_>> = specs.iter().map(|spec| self.new_topic(spec)).collect();
        let client = self.client();
        let answers = client
            .create_topics(&topics, &self.options())
            .await
            .map_err(|source| self.unreachable(&client, "create topics", source))?;
        for answer in answers {
            match answer {
                // Another process was faster; its topic is verified like any existing one.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(AdminError::Refused { operation: format!("create topic {name}"), code });
                }
            }
        }
        Ok(())
    }

    fn new_topic<'a>(&self, spec: &'a TopicSpec) -> NewTopic<'a> {
        let topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(self.replication));
        spec.kind.settings().iter().fold(topic, |topic, (name, value)| topic.set(name, value))
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout))
    }

    fn client(&self) -> Arc<Native> {
        Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, old: &Arc<Native>) {
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, old) {
            return;
        }
        match create_client(&self.setup) {
            Ok(fresh) => *current = fresh,
            Err(error) => tracing::error!(%error, "a client that may have lost its brokers could not be replaced"),
        }
    }

    fn unreachable(&self, client: &Arc<Native>, operation: &str, source: KafkaError) -> AdminError {
        self.replace(client);
        AdminError::Unreachable {
            operation: operation.to_owned(),
            bootstrap: self.bootstrap.clone(),
            source: Box::new(source),
        }
    }
}

/// What is to be done about one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicStep {
    /// It is missing.
    Create,
    /// It exists as specified.
    Keep,
    /// It exists and differs.
    Differs(Vec<SettingDifference>),
}

/// One way in which an existing topic differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingDifference {
    /// The setting, or `partitions`.
    pub setting: String,
    /// The value found.
    pub found: String,
    /// The required value.
    pub wanted: String,
}

/// The steps that create and verify a set of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// Each topic with its step, in the order of the request.
    pub steps: Vec<(TopicSpec, TopicStep)>,
}

impl TopicPlan {
    /// Compares the specified topics with the existing ones. Changes nothing.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub async fn compute(admin: &Admin, specs: &[TopicSpec]) -> Result<Self, AdminError> {
        let admin_clone = admin.clone();
        let counts = tokio::task::spawn_blocking(move || admin_clone.partition_counts())
            .await
            .map_err(|e| AdminError::Differs(format!("listing the topics was interrupted: {e}")))??;
        let existing: Vec<&str> =
            specs.iter().map(|spec| spec.name.as_str()).filter(|name| counts.contains_key(*name)).collect();
        let settings = if existing.is_empty() { HashMap::new() } else { admin.settings_of(&existing).await? };
        let steps = specs.iter().map(|spec| {
            let found = counts.get(&spec.name).zip(settings.get(&spec.name));
            (spec.clone(), found.map_or(TopicStep::Create, |(count, settings)| step(spec, *count, settings)))
        });
        Ok(Self { steps: steps.collect() })
    }

    /// Creates the missing topics and changes nothing else. Returns how many were created.
    ///
    /// # Errors
    /// The cluster cannot be reached, or refuses; or an existing topic differs, and then none is created.
    pub async fn apply(&self, admin: &Admin) -> Result<usize, AdminError> {
        self.verify()?;
        let missing: Vec<&TopicSpec> =
            self.steps.iter().filter(|(_, step)| *step == TopicStep::Create).map(|(spec, _)| spec).collect();
        if !missing.is_empty() {
            admin.create(&missing).await?;
        }
        Ok(missing.len())
    }

    /// Refuses existing topics that differ. Missing topics are accepted.
    ///
    /// # Errors
    /// [`AdminError::Differs`] with every difference.
    pub fn verify(&self) -> Result<(), AdminError> {
        let lines: Vec<String> = self
            .steps
            .iter()
            .filter_map(|(spec, step)| match step {
                TopicStep::Differs(differences) => Some((spec, differences)),
                TopicStep::Create | TopicStep::Keep => None,
            })
            .flat_map(|(spec, differences)| differences.iter().map(move |d| line(spec, d)))
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        let hint = "hint: existing topics are never altered; change them yourself, or use another system name";
        Err(AdminError::Differs(format!("topics are not as they must be: {}; {hint}", lines.join("; "))))
    }

    /// True if every topic exists as specified.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.steps.iter().all(|(_, step)| *step == TopicStep::Keep)
    }
}

fn line(spec: &TopicSpec, difference: &SettingDifference) -> String {
    let SettingDifference { setting, found, wanted } = difference;
    format!("{}: {setting} is {found}, expected {wanted}", spec.name)
}

fn step(spec: &TopicSpec, partitions: i32, settings: &HashMap<String, String>) -> TopicStep {
    let mut differences = Vec::new();
    if partitions != spec.partitions {
        differences.push(SettingDifference {
            setting: "partitions".to_owned(),
            found: partitions.to_string(),
            wanted: spec.partitions.to_string(),
        });
    }
    for (name, wanted) in spec.kind.settings().iter().filter(|(name, _)| spec.kind.is_required(name)) {
        // A setting that the broker does not return cannot be verified.
        if let Some(found) = settings.get(*name).filter(|found| found.as_str() != *wanted) {
            differences.push(SettingDifference {
                setting: (*name).to_owned(),
                found: found.clone(),
                wanted: (*wanted).to_owned(),
            });
        }
    }
    if differences.is_empty() { TopicStep::Keep } else { TopicStep::Differs(differences) }
}

impl fmt::Display for TopicPlan {
    /// One line a topic, as `plan` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (spec, step) in &self.steps {
            match step {
                TopicStep::Create => writeln!(f, "create  {} ({} partitions)", spec.name, spec.partitions)?,
                TopicStep::Keep => writeln!(f, "keep    {}", spec.name)?,
                TopicStep::Differs(differences) => {
                    for difference in differences {
                        writeln!(f, "differs {}", line(spec, difference))?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn plan(kind: TopicKind, partitions: i32, settings: &[(&str, &str)]) -> TopicPlan {
        let spec = TopicSpec::new("musiccorp.payment.x", 8, kind);
        let step = step(&spec, partitions, &found(settings));
        TopicPlan { steps: vec![(spec, step)] }
    }

    #[test]
    fn an_events_topic_with_limited_retention_is_reported() {
        let plan = plan(TopicKind::Events, 8, &[("cleanup.policy", "delete"), ("retention.ms", "604800000")]);
        let error = plan.verify().expect_err("a week is not forever").to_string();
        assert!(error.contains("musiccorp.payment.x: retention.ms is 604800000, expected -1"), "{error}");
        assert_eq!(plan.to_string(), "differs musiccorp.payment.x: retention.ms is 604800000, expected -1\n");
    }

    #[test]
    fn an_inbox_may_be_truncated_but_not_compacted() {
        assert!(plan(TopicKind::Inbox, 8, &[("retention.ms", "60000"), ("cleanup.policy", "delete")]).is_done());
        assert!(!plan(TopicKind::Inbox, 8, &[("cleanup.policy", "compact")]).is_done());
    }

    #[test]
    fn dead_letters_may_be_larger_than_their_records() {
        let settings = TopicKind::DeadLetters.settings();
        assert!(settings.contains(&(MAX_BYTES, crate::core::DEAD_LETTER_BYTES.to_string().as_str())));
        assert!(plan(TopicKind::DeadLetters, 8, &[(MAX_BYTES, "1048588")]).is_done(), "an operator may set less");
    }

    #[test]
    fn another_partition_count_is_reported() {
        assert!(plan(TopicKind::Events, 4, &[]).verify().is_err());
    }

    #[test]
    fn a_service_has_four_topics() {
        let names: Vec<String> =
            TopicSpec::of_service("acme", "payment", 1).into_iter().map(|spec| spec.name).collect();
        assert_eq!(names, ["acme.payment.events", "acme.payment.inbox", "dlq.acme.payment", "acme.payment.parked"]);
    }
}

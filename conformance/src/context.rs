//! A check's context: the addresses, unique names, clients with explicit settings, and the removal of created resources.
//! Knows no check.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use crate::TestTarget;
use crate::check::{CheckFailure, FailureContext};

/// The timeout of each request. The first request to a coordinator creates an internal topic and can take seconds.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct CheckContext {
    pub(crate) target: TestTarget,
    prefix: String,
    runtime: tokio::runtime::Runtime,
    pub(crate) admin: AdminClient<DefaultClientContext>,
    pub(crate) http: reqwest::Client,
    created: Mutex<CreatedResources>,
}

#[derive(Default)]
struct CreatedResources {
    topics: Vec<String>,
    groups: Vec<String>,
    subjects: Vec<String>,
}

impl CheckContext {
    pub(crate) fn open(target: TestTarget, prefix: String) -> Result<Self, CheckFailure> {
        let admin = base_config(&target, &prefix).create().context("creating an admin client")?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting an async runtime")?;
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build().context("creating an http client")?;
        Ok(Self { target, prefix, runtime, admin, http, created: Mutex::default() })
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn admin_options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
    }

    /// A topic name that is unique to this check. The topic is removed at the end of the check if it exists.
    pub(crate) fn topic_name(&self, name: &str) -> String {
        let full = format!("{}-{name}", self.prefix);
        self.created().topics.push(full.clone());
        full
    }

    pub(crate) fn group(&self, name: &str) -> String {
        let full = format!("{}-{name}", self.prefix);
        self.created().groups.push(full.clone());
        full
    }

    /// Transactional ids cannot be removed; they expire on the broker.
    pub(crate) fn transactional_id(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// An Avro namespace that is unique to this check.
    pub(crate) fn namespace(&self) -> String {
        self.prefix.replace('-', "_")
    }

    pub(crate) fn subject(&self, name: &str) -> String {
        let full = format!("{}.{name}", self.namespace());
        self.created().subjects.push(full.clone());
        full
    }

    /// A new topic without retention, ready for writes and reads.
    pub(crate) fn topic(&self, name: &str, partitions: i32) -> Result<String, CheckFailure> {
        self.topic_with(name, partitions, &[])
    }

    pub(crate) fn topic_with(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<String, CheckFailure> {
        let full = self.topic_name(name);
        // -1 chooses the broker's default replication factor: 1 on one node, more on a cluster.
        let mut new = NewTopic::new(&full, partitions, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
        for (key, value) in configs {
            new = new.set(key, value);
        }
        self.create(&new)?;
        self.await_partitions(&full, partitions)?;
        Ok(full)
    }

    pub(crate) fn create(&self, topic: &NewTopic<'_>) -> Result<(), CheckFailure> {
        let results = self
            .wait(self.admin.create_topics([topic], &self.admin_options()))
            .context(format_args!("creating topic {}", topic.name))?;
        match results.into_iter().next().context("the response to create topics")? {
            Ok(_) => Ok(()),
            Err((name, code)) => Err(CheckFailure(format!("creating topic {name}: {code}"))),
        }
    }

    /// Waits until the broker names a leader for each partition. Then the topic is usable.
    pub(crate) fn await_partitions(&self, topic: &str, partitions: i32) -> Result<(), CheckFailure> {
        wait_until(&format!("{partitions} partitions of {topic} with a leader"), REQUEST_TIMEOUT, || {
            let metadata = self
                .admin
                .inner()
                .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
                .context(format_args!("metadata of {topic}"))?;
            let observed = metadata.topics().first().context("the topic in the metadata")?;
            let led = observed.partitions().iter().filter(|p| p.leader() >= 0 && p.error().is_none()).count();
            Ok((observed.error().is_none() && led == partitions as usize).then_some(()))
        })
    }

    /// The settings that all clients of the suite share.
    pub(crate) fn client_config(&self) -> ClientConfig {
        base_config(&self.target, &self.prefix)
    }

    /// Removes the resources that the check created. Returns those that could not be removed.
    pub(crate) fn clean_up(&self) -> Vec<String> {
        let created = std::mem::take(&mut *self.created());
        let mut left: Vec<String> = created.groups.iter().filter_map(|group| self.remove_group(group).err()).collect();
        let gone = |code: RDKafkaErrorCode| code == RDKafkaErrorCode::UnknownTopicOrPartition;
        let topics: Vec<&str> = created.topics.iter().map(String::as_str).collect();
        if !topics.is_empty() {
            match self.wait(self.admin.delete_topics(&topics, &self.admin_options())) {
                Ok(results) => left.extend(results.into_iter().filter_map(|result| match result {
                    Err((name, code)) if !gone(code) => Some(format!("topic {name}: {code}")),
                    _ => None,
                })),
                Err(error) => left.push(format!("topics {topics:?}: {error}")),
            }
        }
        left.extend(created.subjects.iter().filter_map(|subject| self.remove_subject(subject).err()));
        left
    }

    /// A static member that was not closed keeps its group non-empty until its session ends.
    fn remove_group(&self, group: &str) -> Result<(), String> {
        let removed = wait_until("the group to be empty", REQUEST_TIMEOUT + REQUEST_TIMEOUT, || {
            let results =
                self.wait(self.admin.delete_groups(&[group], &self.admin_options())).context("deleting a group")?;
            match results.into_iter().next().context("the response")? {
                Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => Ok(Some(())),
                Err((_, RDKafkaErrorCode::NonEmptyGroup)) => Ok(None),
                Err((_, code)) => Err(CheckFailure(code.to_string())),
            }
        });
        removed.map_err(|failure| format!("group {group}: {failure}"))
    }

    /// A soft deletion, then a permanent one, as Confluent's registry requires. Other registries may support only the first.
    fn remove_subject(&self, subject: &str) -> Result<(), String> {
        let address = format!("{}/subjects/{subject}", self.target.registry);
        for address in [address.clone(), format!("{address}?permanent=true")] {
            let response = self.wait(async { self.http.delete(&address).send().await });
            response.map_err(|error| format!("subject {subject}: {error}"))?;
        }
        Ok(())
    }

    // A poisoned lock means that the check panicked; its resources must be removed all the same.
    fn created(&self) -> MutexGuard<'_, CreatedResources> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn base_config(target: &TestTarget, client: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &target.bootstrap)
        .set("client.id", client)
        // A misspelt topic must be an error, whatever the broker's setting.
        .set("allow.auto.create.topics", "false")
        // Checks report errors where they matter; a closed connection needs no log line.
        .set("log.connection.close", "false")
        .set("socket.keepalive.enable", "true");
    config
}

/// Repeats a query until it returns a value. For conditions on the server, which cannot wake the client.
pub(crate) fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut query: impl FnMut() -> Result<Option<T>, CheckFailure>,
) -> Result<T, CheckFailure> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(response) = query()? {
            return Ok(response);
        }
        if Instant::now() >= deadline {
            return Err(CheckFailure(format!("not within {} s: {what}", limit.as_secs())));
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

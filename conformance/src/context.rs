//! What a check is given: the addresses, names nobody else uses, clients with every setting stated, and the removal
//! of what it made. Knows no check.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use crate::Target;
use crate::check::{Doing, Failure};

/// For every single request. The first one to a coordinator makes an internal topic and can take seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Context {
    pub(crate) target: Target,
    prefix: String,
    runtime: tokio::runtime::Runtime,
    pub(crate) admin: AdminClient<DefaultClientContext>,
    pub(crate) http: reqwest::Client,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    topics: Vec<String>,
    groups: Vec<String>,
    subjects: Vec<String>,
}

impl Context {
    pub(crate) fn open(target: Target, prefix: String) -> Result<Self, Failure> {
        let admin = base_config(&target, &prefix).create().doing("creating an admin client")?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().doing("starting an async runtime")?;
        let http = reqwest::Client::builder().timeout(PATIENCE).build().doing("creating an http client")?;
        Ok(Self { target, prefix, runtime, admin, http, made: Mutex::default() })
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn admin_options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
    }

    /// A topic name of this check's own, removed at its end if it then exists.
    pub(crate) fn topic_name(&self, name: &str) -> String {
        let full = format!("{}-{name}", self.prefix);
        self.made().topics.push(full.clone());
        full
    }

    pub(crate) fn group(&self, name: &str) -> String {
        let full = format!("{}-{name}", self.prefix);
        self.made().groups.push(full.clone());
        full
    }

    /// Transactional ids cannot be removed; they expire on the broker.
    pub(crate) fn transactional_id(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A namespace for Avro records of this check's own.
    pub(crate) fn namespace(&self) -> String {
        self.prefix.replace('-', "_")
    }

    pub(crate) fn subject(&self, name: &str) -> String {
        let full = format!("{}.{name}", self.namespace());
        self.made().subjects.push(full.clone());
        full
    }

    /// A new topic that keeps everything, ready to be written and read.
    pub(crate) fn topic(&self, name: &str, partitions: i32) -> Result<String, Failure> {
        self.topic_with(name, partitions, &[])
    }

    pub(crate) fn topic_with(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<String, Failure> {
        let full = self.topic_name(name);
        // The broker's own replication factor: 1 on one node, whatever is right on a cluster.
        let mut new = NewTopic::new(&full, partitions, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
        for (key, value) in configs {
            new = new.set(key, value);
        }
        self.create(&new)?;
        self.await_partitions(&full, partitions)?;
        Ok(full)
    }

    pub(crate) fn create(&self, topic: &NewTopic<'_>) -> Result<(), Failure> {
        let results = self
            .wait(self.admin.create_topics([topic], &self.admin_options()))
            .doing(format_args!("creating topic {}", topic.name))?;
        match results.into_iter().next().doing("the answer to create topics")? {
            Ok(_) => Ok(()),
            Err((name, code)) => Err(Failure(format!("creating topic {name}: {code}"))),
        }
    }

    /// A topic is usable once the broker names a leader for each partition.
    pub(crate) fn await_partitions(&self, topic: &str, partitions: i32) -> Result<(), Failure> {
        until(&format!("{partitions} partitions of {topic} with a leader"), PATIENCE, || {
            let metadata =
                self.admin.inner().fetch_metadata(Some(topic), PATIENCE).doing(format_args!("metadata of {topic}"))?;
            let seen = metadata.topics().first().doing("the topic in the metadata")?;
            let led = seen.partitions().iter().filter(|p| p.leader() >= 0 && p.error().is_none()).count();
            Ok((seen.error().is_none() && led == partitions as usize).then_some(()))
        })
    }

    /// Settings every client of the suite has, each stated.
    pub(crate) fn client_config(&self) -> ClientConfig {
        base_config(&self.target, &self.prefix)
    }

    /// Removes what the check made; gives back what could not be removed.
    pub(crate) fn clean_up(&self) -> Vec<String> {
        let made = std::mem::take(&mut *self.made());
        let mut left: Vec<String> = made.groups.iter().filter_map(|group| self.remove_group(group).err()).collect();
        let gone = |code: RDKafkaErrorCode| code == RDKafkaErrorCode::UnknownTopicOrPartition;
        let topics: Vec<&str> = made.topics.iter().map(String::as_str).collect();
        if !topics.is_empty() {
            match self.wait(self.admin.delete_topics(&topics, &self.admin_options())) {
                Ok(results) => left.extend(results.into_iter().filter_map(|result| match result {
                    Err((name, code)) if !gone(code) => Some(format!("topic {name}: {code}")),
                    _ => None,
                })),
                Err(error) => left.push(format!("topics {topics:?}: {error}")),
            }
        }
        left.extend(made.subjects.iter().filter_map(|subject| self.remove_subject(subject).err()));
        left
    }

    /// A static member that went without a word holds its group until its session ends.
    fn remove_group(&self, group: &str) -> Result<(), String> {
        let removed = until("the group to be empty", PATIENCE + PATIENCE, || {
            let results =
                self.wait(self.admin.delete_groups(&[group], &self.admin_options())).doing("deleting a group")?;
            match results.into_iter().next().doing("the answer")? {
                Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => Ok(Some(())),
                Err((_, RDKafkaErrorCode::NonEmptyGroup)) => Ok(None),
                Err((_, code)) => Err(Failure(code.to_string())),
            }
        });
        removed.map_err(|failure| format!("group {group}: {failure}"))
    }

    /// Softly, then for good, as Confluent's registry asks for. Other registries may know only the first.
    fn remove_subject(&self, subject: &str) -> Result<(), String> {
        let address = format!("{}/subjects/{subject}", self.target.registry);
        for address in [address.clone(), format!("{address}?permanent=true")] {
            let answer = self.wait(async { self.http.delete(&address).send().await });
            answer.map_err(|error| format!("subject {subject}: {error}"))?;
        }
        Ok(())
    }

    // A poisoned lock only means that the check panicked, and then its things must go all the more.
    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn base_config(target: &Target, client: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &target.bootstrap)
        .set("client.id", client)
        // A misspelt topic must show, whatever the broker would do.
        .set("allow.auto.create.topics", "false")
        // Errors are seen where they matter; a broker that goes away is not worth a line each.
        .set("log.connection.close", "false")
        .set("socket.keepalive.enable", "true");
    config
}

/// Asks until there is an answer. For conditions on the far side, which nothing here can be woken by.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(Failure(format!("not within {} s: {what}", limit.as_secs())));
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

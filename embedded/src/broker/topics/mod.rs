//! Topics: their partitions and settings, and how they are created, changed and deleted.
//!
//! Owns the map of topics and its journal. Readers take a snapshot of the map and hold no lock; changes happen one at a time.
//! Knows no group and no transaction.

pub(crate) mod admin;
pub(crate) mod configs;
pub(crate) mod configs_admin;
mod ledger;
pub(crate) mod metadata;

use super::config::Fsync;
use super::journal::LedgerJournal;
use super::log::{LogOpenError, Partition};
use super::sync::lock;
use configs::Configs;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use ledger::{TopicEntry, TopicLedger, TopicRecord};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use uuid::Uuid;

const NAME_LEN_MAX: usize = 249;
/// Suffix of a directory that is being deleted.
const DELETED: &str = ".deleted";
/// Suffix of a directory whose topic is unknown.
const STRAY: &str = ".stray";

#[derive(Debug)]
pub(crate) struct Topic {
    pub name: StrBytes,
    pub id: Uuid,
    pub partitions: Vec<Arc<Partition>>,
    pub configs: Configs,
}

impl Topic {
    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// All topics at one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct TopicMap {
    by_name: BTreeMap<String, Arc<Topic>>,
    names_by_id: HashMap<Uuid, String>,
}

impl TopicMap {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.names_by_id.get(&id).and_then(|name| self.by_name.get(name))
    }

    pub(crate) fn partition(&self, name: &str, index: i32) -> Option<&Arc<Partition>> {
        self.get(name)?.partition(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    fn insert(&mut self, topic: Topic) {
        let name = topic.name.to_string();
        self.names_by_id.insert(topic.id, name.clone());
        self.by_name.insert(name, Arc::new(topic));
    }

    fn remove(&mut self, name: &str) -> Option<Arc<Topic>> {
        let topic = self.by_name.remove(name)?;
        self.names_by_id.remove(&topic.id);
        Some(topic)
    }
}

/// The reason why the topics cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopicsError {
    #[error("cannot read the list of topics {path}")]
    Journal {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Partition(#[from] LogOpenError),
}

/// An error code with the message for the client.
#[derive(Debug)]
pub(crate) struct TopicChangeError {
    pub error: ResponseError,
    pub text: String,
}

impl TopicChangeError {
    pub(crate) fn new(error: ResponseError, text: impl Into<String>) -> Self {
        TopicChangeError { error, text: text.into() }
    }

    fn storage(subject: &str, error: &dyn std::error::Error) -> Self {
        tracing::error!(subject, %error, "cannot change topics on disk");
        TopicChangeError::new(ResponseError::KafkaStorageError, format!("cannot write {subject}: {error}"))
    }
}

#[derive(Debug)]
pub(crate) struct TopicCatalog {
    dir: PathBuf,
    map: RwLock<Arc<TopicMap>>,
    /// Held for the whole of every change.
    journal: Mutex<LedgerJournal<TopicLedger>>,
}

impl TopicCatalog {
    pub(crate) fn open(data_dir: &Path, fsync: Fsync) -> Result<Self, TopicsError> {
        let path = data_dir.join("topics.journal");
        let dir = data_dir.join("logs");
        let journal = LedgerJournal::<TopicLedger>::open(&path, fsync)
            .and_then(|journal| {
                std::fs::create_dir_all(&dir)?;
                handle_unowned_directories(&dir, journal.state())?;
                Ok(journal)
            })
            .map_err(|source| TopicsError::Journal { path, source })?;
        let mut map = TopicMap::default();
        for (name, record) in &journal.state().topics {
            map.insert(open_topic(&dir, name, record)?);
        }
        Ok(TopicCatalog { dir, map: RwLock::new(Arc::new(map)), journal: Mutex::new(journal) })
    }

    /// The directory of the partitions.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The current topics.
    pub(crate) fn snapshot(&self) -> Arc<TopicMap> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, map: TopicMap) {
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
    }

    pub(crate) fn create(&self, name: &str, partitions: i32, configs: Configs) -> Result<Arc<Topic>, TopicChangeError> {
        check_name(name)?;
        let mut journal = lock(&self.journal);
        let mut map = (*self.snapshot()).clone();
        if map.get(name).is_some() {
            return Err(TopicChangeError::new(
                ResponseError::TopicAlreadyExists,
                format!("topic {name} exists already"),
            ));
        }
        if let Some(other) = map.by_name.keys().find(|other| other.replace('.', "_") == name.replace('.', "_")) {
            let text = format!("topic {name} collides with {other}: dots and underscores are one in metric names");
            return Err(TopicChangeError::new(ResponseError::InvalidTopicException, text));
        }
        let record = TopicRecord { id: Uuid::now_v7(), partitions, configs, log_starts: BTreeMap::new() };
        let topic = open_topic(&self.dir, name, &record).map_err(|error| TopicChangeError::storage(name, &error))?;
        journal
            .append(TopicEntry::Topic { name: name.to_owned(), topic: record })
            .map_err(|error| TopicChangeError::storage(name, &error))?;
        map.insert(topic);
        let topic = map.get(name).cloned();
        self.publish(map);
        topic.ok_or_else(|| TopicChangeError::new(ResponseError::UnknownServerError, "the new topic is missing"))
    }

    pub(crate) fn delete(&self, name: &str) -> Result<Arc<Topic>, ResponseError> {
        let mut journal = lock(&self.journal);
        let mut map = (*self.snapshot()).clone();
        let topic = map.remove(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        journal
            .append(TopicEntry::Deleted { name: name.to_owned() })
            .map_err(|error| TopicChangeError::storage(name, &error).error)?;
        self.publish(map);
        for partition in &topic.partitions {
            // Files that cannot be removed now are removed at the next start, because the journal no longer lists the topic.
            if let Err(error) = partition.delete(DELETED) {
                tracing::warn!(partition = partition.name(), %error, "cannot remove the files of a deleted topic");
            }
        }
        Ok(topic)
    }

    pub(crate) fn grow(&self, name: &str, partitions: i32) -> Result<(), TopicChangeError> {
        self.change(name, |record| {
            if partitions <= record.partitions {
                let text = format!("topic {name} has {} partitions, which cannot become fewer", record.partitions);
                return Err(TopicChangeError::new(ResponseError::InvalidPartitions, text));
            }
            record.partitions = partitions;
            Ok(())
        })
    }

    pub(crate) fn set_configs(&self, name: &str, configs: Configs) -> Result<(), TopicChangeError> {
        self.change(name, |record| {
            record.configs = configs;
            Ok(())
        })
    }

    fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut TopicRecord) -> Result<(), TopicChangeError>,
    ) -> Result<(), TopicChangeError> {
        let mut journal = lock(&self.journal);
        let unknown =
            || TopicChangeError::new(ResponseError::UnknownTopicOrPartition, format!("topic {name} does not exist"));
        let mut record = journal.state().topics.get(name).cloned().ok_or_else(unknown)?;
        change(&mut record)?;
        let mut map = (*self.snapshot()).clone();
        let old = map.get(name).cloned().ok_or_else(unknown)?;
        let mut partitions = old.partitions.clone();
        for index in partitions.len()..usize::try_from(record.partitions).unwrap_or(0) {
            let fresh =
                open_partition(&self.dir, name, index, &record).map_err(|e| TopicChangeError::storage(name, &e))?;
            partitions.push(Arc::new(fresh));
        }
        for partition in &partitions {
            partition.set_settings(configs::log_settings(&record.configs));
        }
        let configs = record.configs.clone();
        journal
            .append(TopicEntry::Topic { name: name.to_owned(), topic: record })
            .map_err(|error| TopicChangeError::storage(name, &error))?;
        map.insert(Topic { name: old.name.clone(), id: old.id, partitions, configs });
        self.publish(map);
        Ok(())
    }

    /// Raises the start of a partition's log permanently.
    pub(crate) fn delete_records(&self, name: &str, index: i32, offset: i64) -> Result<i64, ResponseError> {
        let map = self.snapshot();
        let partition = map.partition(name, index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let start = partition.delete_before(offset)?;
        lock(&self.journal)
            .append(TopicEntry::LogStart { name: name.to_owned(), partition: index, offset: start })
            .map_err(|error| TopicChangeError::storage(name, &error).error)?;
        Ok(start)
    }

    /// Applies retention to every partition.
    pub(crate) fn retain(&self, now_ms: i64) {
        for topic in self.snapshot().iter() {
            for partition in &topic.partitions {
                if let Some(start) = partition.retain(now_ms) {
                    tracing::info!(partition = partition.name(), log_start = start, "removed expired segments");
                }
            }
        }
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        for topic in self.snapshot().iter() {
            for partition in &topic.partitions {
                partition.sync()?;
            }
        }
        lock(&self.journal).sync()
    }

    /// Writes the snapshots that make the next open fast.
    pub(crate) fn checkpoint(&self) -> io::Result<()> {
        for topic in self.snapshot().iter() {
            for partition in &topic.partitions {
                partition.checkpoint()?;
            }
        }
        lock(&self.journal).flush()
    }
}

/// Apache Kafka keeps its offsets and transactions in topics of these names. Tools take a topic of that name for those.
const INTERNAL_NAMES: [&str; 2] = ["__consumer_offsets", "__transaction_state"];

fn check_name(name: &str) -> Result<(), TopicChangeError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = !name.is_empty() && name.len() <= NAME_LEN_MAX && name != "." && name != "..";
    if INTERNAL_NAMES.contains(&name) {
        let text = format!("{name} is the name of a topic that only a broker may write");
        return Err(TopicChangeError::new(ResponseError::InvalidTopicException, text));
    }
    if fits && name.chars().all(legal) {
        return Ok(());
    }
    let text = format!("a topic name has 1 to {NAME_LEN_MAX} of the characters a-z A-Z 0-9 . _ -");
    Err(TopicChangeError::new(ResponseError::InvalidTopicException, text))
}

fn open_topic(dir: &Path, name: &str, record: &TopicRecord) -> Result<Topic, LogOpenError> {
    let count = usize::try_from(record.partitions).unwrap_or(0);
    let partitions =
        (0..count).map(|index| open_partition(dir, name, index, record).map(Arc::new)).collect::<Result<_, _>>()?;
    let name = StrBytes::from_string(name.to_owned());
    Ok(Topic { name, id: record.id, partitions, configs: record.configs.clone() })
}

fn open_partition(dir: &Path, name: &str, index: usize, record: &TopicRecord) -> Result<Partition, LogOpenError> {
    let start = i32::try_from(index).ok().and_then(|index| record.log_starts.get(&index)).copied().unwrap_or(0);
    Partition::open(&dir.join(format!("{name}-{index}")), configs::log_settings(&record.configs), start)
}

/// Handles directories that belong to no topic. An interrupted deletion is completed. A directory with records is only renamed,
/// because a damaged list of topics must not lose data.
fn handle_unowned_directories(dir: &Path, ledger: &TopicLedger) -> io::Result<()> {
    let owned: HashSet<String> = ledger
        .topics
        .iter()
        .flat_map(|(name, topic)| (0..topic.partitions).map(move |index| format!("{name}-{index}")))
        .collect();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if owned.contains(&name) || name.ends_with(STRAY) {
            continue;
        }
        if name.ends_with(DELETED) || is_without_records(&path)? {
            std::fs::remove_dir_all(path)?;
        } else {
            tracing::error!(dir = %path.display(), "renamed the directory of a topic that is not in the list of topics");
            std::fs::rename(&path, path.with_file_name(format!("{name}{STRAY}")))?;
        }
    }
    Ok(())
}

fn is_without_records(dir: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        if entry?.metadata()?.len() > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

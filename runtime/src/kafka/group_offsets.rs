//! The committed offsets of a consumer group, read without joining it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{ClientLog, client};
use crate::config::Config;

/// The offsets of a group could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the {what} of group {group} cannot be read")]
pub struct GroupOffsetsError {
    what: &'static str,
    group: String,
    source: KafkaError,
}

/// A partition with the offset that a group has committed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset of the next record; `None` if the group has committed none.
    pub next: Option<i64>,
}

/// Reads the offsets of one group. Its calls block.
pub struct GroupOffsets {
    group: String,
    consumer: BaseConsumer<ClientLog>,
    patience: Duration,
}

impl GroupOffsets {
    /// A reader of the group's offsets.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn new(config: &Config, group: &str) -> Result<Self, GroupOffsetsError> {
        let mut reader = client::log_reader(config, "group-offsets");
        reader.set("group.id", group);
        let patience = config.timeouts.transaction + config.timeouts.request;
        let consumer = reader.create_with_context(ClientLog::new("group-offsets"));
        let consumer =
            consumer.map_err(|source| GroupOffsetsError { what: "client", group: group.to_owned(), source })?;
        Ok(Self { group: group.to_owned(), consumer, patience })
    }

    fn failed(&self, what: &'static str) -> impl Fn(KafkaError) -> GroupOffsetsError {
        let group = self.group.clone();
        move |source| GroupOffsetsError { what, group: group.clone(), source }
    }

    /// True if the group exists: it has members or offsets.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub fn exists(&self) -> Result<bool, GroupOffsetsError> {
        let groups = self.consumer.fetch_group_list(Some(&self.group), self.patience).map_err(self.failed("state"))?;
        Ok(groups.groups().iter().any(|known| known.name() == self.group && known.state() != "Dead"))
    }

    /// The committed offset of a partition.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub fn committed(&self, topic: &str, partition: i32) -> Result<Option<i64>, GroupOffsetsError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        Ok(self.fetch(list)?.pop().and_then(|committed| committed.next))
    }

    /// The committed offset of every partition of the topics whose names begin with `prefix`, without those that are consumed to
    /// their end.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub fn lagging(&self, prefix: &str) -> Result<Vec<CommittedOffset>, GroupOffsetsError> {
        let metadata = self.consumer.fetch_metadata(None, self.patience).map_err(self.failed("topics"))?;
        let mut list = TopicPartitionList::new();
        for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with(prefix)) {
            for partition in topic.partitions() {
                list.add_partition(topic.name(), partition.id());
            }
        }
        let mut lagging = Vec::new();
        for committed in self.fetch(list)? {
            let (topic, partition) = (&committed.topic, committed.partition);
            let bounds = self.consumer.fetch_watermarks(topic, partition, self.patience);
            let (_, end) = bounds.map_err(self.failed("ends of the inputs"))?;
            if committed.next.unwrap_or(0) < end {
                lagging.push(committed);
            }
        }
        Ok(lagging)
    }

    fn fetch(&self, list: TopicPartitionList) -> Result<Vec<CommittedOffset>, GroupOffsetsError> {
        let found = self.consumer.committed_offsets(list, self.patience).map_err(self.failed("offsets"))?;
        let mut names: BTreeMap<String, Arc<str>> = BTreeMap::new();
        let mut committed = Vec::new();
        for element in found.elements() {
            let next = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            let topic = names.entry(element.topic().to_owned()).or_insert_with(|| element.topic().into());
            committed.push(CommittedOffset { topic: Arc::clone(topic), partition: element.partition(), next });
        }
        Ok(committed)
    }
}

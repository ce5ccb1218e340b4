//! The stored topics: a pure fold of journal entries.

use super::configs::Configs;
use crate::broker::journal::JournaledLedger;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

#[derive(Debug, Default)]
pub(crate) struct TopicLedger {
    pub topics: BTreeMap<String, TopicRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TopicRecord {
    pub id: Uuid,
    pub partitions: i32,
    pub configs: Configs,
    /// Log starts of partitions whose oldest records were deleted.
    #[serde(default)]
    pub log_starts: BTreeMap<i32, i64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum TopicEntry {
    Topic { name: String, topic: TopicRecord },
    Deleted { name: String },
    LogStart { name: String, partition: i32, offset: i64 },
}

impl JournaledLedger for TopicLedger {
    type Entry = TopicEntry;

    fn apply(&mut self, entry: TopicEntry) {
        match entry {
            TopicEntry::Topic { name, topic } => {
                self.topics.insert(name, topic);
            }
            TopicEntry::Deleted { name } => {
                self.topics.remove(&name);
            }
            TopicEntry::LogStart { name, partition, offset } => {
                if let Some(topic) = self.topics.get_mut(&name) {
                    topic.log_starts.insert(partition, offset);
                }
            }
        }
    }

    fn snapshot(&self) -> Vec<TopicEntry> {
        self.topics.iter().map(|(name, topic)| TopicEntry::Topic { name: name.clone(), topic: topic.clone() }).collect()
    }
}

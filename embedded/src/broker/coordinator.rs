//! The coordinator's state: committed offsets, group generations, producer ids and transactions, in one journal.
//!
//! Owns the ledger (a pure fold of entries) and its file. Offsets and transactions share one journal, so the order in that file
//! decides which offsets belong to which commit. Knows no record log: `transactions` writes the markers.

use super::BrokerStartError;
use super::config::Fsync;
use super::journal::{JournaledLedger, LedgerJournal};
use super::sync::lock;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Mutex;

/// Topic and partition number.
pub(crate) type TopicPartition = (String, i32);

/// Kafka's default: an idle transactional id expires after this time.
const TXN_IDLE_MS: i64 = 7 * 24 * 60 * 60 * 1000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommittedOffset {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

/// Offsets in the form that journal entries hold.
pub(crate) type OffsetEntries = Vec<(TopicPartition, CommittedOffset)>;

#[derive(Debug, Default)]
pub(crate) struct GroupRecord {
    pub generation: i32,
    pub protocol_type: String,
    pub offsets: BTreeMap<TopicPartition, CommittedOffset>,
}

/// The state of a transactional id.
///
/// ```text
///            partitions, offsets            end, timeout, fence             markers written
///   Empty ───────────────────────► Ongoing ─────────────────────► Prepared ────────────────► Completed
///     ▲                               ▲                                                          │ │
///     └──────── init ─────────────────┼────────────────────── init ──────────────────────────────┘ │
///                                     └────────────────── partitions, offsets ─────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TxnState {
    Empty,
    Ongoing,
    Prepared { commit: bool },
    Completed { commit: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TxnRecord {
    pub producer_id: i64,
    pub epoch: i16,
    /// The epoch before the last change; -1 if there is none. A producer may use it to request the current epoch again.
    pub last_epoch: i16,
    pub timeout_ms: i64,
    pub state: TxnState,
    pub started_ms: i64,
    pub updated_ms: i64,
    pub partitions: BTreeSet<TopicPartition>,
    /// Offsets that become committed with the transaction, by group.
    pub offsets: BTreeMap<String, BTreeMap<TopicPartition, CommittedOffset>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CoordinatorEntry {
    ProducerIds {
        next: i64,
    },
    Generation {
        group: String,
        generation: i32,
        protocol_type: String,
    },
    Offsets {
        group: String,
        offsets: OffsetEntries,
    },
    OffsetsDeleted {
        group: String,
        #[serde(rename = "places")]
        topic_partitions: Vec<TopicPartition>,
    },
    GroupDeleted {
        group: String,
    },
    Producer {
        id: String,
        producer_id: i64,
        epoch: i16,
        last_epoch: i16,
        timeout_ms: i64,
        at: i64,
    },
    Partitions {
        id: String,
        #[serde(rename = "places")]
        topic_partitions: Vec<TopicPartition>,
        at: i64,
    },
    Group {
        id: String,
        group: String,
        at: i64,
    },
    TxnOffsets {
        id: String,
        group: String,
        offsets: OffsetEntries,
    },
    Prepared {
        id: String,
        commit: bool,
        epoch: i16,
        at: i64,
    },
    Completed {
        id: String,
        at: i64,
    },
    Forgotten {
        id: String,
    },
}

#[derive(Debug, Default)]
pub(crate) struct CoordinatorLedger {
    pub next_producer_id: i64,
    pub groups: HashMap<String, GroupRecord>,
    pub txns: HashMap<String, TxnRecord>,
    /// Transactions that are ongoing or prepared.
    pub open: BTreeSet<String>,
}

impl CoordinatorLedger {
    /// Whether an open transaction may still change this offset.
    pub(crate) fn is_pending(&self, group: &str, topic_partition: &TopicPartition) -> bool {
        self.open
            .iter()
            .filter_map(|id| self.txns.get(id)?.offsets.get(group))
            .any(|offsets| offsets.contains_key(topic_partition))
    }

    /// Whether an open transaction carries offsets of this group.
    pub(crate) fn has_pending(&self, group: &str) -> bool {
        self.open.iter().filter_map(|id| self.txns.get(id)?.offsets.get(group)).any(|offsets| !offsets.is_empty())
    }

    fn commit(&mut self, group: String, offsets: impl IntoIterator<Item = (TopicPartition, CommittedOffset)>) {
        self.groups.entry(group).or_default().offsets.extend(offsets);
    }

    /// The transaction, started if it is not ongoing.
    fn ongoing(&mut self, id: &str, at: i64) -> Option<&mut TxnRecord> {
        let txn = self.txns.get_mut(id)?;
        if txn.state != TxnState::Ongoing {
            txn.state = TxnState::Ongoing;
            txn.started_ms = at;
            txn.partitions.clear();
            txn.offsets.clear();
            self.open.insert(id.to_owned());
        }
        txn.updated_ms = at;
        Some(txn)
    }

    fn complete(&mut self, id: &str, at: i64) {
        self.open.remove(id);
        let Some(txn) = self.txns.get_mut(id) else { return };
        let TxnState::Prepared { commit } = txn.state else { return };
        txn.state = TxnState::Completed { commit };
        txn.updated_ms = at;
        txn.partitions.clear();
        let offsets = std::mem::take(&mut txn.offsets);
        if commit {
            for (group, offsets) in offsets {
                self.commit(group, offsets);
            }
        }
    }

    fn apply_to_txn(&mut self, entry: CoordinatorEntry) {
        match entry {
            CoordinatorEntry::Producer { id, producer_id, epoch, last_epoch, timeout_ms, at } => {
                self.open.remove(&id);
                let txn = TxnRecord {
                    producer_id,
                    epoch,
                    last_epoch,
                    timeout_ms,
                    state: TxnState::Empty,
                    started_ms: at,
                    updated_ms: at,
                    partitions: BTreeSet::new(),
                    offsets: BTreeMap::new(),
                };
                self.txns.insert(id, txn);
            }
            CoordinatorEntry::Partitions { id, topic_partitions, at } => {
                if let Some(txn) = self.ongoing(&id, at) {
                    txn.partitions.extend(topic_partitions);
                }
            }
            CoordinatorEntry::Group { id, group, at } => {
                if let Some(txn) = self.ongoing(&id, at) {
                    txn.offsets.entry(group).or_default();
                }
            }
            CoordinatorEntry::TxnOffsets { id, group, offsets } => {
                if let Some(txn) = self.txns.get_mut(&id) {
                    txn.offsets.entry(group).or_default().extend(offsets);
                }
            }
            CoordinatorEntry::Prepared { id, commit, epoch, at } => {
                if let Some(txn) = self.txns.get_mut(&id) {
                    txn.last_epoch = if epoch == txn.epoch { txn.last_epoch } else { txn.epoch };
                    txn.state = TxnState::Prepared { commit };
                    txn.epoch = epoch;
                    txn.updated_ms = at;
                }
            }
            CoordinatorEntry::Completed { id, at } => self.complete(&id, at),
            CoordinatorEntry::Forgotten { id } => {
                self.open.remove(&id);
                self.txns.remove(&id);
            }
            _ => {}
        }
    }
}

impl JournaledLedger for CoordinatorLedger {
    type Entry = CoordinatorEntry;

    fn apply(&mut self, entry: CoordinatorEntry) {
        match entry {
            CoordinatorEntry::ProducerIds { next } => self.next_producer_id = next,
            CoordinatorEntry::Generation { group, generation, protocol_type } => {
                let record = self.groups.entry(group).or_default();
                record.generation = generation;
                record.protocol_type = protocol_type;
            }
            CoordinatorEntry::Offsets { group, offsets } => self.commit(group, offsets),
            CoordinatorEntry::OffsetsDeleted { group, topic_partitions } => {
                if let Some(record) = self.groups.get_mut(&group) {
                    record.offsets.retain(|topic_partition, _| !topic_partitions.contains(topic_partition));
                }
            }
            CoordinatorEntry::GroupDeleted { group } => {
                self.groups.remove(&group);
            }
            entry => self.apply_to_txn(entry),
        }
    }

    fn snapshot(&self) -> Vec<CoordinatorEntry> {
        let mut entries = vec![CoordinatorEntry::ProducerIds { next: self.next_producer_id }];
        for (group, record) in &self.groups {
            entries.push(CoordinatorEntry::Generation {
                group: group.clone(),
                generation: record.generation,
                protocol_type: record.protocol_type.clone(),
            });
            let offsets = listed(&record.offsets);
            entries.push(CoordinatorEntry::Offsets { group: group.clone(), offsets });
        }
        for (id, txn) in &self.txns {
            snapshot_txn(&mut entries, id, txn);
        }
        entries
    }
}

fn listed(offsets: &BTreeMap<TopicPartition, CommittedOffset>) -> OffsetEntries {
    offsets.iter().map(|(topic_partition, committed)| (topic_partition.clone(), committed.clone())).collect()
}

fn snapshot_txn(entries: &mut Vec<CoordinatorEntry>, id: &str, txn: &TxnRecord) {
    let id = id.to_owned();
    entries.push(CoordinatorEntry::Producer {
        id: id.clone(),
        producer_id: txn.producer_id,
        epoch: txn.epoch,
        last_epoch: txn.last_epoch,
        timeout_ms: txn.timeout_ms,
        at: txn.updated_ms,
    });
    if txn.state == TxnState::Empty {
        return;
    }
    let topic_partitions = txn.partitions.iter().cloned().collect();
    entries.push(CoordinatorEntry::Partitions { id: id.clone(), topic_partitions, at: txn.started_ms });
    for (group, offsets) in &txn.offsets {
        entries.push(CoordinatorEntry::TxnOffsets { id: id.clone(), group: group.clone(), offsets: listed(offsets) });
    }
    match txn.state {
        TxnState::Empty | TxnState::Ongoing => {}
        TxnState::Prepared { commit } => {
            entries.push(CoordinatorEntry::Prepared { id, commit, epoch: txn.epoch, at: txn.updated_ms });
        }
        TxnState::Completed { commit } => {
            entries.push(CoordinatorEntry::Prepared { id: id.clone(), commit, epoch: txn.epoch, at: txn.updated_ms });
            entries.push(CoordinatorEntry::Completed { id, at: txn.updated_ms });
        }
    }
}

/// The ledger behind its lock. Lock order: group, coordinator, partition.
#[derive(Debug)]
pub(crate) struct Coordinator {
    state: Mutex<CoordinatorState>,
}

#[derive(Debug)]
pub(crate) struct CoordinatorState {
    pub journal: LedgerJournal<CoordinatorLedger>,
    /// Prepared transactions whose markers another request is writing. A second writer could end the next transaction.
    pub completing: BTreeSet<String>,
    /// The next producer id to assign; the journal stores only the end of its block.
    pub next_producer_id: i64,
}

impl CoordinatorState {
    pub(crate) fn ledger(&self) -> &CoordinatorLedger {
        self.journal.state()
    }

    pub(crate) fn append(&mut self, entry: CoordinatorEntry) -> Result<(), kafka_protocol::ResponseError> {
        self.journal.append(entry).map_err(|error| {
            tracing::error!(%error, "cannot write offsets and transactions");
            kafka_protocol::ResponseError::KafkaStorageError
        })
    }
}

impl Coordinator {
    pub(crate) fn open(data_dir: &Path, fsync: Fsync) -> Result<Self, BrokerStartError> {
        let path = data_dir.join("coordinator.journal");
        let journal =
            LedgerJournal::open(&path, fsync).map_err(|source| BrokerStartError::Coordinator { path, source })?;
        let next_producer_id = LedgerJournal::<CoordinatorLedger>::state(&journal).next_producer_id;
        Ok(Coordinator {
            state: Mutex::new(CoordinatorState { journal, completing: BTreeSet::new(), next_producer_id }),
        })
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, CoordinatorState> {
        lock(&self.state)
    }

    /// The last generation of every group; the next generation must be higher.
    pub(crate) fn generations(&self) -> HashMap<String, i32> {
        self.lock().ledger().groups.iter().map(|(group, record)| (group.clone(), record.generation)).collect()
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        self.lock().journal.flush()
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.lock().journal.sync()
    }

    /// Removes transactional ids that have been idle for too long.
    pub(crate) fn forget_idle(&self, now_ms: i64) {
        let mut state = self.lock();
        let idle: Vec<String> = state
            .ledger()
            .txns
            .iter()
            .filter(|(id, txn)| now_ms - txn.updated_ms > TXN_IDLE_MS && !state.ledger().open.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in idle {
            state.journal.append_lazily(CoordinatorEntry::Forgotten { id });
        }
    }

    /// Removes the offsets of a deleted topic.
    pub(crate) fn forget_topic(&self, topic: &str) {
        let mut state = self.lock();
        let deleted: Vec<(String, Vec<TopicPartition>)> = state
            .ledger()
            .groups
            .iter()
            .map(|(group, record)| {
                let topic_partitions =
                    record.offsets.keys().filter(|(name, _)| name == topic).cloned().collect::<Vec<_>>();
                (group.clone(), topic_partitions)
            })
            .filter(|(_, topic_partitions)| !topic_partitions.is_empty())
            .collect();
        for (group, topic_partitions) in deleted {
            state.journal.append_lazily(CoordinatorEntry::OffsetsDeleted { group, topic_partitions });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic_partition(partition: i32) -> TopicPartition {
        ("orders".to_owned(), partition)
    }

    fn at(offset: i64) -> CommittedOffset {
        CommittedOffset { offset, leader_epoch: -1, metadata: String::new() }
    }

    fn begun() -> CoordinatorLedger {
        let mut ledger = CoordinatorLedger::default();
        let id = || "tx".to_owned();
        ledger.apply(CoordinatorEntry::Producer {
            id: id(),
            producer_id: 5,
            epoch: 0,
            last_epoch: -1,
            timeout_ms: 1_000,
            at: 10,
        });
        ledger.apply(CoordinatorEntry::Partitions {
            id: id(),
            topic_partitions: vec![topic_partition(0), topic_partition(1)],
            at: 20,
        });
        ledger.apply(CoordinatorEntry::Group { id: id(), group: "g".to_owned(), at: 21 });
        ledger.apply(CoordinatorEntry::TxnOffsets {
            id: id(),
            group: "g".to_owned(),
            offsets: vec![(topic_partition(0), at(7))],
        });
        ledger
    }

    #[test]
    fn offsets_of_a_transaction_are_pending_until_it_completes() {
        let mut ledger = begun();
        assert!(ledger.is_pending("g", &topic_partition(0)));
        assert!(!ledger.is_pending("g", &topic_partition(1)));
        ledger.apply(CoordinatorEntry::Prepared { id: "tx".to_owned(), commit: true, epoch: 0, at: 30 });
        assert!(ledger.is_pending("g", &topic_partition(0)));
        ledger.apply(CoordinatorEntry::Completed { id: "tx".to_owned(), at: 31 });
        assert!(!ledger.is_pending("g", &topic_partition(0)));
        assert_eq!(ledger.groups["g"].offsets[&topic_partition(0)], at(7));
    }

    #[test]
    fn stored_entries_keep_their_format() {
        let stored = r#"{"Partitions":{"id":"tx","places":[["orders",1]],"at":20}}"#;
        let entry =
            CoordinatorEntry::Partitions { id: "tx".to_owned(), topic_partitions: vec![topic_partition(1)], at: 20 };
        assert_eq!(serde_json::from_str::<CoordinatorEntry>(stored).unwrap(), entry);
        assert_eq!(serde_json::to_string(&entry).unwrap(), stored);
    }

    #[test]
    fn an_abort_leaves_the_offsets_unchanged() {
        let mut ledger = begun();
        ledger.apply(CoordinatorEntry::Prepared { id: "tx".to_owned(), commit: false, epoch: 1, at: 30 });
        ledger.apply(CoordinatorEntry::Completed { id: "tx".to_owned(), at: 31 });
        assert!(!ledger.groups.contains_key("g"));
        assert_eq!((ledger.txns["tx"].epoch, ledger.txns["tx"].last_epoch), (1, 0));
    }

    #[test]
    fn a_snapshot_restores_every_transaction_state() {
        let mut ledger = begun();
        let steps = [
            CoordinatorEntry::Prepared { id: "tx".to_owned(), commit: true, epoch: 0, at: 30 },
            CoordinatorEntry::Completed { id: "tx".to_owned(), at: 31 },
            CoordinatorEntry::Generation { group: "g".to_owned(), generation: 4, protocol_type: "consumer".to_owned() },
        ];
        for step in steps {
            let mut again = CoordinatorLedger::default();
            for entry in ledger.snapshot() {
                again.apply(entry);
            }
            assert_eq!(again.txns["tx"].state, ledger.txns["tx"].state);
            assert_eq!(again.txns["tx"].partitions, ledger.txns["tx"].partitions);
            assert_eq!(again.txns["tx"].offsets, ledger.txns["tx"].offsets);
            assert_eq!(again.open, ledger.open);
            ledger.apply(step);
        }
    }
}

//! What the coordinator keeps: committed offsets, group generations, producer ids and transactions, in one journal.
//!
//! Owns the ledger (a pure fold of entries) and its file. One journal for offsets and transactions makes "these offsets
//! belong to that commit" a matter of order in one file. Knows no record log: markers are written by `transactions`.

use super::StartError;
use super::config::Fsync;
use super::journal::{Journal, Ledger};
use super::sync::lock;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Mutex;

/// Topic and partition number.
pub(crate) type Place = (String, i32);

/// Kafka's default: a transactional id unused for so long is forgotten.
const TXN_IDLE_MS: i64 = 7 * 24 * 60 * 60 * 1000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

/// Offsets as they lie in an entry.
pub(crate) type Offsets = Vec<(Place, Committed)>;

#[derive(Debug, Default)]
pub(crate) struct GroupRecord {
    pub generation: i32,
    pub protocol_type: String,
    pub offsets: BTreeMap<Place, Committed>,
}

/// Where a transactional id stands.
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
    /// The epoch before the last change, by which a producer may still ask for the present one; -1 if there is none.
    pub last_epoch: i16,
    pub timeout_ms: i64,
    pub state: TxnState,
    pub started_ms: i64,
    pub updated_ms: i64,
    pub partitions: BTreeSet<Place>,
    /// Offsets that become committed with the transaction, by group.
    pub offsets: BTreeMap<String, BTreeMap<Place, Committed>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    ProducerIds { next: i64 },
    Generation { group: String, generation: i32, protocol_type: String },
    Offsets { group: String, offsets: Offsets },
    OffsetsDeleted { group: String, places: Vec<Place> },
    GroupDeleted { group: String },
    Producer { id: String, producer_id: i64, epoch: i16, last_epoch: i16, timeout_ms: i64, at: i64 },
    Partitions { id: String, places: Vec<Place>, at: i64 },
    Group { id: String, group: String, at: i64 },
    TxnOffsets { id: String, group: String, offsets: Offsets },
    Prepared { id: String, commit: bool, epoch: i16, at: i64 },
    Completed { id: String, at: i64 },
    Forgotten { id: String },
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
    /// Whether an open transaction will or may change this offset.
    pub(crate) fn is_pending(&self, group: &str, place: &Place) -> bool {
        self.open
            .iter()
            .filter_map(|id| self.txns.get(id)?.offsets.get(group))
            .any(|offsets| offsets.contains_key(place))
    }

    /// Whether an open transaction carries offsets of this group.
    pub(crate) fn has_pending(&self, group: &str) -> bool {
        self.open.iter().filter_map(|id| self.txns.get(id)?.offsets.get(group)).any(|offsets| !offsets.is_empty())
    }

    fn commit(&mut self, group: String, offsets: impl IntoIterator<Item = (Place, Committed)>) {
        self.groups.entry(group).or_default().offsets.extend(offsets);
    }

    /// The transaction, made ongoing if it is not.
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

    fn apply_to_txn(&mut self, entry: Entry) {
        match entry {
            Entry::Producer { id, producer_id, epoch, last_epoch, timeout_ms, at } => {
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
            Entry::Partitions { id, places, at } => {
                if let Some(txn) = self.ongoing(&id, at) {
                    txn.partitions.extend(places);
                }
            }
            Entry::Group { id, group, at } => {
                if let Some(txn) = self.ongoing(&id, at) {
                    txn.offsets.entry(group).or_default();
                }
            }
            Entry::TxnOffsets { id, group, offsets } => {
                if let Some(txn) = self.txns.get_mut(&id) {
                    txn.offsets.entry(group).or_default().extend(offsets);
                }
            }
            Entry::Prepared { id, commit, epoch, at } => {
                if let Some(txn) = self.txns.get_mut(&id) {
                    txn.last_epoch = if epoch == txn.epoch { txn.last_epoch } else { txn.epoch };
                    txn.state = TxnState::Prepared { commit };
                    txn.epoch = epoch;
                    txn.updated_ms = at;
                }
            }
            Entry::Completed { id, at } => self.complete(&id, at),
            Entry::Forgotten { id } => {
                self.open.remove(&id);
                self.txns.remove(&id);
            }
            _ => {}
        }
    }
}

impl Ledger for CoordinatorLedger {
    type Entry = Entry;

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::ProducerIds { next } => self.next_producer_id = next,
            Entry::Generation { group, generation, protocol_type } => {
                let record = self.groups.entry(group).or_default();
                record.generation = generation;
                record.protocol_type = protocol_type;
            }
            Entry::Offsets { group, offsets } => self.commit(group, offsets),
            Entry::OffsetsDeleted { group, places } => {
                if let Some(record) = self.groups.get_mut(&group) {
                    record.offsets.retain(|place, _| !places.contains(place));
                }
            }
            Entry::GroupDeleted { group } => {
                self.groups.remove(&group);
            }
            entry => self.apply_to_txn(entry),
        }
    }

    fn snapshot(&self) -> Vec<Entry> {
        let mut entries = vec![Entry::ProducerIds { next: self.next_producer_id }];
        for (group, record) in &self.groups {
            entries.push(Entry::Generation {
                group: group.clone(),
                generation: record.generation,
                protocol_type: record.protocol_type.clone(),
            });
            let offsets = listed(&record.offsets);
            entries.push(Entry::Offsets { group: group.clone(), offsets });
        }
        for (id, txn) in &self.txns {
            snapshot_txn(&mut entries, id, txn);
        }
        entries
    }
}

fn listed(offsets: &BTreeMap<Place, Committed>) -> Offsets {
    offsets.iter().map(|(place, committed)| (place.clone(), committed.clone())).collect()
}

fn snapshot_txn(entries: &mut Vec<Entry>, id: &str, txn: &TxnRecord) {
    let id = id.to_owned();
    entries.push(Entry::Producer {
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
    let places = txn.partitions.iter().cloned().collect();
    entries.push(Entry::Partitions { id: id.clone(), places, at: txn.started_ms });
    for (group, offsets) in &txn.offsets {
        entries.push(Entry::TxnOffsets { id: id.clone(), group: group.clone(), offsets: listed(offsets) });
    }
    match txn.state {
        TxnState::Empty | TxnState::Ongoing => {}
        TxnState::Prepared { commit } => {
            entries.push(Entry::Prepared { id, commit, epoch: txn.epoch, at: txn.updated_ms });
        }
        TxnState::Completed { commit } => {
            entries.push(Entry::Prepared { id: id.clone(), commit, epoch: txn.epoch, at: txn.updated_ms });
            entries.push(Entry::Completed { id, at: txn.updated_ms });
        }
    }
}

/// The ledger behind its lock. Lock order: group, coordinator, partition.
#[derive(Debug)]
pub(crate) struct Coordinator {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub journal: Journal<CoordinatorLedger>,
    /// Prepared transactions whose markers are being written by someone: a second writer could end the next transaction.
    pub completing: BTreeSet<String>,
    /// The next id to give; the journal knows only the end of the block it is from.
    pub next_producer_id: i64,
}

impl Inner {
    pub(crate) fn state(&self) -> &CoordinatorLedger {
        self.journal.state()
    }

    pub(crate) fn append(&mut self, entry: Entry) -> Result<(), kafka_protocol::ResponseError> {
        self.journal.append(entry).map_err(|error| {
            tracing::error!(%error, "cannot write offsets and transactions");
            kafka_protocol::ResponseError::KafkaStorageError
        })
    }
}

impl Coordinator {
    pub(crate) fn open(data_dir: &Path, fsync: Fsync) -> Result<Self, StartError> {
        let path = data_dir.join("coordinator.journal");
        let journal = Journal::open(&path, fsync).map_err(|source| StartError::Coordinator { path, source })?;
        let next_producer_id = Journal::<CoordinatorLedger>::state(&journal).next_producer_id;
        Ok(Coordinator { inner: Mutex::new(Inner { journal, completing: BTreeSet::new(), next_producer_id }) })
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// The last generation of every group: the next one must be higher.
    pub(crate) fn generations(&self) -> HashMap<String, i32> {
        self.lock().state().groups.iter().map(|(group, record)| (group.clone(), record.generation)).collect()
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        self.lock().journal.flush()
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.lock().journal.sync()
    }

    /// Forgets transactional ids that nobody used for long.
    pub(crate) fn forget_idle(&self, now_ms: i64) {
        let mut inner = self.lock();
        let idle: Vec<String> = inner
            .state()
            .txns
            .iter()
            .filter(|(id, txn)| now_ms - txn.updated_ms > TXN_IDLE_MS && !inner.state().open.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in idle {
            inner.journal.append_lazily(Entry::Forgotten { id });
        }
    }

    /// Forgets the offsets of a deleted topic.
    pub(crate) fn forget_topic(&self, topic: &str) {
        let mut inner = self.lock();
        let gone: Vec<(String, Vec<Place>)> = inner
            .state()
            .groups
            .iter()
            .map(|(group, record)| {
                let places = record.offsets.keys().filter(|(name, _)| name == topic).cloned().collect::<Vec<_>>();
                (group.clone(), places)
            })
            .filter(|(_, places)| !places.is_empty())
            .collect();
        for (group, places) in gone {
            inner.journal.append_lazily(Entry::OffsetsDeleted { group, places });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: i32) -> Place {
        ("orders".to_owned(), partition)
    }

    fn at(offset: i64) -> Committed {
        Committed { offset, leader_epoch: -1, metadata: String::new() }
    }

    fn begun() -> CoordinatorLedger {
        let mut ledger = CoordinatorLedger::default();
        let id = || "tx".to_owned();
        ledger.apply(Entry::Producer { id: id(), producer_id: 5, epoch: 0, last_epoch: -1, timeout_ms: 1_000, at: 10 });
        ledger.apply(Entry::Partitions { id: id(), places: vec![place(0), place(1)], at: 20 });
        ledger.apply(Entry::Group { id: id(), group: "g".to_owned(), at: 21 });
        ledger.apply(Entry::TxnOffsets { id: id(), group: "g".to_owned(), offsets: vec![(place(0), at(7))] });
        ledger
    }

    #[test]
    fn offsets_of_a_transaction_are_pending_until_it_completes() {
        let mut ledger = begun();
        assert!(ledger.is_pending("g", &place(0)));
        assert!(!ledger.is_pending("g", &place(1)));
        ledger.apply(Entry::Prepared { id: "tx".to_owned(), commit: true, epoch: 0, at: 30 });
        assert!(ledger.is_pending("g", &place(0)));
        ledger.apply(Entry::Completed { id: "tx".to_owned(), at: 31 });
        assert!(!ledger.is_pending("g", &place(0)));
        assert_eq!(ledger.groups["g"].offsets[&place(0)], at(7));
    }

    #[test]
    fn an_abort_leaves_the_offsets_as_they_were() {
        let mut ledger = begun();
        ledger.apply(Entry::Prepared { id: "tx".to_owned(), commit: false, epoch: 1, at: 30 });
        ledger.apply(Entry::Completed { id: "tx".to_owned(), at: 31 });
        assert!(!ledger.groups.contains_key("g"));
        assert_eq!((ledger.txns["tx"].epoch, ledger.txns["tx"].last_epoch), (1, 0));
    }

    #[test]
    fn a_snapshot_folds_to_the_same_state_in_every_state() {
        let mut ledger = begun();
        let steps = [
            Entry::Prepared { id: "tx".to_owned(), commit: true, epoch: 0, at: 30 },
            Entry::Completed { id: "tx".to_owned(), at: 31 },
            Entry::Generation { group: "g".to_owned(), generation: 4, protocol_type: "consumer".to_owned() },
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

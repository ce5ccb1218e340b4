//! Checkpoints on disk, in sled, written in the background.
//!
//! Workers merge their deltas into a queue. One thread takes everything queued for a partition and writes it as one atomic batch,
//! so a slow disk coalesces writes instead of blocking workers. After a disk error, or when the queue exceeds its bound, nothing is
//! written in part: saving of that partition is suspended until the next start.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Checkpoint, CheckpointDelta, Checkpoints, StoreError, StoreHeader};
use crate::clock;

/// The most bytes that the queue holds. Beyond it the disk is too slow, and the checkpoint is not worth the memory.
const MAX_QUEUED_BYTES: usize = 256 << 20;
/// How long a load waits for the queued writes of an earlier owner in this process.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);
/// How many discarded stores are kept for inspection.
const MAX_DISCARDED: usize = 2;

const HEADER_KEY: &[u8] = b"header";
const POSITION_KEY: &[u8] = b"p";
const NOTE_KEY: &[u8] = b"n";
const ENTITY_PREFIX: u8 = b'e';

/// Checkpoints in a directory.
pub struct DiskStore {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    /// Held for as long as the store is open.
    _lock: File,
}

struct Shared {
    db: sled::Db,
    path: PathBuf,
    queue: Mutex<WriteQueue>,
    /// Signalled when a delta is queued, and when one was written.
    changed: Condvar,
}

#[derive(Default)]
struct WriteQueue {
    queued: HashMap<i32, QueuedDelta>,
    queued_bytes: usize,
    /// The highest position queued of each partition.
    positions: HashMap<i32, i64>,
    /// The partition that is being written.
    writing: Option<i32>,
    /// Partitions that are not saved until the next start.
    suspended: Vec<i32>,
    closing: bool,
}

#[derive(Default)]
struct QueuedDelta {
    position: i64,
    note: Vec<u8>,
    entities: HashMap<String, Option<Vec<u8>>>,
    bytes: usize,
}

impl DiskStore {
    /// Opens or creates the store in `path`. A damaged store, or one with another header, is renamed and replaced by an empty one.
    ///
    /// # Errors
    /// Another process has the store open, or its directory cannot be created.
    pub fn open(path: &Path, header: &StoreHeader) -> Result<Self, StoreError> {
        let failed = |operation| move |source| StoreError::Directory { operation, path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed("create the directory of"))?;
        }
        let lock = File::create(path.with_extension("lock")).map_err(failed("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let db = match open_checked(path, header) {
            Ok(db) => db,
            Err(reason) => {
                discard_store(path, &reason).map_err(failed("discard the old"))?;
                open_checked(path, header).map_err(|reason| failed("create")(std::io::Error::other(reason)))?
            }
        };
        let shared = Arc::new(Shared { db, path: path.to_owned(), queue: Mutex::default(), changed: Condvar::new() });
        let writer = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.write_until_closed())
            .map_err(failed("start the writer of"))?;
        Ok(Self { shared, writer: Some(writer), _lock: lock })
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.shared.queue().closing = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(store = %self.shared.path.display(), "the store's writer panicked");
        }
    }
}

fn open_checked(path: &Path, header: &StoreHeader) -> Result<sled::Db, String> {
    let was_there = path.exists();
    // sled 0.34 reports some damage by panicking.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        sled::Config::new().path(path).cache_capacity(64 << 20).flush_every_ms(Some(500)).open()
    }));
    let db = opened.map_err(|_| "opening it panicked".to_owned())?.map_err(|e| format!("it does not open: {e}"))?;
    let stored = db.get(HEADER_KEY).map_err(|e| format!("its header cannot be read: {e}"))?;
    let Some(stored) = stored else {
        if was_there {
            return Err("it has no header".to_owned());
        }
        let text = serde_json::to_vec(header).map_err(|e| format!("the header cannot be written: {e}"))?;
        db.insert(HEADER_KEY, text).map_err(|e| format!("the header cannot be written: {e}"))?;
        return Ok(db);
    };
    match serde_json::from_slice::<StoreHeader>(&stored) {
        Ok(stored) if stored == *header => Ok(db),
        Ok(stored) => Err(format!("it belongs to {stored:?}")),
        Err(e) => Err(format!("its header is not understood: {e}")),
    }
}

/// Renames a store so that a new one can take its place, and removes all but the latest discarded ones.
fn discard_store(path: &Path, reason: &str) -> std::io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let marker = format!("{name}.discarded-");
    let discarded = path.with_file_name(format!("{marker}{}", clock::now_ms()));
    std::fs::rename(path, &discarded)?;
    tracing::warn!(store = %path.display(), renamed_to = %discarded.display(), reason, "store discarded: rebuilding from the log");
    let Some(parent) = path.parent() else { return Ok(()) };
    let mut old: Vec<PathBuf> = std::fs::read_dir(parent)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&marker)))
        .collect();
    old.sort();
    let surplus = old.len().saturating_sub(MAX_DISCARDED);
    old.into_iter().take(surplus).try_for_each(std::fs::remove_dir_all)
}

impl Checkpoints for DiskStore {
    fn load(&self, partition: i32) -> Option<Checkpoint> {
        if !self.shared.wait_for(LOAD_PATIENCE, |queue| !queue.is_busy_with(partition)) {
            tracing::warn!(partition, "the store is too slow to load from: rebuilding from the log");
            self.shared.suspend(partition, "it could not be loaded in time");
            return None;
        }
        let loaded = catch_unwind(AssertUnwindSafe(|| self.shared.read(partition)))
            .unwrap_or_else(|_| Err("reading it panicked".to_owned()));
        match loaded {
            Ok(found) => {
                if let Some(checkpoint) = &found {
                    self.shared.queue().positions.insert(partition, checkpoint.position);
                }
                found
            }
            Err(reason) => {
                tracing::warn!(partition, reason, "checkpoint cannot be read: rebuilding from the log");
                self.discard(partition);
                None
            }
        }
    }

    fn save(&self, partition: i32, delta: CheckpointDelta) {
        let mut queue = self.shared.queue();
        let newest = queue.positions.get(&partition).copied().unwrap_or(0);
        if delta.position < newest || queue.suspended.contains(&partition) {
            return;
        }
        queue.push(partition, delta);
        let is_over = queue.queued_bytes > MAX_QUEUED_BYTES;
        drop(queue);
        if is_over {
            self.shared.suspend(partition, "the disk is too slow");
        }
        self.shared.changed.notify_all();
    }

    fn discard(&self, partition: i32) {
        {
            let mut queue = self.shared.queue();
            queue.drop_queued(partition);
            queue.positions.remove(&partition);
        }
        if !self.shared.wait_for(LOAD_PATIENCE, |queue| queue.writing != Some(partition)) {
            self.shared.suspend(partition, "it could not be cleared in time");
            return;
        }
        if let Err(e) = self.shared.db.drop_tree(tree_name(partition)) {
            self.shared.suspend(partition, &format!("it cannot be cleared: {e}"));
        }
    }

    fn flush(&self, patience: Duration) -> bool {
        let written = self.shared.wait_for(patience, |queue| queue.queued.is_empty() && queue.writing.is_none());
        written && self.shared.db.flush().is_ok()
    }
}

impl WriteQueue {
    fn is_busy_with(&self, partition: i32) -> bool {
        self.writing == Some(partition) || self.queued.contains_key(&partition)
    }

    fn push(&mut self, partition: i32, delta: CheckpointDelta) {
        self.positions.insert(partition, delta.position);
        let queued = self.queued.entry(partition).or_default();
        let before = queued.bytes;
        queued.position = delta.position;
        queued.note = delta.note;
        for (key, state) in delta.entities {
            queued.bytes += key.len() + state.as_ref().map_or(0, Vec::len);
            if let Some(old) = queued.entities.get(&key) {
                queued.bytes -= (key.len() + old.as_ref().map_or(0, Vec::len)).min(queued.bytes);
            }
            queued.entities.insert(key, state);
        }
        self.queued_bytes = (self.queued_bytes + queued.bytes).saturating_sub(before);
    }

    fn drop_queued(&mut self, partition: i32) {
        if let Some(dropped) = self.queued.remove(&partition) {
            self.queued_bytes = self.queued_bytes.saturating_sub(dropped.bytes);
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, patience: Duration, mut done: impl FnMut(&WriteQueue) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut queue = self.queue();
        while !done(&queue) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn write_until_closed(&self) {
        while let Some((partition, queued)) = self.next() {
            let written = catch_unwind(AssertUnwindSafe(|| self.write(partition, &queued)))
                .unwrap_or_else(|_| Err("writing panicked".to_owned()));
            if let Err(reason) = written {
                self.suspend(partition, &reason);
            }
            self.queue().writing = None;
            self.changed.notify_all();
        }
        if let Err(e) = self.db.flush() {
            tracing::warn!(store = %self.path.display(), "store not flushed when closed: {e}");
        }
    }

    /// The next partition to write; `None` when the store closes and nothing waits.
    fn next(&self) -> Option<(i32, QueuedDelta)> {
        /// Every change is signalled; this bounds the wait in case a signal is missed.
        const RECHECK: Duration = Duration::from_secs(1);
        let mut queue = self.queue();
        loop {
            if let Some(partition) = queue.queued.keys().next().copied()
                && let Some(queued) = queue.queued.remove(&partition)
            {
                queue.queued_bytes = queue.queued_bytes.saturating_sub(queued.bytes);
                queue.writing = Some(partition);
                return Some((partition, queued));
            }
            if queue.closing {
                return None;
            }
            queue = self.changed.wait_timeout(queue, RECHECK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write(&self, partition: i32, queued: &QueuedDelta) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        batch.insert(POSITION_KEY, &queued.position.to_be_bytes());
        batch.insert(NOTE_KEY, queued.note.as_slice());
        for (key, state) in &queued.entities {
            match state {
                Some(state) => batch.insert(entity_key(key), state.as_slice()),
                None => batch.remove(entity_key(key)),
            }
        }
        let tree = self.db.open_tree(tree_name(partition)).map_err(|e| format!("it cannot be opened: {e}"))?;
        tree.apply_batch(batch).map_err(|e| format!("it cannot be written: {e}"))
    }

    fn read(&self, partition: i32) -> Result<Option<Checkpoint>, String> {
        let tree = self.db.open_tree(tree_name(partition)).map_err(|e| format!("it cannot be opened: {e}"))?;
        let mut checkpoint = Checkpoint::default();
        let mut position = None;
        for entry in &tree {
            let (key, value) = entry.map_err(|e| format!("it cannot be read: {e}"))?;
            match key.split_first() {
                Some((&ENTITY_PREFIX, key)) => {
                    let key = String::from_utf8(key.to_vec()).map_err(|_| "a key is not text".to_owned())?;
                    checkpoint.entities.push((key, value.to_vec()));
                }
                _ if key.as_ref() == POSITION_KEY => {
                    let bytes = value.as_ref().try_into().map_err(|_| "its position is damaged".to_owned())?;
                    position = Some(i64::from_be_bytes(bytes));
                }
                _ if key.as_ref() == NOTE_KEY => checkpoint.note = value.to_vec(),
                _ => return Err("it has an unknown key".to_owned()),
            }
        }
        match position {
            Some(position) if position >= 0 => Ok(Some(Checkpoint { position, ..checkpoint })),
            Some(position) => Err(format!("its position is {position}")),
            None if checkpoint.entities.is_empty() => Ok(None),
            None => Err("it has no position".to_owned()),
        }
    }

    /// Stops saving a partition until the next start. Its checkpoint on disk stays consistent, but is not updated.
    fn suspend(&self, partition: i32, reason: &str) {
        tracing::warn!(store = %self.path.display(), partition, reason, "checkpoint no longer saved until the next start");
        let mut queue = self.queue();
        queue.drop_queued(partition);
        if !queue.suspended.contains(&partition) {
            queue.suspended.push(partition);
        }
        drop(queue);
        self.changed.notify_all();
    }
}

fn tree_name(partition: i32) -> String {
    format!("partition-{partition}")
}

fn entity_key(key: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 1);
    bytes.push(ENTITY_PREFIX);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::{super::MemoryStore, *};

    fn header(build: &str) -> StoreHeader {
        StoreHeader::new("cluster", "musiccorp.payment", "musiccorp.payment.events", build)
    }

    fn delta(position: i64, entities: &[(&str, Option<&str>)]) -> CheckpointDelta {
        let entities = entities.iter().map(|(key, state)| ((*key).to_owned(), state.map(|s| s.as_bytes().to_vec())));
        CheckpointDelta { position, note: vec![7], entities: entities.collect() }
    }

    type Entities = Vec<(String, Vec<u8>)>;

    fn sorted(checkpoint: Option<Checkpoint>) -> Option<(i64, Entities)> {
        checkpoint.map(|mut c| {
            c.entities.sort();
            (c.position, c.entities)
        })
    }

    fn same_of_both(check: impl Fn(&dyn Checkpoints)) {
        check(&MemoryStore::default());
        let dir = tempfile::tempdir().expect("a directory");
        check(&DiskStore::open(&dir.path().join("s"), &header("1")).expect("a store"));
    }

    #[test]
    fn a_checkpoint_holds_every_saved_delta() {
        same_of_both(|store| {
            assert_eq!(store.load(0), None);
            store.save(0, delta(5, &[("a", Some("1")), ("b", Some("1"))]));
            store.save(0, delta(9, &[("a", Some("2")), ("b", None)]));
            store.save(1, delta(3, &[("c", Some("1"))]));
            assert_eq!(sorted(store.load(0)), Some((9, vec![("a".to_owned(), b"2".to_vec())])));
            assert_eq!(store.load(1).map(|c| (c.position, c.note)), Some((3, vec![7])));
        });
    }

    #[test]
    fn a_late_delta_of_an_earlier_owner_is_ignored() {
        same_of_both(|store| {
            store.save(0, delta(9, &[("a", Some("new"))]));
            store.save(0, delta(5, &[("a", Some("old"))]));
            assert_eq!(sorted(store.load(0)), Some((9, vec![("a".to_owned(), b"new".to_vec())])));
        });
    }

    #[test]
    fn a_discarded_checkpoint_can_restart_at_an_earlier_position() {
        same_of_both(|store| {
            store.save(0, delta(9, &[("a", Some("1"))]));
            store.discard(0);
            assert_eq!(store.load(0), None);
            store.save(0, delta(2, &[("b", Some("1"))]));
            assert_eq!(sorted(store.load(0)), Some((2, vec![("b".to_owned(), b"1".to_vec())])));
        });
    }

    #[test]
    fn a_store_survives_a_restart_and_refuses_a_second_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let store = DiskStore::open(&path, &header("1")).expect("a store");
        store.save(0, delta(5, &[("a", Some("1"))]));
        assert!(store.flush(Duration::from_secs(10)));
        assert!(matches!(DiskStore::open(&path, &header("1")), Err(StoreError::InUse { .. })));
        drop(store);
        let again = DiskStore::open(&path, &header("1")).expect("the same store");
        assert_eq!(again.load(0).map(|c| c.position), Some(5));
    }

    #[test]
    fn a_foreign_or_damaged_store_is_discarded() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let store = DiskStore::open(&path, &header("1")).expect("a store");
        store.save(0, delta(5, &[("a", Some("1"))]));
        drop(store);
        for foreign in [
            StoreHeader { cluster_id: "another".to_owned(), ..header("1") },
            StoreHeader { group: "musiccorp.warehouse".to_owned(), ..header("1") },
            StoreHeader { topic: "acme.payment.events".to_owned(), ..header("1") },
        ] {
            assert_eq!(DiskStore::open(&path, &foreign).expect("a fresh store").load(0), None, "{foreign:?}");
        }
        let rebuilt = DiskStore::open(&path, &header("2")).expect("a fresh store");
        assert_eq!(rebuilt.load(0), None, "another build's states are not used");
        rebuilt.save(0, delta(5, &[("a", Some("1"))]));
        drop(rebuilt);
        std::fs::write(path.join("db"), b"damaged").expect("damage");
        std::fs::write(path.join("conf"), b"damaged").expect("damage");
        let rebuilt = DiskStore::open(&path, &header("2")).expect("a fresh store");
        assert_eq!(rebuilt.load(0), None);
        let discarded = std::fs::read_dir(dir.path()).expect("the directory").filter_map(Result::ok);
        assert_eq!(discarded.filter(|e| e.file_name().to_string_lossy().contains(".discarded-")).count(), 2);
    }
}

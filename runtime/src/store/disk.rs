//! Checkpoints on disk, in sled, written behind the worker's back.
//!
//! Workers merge their changes into a waiting room; one thread takes all that waits for a partition and writes it as one atomic
//! batch, so that a slow disk coalesces instead of holding anybody up. What cannot be written any more (a disk error, a waiting
//! room over its bound) is not written in part: the partition's checkpoint is given up until the next start.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Change, Checkpoint, Checkpoints, Header, StoreError};
use crate::clock;

/// The most bytes that may wait for the disk. Beyond it the disk has lost the race, and the checkpoint is not worth the memory.
const MAX_WAITING_BYTES: usize = 256 << 20;
/// How long a load waits for what an earlier owner in this process left to be written.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);
/// How many stores put aside are kept for somebody to look at.
const MAX_PUT_ASIDE: usize = 2;

const HEADER_KEY: &[u8] = b"header";
const POSITION_KEY: &[u8] = b"p";
const NOTE_KEY: &[u8] = b"n";
const ENTITY_PREFIX: u8 = b'e';

/// Checkpoints in a directory.
pub struct Disk {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    /// Held for as long as the store is open.
    _lock: File,
}

struct Shared {
    db: sled::Db,
    path: PathBuf,
    room: Mutex<Room>,
    /// Told when something waits, and when something was written.
    changed: Condvar,
}

#[derive(Default)]
struct Room {
    waiting: HashMap<i32, Waiting>,
    waiting_bytes: usize,
    /// The highest position taken over of each partition.
    positions: HashMap<i32, i64>,
    /// The partition that is being written.
    writing: Option<i32>,
    /// Partitions that are not saved any more in this life.
    given_up: Vec<i32>,
    closing: bool,
}

#[derive(Default)]
struct Waiting {
    position: i64,
    note: Vec<u8>,
    entities: HashMap<String, Option<Vec<u8>>>,
    bytes: usize,
}

impl Disk {
    /// Opens or makes the store in `path`. One that is broken or foreign is renamed away first.
    ///
    /// # Errors
    /// Another process has it, or the directory cannot be made.
    pub fn open(path: &Path, header: &Header) -> Result<Self, StoreError> {
        let failed = |operation| move |source| StoreError::Directory { operation, path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed("make the directory of"))?;
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
                put_aside(path, &reason).map_err(failed("put aside the old"))?;
                open_checked(path, header).map_err(|reason| failed("make")(std::io::Error::other(reason)))?
            }
        };
        let shared = Arc::new(Shared { db, path: path.to_owned(), room: Mutex::default(), changed: Condvar::new() });
        let writer = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.write_until_closed())
            .map_err(failed("start the writer of"))?;
        Ok(Self { shared, writer: Some(writer), _lock: lock })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.room().closing = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(store = %self.shared.path.display(), "the store's writer panicked");
        }
    }
}

fn open_checked(path: &Path, header: &Header) -> Result<sled::Db, String> {
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
    match serde_json::from_slice::<Header>(&stored) {
        Ok(stored) if stored == *header => Ok(db),
        Ok(stored) => Err(format!("it is of {stored:?}")),
        Err(e) => Err(format!("its header is not understood: {e}")),
    }
}

/// Renames a store away, and removes all but the last few that were.
fn put_aside(path: &Path, reason: &str) -> std::io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let marker = format!("{name}.aside-");
    let aside = path.with_file_name(format!("{marker}{}", clock::now_ms()));
    std::fs::rename(path, &aside)?;
    tracing::warn!(store = %path.display(), aside = %aside.display(), reason, "store put aside: rebuilding from the log");
    let Some(parent) = path.parent() else { return Ok(()) };
    let mut old: Vec<PathBuf> = std::fs::read_dir(parent)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&marker)))
        .collect();
    old.sort();
    let surplus = old.len().saturating_sub(MAX_PUT_ASIDE);
    old.into_iter().take(surplus).try_for_each(std::fs::remove_dir_all)
}

impl Checkpoints for Disk {
    fn load(&self, partition: i32) -> Option<Checkpoint> {
        if !self.shared.wait_for(LOAD_PATIENCE, |room| !room.is_busy_with(partition)) {
            tracing::warn!(partition, "the store is too slow to load from: rebuilding from the log");
            self.shared.give_up(partition, "it could not be loaded in time");
            return None;
        }
        let loaded = catch_unwind(AssertUnwindSafe(|| self.shared.read(partition)))
            .unwrap_or_else(|_| Err("reading it panicked".to_owned()));
        match loaded {
            Ok(found) => {
                if let Some(checkpoint) = &found {
                    self.shared.room().positions.insert(partition, checkpoint.position);
                }
                found
            }
            Err(reason) => {
                tracing::warn!(partition, reason, "checkpoint cannot be read: rebuilding from the log");
                self.forget(partition);
                None
            }
        }
    }

    fn save(&self, partition: i32, change: Change) {
        let mut room = self.shared.room();
        let newest = room.positions.get(&partition).copied().unwrap_or(0);
        if change.position < newest || room.given_up.contains(&partition) {
            return;
        }
        room.take_over(partition, change);
        let is_over = room.waiting_bytes > MAX_WAITING_BYTES;
        drop(room);
        if is_over {
            self.shared.give_up(partition, "the disk is too slow");
        }
        self.shared.changed.notify_all();
    }

    fn forget(&self, partition: i32) {
        {
            let mut room = self.shared.room();
            room.drop_waiting(partition);
            room.positions.remove(&partition);
        }
        if !self.shared.wait_for(LOAD_PATIENCE, |room| room.writing != Some(partition)) {
            self.shared.give_up(partition, "it could not be cleared in time");
            return;
        }
        if let Err(e) = self.shared.db.drop_tree(tree_name(partition)) {
            self.shared.give_up(partition, &format!("it cannot be cleared: {e}"));
        }
    }

    fn flush(&self, patience: Duration) -> bool {
        let written = self.shared.wait_for(patience, |room| room.waiting.is_empty() && room.writing.is_none());
        written && self.shared.db.flush().is_ok()
    }
}

impl Room {
    fn is_busy_with(&self, partition: i32) -> bool {
        self.writing == Some(partition) || self.waiting.contains_key(&partition)
    }

    fn take_over(&mut self, partition: i32, change: Change) {
        self.positions.insert(partition, change.position);
        let waiting = self.waiting.entry(partition).or_default();
        let before = waiting.bytes;
        waiting.position = change.position;
        waiting.note = change.note;
        for (key, state) in change.entities {
            waiting.bytes += key.len() + state.as_ref().map_or(0, Vec::len);
            if let Some(old) = waiting.entities.get(&key) {
                waiting.bytes -= (key.len() + old.as_ref().map_or(0, Vec::len)).min(waiting.bytes);
            }
            waiting.entities.insert(key, state);
        }
        self.waiting_bytes = (self.waiting_bytes + waiting.bytes).saturating_sub(before);
    }

    fn drop_waiting(&mut self, partition: i32) {
        if let Some(dropped) = self.waiting.remove(&partition) {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(dropped.bytes);
        }
    }
}

impl Shared {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, patience: Duration, mut done: impl FnMut(&Room) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut room = self.room();
        while !done(&room) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            room = self.changed.wait_timeout(room, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn write_until_closed(&self) {
        while let Some((partition, waiting)) = self.next() {
            let written = catch_unwind(AssertUnwindSafe(|| self.write(partition, &waiting)))
                .unwrap_or_else(|_| Err("writing panicked".to_owned()));
            if let Err(reason) = written {
                self.give_up(partition, &reason);
            }
            self.room().writing = None;
            self.changed.notify_all();
        }
        if let Err(e) = self.db.flush() {
            tracing::warn!(store = %self.path.display(), "store not flushed at its end: {e}");
        }
    }

    /// The next partition to write; `None` when the store closes and nothing waits.
    fn next(&self) -> Option<(i32, Waiting)> {
        /// Only so that no wait is without an end; whoever changes something tells.
        const LOOK_AGAIN: Duration = Duration::from_secs(1);
        let mut room = self.room();
        loop {
            if let Some(partition) = room.waiting.keys().next().copied()
                && let Some(waiting) = room.waiting.remove(&partition)
            {
                room.waiting_bytes = room.waiting_bytes.saturating_sub(waiting.bytes);
                room.writing = Some(partition);
                return Some((partition, waiting));
            }
            if room.closing {
                return None;
            }
            room = self.changed.wait_timeout(room, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write(&self, partition: i32, waiting: &Waiting) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        batch.insert(POSITION_KEY, &waiting.position.to_be_bytes());
        batch.insert(NOTE_KEY, waiting.note.as_slice());
        for (key, state) in &waiting.entities {
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
                _ => return Err("it has a key of another kind".to_owned()),
            }
        }
        match position {
            Some(position) if position >= 0 => Ok(Some(Checkpoint { position, ..checkpoint })),
            Some(position) => Err(format!("its position is {position}")),
            None if checkpoint.entities.is_empty() => Ok(None),
            None => Err("it has no position".to_owned()),
        }
    }

    /// No more saves of this partition in this life: what is on disk stays whole, and older than it could be.
    fn give_up(&self, partition: i32, reason: &str) {
        tracing::warn!(store = %self.path.display(), partition, reason, "checkpoint given up until the next start");
        let mut room = self.room();
        room.drop_waiting(partition);
        if !room.given_up.contains(&partition) {
            room.given_up.push(partition);
        }
        drop(room);
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
    use super::{super::Memory, *};

    fn header(build: &str) -> Header {
        Header::new("cluster", "musiccorp.payment", "musiccorp.payment.events", build)
    }

    fn change(position: i64, entities: &[(&str, Option<&str>)]) -> Change {
        let entities = entities.iter().map(|(key, state)| ((*key).to_owned(), state.map(|s| s.as_bytes().to_vec())));
        Change { position, note: vec![7], entities: entities.collect() }
    }

    type Entities = Vec<(String, Vec<u8>)>;

    fn sorted(checkpoint: Option<Checkpoint>) -> Option<(i64, Entities)> {
        checkpoint.map(|mut c| {
            c.entities.sort();
            (c.position, c.entities)
        })
    }

    fn same_of_both(check: impl Fn(&dyn Checkpoints)) {
        check(&Memory::default());
        let dir = tempfile::tempdir().expect("a directory");
        check(&Disk::open(&dir.path().join("s"), &header("1")).expect("a store"));
    }

    #[test]
    fn what_was_saved_is_loaded() {
        same_of_both(|store| {
            assert_eq!(store.load(0), None);
            store.save(0, change(5, &[("a", Some("1")), ("b", Some("1"))]));
            store.save(0, change(9, &[("a", Some("2")), ("b", None)]));
            store.save(1, change(3, &[("c", Some("1"))]));
            assert_eq!(sorted(store.load(0)), Some((9, vec![("a".to_owned(), b"2".to_vec())])));
            assert_eq!(store.load(1).map(|c| (c.position, c.note)), Some((3, vec![7])));
        });
    }

    #[test]
    fn a_late_change_of_an_earlier_owner_is_passed_over() {
        same_of_both(|store| {
            store.save(0, change(9, &[("a", Some("new"))]));
            store.save(0, change(5, &[("a", Some("old"))]));
            assert_eq!(sorted(store.load(0)), Some((9, vec![("a".to_owned(), b"new".to_vec())])));
        });
    }

    #[test]
    fn a_checkpoint_that_is_forgotten_can_be_made_anew_from_earlier() {
        same_of_both(|store| {
            store.save(0, change(9, &[("a", Some("1"))]));
            store.forget(0);
            assert_eq!(store.load(0), None);
            store.save(0, change(2, &[("b", Some("1"))]));
            assert_eq!(sorted(store.load(0)), Some((2, vec![("b".to_owned(), b"1".to_vec())])));
        });
    }

    #[test]
    fn a_store_lasts_and_its_second_opener_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let store = Disk::open(&path, &header("1")).expect("a store");
        store.save(0, change(5, &[("a", Some("1"))]));
        assert!(store.flush(Duration::from_secs(10)));
        assert!(matches!(Disk::open(&path, &header("1")), Err(StoreError::InUse { .. })));
        drop(store);
        let again = Disk::open(&path, &header("1")).expect("the same store");
        assert_eq!(again.load(0).map(|c| c.position), Some(5));
    }

    #[test]
    fn a_foreign_or_damaged_store_is_put_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let store = Disk::open(&path, &header("1")).expect("a store");
        store.save(0, change(5, &[("a", Some("1"))]));
        drop(store);
        for foreign in [
            Header { cluster_id: "another".to_owned(), ..header("1") },
            Header { group: "musiccorp.warehouse".to_owned(), ..header("1") },
            Header { topic: "acme.payment.events".to_owned(), ..header("1") },
        ] {
            assert_eq!(Disk::open(&path, &foreign).expect("a fresh store").load(0), None, "{foreign:?}");
        }
        let rebuilt = Disk::open(&path, &header("2")).expect("a fresh store");
        assert_eq!(rebuilt.load(0), None, "another build's states are not taken over");
        rebuilt.save(0, change(5, &[("a", Some("1"))]));
        drop(rebuilt);
        std::fs::write(path.join("db"), b"damaged").expect("damage");
        std::fs::write(path.join("conf"), b"damaged").expect("damage");
        let rebuilt = Disk::open(&path, &header("2")).expect("a fresh store");
        assert_eq!(rebuilt.load(0), None);
        let aside = std::fs::read_dir(dir.path()).expect("the directory").filter_map(Result::ok);
        assert_eq!(aside.filter(|e| e.file_name().to_string_lossy().contains(".aside-")).count(), 2);
    }
}

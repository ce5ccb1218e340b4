//! State on disk: an append-only file of entries, each with length and checksum. It is rewritten when it has grown too large.
//!
//! Owns the file and the state folded from it, so that the two always agree. The entries' meaning belongs to the ledger.

use crate::broker::config::Fsync;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A file smaller than this is never rewritten.
const COMPACT_FROM: u64 = 1024 * 1024;
/// The growth since the last rewrite at which the file is rewritten again.
const GROWTH_MAX: u64 = 4;
const FRAME_LEN: usize = 8;
/// No entry comes near this size; a larger length means an incomplete frame.
const ENTRY_MAX: usize = 64 * 1024 * 1024;

/// State that is a fold of entries.
pub(crate) trait JournaledLedger: Default {
    type Entry: Serialize + DeserializeOwned;

    /// Total: an entry that does not match the state changes nothing.
    fn apply(&mut self, entry: Self::Entry);

    /// Entries whose fold is this state.
    fn snapshot(&self) -> Vec<Self::Entry>;
}

/// A ledger and its file.
#[derive(Debug)]
pub(crate) struct LedgerJournal<L> {
    path: PathBuf,
    file: File,
    size: u64,
    size_rewritten: u64,
    /// Entries not yet written. They are written before later entries, so the order holds.
    buffered: Vec<u8>,
    unsynced: bool,
    fsync: Fsync,
    state: L,
}

impl<L: JournaledLedger> LedgerJournal<L> {
    /// Folds the file's entries and truncates an incomplete entry at its end.
    pub(crate) fn open(path: &Path, fsync: Fsync) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut state = L::default();
        let mut rest = bytes.as_slice();
        while let Some((entry, remainder)) = next_entry(rest) {
            state.apply(entry);
            rest = remainder;
        }
        let size = (bytes.len() - rest.len()) as u64;
        if !rest.is_empty() {
            tracing::warn!(file = %path.display(), truncated_bytes = rest.len(), "truncated an incomplete entry at the end of a journal");
            file.set_len(size)?;
        }
        let path = path.to_path_buf();
        Ok(LedgerJournal {
            path,
            file,
            size,
            size_rewritten: size,
            buffered: Vec::new(),
            unsynced: false,
            fsync,
            state,
        })
    }

    pub(crate) fn state(&self) -> &L {
        &self.state
    }

    /// Writes the entry, then applies it. After an error the state is unchanged.
    pub(crate) fn append(&mut self, entry: L::Entry) -> io::Result<()> {
        let before = self.buffered.len();
        frame(&mut self.buffered, &entry)?;
        if let Err(error) = self.flush() {
            self.buffered.truncate(before);
            return Err(error);
        }
        if self.fsync == Fsync::Always {
            self.file.sync_data()?;
        }
        self.state.apply(entry);
        self.compact_if_grown();
        Ok(())
    }

    /// Applies the entry and writes it with the next append. For facts that recovery can derive again after a crash.
    pub(crate) fn append_lazily(&mut self, entry: L::Entry) {
        match frame(&mut self.buffered, &entry) {
            Ok(()) => self.state.apply(entry),
            Err(error) => tracing::error!(file = %self.path.display(), %error, "cannot encode an entry"),
        }
    }

    /// Writes the buffered entries.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.buffered.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(&self.buffered) {
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += self.buffered.len() as u64;
        self.buffered.clear();
        self.unsynced = true;
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        if std::mem::take(&mut self.unsynced) { self.file.sync_data() } else { Ok(()) }
    }

    fn compact_if_grown(&mut self) {
        if self.size < COMPACT_FROM.max(self.size_rewritten * GROWTH_MAX) {
            return;
        }
        if let Err(error) = self.rewrite() {
            tracing::warn!(file = %self.path.display(), %error, "cannot rewrite a journal, it keeps growing");
            self.size_rewritten = self.size; // retry only after further growth
        }
    }

    /// Replaces the file by one that holds only the current state.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        for entry in self.state.snapshot() {
            frame(&mut bytes, &entry)?;
        }
        let replacement = self.path.with_extension("new");
        fs::write(&replacement, &bytes)?;
        let file = OpenOptions::new().read(true).append(true).open(&replacement)?;
        file.sync_data()?;
        fs::rename(&replacement, &self.path)?;
        self.file = file;
        self.size = bytes.len() as u64;
        self.size_rewritten = self.size;
        self.buffered.clear();
        Ok(())
    }
}

fn frame(out: &mut Vec<u8>, entry: &impl Serialize) -> io::Result<()> {
    let at = out.len();
    out.extend_from_slice(&[0; FRAME_LEN]);
    serde_json::to_writer(&mut *out, entry)?;
    let body = &out[at + FRAME_LEN..];
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let crc = crc32c::crc32c(body);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    out[at + 4..at + FRAME_LEN].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

fn next_entry<E: DeserializeOwned>(bytes: &[u8]) -> Option<(E, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= ENTRY_MAX)?;
    let (body, rest) = rest.split_at_checked(length)?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    Some((serde_json::from_slice(body).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default)]
    struct LastValue(Vec<u64>);

    #[derive(Serialize, Deserialize)]
    struct SetValue(u64, String);

    impl JournaledLedger for LastValue {
        type Entry = SetValue;

        fn apply(&mut self, SetValue(value, _): SetValue) {
            self.0 = vec![value];
        }

        fn snapshot(&self) -> Vec<SetValue> {
            self.0.iter().map(|value| SetValue(*value, String::new())).collect()
        }
    }

    #[test]
    fn entries_are_restored_and_an_incomplete_end_is_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = LedgerJournal::<LastValue>::open(&path, Fsync::Never).unwrap();
        journal.append_lazily(SetValue(1, String::new()));
        journal.append(SetValue(2, String::new())).unwrap();
        drop(journal);
        let sound = fs::metadata(&path).unwrap().len();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[0, 0, 0, 9, 1, 2]).unwrap();
        let journal = LedgerJournal::<LastValue>::open(&path, Fsync::Never).unwrap();
        assert_eq!(journal.state().0, [2]);
        assert_eq!(fs::metadata(&path).unwrap().len(), sound);
    }

    #[test]
    fn the_file_does_not_grow_without_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = LedgerJournal::<LastValue>::open(&path, Fsync::Never).unwrap();
        let filler = "x".repeat(1000);
        for value in 0..5000 {
            journal.append(SetValue(value, filler.clone())).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= COMPACT_FROM + 2000);
        drop(journal);
        assert_eq!(LedgerJournal::<LastValue>::open(&path, Fsync::Never).unwrap().state().0, [4999]);
    }
}

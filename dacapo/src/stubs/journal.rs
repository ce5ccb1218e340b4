//! The responses of a stub on disk: one JSON object a line, appended before the response is sent.
//!
//! A line is written with one system call, so it survives a crash of the process. It is not synced: a power loss may lose the last
//! responses.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

/// An append-only file of responses, or nothing if no folder is given.
#[derive(Debug)]
pub(super) struct Journal {
    file: Option<Mutex<File>>,
}

impl Journal {
    /// Opens the journal and reads it. An incomplete last line is truncated: its response was never sent.
    pub(super) fn open<T: DeserializeOwned>(folder: Option<&Path>, name: &str) -> io::Result<(Self, Vec<T>)> {
        let Some(folder) = folder else {
            return Ok((Self { file: None }, Vec::new()));
        };
        std::fs::create_dir_all(folder)?;
        let path = folder.join(name);
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        let (entries, whole_bytes) = read_entries(&file, &path)?;
        file.set_len(whole_bytes)?;
        Ok((Self { file: Some(Mutex::new(file)) }, entries))
    }

    /// Appends an entry.
    pub(super) fn append(&self, entry: &impl Serialize) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }
}

fn read_entries<T: DeserializeOwned>(file: &File, path: &Path) -> io::Result<(Vec<T>, u64)> {
    let mut reader = BufReader::new(file);
    let (mut entries, mut whole_bytes, mut line) = (Vec::new(), 0, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok((entries, whole_bytes));
        }
        let entry = serde_json::from_slice(&line).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: line {} is not an entry of this journal: {error}", path.display(), entries.len() + 1),
            )
        })?;
        entries.push(entry);
        whole_bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_last_line_is_truncated_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, before) = Journal::open::<String>(Some(folder.path()), "j").unwrap();
        assert!(before.is_empty());
        journal.append(&"one").unwrap();
        drop(journal);
        let path = folder.path().join("j");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"\"tw").unwrap();
        let (journal, kept) = Journal::open::<String>(Some(folder.path()), "j").unwrap();
        assert_eq!(kept, ["one"]);
        journal.append(&"two").unwrap();
        let (_, kept) = Journal::open::<String>(Some(folder.path()), "j").unwrap();
        assert_eq!(kept, ["one", "two"]);
    }
}

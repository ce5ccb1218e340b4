//! The registry's only file: append-only, one line per atomic change. Opening it checks each line.
//!
//! A line is the CRC-32C of its JSON in hexadecimal, a space, the JSON, a line feed. Opening truncates the bytes that a crash left
//! after the last sound line. Damage before that is an error, because later lines would get other ids. Knows no schema and no HTTP.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// The reason why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("cannot {operation} {}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in use by another registry; stop it, or choose another data directory", path.display())]
    InUse { path: PathBuf },
    #[error("{} is damaged at line {line} ({reason}); restore it from a copy, or move it away to start empty", path.display())]
    Damaged { path: PathBuf, line: usize, reason: String },
}

/// An open journal. It holds the file's lock until it is dropped.
#[derive(Debug)]
pub(super) struct RegistryJournal {
    file: File,
    length: u64,
    fsync: bool,
    /// Set when a failed write could not be rolled back: the file's end is then unknown, so nothing more is appended.
    unusable: bool,
}

const HEADER: &str = r#"{"format":"dacapo-registry","version":1}"#;

impl RegistryJournal {
    /// Opens or creates the journal in `directory` and returns its entries, oldest first.
    pub(super) fn open<T: DeserializeOwned>(directory: &Path, fsync: bool) -> Result<(Self, Vec<T>), JournalError> {
        let path = directory.join("registry.log");
        let io_error = |operation| {
            let path = path.clone();
            move |source| JournalError::Io { operation, path, source }
        };
        std::fs::create_dir_all(directory).map_err(io_error("create the directory of"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(io_error("lock")(source)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error("read"))?;
        let (entries, sound_bytes) = parse(&bytes, &path)?;
        if sound_bytes < bytes.len() {
            tracing::warn!(path = %path.display(), bytes = bytes.len() - sound_bytes, "truncated an incomplete write at the end of the registry's file");
            file.set_len(sound_bytes as u64).map_err(io_error("truncate"))?;
        }
        file.seek(SeekFrom::Start(sound_bytes as u64)).map_err(io_error("seek in"))?;
        let mut journal = Self { file, length: sound_bytes as u64, fsync, unusable: false };
        if sound_bytes == 0 {
            journal.append_line(HEADER).map_err(io_error("write"))?;
            // The directory entry must survive a power loss too: without it the file is lost.
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(io_error("sync the directory of"))?;
        }
        Ok((journal, entries))
    }

    /// Appends one atomic change. After an error the file holds nothing of it, or the journal accepts no more changes.
    pub(super) fn append<T: Serialize>(&mut self, entry: &T) -> io::Result<()> {
        self.append_line(&serde_json::to_string(entry)?)
    }

    fn append_line(&mut self, json: &str) -> io::Result<()> {
        if self.unusable {
            return Err(io::Error::other("an earlier write failed half-way; restart the registry"));
        }
        let line = format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.sync());
        match written {
            Ok(()) => {
                self.length += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        if self.fsync { self.file.sync_data() } else { Ok(()) }
    }

    fn roll_back(&mut self) {
        let restored =
            self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)).map(|_| ()));
        if let Err(error) = restored {
            tracing::error!(%error, "a failed write to the registry's file could not be rolled back");
            self.unusable = true;
        }
    }
}

/// The entries of all sound lines, and the number of bytes of those lines.
fn parse<T: DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<(Vec<T>, usize), JournalError> {
    let damaged = |line: usize, reason: String| JournalError::Damaged { path: path.to_owned(), line, reason };
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let checked_lines: Vec<Option<&str>> = lines.iter().map(|line| checked_json(line)).collect();
    let sound_lines = checked_lines.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    let mut entries = Vec::with_capacity(sound_lines);
    for (index, json) in checked_lines[..sound_lines].iter().enumerate() {
        let json = json.ok_or_else(|| damaged(index + 1, "its checksum does not match".to_owned()))?;
        if index == 0 {
            if json != HEADER {
                return Err(damaged(1, format!("it begins with {json:?}, not with {HEADER}")));
            }
            continue;
        }
        entries.push(serde_json::from_str(json).map_err(|error| damaged(index + 1, error.to_string()))?);
    }
    // A file without a sound line counts as new only if it is not longer than an incomplete first line can be.
    if sound_lines == 0 && bytes.len() > HEADER.len() + 10 {
        return Err(damaged(1, "it is no registry file".to_owned()));
    }
    Ok((entries, lines[..sound_lines].iter().map(|line| line.len()).sum()))
}

fn checked_json(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (checksum, json) = line.split_once(' ')?;
    let expected = u32::from_str_radix(checksum, 16).ok()?;
    (checksum.len() == 8 && crc32c::crc32c(json.as_bytes()) == expected).then_some(json)
}

//! The data folder of `dacapo up`: one process at a time uses it, and a run that keeps nothing leaves nothing behind.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::endpoints::Endpoints;

/// The data folder, locked by this process.
pub(super) struct DataFolder {
    is_ephemeral: bool,
    /// This run created it.
    is_new: bool,
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Creates the folder if it is missing, and locks it.
    ///
    /// # Errors
    /// The folder cannot be written to, or another process has locked it.
    pub(super) fn lock(path: &Path, is_ephemeral: bool) -> anyhow::Result<Self> {
        let cannot = || format!("cannot use the data folder {}", path.display());
        loop {
            let is_new = !path.exists();
            fs::create_dir_all(path).with_context(cannot)?;
            let lock = File::create(lock_file(path)).with_context(cannot)?;
            match lock.try_lock() {
                // An ephemeral run that has just ended removed the file: a lock on the removed one excludes nobody.
                Ok(()) if !is_at(&lock, &lock_file(path)) => {}
                Ok(()) => return Ok(Self { is_ephemeral, is_new, path: path.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) => {
                    bail!("another `dacapo up` runs on {}; stop it, or choose another --data", path.display())
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
            }
        }
    }

    /// The path for data; `None` if nothing is kept.
    pub(super) fn data(&self) -> Option<&Path> {
        (!self.is_ephemeral).then_some(self.path.as_path())
    }

    /// Removes the addresses of the ended system, and the folder if this run created it and it holds no other data.
    fn remove(&self) -> io::Result<()> {
        remove_if_present(&Endpoints::path(&self.path))?;
        let lock = lock_file(&self.path);
        let holds_data = fs::read_dir(&self.path)?.any(|entry| entry.map_or(true, |entry| entry.path() != lock));
        if holds_data {
            return Ok(());
        }
        remove_if_present(&lock)?;
        if self.is_new { fs::remove_dir(&self.path) } else { Ok(()) }
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if self.is_ephemeral
            && let Err(error) = self.remove()
        {
            tracing::warn!(folder = %self.path.display(), %error, "the data folder of an ephemeral run was not removed");
        }
    }
}

fn lock_file(folder: &Path) -> PathBuf {
    folder.join("lock")
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: &fs::Metadata| (found.dev(), found.ino());
    matches!((&file.metadata(), &fs::metadata(path)), (Ok(open), Ok(found)) if identity(open) == identity(found))
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(path: &Path) {
        Endpoints::default().write(path).unwrap();
    }

    #[test]
    fn an_ephemeral_run_leaves_no_folder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("dacapo-data");
        let folder = DataFolder::lock(&path, true).unwrap();
        assert_eq!(folder.data(), None);
        endpoints(&path);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn an_ephemeral_run_keeps_the_data_of_another_run_and_removes_its_own_addresses() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("dacapo-data");
        let kept = DataFolder::lock(&path, false).unwrap();
        fs::create_dir(kept.data().unwrap().join("stores")).unwrap();
        endpoints(&path);
        drop(kept);
        assert!(Endpoints::path(&path).exists(), "a run that keeps its data keeps its addresses");
        drop(DataFolder::lock(&path, true).unwrap());
        assert!(path.join("stores").is_dir() && !Endpoints::path(&path).exists());
    }

    #[test]
    fn a_folder_that_was_there_before_stays() {
        let folder = tempfile::tempdir().unwrap();
        drop(DataFolder::lock(folder.path(), true).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_is_used_by_one_process_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let first = DataFolder::lock(parent.path(), false).unwrap();
        let refused = DataFolder::lock(parent.path(), true).err().unwrap();
        assert!(refused.to_string().contains("another `dacapo up` runs"), "{refused}");
        drop(first);
        assert!(DataFolder::lock(parent.path(), false).is_ok());
    }
}

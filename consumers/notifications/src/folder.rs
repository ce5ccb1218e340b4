//! A mail folder: one thread writes each mail as a file.
//!
//! There is one writer, because concurrent writers would block each other: a folder creates one file at a time. This module
//! knows no event and no mail header.

use std::{fs, io, path::Path, thread};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// The most mails that wait for the writer.
const PENDING_MAX: usize = 256;

struct PendingMail {
    name: Uuid,
    mail: Vec<u8>,
    written: oneshot::Sender<io::Result<()>>,
}

/// A mail folder. Clones share its writer, which stops when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct MailFolder {
    pending: mpsc::Sender<PendingMail>,
}

impl MailFolder {
    /// Creates the folder if it does not exist, and starts its writer.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let (pending, mut waiting) = mpsc::channel::<PendingMail>(PENDING_MAX);
        let path = path.to_path_buf();
        thread::Builder::new().name("mail-folder".to_owned()).spawn(move || {
            while let Some(PendingMail { name, mail, written }) = waiting.blocking_recv() {
                // The attempt may have timed out. It is repeated under the same name.
                drop(written.send(write_file(&path, name, &mail)));
            }
        })?;
        Ok(Self { pending })
    }

    /// Writes one mail as `<name>.eml`, replacing an earlier one.
    pub(crate) async fn write(&self, name: Uuid, mail: Vec<u8>) -> io::Result<()> {
        let (written, answer) = oneshot::channel();
        let ended = || io::Error::other("the writer has stopped");
        self.pending.send(PendingMail { name, mail, written }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

/// Writes a file atomically: a reader of the folder never sees a partial mail. The file is not synced to disk: after a power
/// failure a mail may be missing although its event exists, which is acceptable for a folder that replaces a mail server.
fn write_file(folder: &Path, name: Uuid, mail: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!(".{name}.part"));
    fs::write(&unfinished, mail)?;
    fs::rename(&unfinished, folder.join(format!("{name}.eml")))
}

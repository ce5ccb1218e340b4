//! A folder that mail is written into, each mail as a file, by one thread.
//!
//! One writer, because many would wait for each other: a folder takes one new name at a time. Knows no event and no mail header.

use std::{fs, io, path::Path, thread};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// How many mails may wait for the writer.
const WAITING_AT_MOST: usize = 256;

struct Letter {
    name: Uuid,
    mail: Vec<u8>,
    written: oneshot::Sender<io::Result<()>>,
}

/// A folder for mail. Clones share its writer, which ends with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    letters: mpsc::Sender<Letter>,
}

impl Folder {
    /// Makes the folder if need be, and starts its writer.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let (letters, mut waiting) = mpsc::channel::<Letter>(WAITING_AT_MOST);
        let path = path.to_path_buf();
        thread::Builder::new().name("mail-folder".to_owned()).spawn(move || {
            while let Some(Letter { name, mail, written }) = waiting.blocking_recv() {
                // Nobody listens any more if the attempt ran out of time; it is made again under the same name.
                drop(written.send(write_file(&path, name, &mail)));
            }
        })?;
        Ok(Self { letters })
    }

    /// Writes one mail as `<name>.eml`, in the place of an earlier one.
    pub(crate) async fn write(&self, name: Uuid, mail: Vec<u8>) -> io::Result<()> {
        let (written, answer) = oneshot::channel();
        let ended = || io::Error::other("the writer has ended");
        self.letters.send(Letter { name, mail, written }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

/// Whole or not at all: a reader of the folder never sees half a mail. Not synced to disk: after a power failure a mail may be
/// missing although its event says it was handed over, which is a fair price for a folder that stands in for a mail server.
fn write_file(folder: &Path, name: Uuid, mail: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!(".{name}.part"));
    fs::write(&unfinished, mail)?;
    fs::rename(&unfinished, folder.join(format!("{name}.eml")))
}

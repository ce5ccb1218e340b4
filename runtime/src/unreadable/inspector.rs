//! A thread that inspects partitions for a reader that must not block.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender, TryRecvError},
    },
    thread,
};

use super::{BatchSkipped, UnreadableBatch, decisions::Decisions, inspect::inspect};
use crate::{codec::Readers, config::Config, core::text::panic_message};

/// A partition, and the offset of the next record that a reader wants from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionAt {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) position: i64,
}

/// What was found in a partition.
#[derive(Debug, Clone)]
pub(crate) struct Inspected {
    pub(crate) at: PartitionAt,
    pub(crate) found: Found,
}

/// The state of a partition for its reader.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// Its next batch can be read, or there is none.
    Readable,
    /// It waits in front of a batch, unless an operator has decided to skip it.
    Unreadable(Box<(UnreadableBatch, Option<BatchSkipped>)>),
    /// The broker refuses to read it, and why.
    Refused(String),
    /// It could not be inspected, and why.
    Unknown(String),
}

/// Inspects partitions on a thread of its own, one request at a time. Dropping it ends the thread after its last request.
pub(crate) struct Inspector {
    requests: SyncSender<Vec<PartitionAt>>,
    answers: Receiver<Vec<Inspected>>,
    is_busy: bool,
}

impl Inspector {
    /// Starts the thread. `reader` is the name under which operators decide about this reader.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub(crate) fn start(config: &Config, readers: Readers, reader: &str) -> std::io::Result<Self> {
        let (requests, asked) = mpsc::sync_channel::<Vec<PartitionAt>>(1);
        let (answer, answers) = mpsc::sync_channel(1);
        let (config, reader) = (config.clone(), reader.to_owned());
        thread::Builder::new().name("inspector".to_owned()).spawn(move || {
            let mut inspection = Inspection { config, readers, reader, decisions: None };
            while let Ok(partitions) = asked.recv() {
                if answer.send(inspection.of(partitions)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, answers, is_busy: false })
    }

    /// Asks about partitions, unless an earlier request is not answered yet.
    pub(crate) fn ask(&mut self, partitions: Vec<PartitionAt>) {
        if !self.is_busy {
            self.is_busy = self.requests.try_send(partitions).is_ok();
        }
    }

    /// True while a request is not answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// The answer, once it is there. A thread that has ended answers nothing.
    pub(crate) fn take(&mut self) -> Option<Vec<Inspected>> {
        match self.answers.try_recv() {
            Ok(inspected) => {
                self.is_busy = false;
                Some(inspected)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.is_busy = false;
                None
            }
        }
    }
}

struct Inspection {
    config: Config,
    readers: Readers,
    reader: String,
    /// Followed from the first unreadable batch on.
    decisions: Option<Decisions>,
}

impl Inspection {
    fn of(&mut self, partitions: Vec<PartitionAt>) -> Vec<Inspected> {
        let look = |at: PartitionAt| {
            // The bytes come from outside, and a library decodes them.
            let found = catch_unwind(AssertUnwindSafe(|| self.look(&at)));
            let panicked = |panic: Box<dyn Any + Send>| Found::Unknown(panic_message(&*panic));
            Inspected { found: found.unwrap_or_else(panicked), at }
        };
        partitions.into_iter().map(look).collect()
    }

    fn look(&mut self, at: &PartitionAt) -> Found {
        let patience = self.config.timeouts.request.min(super::inspect::PATIENCE);
        match inspect(&self.config, patience, (&at.topic, at.partition, at.position)) {
            Ok(None) => Found::Readable,
            Ok(Some(batch)) => {
                let decision = self.decision(&batch);
                Found::Unreadable(Box::new((batch, decision)))
            }
            Err(error) if error.is_refusal() => Found::Refused(error.to_string()),
            Err(error) => Found::Unknown(error.to_string()),
        }
    }

    fn decision(&mut self, batch: &UnreadableBatch) -> Option<BatchSkipped> {
        if self.decisions.is_none() {
            match Decisions::start(&self.config, self.readers.clone()) {
                Ok(decisions) => self.decisions = Some(decisions),
                Err(error) => {
                    tracing::warn!(%error, "the decisions of operators cannot be read for now");
                    return None;
                }
            }
        }
        self.decisions.as_ref()?.about(&self.reader, batch)
    }
}

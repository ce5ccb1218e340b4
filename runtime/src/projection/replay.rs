//! Folds a fresh projection beside the live one, up to exact offsets, so that both can be compared.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::error::KafkaResult;

use super::{LogRecord, Positions, Projection, Topics, holds::Holds, reader::Reader};
use crate::{
    codec::Readers,
    config::Config,
    kafka::{Connectivity, client::view_name},
    unreadable::{Partition, ReaderName, Watch},
};

/// A replay that did not reach its targets.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The reader cannot be created, or reading has failed.
    #[error("cannot replay {purpose}: {reason}")]
    Failed {
        /// What the replay is for.
        purpose: String,
        /// The cause.
        reason: String,
    },
    /// The targets were not reached in time. A log that ends before them leads here too.
    #[error("replay of {purpose} did not reach its offsets in {patience:?}: {behind} records are left{held}")]
    TooSlow {
        /// What the replay is for.
        purpose: String,
        /// The timeout.
        patience: Duration,
        /// How many offsets are left.
        behind: i64,
        /// The partitions that wait in front of a record that cannot be read, if any.
        held: String,
    },
}

/// Folds every record before `targets` into `projection`, and none at or after them; other partitions are not read. A replay for
/// `view_of` skips the batches that operators have decided that this view skips. This blocks: call it on a thread that may block.
///
/// # Errors
/// [`ReplayError`].
pub fn fold_to<P: Projection>(
    config: &Config,
    (purpose, view_of): (&str, Option<&str>),
    readers: Readers,
    topics: Topics,
    mut projection: P,
    targets: &Positions,
    patience: Duration,
) -> Result<P, ReplayError> {
    let failed = |reason: String| ReplayError::Failed { purpose: purpose.to_owned(), reason };
    let reader = Reader::new(config, purpose, readers.clone(), topics).map_err(|e| failed(e.to_string()))?;
    let name = ReaderName::View(view_of.map_or_else(|| view_name(config, purpose), str::to_owned));
    let holds = Holds::new(Some(Watch::new(config, readers, name)));
    let mut replay = Replay { reader, holds, targets, reached: Positions::default() };
    replay.start().map_err(|e| failed(e.to_string()))?;
    let deadline = Instant::now() + patience;
    while !replay.reached.reach(targets) {
        if Instant::now() >= deadline {
            let held: Vec<String> = replay.holds.pieces().iter().map(|piece| format!("; {piece}")).collect();
            return Err(ReplayError::TooSlow {
                purpose: purpose.to_owned(),
                patience,
                behind: replay.reached.behind(targets),
                held: held.concat(),
            });
        }
        replay.step(Duration::from_millis(100).min(patience), &mut projection).map_err(failed)?;
    }
    Ok(projection)
}

struct Replay<'t> {
    reader: Reader,
    holds: Holds,
    targets: &'t Positions,
    reached: Positions,
}

impl Replay<'_> {
    fn start(&mut self) -> KafkaResult<()> {
        let open = self.targets.iter().filter(|(_, _, end)| *end > 0);
        let open: Vec<Partition> = open.map(|(topic, partition, _)| (Arc::clone(topic), partition)).collect();
        self.reader.assign(open.iter().map(|(topic, partition)| (&**topic, *partition, 0)))?;
        self.holds.started(open);
        Ok(())
    }

    fn step(&mut self, patience: Duration, projection: &mut impl Projection) -> Result<(), String> {
        self.apply_holds().map_err(|e| format!("partitions cannot be assigned: {e}"))?;
        let batch = self.reader.poll(patience);
        let records = self.holds.admit(&self.reader, &batch.messages);
        let finished = fold(&records, self.targets, &mut self.reached, projection);
        drop(records);
        let (signs, failure, cannot_read, reached_end) =
            (batch.signs, batch.failure, batch.cannot_read, batch.reached_end);
        drop(batch.messages);
        if reached_end {
            self.note_ends().map_err(|e| e.to_string())?;
        }
        self.finish(&finished);
        if cannot_read {
            self.holds.suspect();
        }
        if let Some(failure) = failure {
            return Err(self.reader.explain(failure, &self.reached));
        }
        if self.reader.check_brokers(signs) == Some(Connectivity::Lost) {
            self.reader.replace_client().map_err(|e| e.to_string())?;
            self.holds.client_replaced();
        }
        Ok(())
    }

    /// Skips what operators have decided to skip, as the live view does, and reads what is not held.
    fn apply_holds(&mut self) -> KafkaResult<()> {
        let mut open = Positions::default();
        for (topic, partition, target) in self.targets.iter() {
            let reached = self.reached.get(topic, partition).unwrap_or(0);
            if reached < target {
                open.set(topic, partition, reached);
            }
        }
        for skip in self.holds.watch(&open) {
            let (topic, partition) = (&skip.batch.topic, skip.batch.partition);
            if open.get(topic, partition) == Some(skip.from) {
                let target = self.targets.get(topic, partition).unwrap_or(0);
                self.reached.set(topic, partition, skip.batch.next.min(target));
                open.set(topic, partition, skip.batch.next);
                self.holds.skipped(&skip);
            }
        }
        self.holds.reconcile(&self.reader, &open)
    }

    fn note_ends(&mut self) -> KafkaResult<()> {
        for (topic, partition, next) in self.reader.positions_at_ends()? {
            let key = (Arc::clone(&topic), partition);
            let target = self.targets.get(&topic, partition).unwrap_or(0);
            let is_read = self.holds.are_empty() || self.holds.admits(&key);
            if is_read && self.reached.get(&topic, partition).unwrap_or(0) < next.min(target) {
                self.reached.set(&topic, partition, next.min(target));
            }
        }
        Ok(())
    }

    /// Reads partitions that have reached their targets no further.
    fn finish(&mut self, finished: &[Partition]) {
        let named = finished.iter().map(|(topic, partition)| (&**topic, *partition));
        if let Err(error) = self.reader.unassign(named) {
            // This only costs time: their later records are ignored.
            tracing::debug!(%error, "finished partitions are still read");
        }
        self.holds.stopped(finished);
    }
}

/// Folds the records before the targets. Returns the partitions that have reached theirs.
fn fold(
    records: &[LogRecord<'_>],
    targets: &Positions,
    reached: &mut Positions,
    projection: &mut impl Projection,
) -> Vec<Partition> {
    let mut finished = Vec::new();
    for record in records {
        let (topic, partition) = (record.topic, record.partition);
        let target = targets.get(topic, partition).unwrap_or(0);
        if record.offset < target {
            projection.apply(record);
        }
        let was_open = reached.get(topic, partition).unwrap_or(0) < target;
        reached.set(topic, partition, (record.offset + 1).min(target));
        if was_open && record.offset + 1 >= target {
            finished.push((Arc::clone(topic), partition));
        }
    }
    finished
}

//! Folds a fresh projection beside the live one, up to exact offsets, so that both can be compared.

use std::time::{Duration, Instant};

use rdkafka::message::BorrowedMessage;

use super::{Positions, Projection, Topics, reader::Reader};
use crate::{codec::Readers, config::Config};

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
    #[error("replay of {purpose} did not reach its offsets in {patience:?}: {behind} records are left")]
    TooSlow {
        /// What the replay is for.
        purpose: String,
        /// The timeout.
        patience: Duration,
        /// How many offsets are left.
        behind: i64,
    },
}

/// Folds every record before `targets` into `projection`, and none at or after them; other partitions are not read.
/// This blocks: call it on a thread that may block.
///
/// # Errors
/// [`ReplayError`].
pub fn fold_to<P: Projection>(
    config: &Config,
    purpose: &str,
    readers: Readers,
    topics: Topics,
    mut projection: P,
    targets: &Positions,
    patience: Duration,
) -> Result<P, ReplayError> {
    let failed = |reason: String| ReplayError::Failed { purpose: purpose.to_owned(), reason };
    let deadline = Instant::now() + patience;
    let mut reader = Reader::new(config, purpose, readers, topics).map_err(|e| failed(e.to_string()))?;
    let mut reached = Positions::default();
    let open = targets.iter().filter(|(_, _, end)| *end > 0).map(|(topic, partition, _)| (&**topic, partition));
    reader.assign_from_beginning(open).map_err(|e| failed(e.to_string()))?;
    while !reached.reach(targets) {
        if Instant::now() >= deadline {
            return Err(ReplayError::TooSlow {
                purpose: purpose.to_owned(),
                patience,
                behind: reached.behind(targets),
            });
        }
        let batch = reader.poll(Duration::from_millis(100).min(patience));
        fold(&reader, &batch.messages, targets, &mut reached, &mut projection, deadline);
        if batch.reached_end {
            for (topic, partition, next) in reader.positions_at_ends().map_err(|e| failed(e.to_string()))? {
                let target = targets.get(&topic, partition).unwrap_or(0);
                if reached.get(&topic, partition).unwrap_or(0) < next.min(target) {
                    reached.set(&topic, partition, next.min(target));
                }
            }
        }
        let (signs, failure) = (batch.signs, batch.failure);
        drop(batch.messages);
        if let Some(failure) = failure {
            return Err(failed(reader.explain(failure, &reached)));
        }
        reader.check_brokers(signs, || reached.clone()).map_err(|e| failed(e.to_string()))?;
    }
    Ok(projection)
}

/// Folds the records before the targets. Partitions that have reached theirs are read no further.
fn fold<P: Projection>(
    reader: &Reader,
    messages: &[BorrowedMessage<'_>],
    targets: &Positions,
    reached: &mut Positions,
    projection: &mut P,
    deadline: Instant,
) {
    // A missing schema may be waited for until the deadline of the replay.
    let mut pause = |wait: Duration| {
        let left = deadline.saturating_duration_since(Instant::now());
        std::thread::park_timeout(wait.min(left));
        !left.is_zero()
    };
    for message in messages {
        let Some(record) = reader.record(message, &mut pause) else { return };
        let (topic, partition) = (record.topic, record.partition);
        let target = targets.get(topic, partition).unwrap_or(0);
        if record.offset < target {
            projection.apply(&record);
        }
        let was_open = reached.get(topic, partition).unwrap_or(0) < target;
        reached.set(topic, partition, (record.offset + 1).min(target));
        if was_open
            && record.offset + 1 >= target
            && let Err(error) = reader.unassign(topic, partition)
        {
            // This only costs time: its later records are ignored.
            tracing::debug!(%error, topic = &**topic, partition, "a finished partition is still read");
        }
    }
}

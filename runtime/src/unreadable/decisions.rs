//! The decisions of operators about unreadable batches, read from the operators' topic.

use std::time::Duration;

use super::{BatchSkipped, OPERATOR, OperatorEvent, UnreadableBatch};
use crate::{
    codec::{Readers, Vocabulary},
    config::Config,
    message::{Channel, topic},
    projection::{LiveView, LogRecord, Projection, Topics, ViewError},
};

/// How long the topic is read before what is known counts.
const PATIENCE: Duration = Duration::from_secs(2);

/// The decisions cannot be read.
pub type DecisionsError = ViewError;

/// Every decision, in order. Operators skip a batch rarely, so all of them fit into memory.
pub(super) struct Decisions {
    view: LiveView<DecisionList>,
}

struct DecisionList {
    vocabulary: Vocabulary<OperatorEvent>,
    skipped: Vec<BatchSkipped>,
}

impl Projection for DecisionList {
    fn apply(&mut self, record: &LogRecord<'_>) {
        let Some(decoded) = record.decoded() else { return };
        if let Ok(Some(OperatorEvent::BatchSkipped(skipped))) = self.vocabulary.read(&decoded) {
            self.skipped.push(skipped);
        }
    }

    fn reset(&mut self) -> bool {
        self.skipped.clear();
        true
    }
}

impl Decisions {
    /// Starts to follow the operators' topic. It may not exist yet.
    pub(super) fn start(config: &Config, readers: Readers) -> Result<Self, DecisionsError> {
        let topics = Topics::decoded([topic(&config.system, OPERATOR, Channel::Events)]);
        let list = DecisionList { vocabulary: Vocabulary::new(&config.system), skipped: Vec::new() };
        let view = LiveView::start_without_watch(config, "operator-decisions", readers, topics, list)?;
        // Without the topic, or with a slow cluster, the decisions that are known so far count; it is asked again.
        let _known_so_far = view.wait_until_caught_up_blocking(PATIENCE);
        Ok(Self { view })
    }

    /// The decision of an operator to let `reader` skip this batch.
    pub(super) fn about(&self, reader: &str, batch: &UnreadableBatch) -> Option<BatchSkipped> {
        self.view.read(|decisions| {
            let is_about = |skipped: &&BatchSkipped| {
                let first = skipped.first();
                let is_first = first.is_some_and(|first| first == batch.position());
                skipped.reader == reader && is_first && skipped.next_offset == batch.next
            };
            decisions.skipped.iter().rev().find(is_about).cloned()
        })
    }
}

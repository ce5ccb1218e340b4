//! Which inputs the client reads: those that the turn reads, without those in front of a batch that cannot be read.

use std::{collections::BTreeSet, sync::Arc};

use rdkafka::{Offset, TopicPartitionList, consumer::Consumer, error::KafkaResult};

use super::{Incarnation, now};
use crate::{
    core::unreadable::SkippedBatch,
    decider::{Decider, Perform},
    health::DegradedPiece,
    unreadable::{PartitionAt, Skip},
    worker::{
        PartitionIssue,
        error::{WorkerError, kafka},
    },
};

impl<D: Decider, P: Perform<D>> Incarnation<'_, D, P> {
    /// Assigns the inputs that the turn reads, with the offsets to start at. Each generation of the group assigns and revokes all
    /// partitions, so the client's assignment is always replaced as a whole.
    pub(super) fn assign(&mut self) -> KafkaResult<()> {
        self.knows_positions = false;
        let mut list = TopicPartitionList::new();
        let admitted = self.turn.assignment().filter(|(topic, partition, _)| self.watch.admits(topic, *partition));
        for (topic, partition, start) in admitted {
            list.add_partition_offset(&topic, partition, Offset::Offset(start))?;
        }
        self.clients.consumer().assign(&list)
    }

    /// Replaces the client's assignment if it is not what the turn reads and the watch admits.
    fn assign_if_changed(&mut self) -> KafkaResult<()> {
        let is_admitted = |(topic, partition, _): &(Arc<str>, i32, i64)| self.watch.admits(topic, *partition);
        let wanted =
            self.turn.assignment().filter(is_admitted).map(|(topic, partition, _)| (topic.to_string(), partition));
        let assigned = self.clients.consumer().assignment()?;
        let elements = assigned.elements();
        let is_read = elements.iter().map(|element| (element.topic().to_owned(), element.partition()));
        if wanted.collect::<BTreeSet<_>>() == is_read.collect::<BTreeSet<_>>() { Ok(()) } else { self.assign() }
    }

    /// Inspects inputs that the client cannot read.
    pub(super) fn watch_inputs(&mut self) -> Result<(), WorkerError> {
        let turn = &self.turn;
        let inputs = || {
            let at = |(topic, partition, position)| PartitionAt { topic, partition, position };
            turn.assignment().map(at).collect()
        };
        if !self.watch.watch(inputs) {
            return Ok(());
        }
        let issue = |piece: &DegradedPiece| PartitionIssue {
            position: piece.place.clone(),
            reason: piece.reason.clone(),
            is_final: false,
        };
        let issues = self.watch.issues().map(|(partition, piece)| (partition.clone(), issue(piece)));
        self.setup.status.set_unreadable(issues.collect());
        self.assign_if_changed().map_err(kafka("assign inputs"))
    }

    /// Skips the batches that operators have decided to skip.
    pub(super) fn apply_skips(&mut self) -> Result<(), WorkerError> {
        let mut has_skipped = false;
        for Skip { batch, decision, from } in self.watch.take_skips() {
            let inputs = &self.turn.contract().inputs;
            let Some(input) = inputs.iter().position(|input| *input == batch.topic) else { continue };
            let skipped = SkippedBatch { decision: &decision, bytes: &batch.bytes, from };
            if self.turn.skip_batch(input, batch.partition, skipped, now(self.setup)) {
                self.watch.skipped(&batch);
                has_skipped = true;
            }
        }
        if has_skipped { self.assign().map_err(kafka("assign inputs")) } else { Ok(()) }
    }
}

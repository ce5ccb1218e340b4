//! Retention deletes the records of the inboxes: a service that has consumed everything must not be refused afterwards, and a
//! service whose unread input was deleted must be, by name.

use std::{rc::Rc, sync::Arc};

use super::Simulation;
use crate::{
    cluster::{CommittedOffset, Offsets, Request, StoredRecord, TopicPartition},
    driver::{Violation, World},
    faults::Fault,
};

/// After this time every position has been committed again, also if the group has lost its offsets.
const RECOMMITTED_AFTER_MS: i64 = 31 * 60_000;

/// An unread record that was deleted. Its service must be refused; then an operator accepts the loss.
pub(crate) struct UnreadTruncation {
    group: usize,
    topic_partition: TopicPartition,
    topic: Arc<str>,
    first: i64,
    is_accepted: bool,
}

impl UnreadTruncation {
    /// True if this is the refusal that names the deleted record.
    pub(crate) fn is_named_by(&self, loss: &str) -> bool {
        let place = format!("input {}/{} holds", self.topic, self.topic_partition.partition);
        loss.contains(&place) && loss.contains("truncated")
    }

    /// An operator accepts the loss: the group continues from the first record that is left.
    pub(crate) fn accept(world: &mut World) {
        let now_ms = world.now_ms;
        let Some(truncation) = &mut world.unread_truncation else { return };
        truncation.is_accepted = true;
        let offset = CommittedOffset { next: truncation.first, own_end: 0 };
        world.cluster.group(truncation.group).commit(&Offsets::from([(truncation.topic_partition, offset)]), now_ms);
        world.trace.sometimes("a service whose unread input was deleted is refused by name");
    }
}

impl Simulation<'_> {
    /// Deletes every record of every inbox after everything was consumed, and restarts every process.
    pub(super) fn delete_inboxes(&mut self, world: &mut World) -> Result<(), Violation> {
        if world.trace.seen().contains(Fault::OffsetsLost.name()) {
            world.now_ms += RECOMMITTED_AFTER_MS;
            let now_ms = world.now_ms;
            (0..world.cluster.groups()).for_each(|group| world.cluster.group(group).keep_alive(now_ms));
            self.settle(world)?;
        }
        for service in 0..self.services.len() {
            for inbox in self.inboxes(service, world) {
                let end = world.cluster.log.high_watermark(inbox);
                world.cluster.log.delete_before(inbox, end);
            }
        }
        world.trace.note(None, || "RETENTION: every inbox is emptied, every process restarts".to_owned());
        let wipes = world.random.permille(500);
        for service in &mut self.services {
            if wipes { service.wipe(world) } else { service.restart(world) }
        }
        self.settle(world)?;
        for service in &self.services {
            service.check(world, true)?;
        }
        world.trace.sometimes("inboxes that were consumed are deleted, and no service is refused");
        if world.random.permille(500) { self.delete_unread(world) } else { Ok(()) }
    }

    /// The partitions of a service's inbox.
    fn inboxes(&self, service: usize, world: &World) -> Vec<TopicPartition> {
        let inbox = world.cluster.log.find(&self.services[service].contract().inputs[0]);
        world.cluster.log.topic_partitions().filter(|known| Some(known.topic) == inbox).collect()
    }

    /// Deletes a record that arrives at an inbox while its service is down.
    fn delete_unread(&mut self, world: &mut World) -> Result<(), Violation> {
        let service = world.random.index(self.services.len());
        let group = self.services[service].group();
        // A group without an offset was never there, and has nothing to lose.
        let mut inboxes = self.inboxes(service, world);
        inboxes.retain(|inbox| world.cluster.group(group).offset(*inbox).is_some());
        if inboxes.is_empty() {
            return Ok(());
        }
        let topic_partition = *world.random.pick(&inboxes);
        self.services[service].restart(world);
        let record = Rc::new(StoredRecord {
            timestamp_ms: world.now_ms,
            key: None,
            value: Some(b"unread".to_vec()),
            headers: Vec::new(),
        });
        world.cluster.handle(&Request::Append { topic_partition, record }, world.now_ms, &mut world.trace);
        let first = world.cluster.log.high_watermark(topic_partition);
        world.cluster.log.delete_before(topic_partition, first);
        let topic = Arc::clone(world.cluster.log.name(topic_partition.topic));
        world.unread_truncation = Some(UnreadTruncation { group, topic_partition, topic, first, is_accepted: false });
        self.settle(world)?;
        match world.unread_truncation.take() {
            Some(UnreadTruncation { is_accepted: false, topic, .. }) => {
                let what = format!("an unread record of {topic}/{} was deleted", topic_partition.partition);
                Err(Violation::new("a service whose unread input was deleted is refused", what))
            }
            _ => Ok(()),
        }
    }
}

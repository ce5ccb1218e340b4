//! Which partitions flow: partition p of every input, from explicit positions, once its task decides; none while it is held.
//!
//! Only the inbox is subscribed. What the group assigns is acknowledged with nothing at first, and the inputs are assigned when
//! the task has passed its barrier, so that no record is ever delivered too early. The client is told of the other inputs' topics
//! meanwhile: it would look for the leaders of topics that are not subscribed at its own leisure, a second later.
//!
//! Each generation of the group gives out every partition and takes every one back, so what flows is always told as a whole.

use std::{collections::BTreeSet, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
};

use super::member::Member;
use crate::{
    core::{Contract, Machine},
    decider::Decider,
};

/// The partitions that flow.
#[derive(Debug, Default)]
pub(super) struct Flow {
    flowing: BTreeSet<i32>,
    knows_topics: bool,
}

/// How long a question for a topic may hold a worker up. Without an answer the client finds out by itself.
const ASK_AT_MOST: Duration = Duration::from_secs(1);

impl Flow {
    /// Acknowledges an assignment. Nothing new flows yet.
    pub(super) fn acknowledge(&mut self, consumer: &BaseConsumer<Member>, contract: &Contract) -> KafkaResult<()> {
        if !self.knows_topics {
            let others = contract.inputs.iter().skip(1);
            let told = others.map(|topic| consumer.fetch_metadata(Some(topic), ASK_AT_MOST));
            self.knows_topics = told.collect::<KafkaResult<Vec<_>>>().is_ok();
        }
        consumer.assign(&TopicPartitionList::new())
    }

    /// Lets partitions flow from their tasks' positions.
    pub(super) fn open<D: Decider>(
        &mut self,
        consumer: &BaseConsumer<Member>,
        machine: &Machine<D>,
        partitions: &[i32],
    ) -> KafkaResult<()> {
        let flowed = self.flowing.len();
        self.flowing.extend(partitions);
        if self.flowing.len() > flowed { consumer.assign(&inputs(machine, &self.flowing)?) } else { Ok(()) }
    }

    /// Stops a partition's inputs, between batches.
    pub(super) fn shut<D: Decider>(
        &mut self,
        consumer: &BaseConsumer<Member>,
        machine: &Machine<D>,
        partition: i32,
    ) -> KafkaResult<()> {
        if self.flowing.remove(&partition) { consumer.assign(&inputs(machine, &self.flowing)?) } else { Ok(()) }
    }

    /// Acknowledges a revocation: gives everything back.
    pub(super) fn give_back(&mut self, consumer: &BaseConsumer<Member>) -> KafkaResult<()> {
        self.flowing.clear();
        consumer.unassign()
    }

    pub(super) fn is_open(&self, partition: i32) -> bool {
        self.flowing.contains(&partition)
    }
}

fn inputs<D: Decider>(machine: &Machine<D>, partitions: &BTreeSet<i32>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for task in partitions.iter().filter_map(|partition| machine.task(*partition)) {
        for (input, (topic, position)) in machine.contract().inputs.iter().zip(task.positions()).enumerate() {
            // An inbox may have been cut at its beginning, so "nothing read yet" is the beginning, whatever its offset.
            let from = if input == 0 && *position == 0 { Offset::Beginning } else { Offset::Offset(*position) };
            list.add_partition_offset(topic, task.partition(), from)?;
        }
    }
    Ok(list)
}

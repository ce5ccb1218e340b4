//! Which partitions flow: partition p of every input, from explicit positions, once its task decides; none while it is held.
//!
//! Only the inbox is subscribed. What the group assigns is acknowledged with nothing at first, and the inputs are assigned when
//! the task has passed its barrier, so that no record is ever delivered too early. The client is told of the other inputs' topics
//! meanwhile: it would look for the leaders of topics that are not subscribed at its own leisure, a second later.

use std::{collections::BTreeSet, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, RebalanceProtocol},
    error::KafkaResult,
};

use super::member::Member;
use crate::{core::Machine, decider::Decider};

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
    pub(super) fn acknowledge<D: Decider>(
        &mut self,
        consumer: &BaseConsumer<Member>,
        machine: &Machine<D>,
    ) -> KafkaResult<()> {
        if !self.knows_topics {
            let others = machine.contract().inputs.iter().skip(1);
            let told = others.map(|topic| consumer.fetch_metadata(Some(topic), ASK_AT_MOST));
            self.knows_topics = told.collect::<KafkaResult<Vec<_>>>().is_ok();
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&TopicPartitionList::new()),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&inputs(machine, &self.flowing)?),
        }
    }

    /// Lets a partition flow from its task's positions.
    pub(super) fn open<D: Decider>(
        &mut self,
        consumer: &BaseConsumer<Member>,
        machine: &Machine<D>,
        partition: i32,
    ) -> KafkaResult<()> {
        if !self.flowing.insert(partition) {
            return Ok(());
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                consumer.incremental_assign(&inputs(machine, &BTreeSet::from([partition]))?)
            }
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&inputs(machine, &self.flowing)?),
        }
    }

    /// Stops a partition's inputs, between batches.
    pub(super) fn shut<D: Decider>(
        &mut self,
        consumer: &BaseConsumer<Member>,
        machine: &Machine<D>,
        partition: i32,
    ) -> KafkaResult<()> {
        if !self.flowing.remove(&partition) {
            return Ok(());
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                consumer.incremental_unassign(&inputs(machine, &BTreeSet::from([partition]))?)
            }
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&inputs(machine, &self.flowing)?),
        }
    }

    /// Acknowledges a revocation: gives back what flows of these partitions. The tasks are still in the machine.
    pub(super) fn give_back<D: Decider>(
        &mut self,
        consumer: &BaseConsumer<Member>,
        machine: &Machine<D>,
        partitions: &[i32],
    ) -> KafkaResult<()> {
        let gone: BTreeSet<i32> = partitions.iter().copied().filter(|p| self.flowing.remove(p)).collect();
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&inputs(machine, &gone)?),
            RebalanceProtocol::Eager | RebalanceProtocol::None => {
                self.flowing.clear();
                consumer.unassign()
            }
        }
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

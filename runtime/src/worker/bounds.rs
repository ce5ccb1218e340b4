//! The bounds of partitions, fetched from the brokers.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use crate::{
    core::log_bounds::{AllBounds, LogBounds},
    kafka::ClientLog,
};

/// Fetches the bounds of these partitions of each topic, with two requests to each broker. `client` must see uncommitted records.
pub(crate) fn fetch(
    client: &BaseConsumer<ClientLog>,
    topics: impl IntoIterator<Item = impl AsRef<str>>,
    partitions: &BTreeSet<i32>,
    patience: Duration,
) -> KafkaResult<AllBounds> {
    let topics: Vec<Arc<str>> = topics.into_iter().map(|topic| topic.as_ref().into()).collect();
    let logs = || topics.iter().flat_map(|topic| partitions.iter().map(move |partition| (topic, *partition)));
    let fetch = |which: Offset| {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in logs() {
            list.add_partition_offset(topic, partition, which)?;
        }
        client.offsets_for_times(list, patience)
    };
    let (firsts, ends) = (fetch(Offset::Beginning)?, fetch(Offset::End)?);
    let bounds = logs().map(|(topic, partition)| {
        let (first, end) = (offset_in(&firsts, topic, partition)?, offset_in(&ends, topic, partition)?);
        Ok(((Arc::clone(topic), partition), LogBounds { first, end }))
    });
    bounds.collect()
}

fn offset_in(list: &TopicPartitionList, topic: &str, partition: i32) -> KafkaResult<i64> {
    let unknown = || KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition);
    let element = list.find_partition(topic, partition).ok_or_else(unknown)?;
    element.error()?;
    match element.offset() {
        Offset::Offset(offset) => Ok(offset),
        _ => Err(unknown()),
    }
}

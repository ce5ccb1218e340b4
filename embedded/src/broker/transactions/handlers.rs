//! The requests of transactional producers and of tools that inspect transactions.

use super::ProducerIdentity;
use crate::broker::context::RequestContext;
use crate::broker::coordinator::{TopicPartition, TxnState};
use crate::broker::sync::now_ms;
use crate::broker::text;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState as Described};
use kafka_protocol::messages::list_transactions_response::TransactionState as Listed;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    DescribeTransactionsRequest, DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListTransactionsRequest, ListTransactionsResponse,
};

pub(crate) fn init_producer_id(
    context: &RequestContext<'_>,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let timeout_max = context.shared().config.limits.transaction_timeout_max.as_millis();
    let timeout_ms = i64::from(request.transaction_timeout_ms);
    let id = request.transactional_id.as_ref().map(|id| id.as_str());
    let requested: ProducerIdentity =
        if context.version >= 3 { (request.producer_id.0, request.producer_epoch) } else { (-1, -1) };
    let granted = match id {
        Some("") => Err(ResponseError::InvalidRequest),
        Some(_) if timeout_ms <= 0 || u128::try_from(timeout_ms).unwrap_or(0) > timeout_max => {
            Err(ResponseError::InvalidTransactionTimeout)
        }
        _ => super::init(context.shared(), id, requested, timeout_ms, now_ms()),
    };
    match granted {
        Ok((producer_id, epoch)) => {
            InitProducerIdResponse::default().with_producer_id(producer_id.into()).with_producer_epoch(epoch)
        }
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(fence_code(error, context.version >= 4))
            .with_producer_id((-1).into())
            .with_producer_epoch(-1),
    }
}

/// Older versions of a request lack the code `PRODUCER_FENCED`.
fn fence_code(error: ResponseError, supports_fenced: bool) -> i16 {
    if error == ResponseError::ProducerFenced && !supports_fenced {
        ResponseError::InvalidProducerEpoch.code()
    } else {
        error.code()
    }
}

pub(crate) fn add_partitions(
    context: &RequestContext<'_>,
    request: &AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let topics = context.shared().topics.snapshot();
    let requested = &request.v3_and_below_topics;
    let topic_partitions: Vec<TopicPartition> = requested
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.to_string(), *partition)))
        .collect();
    let exists = |(topic, index): &TopicPartition| topics.partition(topic, *index).is_some();
    let all_exist = topic_partitions.iter().all(exists);
    let producer = (request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch);
    let added = if all_exist {
        super::add_partitions(
            context.shared(),
            &request.v3_and_below_transactional_id,
            producer,
            &topic_partitions,
            now_ms(),
        )
    } else {
        Err(ResponseError::OperationNotAttempted)
    };
    let overall = added.err().map_or(0, |error| fence_code(error, context.version >= 2));
    let results = requested
        .iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|index| {
                    let known = topics.partition(&topic.name, *index).is_some();
                    let code = if known { overall } else { ResponseError::UnknownTopicOrPartition.code() };
                    AddPartitionsToTxnPartitionResult::default()
                        .with_partition_index(*index)
                        .with_partition_error_code(code)
                })
                .collect();
            AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(partitions)
        })
        .collect();
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results)
}

pub(crate) fn add_offsets(context: &RequestContext<'_>, request: &AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let producer = (request.producer_id.0, request.producer_epoch);
    let added = super::add_group(context.shared(), &request.transactional_id, producer, &request.group_id, now_ms());
    let code = added.err().map_or(0, |error| fence_code(error, context.version >= 2));
    AddOffsetsToTxnResponse::default().with_error_code(code)
}

pub(crate) fn end(context: &RequestContext<'_>, request: &EndTxnRequest) -> EndTxnResponse {
    let producer = (request.producer_id.0, request.producer_epoch);
    let ended = super::end(context.shared(), &request.transactional_id, producer, request.committed, now_ms());
    let code = ended.err().map_or(0, |error| fence_code(error, context.version >= 2));
    EndTxnResponse::default().with_error_code(code)
}

/// The name that Kafka's tools display.
fn state_name(state: TxnState) -> &'static str {
    match state {
        TxnState::Empty => "Empty",
        TxnState::Ongoing => "Ongoing",
        TxnState::Prepared { commit: true } => "PrepareCommit",
        TxnState::Prepared { commit: false } => "PrepareAbort",
        TxnState::Completed { commit: true } => "CompleteCommit",
        TxnState::Completed { commit: false } => "CompleteAbort",
    }
}

pub(crate) fn describe(
    context: &RequestContext<'_>,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let state = context.shared().coordinator.lock();
    let states = request
        .transactional_ids
        .into_iter()
        .map(|id| {
            let Some(txn) = state.ledger().txns.get(id.as_str()) else {
                return Described::default()
                    .with_error_code(ResponseError::TransactionalIdNotFound.code())
                    .with_transactional_id(id);
            };
            let mut topics: Vec<TopicData> = Vec::new();
            for (topic, index) in &txn.partitions {
                match topics.last_mut() {
                    Some(last) if last.topic.as_str() == topic => last.partitions.push(*index),
                    _ => topics.push(TopicData::default().with_topic(text(topic).into()).with_partitions(vec![*index])),
                }
            }
            Described::default()
                .with_transactional_id(id)
                .with_transaction_state(state_name(txn.state).into())
                .with_transaction_timeout_ms(i32::try_from(txn.timeout_ms).unwrap_or(i32::MAX))
                .with_transaction_start_time_ms(if txn.state == TxnState::Ongoing { txn.started_ms } else { -1 })
                .with_producer_id(txn.producer_id.into())
                .with_producer_epoch(txn.epoch)
                .with_topics(topics)
        })
        .collect();
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

pub(crate) fn list(context: &RequestContext<'_>, request: &ListTransactionsRequest) -> ListTransactionsResponse {
    let now_ms = now_ms();
    let state = context.shared().coordinator.lock();
    let states = state
        .ledger()
        .txns
        .iter()
        .filter(|(_, txn)| {
            let state = request.state_filters.is_empty()
                || request.state_filters.iter().any(|wanted| wanted.as_str() == state_name(txn.state));
            let producer = request.producer_id_filters.is_empty()
                || request.producer_id_filters.iter().any(|wanted| wanted.0 == txn.producer_id);
            let duration = context.version < 1
                || request.duration_filter < 0
                || (txn.state == TxnState::Ongoing && now_ms - txn.started_ms > request.duration_filter);
            state && producer && duration
        })
        .map(|(id, txn)| {
            Listed::default()
                .with_transactional_id(text(id).into())
                .with_producer_id(txn.producer_id.into())
                .with_transaction_state(state_name(txn.state).into())
        })
        .collect();
    ListTransactionsResponse::default().with_transaction_states(states)
}

//! A batch as the requests of one transaction, sent to the simulated cluster one at a time.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use runtime::{
    Decider,
    core::{Batch, Output, OutputHeaders, OutputTopic, log_bounds::own_end_of, partition_of, turn::Turn},
    envelope::Envelope,
};

use super::{ServiceContext, World};
use crate::{
    cluster::{
        CommittedOffset, Headers, Membership, Offsets, ProducerSession, Reply, Request, StoredRecord, TopicPartition,
    },
    faults::Fault,
    mutant::Mutant,
};

/// The transaction of a batch, in progress.
#[derive(Debug)]
pub(crate) struct BatchTransaction {
    requests: VecDeque<Request>,
    /// The end offsets of the records appended to the own log.
    pub(crate) own_ends: BTreeMap<i32, i64>,
    pub(crate) begun_ms: i64,
    events: usize,
}

/// The outcome of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestOutcome {
    /// The request is done; more follow.
    Continue,
    /// The transaction is committed.
    Committed,
    /// The cluster is busy; the same request is sent again.
    Retry,
    /// The request has failed, or its outcome is unknown: the process must start again from the log.
    Failed(String),
}

pub(crate) fn headers_of(envelope: &Envelope) -> Headers {
    let mut headers = Headers::with_capacity(14);
    envelope.for_each_header(|name, value| headers.push((Cow::Borrowed(name), Some(value.as_bytes().to_vec()))));
    headers
}

fn stored(batch: &Batch, output: &Output) -> Rc<StoredRecord> {
    let headers = match &output.headers {
        OutputHeaders::Envelope(envelope) => headers_of(envelope),
        OutputHeaders::Verbatim(headers) => {
            headers.iter().map(|(name, value)| (Cow::Owned(name.clone()), value.clone())).collect()
        }
    };
    let (key, value) = (batch.key(output).map(<[u8]>::to_vec), batch.value(output).map(<[u8]>::to_vec));
    Rc::new(StoredRecord { timestamp_ms: output.timestamp_ms, key, value, headers })
}

impl BatchTransaction {
    /// The requests that commit a batch. `fence` is the membership at the beginning of the batch.
    pub(crate) fn of<D: Decider>(
        service: &ServiceContext<D>,
        turn: &Turn<D, Membership>,
        session: &ProducerSession,
        fence: Membership,
        world: &mut World,
    ) -> Self {
        let batch = turn.batch();
        let partition_of_output = |output: &Output| {
            let topic = match output.to {
                OutputTopic::Events => service.events,
                OutputTopic::Inbox => service.inputs[0],
                OutputTopic::DeadLetters => service.dead_letters,
                OutputTopic::Parked => service.parked,
            };
            let by_key = || partition_of(batch.key(output).unwrap_or_default(), service.contract.partitions);
            TopicPartition { topic, partition: output.partition.unwrap_or_else(by_key) }
        };
        let mut by_partition: BTreeMap<TopicPartition, Vec<Rc<StoredRecord>>> = BTreeMap::new();
        for output in batch.outputs() {
            by_partition.entry(partition_of_output(output)).or_default().push(stored(batch, output));
        }
        let offsets = turn
            .offsets()
            .map(|(input, partition, next, note)| {
                (
                    TopicPartition { topic: service.inputs[input], partition },
                    CommittedOffset { next, own_end: own_end_of(&note) },
                )
            })
            .collect();
        let mut requests: Vec<Request> = by_partition
            .into_iter()
            .map(|(topic_partition, records)| Request::Produce { session: session.clone(), topic_partition, records })
            .collect();
        let requests = order(&mut requests, offsets, service.group, session, fence, world);
        Self { requests, own_ends: BTreeMap::new(), begun_ms: world.now_ms, events: service.events }
    }

    /// Sends the next request.
    pub(crate) fn step(&mut self, world: &mut World, process: &str) -> RequestOutcome {
        let Some(request) = self.requests.pop_front() else { return RequestOutcome::Committed };
        let ignores_errors = world.is(Mutant::ContinueAfterError);
        let lost = |what: &str| if ignores_errors { None } else { Some(RequestOutcome::Failed(what.to_owned())) };
        let mut failed = None;
        let reply = if world.injects(Fault::RequestLost, process) {
            failed = lost("a request got no reply");
            None
        } else if world.injects(Fault::RequestLate, process) {
            let at_ms = world.now_ms + world.faults.extent().within(50..=6_000);
            world.cluster.handle_later(at_ms, request.clone());
            failed = lost("a request got no reply in time");
            None
        } else {
            let reply = world.cluster.handle(&request, world.now_ms, &mut world.trace);
            if reply != Reply::Busy && world.injects(Fault::ReplyLost, process) {
                failed = lost("the reply to a request was lost");
            }
            Some(reply)
        };
        if let Some(failed) = failed {
            return failed;
        }
        match reply {
            Some(Reply::Busy) => {
                self.requests.push_front(request);
                return RequestOutcome::Retry;
            }
            Some(Reply::Fenced) => {
                return RequestOutcome::Failed("fenced: another producer has the same transactional id".to_owned());
            }
            Some(Reply::TooLarge) => {
                return RequestOutcome::Failed("a record is larger than its topic takes".to_owned());
            }
            Some(Reply::NotAMember) => {
                return RequestOutcome::Failed("fenced: not a member of this generation".to_owned());
            }
            Some(Reply::NoTransaction) if !ignores_errors => {
                return RequestOutcome::Failed("there is no transaction".to_owned());
            }
            Some(Reply::Done { end }) => self.note_end(&request, end),
            Some(Reply::NoTransaction) | None => {}
        }
        if self.requests.is_empty() { RequestOutcome::Committed } else { RequestOutcome::Continue }
    }

    fn note_end(&mut self, request: &Request, end: i64) {
        if let Request::Produce { topic_partition, .. } = request
            && topic_partition.topic == self.events
        {
            let known = self.own_ends.entry(topic_partition.partition).or_default();
            *known = (*known).max(end);
        }
    }

    /// True if its last request may have been sent: the transaction may be committed although the process got no reply.
    pub(crate) fn is_ending(&self) -> bool {
        self.requests.len() <= 1
    }
}

/// The order in which requests are sent: records and positions in any order, then the end. Mutants have other orders.
fn order(
    produce: &mut Vec<Request>,
    offsets: Offsets,
    group: usize,
    session: &ProducerSession,
    fence: Membership,
    world: &mut World,
) -> VecDeque<Request> {
    let session = || session.clone();
    let end = || Request::EndTxn { session: session(), commits: true };
    let unfenced = |offsets| Request::OffsetCommit { group, offsets };
    let membership = (!world.is(Mutant::NoGeneration)).then_some(fence);
    let fenced = |offsets| Request::TxnOffsetCommit { session: session(), group, membership, offsets };
    // The requests are shuffled anyway, so `swap_remove` may move the last one.
    let mut shuffled = VecDeque::new();
    while !produce.is_empty() {
        shuffled.push_back(produce.swap_remove(world.random.index(produce.len())));
    }
    match world.mutant {
        Some(Mutant::CommitFirst) => {
            let has_no_records = shuffled.is_empty();
            shuffled.push_front(unfenced(offsets));
            if !has_no_records {
                shuffled.push_back(end());
            }
        }
        Some(Mutant::OffsetsOutsideFence) => {
            if !shuffled.is_empty() {
                shuffled.push_back(end());
            }
            shuffled.push_back(unfenced(offsets));
        }
        Some(Mutant::SplitDecision) => {
            let rest = shuffled.split_off(shuffled.len() / 2);
            if !shuffled.is_empty() {
                shuffled.push_back(end());
            }
            shuffled.extend(rest);
            shuffled.push_back(fenced(offsets));
            shuffled.push_back(end());
        }
        _ => {
            let at = world.random.index(shuffled.len() + 1);
            shuffled.insert(at, fenced(offsets));
            shuffled.push_back(end());
        }
    }
    shuffled
}

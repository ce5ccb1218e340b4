//! Attempts at effects: the external service is called, answers, and the answer is appended to the inbox, each at its own time.
//!
//! An attempt runs beside the loop. It continues when the incarnation that began it has ended, and ends with the process.

use std::{rc::Rc, sync::Arc};

use runtime::{
    Decider, Due,
    core::{DueEffect, partition_of},
    envelope::{Envelope, answer_id},
};

use super::{ServiceContext, Violation, World, transaction::headers_of};
use crate::{
    cluster::{StoredRecord, TopicPartition},
    faults::Fault,
    mutant::Mutant,
};

enum AttemptPhase<D: Decider> {
    Calling(Due<D::Effect>),
    Answered(Rc<StoredRecord>),
}

/// One attempt at an effect.
pub(crate) struct EffectAttempt<D: Decider> {
    /// The incarnation that began it.
    incarnation: u64,
    partition: i32,
    key: Arc<str>,
    at_ms: i64,
    phase: AttemptPhase<D>,
}

/// How an attempt ended, reported to the incarnation that began it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EffectReport {
    pub(crate) incarnation: u64,
    pub(crate) partition: i32,
    pub(crate) key: Arc<str>,
    pub(crate) answered: bool,
}

impl<D: Decider> EffectAttempt<D> {
    pub(crate) fn begin(incarnation: u64, effect: DueEffect<D::Effect>, world: &mut World) -> Self {
        let DueEffect { partition, effect_key, due } = effect;
        if due.attempt > 0 {
            world.trace.sometimes("an effect is retried");
        }
        let at_ms = world.now_ms + world.random.within(1..=400);
        Self { incarnation, partition, key: effect_key, at_ms, phase: AttemptPhase::Calling(due) }
    }

    pub(crate) fn at_ms(&self) -> i64 {
        self.at_ms
    }

    /// The next step of the attempt.
    pub(crate) fn step(
        mut self,
        service: &ServiceContext<D>,
        world: &mut World,
        process: &str,
    ) -> Result<AttemptProgress<D>, Violation> {
        let stored = match self.phase {
            AttemptPhase::Calling(ref due) => match call(service, world, (&self.key, due), process)? {
                Some(stored) => {
                    self.at_ms = world.now_ms + world.random.within(1..=400);
                    self.phase = AttemptPhase::Answered(stored);
                    return Ok(AttemptProgress::Continues(self));
                }
                None => return Ok(AttemptProgress::Ended(self.report(false))),
            },
            AttemptPhase::Answered(ref stored) => Rc::clone(stored),
        };
        let entity = stored.key.as_deref().unwrap_or_default();
        let topic_partition =
            TopicPartition { topic: service.inputs[0], partition: partition_of(entity, service.contract.partitions) };
        let is_known = world.append(topic_partition, Rc::clone(&stored), process);
        if is_known && world.injects(Fault::AnswerTwice, process) {
            let at_ms = world.now_ms + world.faults.extent().within(1..=20_000);
            world.cluster.handle_later(at_ms, crate::cluster::Request::Append { topic_partition, record: stored });
        }
        Ok(AttemptProgress::Ended(self.report(is_known)))
    }

    fn report(self, answered: bool) -> EffectReport {
        EffectReport { incarnation: self.incarnation, partition: self.partition, key: self.key, answered }
    }
}

/// Whether an attempt continues.
pub(crate) enum AttemptProgress<D: Decider> {
    Continues(EffectAttempt<D>),
    Ended(EffectReport),
}

fn call<D: Decider>(
    service: &ServiceContext<D>,
    world: &mut World,
    (key, due): (&str, &Due<D::Effect>),
    process: &str,
) -> Result<Option<Rc<StoredRecord>>, Violation> {
    if !service.reference.borrow_mut().was_due(&world.cluster.log, key)? {
        let what = format!("{process} performs {key}, which no event has made due");
        return Err(Violation::new("an effect follows a committed event", what));
    }
    if world.injects(Fault::CallLost, process) {
        return Ok(None);
    }
    *service.calls.borrow_mut() += 1;
    let request_key =
        if world.is(Mutant::NoIdempotencyKey) { format!("{key} {}", world.random.draw()) } else { key.to_owned() };
    let answered = service.external.borrow_mut().call(&request_key, due, &mut world.random);
    world.trace.note(Some(&due.correlation_id), || match &answered {
        Ok(answer) => format!("{process} calls {key}: {}", answer.outcome),
        Err(unanswered) => format!("{process} calls {key}: no answer ({unanswered})"),
    });
    let Ok(answer) = answered else { return Ok(None) };
    if world.injects(Fault::AnswerLost, process) {
        return Ok(None);
    }
    let mut value = Vec::new();
    let full_name = service
        .contract
        .writers()
        .encode(&answer.command, &mut value)
        .map_err(|e| Violation::new("an answer can be written", format!("{key}: {e}")))?;
    let id = answer_id(D::NAME, key, &answer.outcome);
    let envelope = Envelope::new(id, service.contract.source.clone(), full_name.clone(), world.now_ms)
        .about(due.key.as_str())
        .correlated(due.correlation_id.as_str());
    let envelope = Envelope { build: Some(service.contract.build.clone()), ..envelope };
    let (key, value) = (Some(due.key.clone().into_bytes()), Some(value));
    Ok(Some(Rc::new(StoredRecord { timestamp_ms: world.now_ms, key, value, headers: headers_of(&envelope) })))
}

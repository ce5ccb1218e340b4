//! Effects on their way: each is performed on the async runtime, and its answer enters the inbox outside any transaction.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::Message,
    producer::{BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext},
    types::RDKafkaErrorCode,
};

use super::Setup;
use crate::{
    clock,
    codec::Writers,
    core::partition_of,
    decider::{Answer, Decider, Due, Effect, Perform, Unanswered},
    envelope::{Envelope, answer_id},
    kafka::{ClientLog, headers::to_headers},
};

/// How many effects of one worker are under way at the same time.
pub(super) const IN_FLIGHT_AT_MOST: usize = 256;
/// How long one attempt may take.
const ATTEMPT_AT_MOST: Duration = Duration::from_secs(60);

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) partition: i32,
    pub(super) key: String,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    /// The answer lies in the inbox.
    Answered,
    Unanswered(Option<Duration>),
}

/// The context of the producer of answers: notes which answers have arrived. Bounded by what is in flight.
pub(super) struct Answers {
    log: ClientLog,
    reports: Mutex<Vec<Report>>,
    fatal: Mutex<Option<String>>,
}

pub(super) type AnswerProducer = BaseProducer<Answers, NoCustomPartitioner>;

impl Answers {
    pub(super) fn new(log: ClientLog) -> Self {
        Self { log, reports: Mutex::default(), fatal: Mutex::default() }
    }

    pub(super) fn take(&self) -> Vec<Report> {
        std::mem::take(&mut self.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why this producer can do no more, if it cannot.
    pub(super) fn fatal(&self) -> Option<String> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn report(&self, report: Report) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

impl ClientContext for Answers {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            *self.fatal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
        self.log.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Answers {
    type DeliveryOpaque = Box<(i32, String)>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, place: Box<(i32, String)>) {
        let (partition, key) = *place;
        let end = match delivery {
            Ok(_) => End::Answered,
            Err((error, message)) => {
                tracing::warn!(effect = %key, topic = message.topic(), %error, "an effect's answer was not appended");
                End::Unanswered(None)
            }
        };
        self.report(Report { partition, key, end });
    }
}

/// Performs an effect. Whatever happens, exactly one report follows.
pub(super) fn perform<D: Decider, P: Perform<D>>(
    setup: &Setup<D, P>,
    producer: &Arc<AnswerProducer>,
    partition: i32,
    due: Due<D::Effect>,
) {
    let performer = Arc::clone(&setup.performer);
    let sender = Sender {
        producer: Arc::clone(producer),
        writers: setup.contract.writers().clone(),
        service: D::NAME,
        source: Arc::clone(&setup.contract.source),
        build: Arc::clone(&setup.contract.build),
        inbox: Arc::clone(&setup.contract.inputs[0]),
        partitions: setup.contract.partitions,
    };
    let key = due.effect.key();
    // A panic drops the guard, which reports the attempt as unanswered.
    let guard = Unreported { producer: Arc::clone(producer), place: Some((partition, key.clone())) };
    setup.runtime.spawn(async move {
        let mut guard = guard;
        let (entity, correlation_id) = (due.key.clone(), due.correlation_id.clone());
        let attempt = tokio::time::timeout(ATTEMPT_AT_MOST, performer.perform(due)).await;
        let answered = attempt.unwrap_or_else(|_| Err(Unanswered::new("no answer in time")));
        let sent = match answered {
            Ok(answer) => sender.hand_in(partition, &key, &entity, &correlation_id, &answer).await,
            Err(unanswered) => Err(unanswered),
        };
        match sent {
            // The delivery reports.
            Ok(()) => guard.place = None,
            Err(unanswered) => {
                tracing::warn!(effect = %key, entity = %entity, reason = %unanswered, "effect unanswered; it is tried again");
                guard.retry_after(unanswered.retry_after);
            }
        }
    });
}

struct Unreported {
    producer: Arc<AnswerProducer>,
    place: Option<(i32, String)>,
}

impl Unreported {
    fn retry_after(&mut self, pause: Option<Duration>) {
        use rdkafka::producer::Producer;
        if let Some((partition, key)) = self.place.take() {
            self.producer.context().report(Report { partition, key, end: End::Unanswered(pause) });
        }
    }
}

impl Drop for Unreported {
    fn drop(&mut self) {
        self.retry_after(None);
    }
}

struct Sender {
    producer: Arc<AnswerProducer>,
    writers: Writers,
    service: &'static str,
    source: Arc<str>,
    build: Arc<str>,
    inbox: Arc<str>,
    partitions: i32,
}

impl Sender {
    /// Hands an answer in: the same answer got twice is the same record.
    async fn hand_in<C: crate::message::Written>(
        &self,
        partition: i32,
        effect: &str,
        entity: &str,
        correlation_id: &str,
        answer: &Answer<C>,
    ) -> Result<(), Unanswered> {
        let mut value = Vec::new();
        let full_name = self
            .writers
            .encode(&answer.command, &mut value)
            .map_err(|e| Unanswered::new(format!("the answer cannot be written: {e}")))?;
        let now_ms = clock::now_ms();
        let id = answer_id(self.service, effect, &answer.outcome);
        let envelope = Envelope::new(id, Arc::clone(&self.source), Arc::clone(full_name), now_ms)
            .about(entity)
            .correlated(correlation_id);
        let envelope = Envelope { build: Some(Arc::clone(&self.build)), ..envelope };
        const PATIENCE: u32 = 100;
        let mut record = BaseRecord::with_opaque_to(&self.inbox, Box::new((partition, effect.to_owned())))
            .partition(partition_of(entity.as_bytes(), self.partitions))
            .key(entity)
            .payload(value.as_slice())
            .timestamp(now_ms)
            .headers(to_headers(&envelope));
        for _ in 0..PATIENCE {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
                Err((error, _)) => return Err(Unanswered::new(format!("the answer cannot be handed in: {error}"))),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Unanswered::new("the answer cannot be handed in: the queue of answers stays full"))
    }
}

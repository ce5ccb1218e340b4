//! Performs effects on the async runtime. Their answers enter the inbox outside any transaction.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, KafkaResult},
    message::Message,
    producer::{BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext},
    types::RDKafkaErrorCode,
};

use super::{
    Setup,
    error::{WorkerError, check_alive},
};
use crate::{
    clock,
    codec::Writers,
    config::Config,
    core::{DueEffect, partition_of},
    decider::{Answer, Decider, Perform, Unanswered},
    envelope::{Envelope, answer_id},
    kafka::{
        ClientLog,
        client::{self, WorkerNames},
        close_within,
        headers::to_headers,
    },
};

/// The deadline of one attempt.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(60);
/// A producer that appends none of its waiting answers for so long has lost its brokers.
const STUCK_AFTER: Duration = Duration::from_secs(20);

/// The result of an attempt.
#[derive(Debug)]
pub(super) struct EffectReport {
    pub(super) partition: i32,
    pub(super) effect_key: Arc<str>,
    /// `Ok` if the answer is in the inbox. Else the pause before the next attempt, if the external service requested one.
    pub(super) outcome: Result<(), Option<Duration>>,
}

/// The producer of answers, and when it last made progress. Dropping it closes it within a bounded time.
pub(super) struct AnswerSender {
    producer: Option<Arc<AnswerProducer>>,
    progressed: Instant,
    patience: Duration,
}

impl AnswerSender {
    pub(super) fn begin(config: &Config, names: &WorkerNames) -> KafkaResult<Self> {
        let log = ClientLog::new(format!("{}.answers", names.client_id));
        let producer = client::idempotent_producer(config, "answers").create_with_context(AnswerListener::new(log))?;
        Ok(Self {
            producer: Some(Arc::new(producer)),
            progressed: Instant::now(),
            patience: config.timeouts.shutdown / 2,
        })
    }

    fn producer(&self) -> &Arc<AnswerProducer> {
        self.producer.as_ref().expect("set until the drop")
    }

    /// The attempts that ended since the last call.
    pub(super) fn take_reports(&mut self) -> Vec<EffectReport> {
        let mut all = Vec::new();
        loop {
            // One poll delivers one report, so this polls until there is none.
            self.producer().poll(Duration::ZERO);
            let reports = self.producer().context().take();
            if reports.is_empty() {
                return all;
            }
            self.progressed = Instant::now();
            all.extend(reports);
        }
    }

    /// Fails if the producer cannot continue.
    pub(super) fn check(&mut self, in_flight: usize) -> Result<(), WorkerError> {
        check_alive("the producer of answers", &**self.producer())?;
        if in_flight == 0 || self.producer().in_flight_count() == 0 {
            self.progressed = Instant::now();
        } else if self.progressed.elapsed() >= STUCK_AFTER {
            return Err(WorkerError::Unreachable("answers of effects are not appended".to_owned()));
        }
        Ok(())
    }

    /// Performs an effect. Exactly one report follows, also after a panic.
    pub(super) fn perform<D: Decider, P: Perform<D>>(&self, setup: &Setup<D, P>, effect: DueEffect<D::Effect>) {
        perform(setup, self.producer(), effect);
    }
}

impl Drop for AnswerSender {
    fn drop(&mut self) {
        if self.producer.take().is_some_and(|producer| !close_within(producer, self.patience)) {
            tracing::warn!("the producer of answers did not close in time and is abandoned");
        }
    }
}

/// The context of the producer of answers: collects the reports. The number of effects in flight bounds them.
struct AnswerListener {
    log: ClientLog,
    reports: Mutex<Vec<EffectReport>>,
}

type AnswerProducer = BaseProducer<AnswerListener, NoCustomPartitioner>;

impl AnswerListener {
    fn new(log: ClientLog) -> Self {
        Self { log, reports: Mutex::default() }
    }

    fn take(&self) -> Vec<EffectReport> {
        std::mem::take(&mut self.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn report(&self, report: EffectReport) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

impl ClientContext for AnswerListener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.log.stats_raw(statistics);
    }
}

impl ProducerContext<NoCustomPartitioner> for AnswerListener {
    type DeliveryOpaque = Box<(i32, Arc<str>)>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, effect: Box<(i32, Arc<str>)>) {
        let (partition, effect_key) = *effect;
        let outcome = delivery.as_ref().map(|_| ()).map_err(|(error, message)| {
            tracing::warn!(effect = %effect_key, topic = message.topic(), %error, "an effect's answer was not appended");
            None
        });
        self.report(EffectReport { partition, effect_key, outcome });
    }
}

fn perform<D: Decider, P: Perform<D>>(
    setup: &Setup<D, P>,
    producer: &Arc<AnswerProducer>,
    DueEffect { partition, effect_key: key, due }: DueEffect<D::Effect>,
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
    // A panic drops the guard, which reports the attempt as unanswered.
    let guard = Unreported { producer: Arc::clone(producer), effect: Some((partition, Arc::clone(&key))) };
    setup.runtime.spawn(async move {
        let mut guard = guard;
        let (entity, correlation_id) = (due.key.clone(), due.correlation_id.clone());
        let attempt = tokio::time::timeout(LONGEST_ATTEMPT, performer.perform(due)).await;
        let answered = attempt.unwrap_or_else(|_| Err(Unanswered::new("no answer in time")));
        let sent = match answered {
            Ok(answer) => sender.send(partition, &key, &entity, &correlation_id, &answer).await,
            Err(unanswered) => Err(unanswered),
        };
        match sent {
            // The delivery callback reports.
            Ok(()) => guard.effect = None,
            Err(unanswered) => {
                tracing::warn!(effect = %key, entity = %entity, reason = %unanswered, "effect unanswered; it is retried");
                guard.retry_after(unanswered.retry_after);
            }
        }
    });
}

struct Unreported {
    producer: Arc<AnswerProducer>,
    effect: Option<(i32, Arc<str>)>,
}

impl Unreported {
    fn retry_after(&mut self, pause: Option<Duration>) {
        if let Some((partition, effect_key)) = self.effect.take() {
            self.producer.context().report(EffectReport { partition, effect_key, outcome: Err(pause) });
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
    /// Sends an answer to the inbox. Receiving the same answer twice gives the same record.
    async fn send<C: crate::message::Written>(
        &self,
        partition: i32,
        effect: &Arc<str>,
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
        let mut record = BaseRecord::with_opaque_to(&self.inbox, Box::new((partition, Arc::clone(effect))))
            .partition(partition_of(entity.as_bytes(), self.partitions))
            .key(entity)
            .payload(value.as_slice())
            .timestamp(now_ms)
            .headers(to_headers(&envelope));
        for _ in 0..PATIENCE {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
                Err((error, _)) => return Err(Unanswered::new(format!("the answer cannot be sent: {error}"))),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Unanswered::new("the answer cannot be sent: the producer's queue stays full"))
    }
}

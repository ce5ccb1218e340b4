//! Requests that expect an answer: a command to the service's own inbox, then the event that answers it.
//!
//! An edge is the part of a service that its HTTP API calls. It decides nothing: it writes a command to the service's inbox and waits
//! for an event that this command caused, on whichever instance it is decided. A live view of the events topic keeps the answers of
//! each entity, so that every instance recognises a repeated request. HTTP itself is the business of `http`.

mod background;
mod connect;
mod states;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

pub use background::BackgroundEdge;
pub use connect::{ConnectError, connect};
pub use states::EntityStates;

use crate::{
    codec::{Readers, Vocabulary},
    config::Config,
    decider::Decider,
    envelope::{self, Position},
    message::{Channel, topic},
    projection::{LiveView, LogRecord, Projection, Topics, ViewError, ViewHealth},
    publisher::{EncodedRecord, Outgoing, PublishError, Publisher},
};

/// The most commands that may wait for answers at once.
const MAX_WAITING: usize = 10_000;
/// How many answers are kept per entity: the first one and the latest others.
const MAX_ANSWERS: usize = 8;

/// A request that was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The view of earlier answers has not caught up yet: a repeated request would not be recognised.
    #[error("the service is still reading its own events; hint: try again in a moment")]
    NotReady,
    /// The limit of waiting requests is reached.
    #[error("too many requests wait for their answers; hint: try again in a moment")]
    Busy,
    /// The command was not written to the inbox, or its fate is unknown. The same request may be sent again.
    #[error("the command could not be written to the inbox; hint: send the same request again")]
    NotAccepted {
        /// The cause.
        source: PublishError,
    },
}

/// A command to submit.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission<C> {
    /// The entity it is for.
    pub key: String,
    /// The command.
    pub command: C,
    /// Its id. By default it is derived from entity and content; set it if the content depends on more than the request.
    pub id: Option<Uuid>,
    /// The saga it belongs to; by default the entity.
    pub correlation_id: Option<String>,
}

impl<C> Submission<C> {
    /// A command for an entity.
    pub fn new(key: impl Into<String>, command: impl Into<C>) -> Self {
        Self { key: key.into(), command: command.into(), id: None, correlation_id: None }
    }

    /// Sets its id.
    #[must_use]
    pub fn with_id(self, id: Uuid) -> Self {
        Self { id: Some(id), ..self }
    }

    /// Sets its saga.
    #[must_use]
    pub fn correlated(self, correlation_id: impl Into<String>) -> Self {
        Self { correlation_id: Some(correlation_id.into()), ..self }
    }
}

/// The answer to a command of an entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered<S> {
    /// The command that was answered.
    pub command_id: Uuid,
    /// The position of the answering event.
    pub position: Position,
    /// The part of the event that the HTTP API needs again.
    pub summary: S,
}

/// The result of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted<S> {
    /// The command is answered, by this submission or by an earlier one.
    Answered(Answered<S>),
    /// The command is in the inbox and will be decided, but no answer arrived in time.
    Pending {
        /// The command's id.
        command_id: Uuid,
        /// Its position in the inbox.
        position: Option<Position>,
    },
}

/// The entity id derived from an `Idempotency-Key`: the same key always gives the same entity.
#[must_use]
pub fn entity_of_key(system: &str, service: &str, idempotency_key: &str) -> Uuid {
    envelope::derived_id(&["entity", system, service, idempotency_key])
}

/// The edge of a service. Clones share it. `S` is the part of an answering event that the HTTP API needs again.
pub struct Edge<D: Decider, S: Clone + Send + Sync + 'static> {
    publisher: Publisher,
    view: LiveView<Answers<D, S>>,
    waiting: Arc<Waiting<S>>,
    patience: Duration,
}

impl<D: Decider, S: Clone + Send + Sync + 'static> Clone for Edge<D, S> {
    fn clone(&self) -> Self {
        Self {
            publisher: self.publisher.clone(),
            view: self.view.clone(),
            waiting: Arc::clone(&self.waiting),
            patience: self.patience,
        }
    }
}

impl<D: Decider, S: Clone + Send + Sync + 'static> Edge<D, S> {
    /// Starts an edge of the configured service. `publisher` has the service's authority and the writers of `D::Command`.
    /// `summarise` extracts from an event what the HTTP API needs again, and returns `None` for an event that answers no command.
    ///
    /// # Errors
    /// The view cannot be started.
    pub fn start(
        config: &Config,
        publisher: Publisher,
        readers: Readers,
        summarise: fn(&D::Event) -> Option<S>,
    ) -> Result<Self, ViewError> {
        let waiting = Arc::new(Waiting::default());
        let answers = Answers {
            vocabulary: Vocabulary::new(&config.system),
            summarise,
            waiting: Arc::clone(&waiting),
            by_entity: HashMap::new(),
        };
        let topics = Topics::decoded([topic(&config.system, D::NAME, Channel::Events)]);
        let view = LiveView::start(config, &format!("answers-{}", D::NAME), readers, topics, answers)?;
        Ok(Self { publisher, view, waiting, patience: config.timeouts.answer })
    }

    /// Waits until every earlier answer is known. Do not serve requests before.
    ///
    /// # Errors
    /// [`ViewError::TooSlow`] or [`ViewError::Failed`].
    pub async fn wait_until_ready(&self, patience: Duration) -> Result<(), ViewError> {
        self.view.wait_until_caught_up(patience).await
    }

    /// The health of the view of answers.
    #[must_use]
    pub fn health(&self) -> ViewHealth {
        self.view.health()
    }

    /// The first answer of an entity: the one to the command that created it.
    #[must_use]
    pub fn first_answer(&self, entity: &str) -> Option<Answered<S>> {
        self.view.read(|answers| answers.by_entity.get(entity)?.first().cloned())
    }

    /// The answer to a command of an entity, if it is answered and the answer is kept.
    #[must_use]
    pub fn answer_to(&self, entity: &str, command_id: Uuid) -> Option<Answered<S>> {
        self.view.read(|answers| {
            answers.by_entity.get(entity)?.iter().find(|answered| answered.command_id == command_id).cloned()
        })
    }

    /// The id that a submission will get.
    ///
    /// # Errors
    /// The command does not fit its schema.
    pub fn id_of(&self, submission: &Submission<D::Command>) -> Result<Uuid, EdgeError> {
        self.encode(submission.clone()).map(|record| record.envelope.id)
    }

    /// Writes a command to the inbox and waits for the event that answers it, up to the configured timeout. A command that is answered
    /// already is not written again.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn submit(&self, submission: Submission<D::Command>) -> Result<Submitted<S>, EdgeError> {
        if !self.view.caught_up() {
            return Err(EdgeError::NotReady);
        }
        let deadline = Instant::now() + self.patience;
        let record = self.encode(submission)?;
        let (entity, command_id) = (record.key.clone(), record.envelope.id);
        // Wait before looking up earlier answers, so that an answer that arrives in between is not missed.
        let mut waiter = self.waiting.enter(command_id).ok_or(EdgeError::Busy)?;
        if let Some(answered) = self.answer_to(&entity, command_id) {
            return Ok(Submitted::Answered(answered));
        }
        let positions = self.publisher.send(vec![record], self.patience).await;
        let position = positions.map_err(|source| EdgeError::NotAccepted { source })?.pop();
        match tokio::time::timeout_at(deadline, &mut waiter.answer).await {
            Ok(Ok(answered)) => Ok(Submitted::Answered(answered)),
            Ok(Err(_)) | Err(_) => Ok(Submitted::Pending { command_id, position }),
        }
    }

    fn encode(&self, submission: Submission<D::Command>) -> Result<EncodedRecord, EdgeError> {
        let Submission { key, command, id, correlation_id } = submission;
        let outgoing = Outgoing { id, correlation_id, ..Outgoing::<D::Command>::new(key, command) };
        let not_accepted = |source| EdgeError::NotAccepted { source };
        let mut batch = self.publisher.encode([outgoing]).map_err(not_accepted)?;
        let Some(mut record) = batch.pop() else { return Err(EdgeError::Busy) };
        if id.is_none() {
            // Without the prefix: the registry decides a schema's id, so the command's id must not depend on it.
            let body = record.value.get(5..).unwrap_or_default();
            record.envelope.id = envelope::command_id(&record.envelope.record_type, &record.key, body);
        }
        Ok(record)
    }
}

/// The answers of each entity.
struct Answers<D: Decider, S> {
    vocabulary: Vocabulary<D::Event>,
    summarise: fn(&D::Event) -> Option<S>,
    waiting: Arc<Waiting<S>>,
    by_entity: HashMap<String, Vec<Answered<S>>>,
}

impl<D: Decider, S: Clone + Send + Sync + 'static> Projection for Answers<D, S> {
    fn apply(&mut self, record: &LogRecord<'_>) {
        let (Ok(envelope), Some(decoded), Some(entity)) = (record.envelope(), record.decoded(), record.key_text())
        else {
            return;
        };
        let Some(command_id) = envelope.causation_id else { return };
        let Ok(Some(event)) = self.vocabulary.read(&decoded) else { return };
        let Some(summary) = (self.summarise)(&event) else { return };
        let answered = Answered { command_id, position: record.position(), summary };
        self.waiting.answer(&answered);
        keep_answer(self.by_entity.entry(entity.to_owned()).or_default(), answered);
    }

    fn reset(&mut self) -> bool {
        self.by_entity.clear();
        true
    }
}

/// The first of several events with the same cause is the answer.
fn keep_answer<S>(answers: &mut Vec<Answered<S>>, answered: Answered<S>) {
    if answers.iter().any(|known| known.command_id == answered.command_id) {
        return;
    }
    if answers.len() >= MAX_ANSWERS {
        answers.remove(1);
    }
    answers.push(answered);
}

/// Waiting requests by the id of their command. The same request may wait several times.
struct Waiting<S> {
    waiters: Mutex<Waiters<S>>,
}

type Waiters<S> = HashMap<Uuid, Vec<(u64, oneshot::Sender<Answered<S>>)>>;

impl<S> Default for Waiting<S> {
    fn default() -> Self {
        Self { waiters: Mutex::default() }
    }
}

/// One waiting request; it stops waiting when dropped.
struct Waiter<S: Clone> {
    waiting: Arc<Waiting<S>>,
    command_id: Uuid,
    number: u64,
    answer: oneshot::Receiver<Answered<S>>,
}

impl<S: Clone> Waiting<S> {
    fn lock(&self) -> MutexGuard<'_, Waiters<S>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `None` if the limit of waiting commands is reached.
    fn enter(self: &Arc<Self>, command_id: Uuid) -> Option<Waiter<S>> {
        let mut waiters = self.lock();
        if waiters.len() >= MAX_WAITING {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        let same = waiters.entry(command_id).or_default();
        if same.len() >= MAX_WAITING {
            return None;
        }
        let number = same.last().map_or(0, |(number, _)| number + 1);
        same.push((number, sender));
        Some(Waiter { waiting: Arc::clone(self), command_id, number, answer })
    }

    fn answer(&self, answered: &Answered<S>) {
        for (_, sender) in self.lock().remove(&answered.command_id).into_iter().flatten() {
            // The request may have ended already.
            let _gone = sender.send(answered.clone());
        }
    }
}

impl<S: Clone> Drop for Waiter<S> {
    fn drop(&mut self) {
        let mut waiters = self.waiting.lock();
        if let Some(same) = waiters.get_mut(&self.command_id) {
            same.retain(|(number, _)| *number != self.number);
            if same.is_empty() {
                waiters.remove(&self.command_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(command: &str, summary: u32) -> Answered<u32> {
        Answered { command_id: envelope::derived_id(&[command]), position: Position::new("t", 0, 0), summary }
    }

    #[test]
    fn the_first_answer_is_kept_and_the_number_of_later_ones_is_bounded() {
        let mut answers = Vec::new();
        for n in 0..100 {
            keep_answer(&mut answers, answered(&n.to_string(), n));
            keep_answer(&mut answers, answered(&n.to_string(), n + 1_000));
        }
        let kept: Vec<u32> = answers.iter().map(|a| a.summary).collect();
        assert_eq!(kept, [0, 93, 94, 95, 96, 97, 98, 99]);
    }

    #[test]
    fn every_request_that_waits_for_a_command_is_answered_and_removed() {
        let waiting = Arc::new(Waiting::default());
        let id = answered("c", 1).command_id;
        let (mut first, mut second) = (waiting.enter(id).expect("room"), waiting.enter(id).expect("room"));
        let gone = waiting.enter(id).expect("room");
        drop(gone);
        waiting.answer(&answered("other", 0));
        assert!(first.answer.try_recv().is_err());
        waiting.answer(&answered("c", 1));
        assert_eq!(first.answer.try_recv().map(|a| a.summary), Ok(1));
        assert_eq!(second.answer.try_recv().map(|a| a.summary), Ok(1));
        let left = waiting.enter(id).expect("room");
        drop(left);
        assert!(waiting.lock().is_empty());
    }

    #[test]
    fn a_key_gives_one_entity_per_service() {
        assert_eq!(entity_of_key("m", "orders", "k"), entity_of_key("m", "orders", "k"));
        assert_ne!(entity_of_key("m", "orders", "k"), entity_of_key("m", "customers", "k"));
    }
}

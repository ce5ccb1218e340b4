//! When a record is parked, and when it is retried or dropped.

use std::sync::Arc;

use super::{
    DeciderFailure, DecisionContext, Task, failure_of, identify,
    outputs::{dead_letter, fits},
};
use crate::{
    Need, OutputHeaders, OutputTopic, Record, ServiceContract,
    contract::{ReadOutcome, RecordDefect},
    decider::{Decider, Received},
    envelope::{MAX_VALUE_BYTES, Position},
    parking::{
        DropParked, FAILURE_BYTES, MAX_DRAINED, ParkedRecord, ParkingCommand, RecordFailure, ReleasedRecord,
        RetryParked,
    },
    partition_of,
};

/// Why a parked record cannot be processed.
struct ParkedFailure {
    class: &'static str,
    reason: String,
    /// True if its schema cannot be fetched now.
    is_transient: bool,
}

impl ParkedFailure {
    fn of(class: &'static str, reason: String) -> Self {
        Self { class, reason, is_transient: false }
    }

    fn without_schema(reason: String) -> Self {
        Self { class: "schema", reason, is_transient: true }
    }
}

/// Why records are released: an operator's command, or that their turn has come.
struct ReleaseRequest {
    id: uuid::Uuid,
    words: String,
}

impl<D: Decider> Task<D> {
    /// Parks a record that cannot be processed if its key is an entity, and dead-letters it if not.
    pub(super) fn park_or_dead_letter(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        input: usize,
        record: &Record<'_>,
        defect: &RecordDefect,
    ) -> Result<(), DeciderFailure> {
        let entity = record.key_text().filter(|key| !key.is_empty() && key.len() <= MAX_VALUE_BYTES);
        let entity = entity.filter(|key| partition_of(key.as_bytes(), context.contract.partitions) == self.partition);
        match entity {
            Some(entity) if context.contract.shares_keys(input) => {
                let failure = failure_of(defect.class, &defect.message, 1, context.now_ms);
                // Behind another parked record it waits without a failure, and fails when its turn comes.
                let failure = (!self.parking.has(entity)).then_some(failure);
                self.park(context, ParkedRecord::of(record, entity.into(), failure))
            }
            _ => {
                dead_letter(context, record, defect);
                Ok(())
            }
        }
    }

    /// Parks a record behind the parked records of its entity.
    pub(super) fn wait(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        record: &Record<'_>,
        entity: &str,
        id: uuid::Uuid,
    ) -> Result<(), DeciderFailure> {
        if self.parking.has_id(entity, id) {
            return Ok(());
        }
        self.park(context, ParkedRecord::of(record, entity.into(), None))
    }

    pub(super) fn park(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        mut parked: ParkedRecord,
    ) -> Result<(), DeciderFailure> {
        let (limits, topic) = (context.contract.parking, &context.contract.parked_topic);
        let refused = |reason: String| DeciderFailure { position: parked.position.clone(), reason, loses_state: false };
        if !self.parking.holds(&parked.position) && !self.parking.has_room(&parked, limits) {
            let (records, bytes) = (self.parking.len(), self.parking.bytes());
            return Err(refused(format!(
                "parking is full: {records} records with {bytes} bytes wait on {topic}/{}, and no record is ever skipped; \
                 hint: raise [parking] records or bytes, restart, then `dacapo parked list`",
                self.partition
            )));
        }
        parked.number = self.parking.rank_of(&parked.position);
        let mut headers =
            OutputHeaders::Verbatim(parked.headers_on_topic(&context.contract.system, &context.contract.group));
        let key = parked.position.to_string();
        let value = parked.value.as_deref().unwrap_or_default();
        fits(key.len() + value.len() + FAILURE_BYTES, &headers, context.contract.limits.parked)
            .map_err(|why| refused(format!("the record cannot be parked on {topic}: {why}")))?;
        if let OutputHeaders::Verbatim(headers) = &mut headers {
            headers.extend(parked.failure_headers(&context.contract.system));
        }
        let bytes = (Some(context.batch.put(key.as_bytes())), Some(context.batch.put(value)));
        context.batch.append(OutputTopic::Parked, Some(self.partition), parked.timestamp_ms, headers, bytes);
        match &parked.failure {
            Some(RecordFailure { class, reason, attempts, .. }) => {
                let (position, entity) = (&parked.position, &parked.entity);
                tracing::warn!(%position, %entity, class, attempts, %reason, "record parked; later records of its entity wait");
            }
            None => {
                tracing::debug!(position = %parked.position, entity = %parked.entity, "record parked behind a failed record of its entity");
            }
        }
        self.effects.pause(&parked.entity);
        self.parking.put(parked);
        Ok(())
    }

    /// Applies an operator's command. It changes nothing if the record is no longer parked, or for a retry if it waits behind
    /// another record: the operator saw an older list.
    pub(super) fn apply_command(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        record: &Record<'_>,
        command: &ParkingCommand,
    ) -> Result<(), DeciderFailure> {
        let (position, words, dropped) = match command {
            ParkingCommand::RetryParked(retry) => (&retry.position, retry.by.clone(), false),
            ParkingCommand::DropParked(drop) => (&drop.position, format!("{}: {}", drop.by, drop.reason), true),
        };
        let words = crate::text::printable(&words, 400).into_owned();
        let request = ReleaseRequest { id: record.envelope().map(|envelope| envelope.id).unwrap_or_default(), words };
        let Ok(position) = position.parse::<Position>() else {
            tracing::warn!(at = %record.position(), position, "an operator's command has a malformed position; nothing changes");
            return Ok(());
        };
        let Some(parked) = self.parking.get(&position) else {
            tracing::info!(at = %record.position(), %position, "the record of an operator's command is not parked; nothing changes");
            return Ok(());
        };
        let entity = Arc::clone(&parked.entity);
        let is_first = self.parking.first(&entity).is_some_and(|first| first.position == position);
        tracing::info!(%position, %entity, dropped, by = %request.words, "an operator retries or drops a parked record");
        if dropped {
            self.release(context, &position, true, &request);
        }
        if is_first {
            self.drain(context, &entity, &request, dropped)?;
        }
        Ok(())
    }

    /// True if parked records are ready to be processed.
    pub(crate) fn may_drain(&self) -> bool {
        self.held.is_none() && self.parking.ready().is_some()
    }

    /// Processes some of the parked records that are ready.
    pub(crate) fn drain_next(&mut self, context: &mut DecisionContext<'_, D>) -> Result<(), DeciderFailure> {
        let Some(entity) = self.parking.ready().cloned() else { return Ok(()) };
        let request = ReleaseRequest { id: uuid::Uuid::nil(), words: "its turn".to_owned() };
        self.drain(context, &entity, &request, false)?;
        self.commit_positions(context.batch);
        Ok(())
    }

    /// What must be fetched before the parked records of this entity can be processed.
    fn need_of_waiting(&self, decider: &D, contract: &ServiceContract, entity: &str) -> Option<Need> {
        // One more than a batch processes, because a command may drop the first of them.
        let mut waiting = self.parking.queue(entity).take(MAX_DRAINED + 1);
        waiting.find_map(|parked| parked.with_record(|record| self.need_of(decider, contract, record)))
    }

    fn need_of(&self, decider: &D, contract: &ServiceContract, record: &Record<'_>) -> Option<Need> {
        if let Some(schema) = contract.missing_schema(record) {
            return Some(Need::Schema(schema));
        }
        if self.stored.is_empty() {
            return None;
        }
        let ReadOutcome::Body(body) = contract.read_input::<D::Input>(record) else { return None };
        let (key, envelope) = identify(record).ok()?;
        let received = Received {
            key,
            id: envelope.id,
            correlation_id: envelope.correlation_id,
            at_ms: record.timestamp_ms,
            body,
        };
        let key = self.entity_to_load(decider, &received)?;
        Some(Need::Entity { partition: self.partition, key })
    }

    /// What must be fetched before the parked records of the next ready entity can be processed.
    pub(crate) fn need_of_ready(&self, decider: &D, contract: &ServiceContract) -> Option<Need> {
        self.need_of_waiting(decider, contract, self.parking.ready()?)
    }

    /// What must be fetched before an operator's command can be applied.
    pub(super) fn need_of_command(
        &self,
        decider: &D,
        contract: &ServiceContract,
        command: &ParkingCommand,
    ) -> Option<Need> {
        let (ParkingCommand::RetryParked(RetryParked { position, .. })
        | ParkingCommand::DropParked(DropParked { position, .. })) = command;
        let parked = self.parking.get(&position.parse().ok()?)?;
        self.need_of_waiting(decider, contract, &parked.entity)
    }

    /// Processes parked records of an entity in their order, up to a limit or to the first that fails. `has_changed` is true if
    /// the batch has records that must not be rolled back.
    fn drain(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        entity: &Arc<str>,
        request: &ReleaseRequest,
        mut has_changed: bool,
    ) -> Result<(), DeciderFailure> {
        for _ in 0..MAX_DRAINED {
            let Some(parked) = self.parking.first(entity).cloned() else { break };
            let savepoint = context.batch.savepoint();
            if let Err(ParkedFailure { class, reason, is_transient }) = self.try_parked(context, &parked) {
                context.batch.rollback_to(savepoint);
                if is_transient && parked.failure.is_none() {
                    // It has not failed: it waits until its schema can be fetched, as it would as an input. An operator who retries
                    // a failed one gets the reason at once.
                    let position = parked.position;
                    let refused = DeciderFailure { position, reason, loses_state: false };
                    return if has_changed { Ok(()) } else { Err(refused) };
                }
                let attempts = parked.failure.as_ref().map_or(0, |failure| failure.attempts).saturating_add(1);
                let failure = Some(failure_of(class, &reason, attempts, context.now_ms));
                let parked_again = self.park(context, ParkedRecord { failure, ..parked });
                // The records before it are committed first. Then this record is the first and fails alone.
                return if has_changed { Ok(()) } else { parked_again };
            }
            has_changed = true;
            // If it is about another entity after all, it may be parked behind the records of that one.
            if self.parking.get(&parked.position).is_some_and(|current| current.entity == *entity) {
                self.release(context, &parked.position, false, request);
            }
        }
        if !self.parking.has(entity) {
            self.effects.resume(entity, context.now_ms);
        }
        Ok(())
    }

    /// Processes one parked record as if it were received now. An error has the class and the reason, and nothing has changed.
    fn try_parked(&mut self, context: &mut DecisionContext<'_, D>, parked: &ParkedRecord) -> Result<(), ParkedFailure> {
        parked.with_record(|record| match context.contract.read_input::<D::Input>(record) {
            ReadOutcome::NotConsumed | ReadOutcome::Parking(_) => Ok(()),
            ReadOutcome::OfAnotherBuild(reason) => Err(ParkedFailure { class: "build", reason, is_transient: true }),
            ReadOutcome::SchemaUnavailable(reason) => Err(ParkedFailure::without_schema(reason)),
            ReadOutcome::NeedsSchema(schema) => {
                Err(ParkedFailure::without_schema(format!("schema {schema} was not fetched")))
            }
            ReadOutcome::Unreadable(defect) => Err(ParkedFailure::of(defect.class, defect.message)),
            ReadOutcome::Body(body) => {
                let (key, envelope) =
                    identify(record).map_err(|defect| ParkedFailure::of(defect.class, defect.message))?;
                let (id, correlation_id) = (envelope.id, envelope.correlation_id.clone());
                let received = Received { key, id, correlation_id, at_ms: record.timestamp_ms, body };
                let routed = self.route(context, record, &envelope, &received, Some(&parked.entity));
                routed.map_err(|failure| ParkedFailure::of("crash", failure.reason))
            }
        })
    }

    /// Removes a parked record and writes its tombstone.
    fn release(
        &mut self,
        context: &mut DecisionContext<'_, D>,
        position: &Position,
        dropped: bool,
        request: &ReleaseRequest,
    ) {
        let Some(parked) = self.parking.remove(position) else { return };
        let released = ReleasedRecord { position: position.clone(), dropped, words: request.words.clone() };
        let headers = released.headers_on_topic(&context.contract.system, &parked, request.id, context.now_ms);
        let key = context.batch.put(position.to_string().as_bytes());
        let to = OutputTopic::Parked;
        context.batch.append(
            to,
            Some(self.partition),
            context.now_ms,
            OutputHeaders::Verbatim(headers),
            (Some(key), None),
        );
    }
}

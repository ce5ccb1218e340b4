//! What waits in a partition: when a record is parked, and how it leaves.

use std::sync::Arc;

use super::{Failure, Scene, Task, fits, identify, lay_aside, verdict_of};
use crate::{
    Contract, OutHeaders, Record, Target,
    codec::SchemaRef,
    contract::{Defect, Read},
    decider::{Decider, Received},
    envelope::{MAX_VALUE_BYTES, Position},
    parking::{DropParked, GO_ON_AT_MOST, Left, Parked, ParkingCommand, RetryParked, Verdict},
    partition_of,
};

/// What an operator asked.
struct Asked {
    id: uuid::Uuid,
    words: String,
}

impl<D: Decider> Task<D> {
    /// Parks a record that can never work if its key tells its entity, else lays it aside.
    pub(super) fn set_aside(
        &mut self,
        scene: &mut Scene<'_, D>,
        input: usize,
        record: &Record<'_>,
        defect: &Defect,
    ) -> Result<(), Failure> {
        let entity = record.key_text().filter(|key| !key.is_empty() && key.len() <= MAX_VALUE_BYTES);
        let entity = entity.filter(|key| partition_of(key.as_bytes(), scene.contract.partitions) == self.partition);
        match entity {
            Some(entity) if scene.contract.is_keyed_alike(scene.decider, input) => {
                let verdict = verdict_of(defect.class, &defect.message, 1, scene.now_ms);
                // Behind another one it waits like any other, and is judged when its turn comes.
                let verdict = (!self.parking.has(entity)).then_some(verdict);
                self.park(scene, Parked::of(record, entity.into(), verdict))
            }
            _ => {
                lay_aside(scene, record, defect);
                Ok(())
            }
        }
    }

    /// Lets a record wait behind the first of its entity.
    pub(super) fn wait(
        &mut self,
        scene: &mut Scene<'_, D>,
        record: &Record<'_>,
        entity: &str,
        id: uuid::Uuid,
    ) -> Result<(), Failure> {
        if self.parking.has_id(entity, id) {
            return Ok(());
        }
        self.park(scene, Parked::of(record, entity.into(), None))
    }

    pub(super) fn park(&mut self, scene: &mut Scene<'_, D>, mut parked: Parked) -> Result<(), Failure> {
        let (limits, topic) = (scene.contract.parking, &scene.contract.parked_topic);
        let refused = |reason: String| Failure { place: parked.place.clone(), reason, broken: false };
        if !self.parking.holds(&parked.place) && !self.parking.has_room(&parked, limits) {
            let (records, bytes) = (self.parking.len(), self.parking.bytes());
            return Err(refused(format!(
                "parking is full: {records} records with {bytes} bytes wait on {topic}/{}, and no record is ever skipped; \
                 hint: raise [parking] records or bytes, start again, then `dacapo parked list`",
                self.partition
            )));
        }
        parked.number = self.parking.rank_of(&parked.place);
        let headers = OutHeaders::Verbatim(parked.headers_on_topic(&scene.contract.system, &scene.contract.group));
        let key = parked.place.to_string();
        let value = parked.value.as_deref().unwrap_or_default();
        fits(key.len() + value.len(), &headers, scene.contract.limits.parked)
            .map_err(|why| refused(format!("the record cannot be parked on {topic}: {why}")))?;
        let bytes = (Some(scene.batch.put(key.as_bytes())), Some(scene.batch.put(value)));
        scene.batch.append(Target::Parked, Some(self.partition), parked.timestamp_ms, headers, bytes);
        match &parked.verdict {
            Some(Verdict { class, reason, attempts, .. }) => {
                let (place, entity) = (&parked.place, &parked.entity);
                tracing::warn!(%place, %entity, class, attempts, %reason, "record parked; what comes for its entity waits");
            }
            None => tracing::debug!(place = %parked.place, entity = %parked.entity, "record waits behind a parked one"),
        }
        self.effects.pause(&parked.entity);
        self.parking.put(parked);
        Ok(())
    }

    /// Does what an operator asks of a parked record. What is not there, or waits behind another one, is left as it is: whoever
    /// asked saw something older.
    pub(super) fn heed(
        &mut self,
        scene: &mut Scene<'_, D>,
        record: &Record<'_>,
        command: &ParkingCommand,
    ) -> Result<(), Failure> {
        let (place, words, dropped) = match command {
            ParkingCommand::RetryParked(retry) => (&retry.place, retry.by.clone(), false),
            ParkingCommand::DropParked(drop) => (&drop.place, format!("{}: {}", drop.by, drop.reason), true),
        };
        let words = crate::text::printable(&words, 400).into_owned();
        let asked = Asked { id: record.envelope().map(|envelope| envelope.id).unwrap_or_default(), words };
        let Ok(place) = place.parse::<Position>() else {
            tracing::warn!(at = %record.position(), place, "an operator asks for what is no place; nothing is done");
            return Ok(());
        };
        let Some(parked) = self.parking.get(&place) else {
            tracing::info!(at = %record.position(), %place, "an operator asks for what is not parked; nothing is done");
            return Ok(());
        };
        let entity = Arc::clone(&parked.entity);
        let is_first = self.parking.first(&entity).is_some_and(|first| first.place == place);
        tracing::info!(%place, %entity, dropped, by = %asked.words, "an operator acts on a parked record");
        if dropped {
            self.leave(scene, &place, true, &asked);
        }
        if is_first {
            self.go_on(scene, &entity, &asked)?;
        }
        Ok(())
    }

    /// True if records wait that nothing stands before any more.
    pub(crate) fn may_go_on(&self) -> bool {
        self.held.is_none() && self.parking.ready().is_some()
    }

    /// Handles some of the records that waited for what is out of the way now.
    pub(crate) fn go_on_waiting(&mut self, scene: &mut Scene<'_, D>) -> Result<(), Failure> {
        let Some(entity) = self.parking.ready().cloned() else { return Ok(()) };
        self.go_on(scene, &entity, &Asked { id: uuid::Uuid::nil(), words: "its turn".to_owned() })?;
        for (input, position) in self.positions.iter().enumerate() {
            scene.batch.moved(input, self.partition, *position);
        }
        Ok(())
    }

    /// The schema that must be asked for before what waits for this entity can be handled.
    pub(crate) fn schema_for_waiting(&self, contract: &Contract, entity: &str) -> Option<SchemaRef> {
        let mut waiting = self.parking.queue(entity).take(GO_ON_AT_MOST);
        waiting.find_map(|parked| parked.with_record(|record| contract.missing_schema(record)))
    }

    /// The same of the entity whose turn it is.
    pub(crate) fn schema_for_ready(&self, contract: &Contract) -> Option<SchemaRef> {
        self.schema_for_waiting(contract, self.parking.ready()?)
    }

    /// The same before a command of an operator is applied.
    pub(super) fn schema_for_command(&self, contract: &Contract, command: &ParkingCommand) -> Option<SchemaRef> {
        let (ParkingCommand::RetryParked(RetryParked { place, .. })
        | ParkingCommand::DropParked(DropParked { place, .. })) = command;
        let parked = self.parking.get(&place.parse().ok()?)?;
        self.schema_for_waiting(contract, &parked.entity)
    }

    /// Handles what waits for an entity, in its order: some of it, or up to the first that does not work.
    fn go_on(&mut self, scene: &mut Scene<'_, D>, entity: &Arc<str>, asked: &Asked) -> Result<(), Failure> {
        for _ in 0..GO_ON_AT_MOST {
            let Some(parked) = self.parking.first(entity).cloned() else { break };
            let mark = scene.batch.mark();
            if let Err((class, reason)) = self.try_parked(scene, &parked) {
                scene.batch.back_to(mark);
                let attempts = parked.verdict.as_ref().map_or(0, |verdict| verdict.attempts).saturating_add(1);
                let verdict = Some(verdict_of(class, &reason, attempts, scene.now_ms));
                return self.park(scene, Parked { verdict, ..parked });
            }
            // One that turns out to be about another entity may wait behind that one's.
            if self.parking.get(&parked.place).is_some_and(|now| now.entity == *entity) {
                self.leave(scene, &parked.place, false, asked);
            }
        }
        if !self.parking.has(entity) {
            self.effects.resume(entity, scene.now_ms);
        }
        Ok(())
    }

    /// Handles one record that was parked as if it were heard now. What goes wrong is told, and nothing has changed.
    fn try_parked(&mut self, scene: &mut Scene<'_, D>, parked: &Parked) -> Result<(), (&'static str, String)> {
        parked.with_record(|record| match scene.contract.read_input::<D::Input>(record) {
            Read::Unheard | Read::Parking(_) => Ok(()),
            Read::Unready(reason) => Err(("schema", reason)),
            Read::NeedsSchema(schema) => Err(("schema", format!("schema {schema} was not asked for"))),
            Read::Dead(defect) => Err((defect.class, defect.message)),
            Read::Body(body) => {
                let (key, envelope) = identify(record).map_err(|defect| (defect.class, defect.message))?;
                let (id, correlation_id) = (envelope.id, envelope.correlation_id.clone());
                let heard = Received { key, id, correlation_id, at_ms: record.timestamp_ms, body };
                let routed = self.route(scene, record, &envelope, &heard, Some(&parked.entity));
                routed.map_err(|failure| ("crash", failure.reason))
            }
        })
    }

    fn leave(&mut self, scene: &mut Scene<'_, D>, place: &Position, dropped: bool, asked: &Asked) {
        let Some(parked) = self.parking.remove(place) else { return };
        let left = Left { place: place.clone(), dropped, words: asked.words.clone() };
        let headers = left.headers_on_topic(&scene.contract.system, &parked, asked.id, scene.now_ms);
        let key = scene.batch.put(place.to_string().as_bytes());
        let to = Target::Parked;
        scene.batch.append(to, Some(self.partition), scene.now_ms, OutHeaders::Verbatim(headers), (Some(key), None));
    }
}

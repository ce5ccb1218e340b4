//! The records that are parked in the services: failed records, and the records behind them.
//!
//! Folded from the services' parked topics. The latest record of each position counts, so the result does not depend on the
//! order in which topics are read. The headers of a parked record name its saga.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use runtime::{
    core::{ParkedRecord, ParkingUpdate},
    envelope::Position,
    message::PARKED,
};

use crate::{api, record, time::rfc3339};

/// The longest reason in a reply, in characters.
const REASON_MAX: usize = 400;

/// The key of a parked record: the service, and the position at which the service consumed the record.
type ParkedKey = (Arc<str>, Position);

/// Every parked record.
#[derive(Debug, Default)]
pub(crate) struct ParkedIndex {
    records: BTreeMap<ParkedKey, ParkedEntry>,
    of_saga: HashMap<Arc<str>, BTreeSet<ParkedKey>>,
    queues: BTreeMap<(Arc<str>, String), BTreeMap<u64, Position>>,
}

#[derive(Debug)]
struct ParkedEntry {
    saga: Arc<str>,
    entity: String,
    number: u64,
    shown: api::ParkedRecord,
}

impl ParkedIndex {
    /// Folds one record of a service's parked topic. Returns the sagas that have changed.
    pub(crate) fn fold(&mut self, topic: &str, update: ParkingUpdate) -> Vec<Arc<str>> {
        let service: Arc<str> = service_of(topic).into();
        match update {
            ParkingUpdate::Released(left) => self.remove(&(service, left.position)).into_iter().collect(),
            ParkingUpdate::Parked(parked) => {
                let key = (Arc::clone(&service), parked.position.clone());
                let before = self.remove(&key);
                let saga: Arc<str> = parked.correlation_id().into();
                self.of_saga.entry(Arc::clone(&saga)).or_default().insert(key.clone());
                let queue = self.queues.entry((Arc::clone(&service), parked.entity.to_string())).or_default();
                queue.insert(parked.number, parked.position.clone());
                let (entity, number) = (parked.entity.to_string(), parked.number);
                let shown = api::ParkedRecord::of(&service, &parked);
                self.records.insert(key, ParkedEntry { saga: Arc::clone(&saga), entity, number, shown });
                before.into_iter().chain([saga]).collect()
            }
        }
    }

    fn remove(&mut self, key: &ParkedKey) -> Option<Arc<str>> {
        let ParkedEntry { saga, entity, number, .. } = self.records.remove(key)?;
        let queue = (Arc::clone(&key.0), entity);
        if let Some(places) = self.queues.get_mut(&queue) {
            places.remove(&number);
            if places.is_empty() {
                self.queues.remove(&queue);
            }
        }
        if let Some(keys) = self.of_saga.get_mut(&saga) {
            keys.remove(key);
            if keys.is_empty() {
                self.of_saga.remove(&saga);
            }
        }
        Some(saga)
    }

    pub(crate) fn has(&self, saga: &str) -> bool {
        self.of_saga.contains_key(saga)
    }

    /// The parked records of a saga, by service and entity, those of an entity in order.
    pub(crate) fn of(&self, saga: &str) -> Vec<api::ParkedRecord> {
        let keys = self.of_saga.get(saga).into_iter().flatten();
        let mut rows: Vec<api::ParkedRecord> =
            keys.filter_map(|key| self.records.get(key).map(|row| self.with_predecessor(&key.0, row))).collect();
        rows.sort_by(|a, b| (&a.service, &a.entity, a.number).cmp(&(&b.service, &b.entity, b.number)));
        rows
    }

    /// The record with the position it is parked behind.
    fn with_predecessor(&self, service: &Arc<str>, row: &ParkedEntry) -> api::ParkedRecord {
        let queue = self.queues.get(&(Arc::clone(service), row.entity.clone()));
        let first = queue.and_then(BTreeMap::first_key_value).filter(|(number, _)| **number < row.number);
        api::ParkedRecord { behind: first.map(|(_, place)| place.to_string()), ..row.shown.clone() }
    }
}

/// `payment` of `musiccorp.payment.parked`.
fn service_of(topic: &str) -> &str {
    topic.strip_suffix(PARKED).and_then(|rest| rest.rsplit('.').next()).unwrap_or(topic)
}

impl api::ParkedRecord {
    /// A parked record as replies show it.
    #[must_use]
    pub fn of(service: &str, parked: &ParkedRecord) -> Self {
        let truncate = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        Self {
            service: service.to_owned(),
            entity: truncate(&parked.entity, record::TEXT_MAX),
            place: parked.position.to_string(),
            event: parked.type_name().map(|name| truncate(name, record::TEXT_MAX)),
            number: parked.number,
            at: rfc3339(parked.timestamp_ms),
            failure: parked.failure.as_ref().map(|verdict| api::ParkedFailure {
                class: truncate(&verdict.class, record::TEXT_MAX),
                reason: truncate(&verdict.reason, REASON_MAX),
                attempts: verdict.attempts,
                at: rfc3339(verdict.at_ms),
            }),
            behind: None,
        }
    }

    /// The short name of the type, or a general term if there is no type.
    #[must_use]
    pub fn what(&self) -> &str {
        self.event.as_deref().and_then(|event| event.rsplit('.').next()).unwrap_or("a record")
    }
}

/// The parked records in one sentence: the first failed record, or the first that is parked behind a record of another saga.
pub(crate) fn sentence(parked: &[api::ParkedRecord]) -> Option<String> {
    let first = parked.iter().find(|record| record.failure.is_some()).or(parked.first())?;
    let (service, what) = (&first.service, first.what());
    Some(match (&first.failure, &first.behind) {
        (Some(failure), _) => format!("An operator must act: {what} failed in {service}: {}", failure.reason),
        (None, Some(behind)) => format!(
            "An operator must act: {what} is parked in {service} behind the failed record {behind} of {}",
            first.entity
        ),
        (None, None) => format!("{what} is parked in {service} and is about to be processed"),
    })
}

//! What waits in the services: records that cannot work, and those that wait behind them.
//!
//! Folded from the services' parked topics, where the latest record of each place counts; so what is shown does not depend on the
//! order in which topics are read. Which saga a record belongs to is told by its headers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use runtime::{
    core::{Parked, ParkingUpdate},
    envelope::Position,
    message::PARKED,
};

use crate::{api, present::time, record};

/// The longest reason that is shown, in characters.
const REASON_MAX: usize = 400;

/// Where something waits: the service, and the place at which it was heard.
type Key = (Arc<str>, Position);

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct ParkedRecords {
    records: BTreeMap<Key, Row>,
    of_saga: HashMap<Arc<str>, BTreeSet<Key>>,
    queues: BTreeMap<(Arc<str>, String), BTreeMap<u64, Position>>,
}

#[derive(Debug)]
struct Row {
    saga: Arc<str>,
    entity: String,
    number: u64,
    shown: api::ParkedRecord,
}

impl ParkedRecords {
    /// Takes in one record of a service's parked topic. Answers the sagas for which something has changed.
    pub(crate) fn fold(&mut self, topic: &str, news: ParkingUpdate) -> Vec<Arc<str>> {
        let service: Arc<str> = service_of(topic).into();
        match news {
            ParkingUpdate::Released(left) => self.remove(&(service, left.place)).into_iter().collect(),
            ParkingUpdate::Parked(parked) => {
                let key = (Arc::clone(&service), parked.place.clone());
                let before = self.remove(&key);
                let saga: Arc<str> = parked.correlation_id().into();
                self.of_saga.entry(Arc::clone(&saga)).or_default().insert(key.clone());
                let queue = self.queues.entry((Arc::clone(&service), parked.entity.to_string())).or_default();
                queue.insert(parked.number, parked.place.clone());
                let (entity, number) = (parked.entity.to_string(), parked.number);
                let shown = api::ParkedRecord::of(&service, &parked);
                self.records.insert(key, Row { saga: Arc::clone(&saga), entity, number, shown });
                before.into_iter().chain([saga]).collect()
            }
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<str>> {
        let Row { saga, entity, number, .. } = self.records.remove(key)?;
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

    /// What waits of a saga: by service and entity, each entity's in its order.
    pub(crate) fn of(&self, saga: &str) -> Vec<api::ParkedRecord> {
        let keys = self.of_saga.get(saga).into_iter().flatten();
        let mut rows: Vec<api::ParkedRecord> =
            keys.filter_map(|key| self.records.get(key).map(|row| self.placed(&key.0, row))).collect();
        rows.sort_by(|a, b| (&a.service, &a.entity, a.number).cmp(&(&b.service, &b.entity, b.number)));
        rows
    }

    /// A record with what it waits behind.
    fn placed(&self, service: &Arc<str>, row: &Row) -> api::ParkedRecord {
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
    /// A record as it is shown that waits in a service.
    #[must_use]
    pub fn of(service: &str, parked: &Parked) -> Self {
        let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        Self {
            service: service.to_owned(),
            entity: cut(&parked.entity, record::TEXT_MAX),
            place: parked.place.to_string(),
            event: parked.type_name().map(|name| cut(name, record::TEXT_MAX)),
            number: parked.number,
            at: time(parked.timestamp_ms),
            failure: parked.failure.as_ref().map(|failure| api::Failure {
                class: cut(&failure.class, record::TEXT_MAX),
                reason: cut(&failure.reason, REASON_MAX),
                attempts: failure.attempts,
                at: time(failure.at_ms),
            }),
            behind: None,
        }
    }

    /// The type's short name, or what it is called without one.
    #[must_use]
    pub fn what(&self) -> &str {
        self.event.as_deref().and_then(|event| event.rsplit('.').next()).unwrap_or("a record")
    }
}

/// What waits, in one sentence: the first that cannot work, or that waits for one of another saga.
pub(crate) fn sentence(parked: &[api::ParkedRecord]) -> Option<String> {
    let first = parked.iter().find(|record| record.failure.is_some()).or(parked.first())?;
    let (service, what) = (&first.service, first.what());
    Some(match (&first.failure, &first.behind) {
        (Some(failure), _) => format!("An operator must act: {service} cannot handle {what}: {}", failure.reason),
        (None, Some(behind)) => format!(
            "An operator must act: {what} waits in {service} behind {behind}, which cannot work for {}",
            first.entity
        ),
        (None, None) => format!("{what} waits in {service} and is about to be handled"),
    })
}
